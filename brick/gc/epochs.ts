import { brickOf, type ClusterState, type GcRecord, isReachable } from "../cluster-state.ts";
import { ownBranch } from "../map/owed.ts";
import type { BrickNumber } from "../units.ts";

/** The rules of garbage collection that rest on epochs; docs/garbage.md argues why they are safe. */

const noRecord: GcRecord = { marked: 0, begunMs: 0, steady: {} };

export function gcOf(state: ClusterState): GcRecord {
  return state.gc ?? noRecord;
}

/**
 * Whether the brick may sweep by the marks of the present epoch, if nothing happens to it. Who is
 * not steady keeps everything that it has, so no mark needs to reach it.
 */
export function isSteady(state: ClusterState, number: BrickNumber): boolean {
  const steady = gcOf(state).steady[number];
  const brick = brickOf(state, number);
  if (steady === undefined || brick === undefined || !isReachable(brick)) return false;
  return steady.boot === brick.boot && steady.absences === (brick.absences ?? 0);
}

/**
 * The brick may drop chunks whose last stamp is older than this epoch. null: it may drop nothing,
 * because it has not been there, under this boot, for all of the epoch marked last and the one
 * before.
 */
export function sweepBefore(state: ClusterState, self: BrickNumber, boot: number): number | null {
  const { marked, steady } = gcOf(state);
  const own = steady[self];
  if (own === undefined || own.boot !== boot || own.since >= marked) return null;
  return marked - 1;
}

/**
 * A shard whose primary knows `present` takes a reference to a chunk that was stored, or protected,
 * for it under `protectedIn` or later only if this is false: the chunk may have been swept since.
 */
export function isTooOld(protectedIn: number, present: number): boolean {
  return protectedIn < present - 1;
}

/** Branches that some volume can still read; made anew when the volumes change. */
export class LiveBranches {
  #volumes: ClusterState["volumes"] | null = null;
  readonly #copies = new Map<number, number>();

  /**
   * Copies that the branch's volume wants. null: nobody will ever read the branch again; its number
   * was given out, and is never given out twice, so no later state can name it.
   */
  copiesOf(state: ClusterState, of: number): number | null {
    const branch = ownBranch(of);
    if (this.#volumes !== state.volumes) {
      this.#volumes = state.volumes;
      this.#copies.clear();
      for (const volume of Object.values(state.volumes)) {
        if (volume.status === "ready") this.#copies.set(volume.branch, volume.copies);
      }
    }
    const copies = this.#copies.get(branch);
    if (copies !== undefined) return copies;
    // A branch that this brick's state does not know of yet: all that could count, counts.
    return branch < state.branchNext ? null : copiesUnknown;
  }
}

/** Of a branch that is too new to be known: more than any volume asks for. */
const copiesUnknown = 255;
