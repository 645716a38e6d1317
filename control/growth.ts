import { type BrickRecord, type ClusterState, isReachable } from "../brick/cluster-state.ts";
import { isLasting } from "../brick/volume/placement.ts";

/**
 * A brick that begins with more room than the others have: a new one, a spare that takes a lost one's
 * place, one that returns after it was given up. It is filled by balance until it has its share, and
 * once it does it is like any other: a brick that was merely away is never filled, whatever the others
 * took meanwhile, so that reboots move nothing.
 */

/** A brick has its share when it is no emptier than the others are on average, less this. */
export const balancedShare = 1 / 20;

function usedShareOf(bricks: readonly BrickRecord[]): number {
  const used = bricks.reduce((sum, { usedBytes }) => sum + usedBytes, 0);
  const capacity = bricks.reduce((sum, { capacityBytes }) => sum + capacityBytes, 0);
  return capacity === 0 ? 0 : used / capacity;
}

/** Whether the brick is emptier than the others by more than is let be. */
export function isBehind(state: ClusterState, brick: BrickRecord): boolean {
  const others = Object.values(state.bricks).filter(
    (one) => isLasting(one) && one.number !== brick.number,
  );
  return usedShareOf([brick]) < usedShareOf(others) - balancedShare;
}

/** The brick as it begins: growing if there is something for it to take over. */
export function withGrowth(state: ClusterState, brick: BrickRecord): BrickRecord {
  const { growing: _grown, ...rest } = brick;
  return brick.spare !== true && isBehind(state, brick) ? { ...rest, growing: true } : rest;
}

/** The spare that takes the place of a brick that was lost, if there is one. */
export function withSubstitute(state: ClusterState, lost: BrickRecord): ClusterState {
  if (lost.spare === true) return state;
  const spares = Object.values(state.bricks).filter(
    (brick) => brick.spare === true && brick.status === "up" && isReachable(brick),
  );
  const inPlace = spares.filter(({ domain }) => domain === lost.domain);
  const [first] = [...(inPlace.length > 0 ? inPlace : spares)].sort(
    (a, b) => b.capacityBytes - a.capacityBytes || a.number - b.number,
  );
  return first === undefined ? state : withSpareUsed(state, first);
}

export function withSpareUsed(state: ClusterState, spare: BrickRecord): ClusterState {
  const { spare: _spare, ...brick } = spare;
  const used = withGrowth(state, brick);
  return { ...state, bricks: { ...state.bricks, [brick.number]: used } };
}

/** Bricks that have their share by now, if they can be asked for it. */
export function grownBricks(state: ClusterState): BrickRecord[] {
  return Object.values(state.bricks).filter(
    (brick) =>
      brick.growing === true && (brick.full || (isReachable(brick) && !isBehind(state, brick))),
  );
}
