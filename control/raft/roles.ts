import { assert } from "../../brick/assert.ts";
import type { BrickNumber } from "../../brick/units.ts";
import { persistHardState } from "./outbox.ts";
import { type Raft, resetElectionTimer } from "./raft-state.ts";

/** Enters a term, or stays in it, as a follower; `leader` is 0 when the term has none we know. */
export function becomeFollower(raft: Raft, term: number, leader: BrickNumber): void {
  assert(term >= raft.term, "terms do not go down");
  if (raft.role.name === "leader") {
    for (const { id } of raft.role.reads) {
      raft.effects.push({ type: "readRejected", id, fault: { code: "not_leader", leader } });
    }
    resetElectionTimer(raft);
  }
  raft.role = { name: "follower" };
  if (term > raft.term) enterTerm(raft, term, 0);
  raft.leader = leader;
}

/** The term and the vote change together, so that one flush keeps both. */
export function enterTerm(raft: Raft, term: number, votedFor: BrickNumber): void {
  assert(term > raft.term);
  raft.term = term;
  raft.votedFor = votedFor;
  raft.leader = 0;
  raft.agreedIndex = 0;
  raft.incoming = null;
  persistHardState(raft.outbox);
}

/** A message that only the leader of this term sends has come. */
export function hearLeader(raft: Raft, leader: BrickNumber): void {
  // Election safety (figure 3): a term has one leader.
  assert(raft.role.name !== "leader", "two leaders in one term");
  assert(raft.leader === 0 || raft.leader === leader, "two leaders in one term");
  if (raft.role.name !== "follower") becomeFollower(raft, raft.term, leader);
  raft.leader = leader;
  raft.leaderHeardMs = raft.nowMs;
  resetElectionTimer(raft);
}

/**
 * Leader stickiness (thesis, section 4.2.3): who hears a leader does not help to replace it. A
 * leader without a majority steps down by itself (check-quorum), so that this cannot last.
 */
export function isSticky(raft: Raft): boolean {
  if (raft.role.name === "leader") return true;
  const silentMs = raft.nowMs - raft.leaderHeardMs;
  return raft.leader !== 0 && silentMs < raft.timing.electionTimeoutMsMin;
}
