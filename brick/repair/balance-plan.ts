import { brickOf, type ClusterState, isReachable } from "../cluster-state.ts";
import type { Extent } from "../map/grain.ts";
import type { BrickNumber } from "../units.ts";
import type { Placement } from "../volume/placement.ts";
import type { Relocation } from "./chunk-mover-io.ts";
import { domainCount } from "./spread.ts";

/** Bricks that wait for their share and can take some now, as text; "": none. */
export function growingBricks(state: ClusterState): string {
  return Object.values(state.bricks)
    .filter(({ number }) => isFilling(state, number))
    .map(({ number }) => number)
    .join(",");
}

function isFilling(state: ClusterState, number: BrickNumber): boolean {
  const brick = brickOf(state, number);
  return brick?.status === "up" && brick.reachable && brick.growing === true && !brick.full;
}

/**
 * The move that brings an extent's chunk to a brick that grows and to which it belongs by its key;
 * null when there is none. `lasting`: the order of all lasting bricks by capacity, so that a chunk
 * that was moved is where it belongs, and is not moved again while the bricks are the same. Failure
 * domains become no fewer by it. What lacks copies is for repair, and waits.
 */
export function planMove(
  state: ClusterState,
  lasting: Placement,
  copies: number,
  extent: Extent,
): Omit<Relocation, "urgency"> | null {
  const { key, holders } = extent;
  if (holders.length < copies) return null;
  for (const holder of holders) {
    const brick = brickOf(state, holder);
    if (brick?.status !== "up" || !isReachable(brick)) return null;
  }
  const ideal = lasting.order(key).slice(0, copies);
  const misplaced = holders.filter((holder) => !ideal.includes(holder));
  // The fullest first: it is what the others have too much of that is to move.
  misplaced.sort((a, b) => usedShareOf(state, b) - usedShareOf(state, a) || a - b);
  for (const target of ideal) {
    if (holders.includes(target) || !isFilling(state, target)) continue;
    for (const from of misplaced) {
      const kept = holders.filter((holder) => holder !== from);
      if (domainCount(state, [...kept, target]) < domainCount(state, holders)) continue;
      return { key, targets: [target], sources: holders, kept, full: true };
    }
  }
  return null;
}

function usedShareOf(state: ClusterState, number: BrickNumber): number {
  const { usedBytes, capacityBytes } = brickOf(state, number)!;
  return usedBytes / Math.max(1, capacityBytes);
}
