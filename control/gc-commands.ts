import { type ClusterState, isReachable, type SteadyBrick } from "../brick/cluster-state.ts";
import { gcOf, isSteady } from "../brick/gc/epochs.ts";
import { type Applied, done, refuse } from "./command-result.ts";
import type { CommandOf } from "./commands.ts";

/**
 * A new epoch begins once the one before is marked. Whoever is there now, and has been since an
 * earlier epoch, stays steady; the others begin to be.
 */
export function beginGc(state: ClusterState, { expect }: CommandOf<"beginGc">): Applied {
  const { marked } = gcOf(state);
  if (state.gcEpoch !== expect) return stale(state, expect);
  if (marked !== expect) {
    const message = `epoch ${expect} of garbage collection is not marked yet`;
    return refuse(state, "not_now", message);
  }
  const gcEpoch = expect + 1;
  const steady: { [number: string]: SteadyBrick } = {};
  for (const brick of Object.values(state.bricks)) {
    if (!isReachable(brick)) continue;
    const { number, boot, absences = 0 } = brick;
    const since = isSteady(state, number) ? gcOf(state).steady[number]!.since : gcEpoch;
    steady[number] = { boot, absences, since };
  }
  return done({ ...state, gcEpoch, gc: { marked, begunMs: state.clusterTimeMs, steady } }, gcEpoch);
}

/** Who was away during the epoch may have missed marks: it sweeps nothing by them. */
export function finishGc(state: ClusterState, { epoch }: CommandOf<"finishGc">): Applied {
  const { begunMs, steady, marked } = gcOf(state);
  if (state.gcEpoch !== epoch) return stale(state, epoch);
  if (marked === epoch) {
    return refuse(state, "no_change", `epoch ${epoch} of garbage collection is marked already`);
  }
  const stayed = Object.entries(steady).filter(([number]) => isSteady(state, Number(number)));
  return done({ ...state, gc: { marked: epoch, begunMs, steady: Object.fromEntries(stayed) } });
}

function stale(state: ClusterState, expect: number): Applied {
  const message = `garbage collection is in epoch ${state.gcEpoch}, not ${expect}; look again`;
  return refuse(state, "stale", message);
}
