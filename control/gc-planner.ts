import type { ClusterState } from "../brick/cluster-state.ts";
import { gcOf } from "../brick/gc/epochs.ts";
import type { CommandOf } from "./commands.ts";

/** What a brick says of the garbage that waits to be collected. */
export interface GarbageReport {
  /** Epochs are wanted up to this one. */
  readonly wantedEpoch: number;
  readonly urgent: boolean;
}

/**
 * The next step of garbage collection, if it is due. An epoch ends when every shard has marked all
 * that it refers to; while one shard is away nothing is collected. The next begins when somebody
 * has garbage: a cluster at rest does nothing.
 */
export function planGc(
  state: ClusterState,
  seen: {
    readonly nowMs: number;
    readonly timing: { readonly gcEveryMs: number; readonly gcUrgentEveryMs: number };
    /** Shards that are marked in the present epoch. */
    readonly marked: ReadonlySet<number>;
    readonly garbage: readonly GarbageReport[];
  },
): CommandOf<"beginGc"> | CommandOf<"finishGc"> | null {
  if (state.version === 0) return null;
  const { marked, begunMs } = gcOf(state);
  const { gcEpoch: epoch } = state;
  if (marked < epoch) {
    return seen.marked.size === state.shards.length ? { type: "finishGc", epoch } : null;
  }
  const wanted = seen.garbage.filter(({ wantedEpoch }) => wantedEpoch > epoch);
  if (wanted.length === 0) return null;
  const { gcEveryMs, gcUrgentEveryMs } = seen.timing;
  const everyMs = wanted.some(({ urgent }) => urgent) ? gcUrgentEveryMs : gcEveryMs;
  // The first one need not wait.
  const due = epoch === 0 || seen.nowMs - begunMs >= everyMs;
  return due ? { type: "beginGc", expect: epoch } : null;
}
