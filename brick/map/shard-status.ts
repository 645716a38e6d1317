import type { ShardRecord } from "../cluster-state.ts";
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

/**
 * null: there is nothing to say. `present`: the shard as the brick's own state has it. `markedIn`: the
 * epoch of garbage in which it is marked.
 */
export function statusOf(
  replica: Replica,
  present: ShardRecord | undefined,
  markedIn: (shard: number, view: number) => number | undefined,
): ShardStatus | null {
  const { shard, view, role, facts } = replica;
  if (view === null) return standsBack(replica, present);
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

/** A primary that was asked for its part of a newer view answers nothing in the present one. */
function standsBack(
  { shard, facts, self }: Replica,
  present: ShardRecord | undefined,
): ShardStatus | null {
  if (present?.primary !== self || facts.promised <= present.view) return null;
  return { shard, view: present.view, released: true };
}
