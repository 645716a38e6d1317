import type { ShardView } from "../brick/cluster-state.ts";
import type { BrickNumber } from "../brick/units.ts";
import type { ShardStatus } from "./keepalive.ts";

/**
 * What the control plane asks of a brick's replicas of the map. Reports and plans are opaque to it:
 * whoever makes them reads them. The other direction is the cluster state, which the map follows.
 */
export interface MapControl {
  /** What the replicas have to say of their present views; see ShardStatus. */
  shardStatus(): ShardStatus[];
  /**
   * As primary, answers nothing more in this view: neither reads nor commits, ever. From then on
   * shardStatus says `released` until a newer view comes. Asked again for the same, does nothing.
   */
  release(shard: number, view: number): void;
  /** Drops all replicas, durably: the brick was given up, and the map has gone on without it. */
  discardReplicas(): Promise<void>;
  /** Promises the view durably, then tells what the replica holds. null: it cannot promise. */
  report(shard: number, view: number): Promise<Buffer | null>;
  /** Which brick gathers what from whom, if the reports suffice (docs/replication.md, Recovery). */
  planUnion(request: UnionRequest): UnionPlan;
  /** Gathers the union durably under the promised view, so that this replica may lead it. */
  assemble(shard: number, view: number, plan: Buffer): Promise<boolean>;
}

export interface UnionRequest {
  /** Bricks whose store has lost something since they took part: what they report may lack it. */
  readonly damaged: readonly BrickNumber[];
  readonly shard: number;
  /** The view that was promised, and that the union will begin. */
  readonly view: number;
  /** The chain and, last, the present view. */
  readonly chain: readonly ShardView[];
  readonly reports: ReadonlyMap<BrickNumber, Buffer>;
  /** Every brick of the chain that is not given up has reported: nothing more can be learnt. */
  readonly everyoneReported: boolean;
}

export type UnionPlan =
  | { ok: true; brick: BrickNumber; plan: Buffer }
  | { ok: false; reason: string };
