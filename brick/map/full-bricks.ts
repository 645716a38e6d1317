import {
  type BrickRecord,
  brickOf,
  type ClusterState,
  isReachable,
  replicasWanted,
} from "../cluster-state.ts";
import type { BrickNumber } from "../units.ts";

/**
 * Full bricks that leave the views of their shards, as if they were down: as many others have room as
 * a shard is to have replicas. Where there are not, a full brick stays, for nobody could take its
 * place, and what would take space is refused. `alsoFull` is what the state may not know yet.
 */
export function leavingForRoom(
  state: ClusterState,
  alsoFull: readonly BrickNumber[] = [],
): ReadonlySet<BrickNumber> {
  const bricks = Object.values(state.bricks);
  const isFull = ({ number, full }: BrickRecord) => full || alsoFull.includes(number);
  const hasRoom = (one: BrickRecord) =>
    one.status === "up" && isReachable(one) && one.spare !== true && !isFull(one);
  if (bricks.filter(hasRoom).length < replicasWanted(state)) return new Set();
  return new Set(bricks.filter(isFull).map(({ number }) => number));
}

/** Whether what takes space can be logged by these bricks. */
export type SpaceInView =
  | "room"
  /** A full one leaves the view: try again. */
  | "soon"
  /** Nobody can take the place of a full one. */
  | "none";

export function spaceInView(
  state: ClusterState,
  replicas: readonly BrickNumber[],
  alsoFull: readonly BrickNumber[] = [],
): SpaceInView {
  const full = replicas.filter((one) => alsoFull.includes(one) || brickOf(state, one)?.full);
  if (full.length === 0) return "room";
  const leaving = leavingForRoom(state, alsoFull);
  return full.every((one) => leaving.has(one)) ? "soon" : "none";
}
