import type { Replica } from "./replica.ts";

/** What a replica says to the control plane about its present view. */
export interface ShardStatus {
  shard: number;
  view: number;
  complete?: boolean;
  released?: boolean;
  empty?: boolean;
  damaged?: boolean;
  marked?: number;
}

/** null: there is nothing to say. `markedIn`: the epoch of garbage in which it is marked. */
export function statusOf(
  { shard, view, role, facts }: Replica,
  markedIn: (shard: number, view: number) => number | undefined,
): ShardStatus | null {
  if (view === null) return null;
  const status: ShardStatus = { shard, view: view.view };
  if (facts.lossy) status.damaged = true;
  if (role.is === "backup" && role.completeDurable) status.complete = true;
  if (role.is === "primary") {
    if (role.released) status.released = true;
    if (facts.lastOp === 0) status.empty = true;
    const marked = markedIn(shard, view.view);
    if (marked !== undefined) status.marked = marked;
  }
  return Object.keys(status).length > 2 ? status : null;
}
