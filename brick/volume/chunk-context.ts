import { type ClusterState, isReachable } from "../cluster-state.ts";
import type { Host } from "../host.ts";
import type { Calls } from "../rpc/calls.ts";
import type { BrickNumber } from "../units.ts";
import type { BrickHealth } from "./brick-health.ts";
import type { VolumeOptions } from "./options.ts";
import { type Placement, readPlacement, storePlacement } from "./placement.ts";
import type { VolumeHooks, VolumeStats } from "./stats.ts";

/** What writing and reading chunks share, one per brick. */
export interface ChunkContext {
  readonly host: Host;
  readonly calls: Calls;
  readonly self: BrickNumber;
  readonly options: VolumeOptions;
  readonly stats: VolumeStats;
  readonly hooks: VolumeHooks;
  readonly health: BrickHealth;
  state(): ClusterState;
}

/** The placements of the present cluster state, made anew when its bricks change. */
export class Placements {
  #bricks: ClusterState["bricks"] | null = null;
  #write: Placement | null = null;
  #read: Placement | null = null;

  forWrite(state: ClusterState): Placement {
    this.#look(state);
    this.#write ??= storePlacement(state);
    return this.#write;
  }

  forRead(state: ClusterState): Placement {
    this.#look(state);
    this.#read ??= readPlacement(state);
    return this.#read;
  }

  #look(state: ClusterState): void {
    if (this.#bricks === state.bricks) return;
    this.#bricks = state.bricks;
    this.#write = this.#read = null;
  }
}

/** By the bricks of a state, which never change: every write asks. */
const reachableCounts = new WeakMap<ClusterState["bricks"], number>();

export function reachableCount({ bricks }: ClusterState): number {
  const known = reachableCounts.get(bricks);
  if (known !== undefined) return known;
  let count = 0;
  for (const brick of Object.values(bricks)) {
    if (isReachable(brick) && brick.spare !== true) count += 1;
  }
  reachableCounts.set(bricks, count);
  return count;
}

/**
 * Copies that a write must make now: what the volume asks for, or, when its policy allows it, as
 * many as the committed cluster state has bricks reachable.
 */
export function copiesNeeded(
  state: ClusterState,
  volume: { copies: number; degradedWrites: boolean },
): number {
  if (!volume.degradedWrites) return volume.copies;
  return Math.max(1, Math.min(volume.copies, reachableCount(state)));
}
