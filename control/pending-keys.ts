import type { ClusterState, PendingKey } from "../brick/cluster-state.ts";
import { type Applied, refuse } from "./command-result.ts";

/** Keys that were reserved for volumes, until those have them or the time is over. */

/** From the reservation of its number until a volume has it: time to bring a key to every brick. */
export const pendingKeyLifeMs = 60_000;
export const pendingKeysMax = 256;

/** The state without the reservation, if it is that volume's and its time is not over. */
export function takePending(
  state: ClusterState,
  uuid: string,
  domain: number,
): { readonly state: ClusterState; readonly pending: PendingKey } | null {
  const { [String(domain)]: pending, ...pendingKeys } = state.pendingKeys ?? {};
  if (pending === undefined || pending.uuid !== uuid) return null;
  return { state: { ...state, pendingKeys }, pending };
}

export function pendingUnknown(state: ClusterState, name: string, domain: number): Applied {
  const message = `key ${domain} is not, or not any more, meant for volume ${name}; try again`;
  return refuse(state, "stale", message);
}

/** Reservations that nobody has used in time are over: bricks destroy those keys. */
export function withoutStaleKeys(state: ClusterState, toMs: number): ClusterState {
  const { pendingKeys } = state;
  if (pendingKeys === undefined) return state;
  const live = Object.entries(pendingKeys).filter(([, { endsMs }]) => endsMs > toMs);
  if (live.length === Object.keys(pendingKeys).length) return state;
  return { ...state, pendingKeys: Object.fromEntries(live) };
}
