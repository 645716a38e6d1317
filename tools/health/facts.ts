import type { ClusterState } from "../../brick/cluster-state.ts";
import type { ProblemSummary } from "../../control/api.ts";
import type { EventLog } from "../../control/events.ts";
import type { BrickStats } from "../brick-stats.ts";

/** What is looked at to say how a cluster is: all of it as one brick gathered it in a moment. */
export interface HealthFacts {
  readonly state: ClusterState;
  readonly events: EventLog;
  /** Of the bricks that answered. */
  readonly stats: ReadonlyMap<number, BrickStats>;
  /** The asking brick: its wall clock, when `stats` had come, and its build. */
  readonly wallMs: number;
  readonly build: string;
  readonly permanentAfterMs: number;
  readonly transferAfterMs: number;
}

export type Problem = ProblemSummary;

/**
 * A moment of the cluster's time as wall time: by the newest event before it, and by the present
 * when there is none. Cluster time stands still while the whole cluster is off, wall time does not;
 * but each change that begins a problem is an event itself.
 */
export function wallOf({ state, events, wallMs }: HealthFacts, clusterMs: number): number {
  const before = events.records.findLast((one) => one.wallMs > 0 && one.clusterMs <= clusterMs);
  if (before !== undefined) return before.wallMs + (clusterMs - before.clusterMs);
  return wallMs - Math.max(0, state.clusterTimeMs - clusterMs);
}

/** When something was last noted; 0: that is not remembered. */
export function notedAt({ events }: HealthFacts, kind: string, subject: string): number {
  const event = events.records.findLast((one) => one.kind === kind && one.subject === subject);
  return event?.wallMs ?? 0;
}
