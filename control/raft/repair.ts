import type { BrickNumber } from "../../brick/units.ts";
import { members } from "./configuration.ts";
import { persistHardState, send } from "./outbox.ts";
import { configurationOf, type Raft } from "./raft-state.ts";
import type { RepairReply, RepairRequest } from "./raft-types.ts";
import { fillHole } from "./replication.ts";

/**
 * Healing of what the medium damaged. An entry whose index and term are still known is the same
 * entry wherever it is found (figure 3, "Log Matching"), so that any peer may give it back, leader
 * or not. Where not even that is known, only a leader can say what belongs there.
 */
export function requestRepairs(raft: Raft, from: readonly BrickNumber[]): void {
  raft.repairAtMs = raft.nowMs + raft.timing.retryMs;
  const { holes } = raft.log;
  if (holes.length === 0) return;
  const fromIndex = holes[0]!;
  let toIndex = fromIndex;
  for (const hole of holes) if (hole === toIndex + 1) toIndex = hole;
  for (const brick of from) {
    if (brick === raft.self) continue;
    send(raft.outbox, brick, { type: "repairRequest", term: raft.term, fromIndex, toIndex });
  }
}

/** Whom to ask; the lost entry may itself be the one that would say so, see receive of raft.ts. */
export function knownMembers(raft: Raft): BrickNumber[] {
  return members(configurationOf(raft));
}

export function receiveRepairRequest(raft: Raft, from: BrickNumber, message: RepairRequest): void {
  const entries = raft.log.slice(message.fromIndex, {
    toIndex: Math.min(message.toIndex, raft.log.lastIndex),
    bytesMax: raft.limits.appendBytesMax,
    countMax: raft.limits.appendEntriesMax,
  });
  if (entries.length === 0) return;
  send(raft.outbox, from, { type: "repairReply", term: raft.term, entries });
}

export function receiveRepairReply(raft: Raft, from: BrickNumber, message: RepairReply): void {
  let filled = 0;
  for (const entry of message.entries) {
    if (!raft.log.isHole(entry.index) || raft.log.termAt(entry.index) !== entry.term) continue;
    fillHole(raft, entry);
    filled += 1;
  }
  if (filled > 0) requestRepairs(raft, [from]);
}

/**
 * Ends healing when nothing that might have been committed with this server's help can be missing:
 * it agrees, durably, with the leader up to everything it ever acknowledged; or with a leader of a
 * later term up to an entry that this leader committed itself, since a leader's log holds all that
 * was committed before its term (figure 3, "Leader Completeness").
 */
export function endHealing(raft: Raft): void {
  const { healing } = raft;
  if (healing === null || raft.leader === 0) return;
  const durableIndex = Math.min(raft.agreedIndex, raft.outbox.durableIndex);
  const gotAll = durableIndex >= healing.throughIndex;
  const laterLeader =
    raft.term > healing.term &&
    durableIndex >= raft.commitIndex &&
    raft.log.termAt(raft.commitIndex) === raft.term;
  if (!gotAll && !laterLeader) return;
  raft.healing = null;
  persistHardState(raft.outbox);
}
