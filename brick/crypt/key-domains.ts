import { type BrickRecord, brickOf, type ClusterState } from "../cluster-state.ts";
import type { BrickNumber } from "../units.ts";

/**
 * Key domains as the cluster state has them. A number is given once:
 *
 *     (new) ──reserveKeyDomain──▶ pending ──createVolume, rekeyVolume──▶ live
 *                                   │ not taken in time                   │ rekeyed, deleted
 *                                   └────────────▶ retired ◀──────────────┘
 *
 * Whatever number was given and is neither pending nor live is retired, for good: nobody may keep its
 * key. So the state need not list the retired ones, and none can be forgotten.
 */
export interface WantedKey {
  readonly domain: number;
  /** The volume that it is for. */
  readonly uuid: string;
  /** keyCheckOf the key. */
  readonly check: string;
}

export function keyDomainNext(state: ClusterState): number {
  return state.keyDomainNext ?? 1;
}

/** Domains whose volumes can be read and written. */
export function liveKeys(state: ClusterState): WantedKey[] {
  const live: WantedKey[] = [];
  for (const { uuid, status, keyDomain, keyCheck } of Object.values(state.volumes)) {
    if (keyDomain === undefined || keyCheck === undefined || status !== "ready") continue;
    live.push({ domain: keyDomain, uuid, check: keyCheck });
  }
  return live;
}

/** The domain, when its key may be kept. */
export function wantedKey(state: ClusterState, domain: number): WantedKey | null {
  const pending = state.pendingKeys?.[domain];
  if (pending !== undefined) return { domain, uuid: pending.uuid, check: pending.check };
  return liveKeys(state).find((one) => one.domain === domain) ?? null;
}

/** No key of the domain may be kept any more. False also of numbers that this state does not know. */
export function isRetired(state: ClusterState, domain: number): boolean {
  return domain < keyDomainNext(state) && wantedKey(state, domain) === null;
}

/** For good: a number is never given again. Such a brick keeps no key at all. */
export function isRemoved(state: ClusterState, brick: BrickNumber): boolean {
  return brickOf(state, brick)?.status === "removed";
}

/** Bricks that have a part in the cluster and are not given up: they keep keys, and destroy them. */
export function keepers(state: ClusterState): BrickRecord[] {
  return Object.values(state.bricks).filter(
    ({ status }) => status === "up" || status === "down" || status === "draining",
  );
}

/**
 * Of so many keepers, how many must have a new key durably before it is used: most of them and at least
 * as many as the volume has copies; all of fewer than three.
 */
export function keepersNeeded(keeperCount: number, copies: number): number {
  if (keeperCount < 3) return keeperCount;
  return Math.max(Math.floor(keeperCount / 2) + 1, Math.min(copies, keeperCount));
}
