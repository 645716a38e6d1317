import { type ClusterState, isReachable, type ShardRecord } from "../brick/cluster-state.ts";
import type { BrickNumber } from "../brick/units.ts";
import { mayHoldChunks } from "../brick/volume/placement.ts";
import { replicasNow } from "./shard-commands.ts";

/** Since when a leader has seen the cluster calm, and how often bricks had started by then. */
export interface CalmSpell {
  readonly sinceMs: number;
  readonly starts: number;
}

/**
 * Whether nothing is missing and nothing is under way: every brick that is not given up is up and was
 * heard, none drains or repairs, and every shard has exactly its complete replicas.
 */
export function isCalm(state: ClusterState, heard: ReadonlySet<BrickNumber>): boolean {
  const wanted = replicasNow(state);
  const isAtRest = ({ members, candidates, chain, damaged = [], interrupted }: ShardRecord) =>
    members.length === wanted &&
    candidates.length + chain.length + damaged.length === 0 &&
    interrupted !== true;
  const bricks = Object.values(state.bricks).filter(mayHoldChunks);
  return (
    bricks.every(
      (brick) =>
        brick.status === "up" &&
        isReachable(brick) &&
        heard.has(brick.number) &&
        (brick.health?.repairPending ?? 0) === 0,
    ) && state.shards.every(isAtRest)
  );
}

/** The spell that goes on, or one that begins now; null while there is none. */
export function nextSpell(
  spell: CalmSpell | null,
  state: ClusterState,
  heard: ReadonlySet<BrickNumber>,
  nowMs: number,
): CalmSpell | null {
  if (!isCalm(state, heard)) return null;
  // A brick that restarts may be back before it was missed; boot numbers only grow.
  const starts = Object.values(state.bricks).reduce((sum, { boot }) => sum + boot, 0);
  return spell?.starts === starts ? spell : { sinceMs: nowMs, starts };
}
