import { assert, assertNever } from "../../brick/assert.ts";
import type { BrickNumber } from "../../brick/units.ts";
import { quorumValue } from "./configuration.ts";
import * as election from "./election.ts";
import { leaveIfNoVoter, takeMembershipChange } from "./membership.ts";
import { flushOutbox, send, takePersisted } from "./outbox.ts";
import { configurationOf, type Leader, mayStand, type Raft } from "./raft-state.ts";
import type { RaftEffect, RaftEvent, RaftMessage, RejectFault } from "./raft-types.ts";
import { beginRound, confirmReads, takeRead } from "./read-index.ts";
import * as repair from "./repair.ts";
import * as replication from "./replication.ts";
import { becomeFollower, isSticky } from "./roles.ts";
import * as snapshot from "./snapshot.ts";
import * as transfer from "./transfer.ts";

export { createRaft, type Raft, type RaftOptions } from "./raft-state.ts";

/**
 * One server of Raft (Ongaro and Ousterhout 2014, and Ongaro's thesis): takes an event, changes
 * `raft`, says what is to be done. Without a clock, a socket, a file or chance of its own: the
 * same events at the same moments give the same effects.
 */
export function step(raft: Raft, nowMs: number, event: RaftEvent): RaftEffect[] {
  assert(nowMs >= raft.nowMs, "time does not go back");
  raft.nowMs = nowMs;
  take(raft, event);
  if (raft.role.name === "leader") advanceCommit(raft, raft.role);
  repair.endHealing(raft);
  applyCommitted(raft);
  if (raft.role.name === "leader") settleLeader(raft, raft.role);
  tellRole(raft);
  raft.wakeAtMs = nextWakeMs(raft);
  const { term, votedFor, healing, effects } = raft;
  raft.effects = [];
  const flushed = flushOutbox(raft.outbox, {
    hardState: { term, votedFor, healing },
    lastIndex: raft.log.lastIndex,
    compactThroughIndex: raft.log.baseIndex,
  });
  return [...flushed, ...effects];
}

function take(raft: Raft, event: RaftEvent): void {
  switch (event.type) {
    case "message":
      if (event.from !== raft.self) receive(raft, event.from, event.message);
      return;
    case "persisted":
      takePersisted(raft.outbox, event.ticket);
      election.countOwnVote(raft);
      return;
    case "wake":
      wake(raft);
      return;
    case "propose":
      for (const { id, payload } of event.proposals) propose(raft, id, payload);
      return;
    case "read":
      takeRead(raft, event.id);
      return;
    case "changeMembership":
      takeMembershipChange(raft, event.id, event.change);
      return;
    case "transferLeadership":
      transfer.takeTransfer(raft, event.to);
      return;
    case "snapshotMade":
      snapshot.takeSnapshotMade(raft, event.index, event.data);
      return;
    default:
      assertNever(event);
  }
}

function receive(raft: Raft, from: BrickNumber, message: RaftMessage): void {
  const asks = raft.log.holes.length > 0 && !repair.knownMembers(raft).includes(from);
  if (asks && message.type !== "repairReply") repair.requestRepairs(raft, [from]);
  switch (message.type) {
    case "repairRequest":
      repair.receiveRepairRequest(raft, from, message);
      return;
    case "repairReply":
      repair.receiveRepairReply(raft, from, message);
      return;
    case "preVote":
      election.receivePreVote(raft, from, message);
      return;
    case "preVoteReply":
      // A granted one carries a term that nobody has entered.
      if (!message.granted && message.term > raft.term) becomeFollower(raft, message.term, 0);
      election.receivePreVoteReply(raft, from, message);
      return;
    case "vote":
      // Thesis, section 4.2.3: neither the term nor the vote is given while a leader is heard.
      if (isSticky(raft) && !message.transfer) return;
      break;
    default:
  }
  // Raft figure 2: "If RPC request or response contains term T > currentTerm: set currentTerm = T,
  // convert to follower".
  if (message.term > raft.term) becomeFollower(raft, message.term, 0);
  if (message.term < raft.term) answerStale(raft, from, message);
  else receiveInTerm(raft, from, message);
}

/** Raft figure 2: "Reply false if term < currentTerm"; the sender learns of the later term by it. */
function answerStale(raft: Raft, from: BrickNumber, message: RaftMessage): void {
  const { term, outbox } = raft;
  switch (message.type) {
    case "vote":
      send(outbox, from, { type: "voteReply", term, granted: false });
      return;
    case "append":
    case "heartbeat":
    case "snapshotChunk": {
      const nothing = { index: 0, hintIndex: 0, hintTerm: 0, healing: false };
      send(outbox, from, { type: "appendReply", term, ok: false, ...nothing });
      return;
    }
    default:
  }
}

type TermMessage = Exclude<
  RaftMessage,
  { type: "repairRequest" | "repairReply" | "preVote" | "preVoteReply" }
>;

function receiveInTerm(raft: Raft, from: BrickNumber, message: TermMessage): void {
  switch (message.type) {
    case "vote":
      election.receiveVote(raft, from, message);
      return;
    case "voteReply":
      election.receiveVoteReply(raft, from, message);
      return;
    case "append":
      replication.receiveAppend(raft, from, message);
      return;
    case "heartbeat":
      replication.receiveHeartbeat(raft, from, message);
      return;
    case "snapshotChunk":
      snapshot.receiveSnapshotChunk(raft, from, message);
      return;
    case "timeoutNow":
      transfer.receiveTimeoutNow(raft);
      return;
    case "appendReply":
    case "heartbeatReply":
    case "snapshotReply":
      receiveFromPeer(raft, from, message);
      return;
    default:
      assertNever(message);
  }
}

