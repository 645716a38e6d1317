import type { ClusterState } from "../brick/cluster-state.ts";
import type { BrickNumber } from "../brick/units.ts";

/**
 * Where this brick reaches the others, by its own state and by what it was told before it had one.
 * A brick that joins, or was away, goes through the cluster's history from a state in which the
 * present leader may not have joined yet: it must not forget where that is, or it could never
 * answer it and would hear no more. Numbers are never given out twice, so that whoever has one that
 * the state has not come to yet joined later; of the others the state knows best.
 */
export function peersOf(
  self: BrickNumber,
  state: ClusterState,
  told: ReadonlyMap<BrickNumber, string>,
): Map<BrickNumber, string> {
  const peers = new Map<BrickNumber, string>();
  for (const { number, status, peerAddress } of Object.values(state.bricks)) {
    if (number !== self && status !== "removed") peers.set(number, peerAddress);
  }
  for (const [number, address] of told) {
    if (number !== self && number >= state.brickNumberNext) peers.set(number, address);
  }
  return peers;
}
