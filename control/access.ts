import type { ClusterState, InitiatorRecord, VolumeRecord } from "../brick/cluster-state.ts";

/**
 * Who may use which volume at a portal. A volume for which nobody was named is open to anyone at
 * portals on a loopback address and to nobody at others, unless the operator opened it. Once
 * initiators are named, only they may use it, everywhere.
 *
 *     is the initiator      its record         portal         may it?
 *     named for it
 *     yes                   with CHAP          any            when it proves itself
 *     yes                   without            loopback       yes
 *     any                   any                any            yes, when the volume is open
 *     no one is             any                loopback       yes
 *     else                                                    no
 */
export type Admission = "unproven" | "proven" | "refused";

export interface Asker {
  /** iSCSI name, in its normal form. */
  readonly initiator: string;
  /** Whether the portal listens on a loopback address. */
  readonly loopback: boolean;
}

export function admission(state: ClusterState, volume: VolumeRecord, asker: Asker): Admission {
  if (volume.status !== "ready") return "refused";
  const named = Object.keys(volume.access ?? {}).length > 0;
  const isNamed = volume.access?.[asker.initiator] !== undefined;
  if (isNamed && initiatorOf(state, asker)?.chap) return "proven";
  if (volume.open) return "unproven";
  return asker.loopback && (isNamed || !named) ? "unproven" : "refused";
}

export function initiatorOf(state: ClusterState, { initiator }: Asker): InitiatorRecord | null {
  return state.initiators?.[initiator] ?? null;
}

/** LUNs of the cluster's common target, as the initiator sees it: number -> volume, ascending. */
export function commonLuns(state: ClusterState, asker: Asker): Map<number, VolumeRecord> {
  const luns: [number, VolumeRecord][] = [];
  for (const volume of Object.values(state.volumes)) {
    const lun = volume.access?.[asker.initiator]?.lun ?? null;
    if (lun === null || admission(state, volume, asker) === "refused") continue;
    luns.push([lun, volume]);
  }
  return new Map(luns.sort(([one], [other]) => one - other));
}

/** What the cluster's common target has in the place of a volume's name; no volume is called so. */
export function commonName(clusterId: string): string {
  return `cluster-${clusterId.slice(0, 8)}`;
}

/** What a discovery session must prove. */
export type DiscoveryProof = "none" | "discovery" | "own" | "unknown";

export function discoveryProof(state: ClusterState, asker: Asker): DiscoveryProof {
  if (state.discoveryChap !== undefined) return "discovery";
  if (initiatorOf(state, asker)?.chap) return "own";
  // What is open to all may be found by all.
  const volumes = Object.values(state.volumes);
  const anyOpen = volumes.some((one) => one.open && one.status === "ready");
  return asker.loopback || anyOpen ? "none" : "unknown";
}

/** Whether everybody who connects to the address is on this machine. */
export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127(?:\.\d{1,3}){3}$/.test(host);
}

/**
 * The brick whose portal serves instead of this one's, which drains; null while it serves itself,
 * or when there is no other.
 */
export function redirectTarget(state: ClusterState, self: number): string | null {
  if (state.bricks[self]?.status !== "draining") return null;
  const serving = Object.values(state.bricks)
    .filter((brick) => brick.status === "up" && brick.reachable)
    .sort((one, other) => one.number - other.number);
  // The next in turn, so that several that drain do not all send to the same.
  const next = serving.find((brick) => brick.number > self) ?? serving[0];
  return next?.portalAddress ?? null;
}