type PeerMessage = Extract<
  RaftMessage,
  { type: "appendReply" | "heartbeatReply" | "snapshotReply" }
>;

function receiveFromPeer(raft: Raft, from: BrickNumber, message: PeerMessage): void {
  const leader = raft.role;
  if (leader.name !== "leader") return;
  const peer = leader.peers.get(from);
  if (peer === undefined) return;
  peer.lastContactMs = raft.nowMs;
  if (message.type === "appendReply") {
    replication.receiveAppendReply(raft, leader, peer, message);
    if (leader.transfer?.to === from) transfer.continueTransfer(raft, leader);
  } else if (message.type === "heartbeatReply") {
    replication.receiveHeartbeatReply(peer, message);
  } else {
    snapshot.receiveSnapshotReply(raft, peer, message);
  }
}

function propose(raft: Raft, id: number, payload: Buffer): void {
  const fault = proposalFault(raft, payload);
  if (fault !== null) {
    raft.effects.push({ type: "rejected", id, fault });
    return;
  }
  assert(raft.role.name === "leader");
  const { index, term } = replication.appendAsLeader(raft, raft.role, "command", payload);
  raft.effects.push({ type: "accepted", id, index, term });
}

function proposalFault(raft: Raft, payload: Buffer): RejectFault | null {
  const { role } = raft;
  if (role.name !== "leader") return { code: "not_leader", leader: raft.leader };
  if (role.transfer !== null) return { code: "transferring", leader: role.transfer.to };
  const bytesMax = raft.limits.payloadBytesMax;
  if (payload.length > bytesMax) return { code: "too_large", bytesMax };
  const uncommitted = raft.log.lastIndex - raft.commitIndex;
  const full =
    uncommitted >= raft.limits.uncommittedEntriesMax ||
    role.uncommittedBytes + payload.length > raft.limits.uncommittedBytesMax;
  return full ? { code: "busy" } : null;
}

function wake(raft: Raft): void {
  const { role } = raft;
  if (raft.nowMs >= raft.repairAtMs) repair.requestRepairs(raft, repair.knownMembers(raft));
  if (role.name === "leader") {
    if (raft.nowMs >= role.heartbeatAtMs) heartbeat(raft, role);
  } else if (raft.nowMs >= raft.electionDeadlineMs && mayStand(raft)) {
    election.startPreVote(raft);
  }
}

function heartbeat(raft: Raft, leader: Leader): void {
  leader.heartbeatAtMs = raft.nowMs + raft.timing.heartbeatMs;
  // Check-quorum (thesis, section 6.2): a leader that no majority answers is none.
  const contactMs = quorumValue(configurationOf(raft), (voter) =>
    voter === raft.self ? raft.nowMs : (leader.peers.get(voter)?.lastContactMs ?? 0),
  );
  if (raft.nowMs - contactMs > raft.timing.electionTimeoutMsMax) {
    becomeFollower(raft, raft.term, 0);
    return;
  }
  for (const peer of leader.peers.values()) replication.retry(raft, peer);
  transfer.continueTransfer(raft, leader);
  beginRound(raft, leader);
}

/** What follows for a leader from whatever has changed, after what is committed was applied. */
function settleLeader(raft: Raft, leader: Leader): void {
  for (const peer of leader.peers.values()) replication.replicateTo(raft, peer);
  confirmReads(raft, leader);
  leaveIfNoVoter(raft, leader);
}

/**
 * Raft figure 2: "If there exists an N such that N > commitIndex, a majority of matchIndex[i] >= N,
 * and log[N].term == currentTerm: set commitIndex = N". The leader's own copy counts like any
 * other: when it is durable.
 */
function advanceCommit(raft: Raft, leader: Leader): void {
  const index = quorumValue(configurationOf(raft), (voter) =>
    voter === raft.self ? raft.outbox.durableIndex : (leader.peers.get(voter)?.matchIndex ?? 0),
  );
  if (index <= raft.commitIndex || raft.log.termAt(index) !== raft.term) return;
  for (let at = raft.commitIndex + 1; at <= index; at += 1) {
    leader.uncommittedBytes -= raft.log.entryAt(at)!.payload.length;
  }
  raft.commitIndex = index;
}

/** Raft figure 2: "If commitIndex > lastApplied: increment lastApplied, apply". */
function applyCommitted(raft: Raft): void {
  const { log } = raft;
  const throughIndex = Math.min(raft.commitIndex, log.wholeThroughIndex);
  if (throughIndex <= raft.appliedIndex) return;
  const all = { toIndex: throughIndex, bytesMax: Infinity, countMax: Infinity };
  const entries = log.slice(raft.appliedIndex + 1, all);
  assert(entries.length === throughIndex - raft.appliedIndex);
  raft.appliedIndex = throughIndex;
  raft.effects.push({ type: "apply", entries });
}

function tellRole(raft: Raft): void {
  const { told, term, leader } = raft;
  const leads = raft.role.name === "leader";
  if (told.leads === leads && told.leader === leader && (!leads || told.term === term)) return;
  raft.told = { leads, term, leader };
  raft.effects.push({ type: "roleChanged", leads, term, leader });
}

function nextWakeMs(raft: Raft): number {
  const { role } = raft;
  const repairMs = raft.log.holes.length > 0 ? raft.repairAtMs : Number.POSITIVE_INFINITY;
  if (role.name === "leader") return Math.min(role.heartbeatAtMs, repairMs);
  return Math.min(mayStand(raft) ? raft.electionDeadlineMs : Number.POSITIVE_INFINITY, repairMs);
}
