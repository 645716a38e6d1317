import { assert } from "../../brick/assert.ts";
import type { BrickNumber } from "../../brick/units.ts";
import { isVoter, quorumSize } from "./configuration.ts";
import { isHardStateDurable, persistHardState, send } from "./outbox.ts";
import { configurationOf, mayStand, mayVote, type Raft, resetElectionTimer } from "./raft-state.ts";
import type { PreVote, PreVoteReply, Vote, VoteReply } from "./raft-types.ts";
import { becomeLeader } from "./replication.ts";
import { becomeFollower, enterTerm, isSticky } from "./roles.ts";

/**
 * Pre-vote (thesis, section 9.6): asks whether an election could be won before it raises the term,
 * so that a server that was cut off disturbs nobody when it returns.
 */
export function startPreVote(raft: Raft): void {
  assert(mayStand(raft));
  becomeFollower(raft, raft.term, 0);
  const own = isVoter(configurationOf(raft), raft.self) ? [raft.self] : [];
  raft.role = { name: "preCandidate", granted: new Set(own) };
  resetElectionTimer(raft);
  const { lastIndex, lastTerm } = raft.log;
  askVoters(raft, { type: "preVote", term: raft.term + 1, lastIndex, lastTerm });
  countPreVotes(raft);
}

/** Raft figure 2: "increment currentTerm, vote for self, reset election timer, send RequestVote". */
export function startElection(raft: Raft, transfer: boolean): void {
  assert(mayStand(raft));
  becomeFollower(raft, raft.term, 0);
  enterTerm(raft, raft.term + 1, raft.self);
  // Its own vote is counted by countOwnVote, once it is durable.
  raft.role = { name: "candidate", granted: new Set(), transfer };
  resetElectionTimer(raft);
  const { lastIndex, lastTerm } = raft.log;
  askVoters(raft, { type: "vote", term: raft.term, lastIndex, lastTerm, transfer });
}

function askVoters(raft: Raft, message: PreVote | Vote): void {
  for (const voter of configurationOf(raft).voters) {
    if (voter !== raft.self) send(raft.outbox, voter, message);
  }
}

export function receivePreVote(raft: Raft, from: BrickNumber, message: PreVote): void {
  const granted =
    mayVote(raft) && !isSticky(raft) && message.term > raft.term && isUpToDate(raft, message);
  const term = granted ? message.term : raft.term;
  send(raft.outbox, from, { type: "preVoteReply", term, granted });
}

export function receivePreVoteReply(raft: Raft, from: BrickNumber, message: PreVoteReply): void {
  if (raft.role.name !== "preCandidate") return;
  if (!message.granted || message.term !== raft.term + 1) return;
  if (isVoter(configurationOf(raft), from)) raft.role.granted.add(from);
  countPreVotes(raft);
}

function countPreVotes(raft: Raft): void {
  assert(raft.role.name === "preCandidate");
  if (raft.role.granted.size >= quorumSize(configurationOf(raft))) startElection(raft, false);
}

/** The terms are equal here: a lower one was refused, a higher one was entered. */
export function receiveVote(raft: Raft, from: BrickNumber, message: Vote): void {
  // Raft figure 2: "If votedFor is null or candidateId, and candidate's log is at least as
  // up-to-date as receiver's log, grant vote".
  const free = raft.votedFor === 0 || raft.votedFor === from;
  const granted = mayVote(raft) && free && isUpToDate(raft, message);
  if (granted && raft.votedFor === 0) {
    raft.votedFor = from;
    persistHardState(raft.outbox);
  }
  if (granted) resetElectionTimer(raft);
  send(raft.outbox, from, { type: "voteReply", term: raft.term, granted });
}

export function receiveVoteReply(raft: Raft, from: BrickNumber, message: VoteReply): void {
  if (raft.role.name !== "candidate" || !message.granted) return;
  if (isVoter(configurationOf(raft), from)) raft.role.granted.add(from);
  countVotes(raft);
}

/** Called when the store has done something: a candidate's own vote counts once it is durable. */
export function countOwnVote(raft: Raft): void {
  if (raft.role.name !== "candidate" || !isHardStateDurable(raft.outbox)) return;
  if (isVoter(configurationOf(raft), raft.self)) raft.role.granted.add(raft.self);
  countVotes(raft);
}

function countVotes(raft: Raft): void {
  assert(raft.role.name === "candidate");
  // A leader's messages rest on its term being durable: others' votes alone do not suffice.
  const won = raft.role.granted.size >= quorumSize(configurationOf(raft));
  if (won && isHardStateDurable(raft.outbox)) becomeLeader(raft);
}

/** Raft section 5.4.1: the later last term wins; within one term, the longer log. */
function isUpToDate(raft: Raft, { lastIndex, lastTerm }: PreVote | Vote): boolean {
  const { log } = raft;
  return lastTerm > log.lastTerm || (lastTerm === log.lastTerm && lastIndex >= log.lastIndex);
}
