import { brickOf, type ClusterState, isReachable } from "../cluster-state.ts";
import { type Extent, holdersMax, isZeros } from "../map/grain.ts";
import { type BrickNumber, sectorBytes } from "../units.ts";
import type { Placement } from "../volume/placement.ts";
import { spread } from "./spread.ts";

/** One chunk that has too few copies, and how to put that right. */
export interface RepairTask {
  readonly key: Buffer;
  readonly grain: number;
  readonly chunkBytes: number;
  /** Copies that can be read now: the fewer, the more urgent. */
  readonly living: number;
  /** Holders that stay. */
  readonly kept: readonly BrickNumber[];
  /** Bricks that can be asked for it, the best first. */
  readonly sources: readonly BrickNumber[];
  /** Bricks that shall get it. */
  readonly targets: readonly BrickNumber[];
  /** With these there are copies enough; else more is to be done once more bricks can take some. */
  readonly full: boolean;
  /** Some copy was lost, or never made, not only asked to move. */
  readonly lost: boolean;
}

/** A copy there counts: the brick stays, and is not known to be gone for good. */
function stays(state: ClusterState, number: BrickNumber): boolean {
  const status = brickOf(state, number)?.status;
  return status === "up" || status === "down" || status === "joining";
}

/** What the bricks that leave or are lost mean for all extents; when it changes, walks begin anew. */
export function leavingBricks(state: ClusterState): string {
  return Object.values(state.bricks)
    .filter((brick) => !stays(state, brick.number))
    .map((brick) => `${brick.number}${brick.status}`)
    .join(",");
}

/** A copy there counts no more, or will not for long. */
export function leaves(state: ClusterState, number: BrickNumber): boolean {
  return !stays(state, number);
}

/**
 * What to do about one grain: a task for each chunk of which some extent names too few. Extents of
 * one chunk may name different bricks (a copy of sectors takes the holders of its source as they
 * are); all of them count together, and what repair finds it names for all of them at once.
 */
export function planGrain(
  state: ClusterState,
  placement: Placement,
  copies: number,
  grain: number,
  extents: readonly Extent[],
): (RepairTask | "stuck")[] {
  const byKey = new Map<string, Extent[]>();
  for (const extent of extents) {
    if (isZeros(extent)) continue;
    const name = extent.key.toString("latin1");
    const same = byKey.get(name);
    if (same === undefined) byKey.set(name, [extent]);
    else same.push(extent);
  }
  const tasks: (RepairTask | "stuck")[] = [];
  for (const same of byKey.values()) {
    const staying = ({ holders }: Extent) => holders.filter((brick) => stays(state, brick));
    if (same.every((extent) => staying(extent).length >= copies)) continue;
    const all = new Set([...same.flatMap(staying), ...same.flatMap(({ holders }) => holders)]);
    const merged = { ...same[0]!, holders: [...all].slice(0, holdersMax) };
    const task = planExtent(state, placement, copies, grain, merged);
    tasks.push(task ?? onlyNaming(state, grain, merged));
  }
  return tasks;
}

/** Together they name copies enough: nothing is copied. */
function onlyNaming(state: ClusterState, grain: number, extent: Extent): RepairTask {
  const { key, holders } = extent;
  const kept = holders.filter((brick) => stays(state, brick));
  const sources = holders.filter((brick) => isReachable(brickOf(state, brick)));
  const size = { chunkBytes: extent.chunkSectors * sectorBytes, living: sources.length };
  return { key, grain, ...size, kept, sources, targets: [], full: true, lost: false };
}

/**
 * What to do about one extent; null when it has its copies, "stuck" when it lacks some but nothing
 * can be done now. A brick that is merely down keeps counting: its chunks come back with it.
 */
export function planExtent(
  state: ClusterState,
  placement: Placement,
  copies: number,
  grain: number,
  extent: Extent,
): RepairTask | "stuck" | null {
  const kept = extent.holders.filter((brick) => stays(state, brick));
  const missing = copies - kept.length;
  if (missing <= 0) return null;
  const sources = extent.holders.filter((brick) => isReachable(brickOf(state, brick)));
  const fresh = placement.order(extent.key).filter((brick) => !extent.holders.includes(brick));
  const targets = spread(state, kept, fresh).slice(0, missing);
  if (targets.length === 0 || sources.length === 0) return "stuck";
  const statuses = extent.holders.map((brick) => brickOf(state, brick)?.status ?? "removed");
  const lost =
    !statuses.includes("draining") || statuses.some((one) => one === "failed" || one === "removed");
  const full = targets.length === missing;
  const chunkBytes = extent.chunkSectors * sectorBytes;
  const living = sources.length;
  return { key: extent.key, grain, chunkBytes, living, kept, sources, targets, full, lost };
}
