import { assert } from "../../brick/assert.ts";
import type { BrickNumber } from "../../brick/units.ts";
import { members } from "./configuration.ts";
import { persistCut, persistEntry, persistRepair, send } from "./outbox.ts";
import type { Peer, Raft } from "./raft-state.ts";
import { appendToLog, configurationOf, type Leader, noteConfiguration } from "./raft-state.ts";
import type {
  Append,
  AppendReply,
  Entry,
  EntryKind,
  Heartbeat,
  HeartbeatReply,
} from "./raft-types.ts";
import { beginRound } from "./read-index.ts";
import { hearLeader } from "./roles.ts";
import { sendSnapshotChunk } from "./snapshot.ts";

export function becomeLeader(raft: Raft): void {
  assert(raft.role.name === "candidate" && raft.log.holes.length === 0);
  let uncommittedBytes = 0;
  for (let index = raft.commitIndex + 1; index <= raft.log.lastIndex; index += 1) {
    uncommittedBytes += raft.log.entryAt(index)!.payload.length;
  }
  const leader: Leader = {
    name: "leader",
    peers: new Map(),
    firstIndex: raft.log.lastIndex + 1,
    heartbeatAtMs: raft.nowMs + raft.timing.heartbeatMs,
    round: 0,
    confirmedRound: 0,
    reads: [],
    transfer: null,
    uncommittedBytes,
  };
  raft.role = leader;
  raft.leader = raft.self;
  syncPeers(raft, leader);
  // Raft section 8: "a blank no-op entry into the log at the start of its term".
  appendAsLeader(raft, leader, "noop", Buffer.alloc(0));
  beginRound(raft, leader);
}

/** A leader only appends to its log (figure 3, "Leader Append-Only"). */
export function appendAsLeader(
  raft: Raft,
  leader: Leader,
  kind: EntryKind,
  payload: Buffer,
): Entry {
  const entry = { index: raft.log.lastIndex + 1, term: raft.term, kind, payload };
  appendToLog(raft, entry);
  persistEntry(raft.outbox, entry);
  leader.uncommittedBytes += payload.length;
  return entry;
}

/** Whoever the configuration names is replicated to; who left it is not. */
export function syncPeers(raft: Raft, leader: Leader): void {
  const wanted = new Set(members(configurationOf(raft)));
  wanted.delete(raft.self);
  for (const brick of leader.peers.keys()) {
    if (!wanted.has(brick)) leader.peers.delete(brick);
  }
  for (const brick of wanted) {
    if (!leader.peers.has(brick)) leader.peers.set(brick, newPeer(raft, brick));
  }
}

function newPeer(raft: Raft, brick: BrickNumber): Peer {
  return {
    brick,
    matchIndex: 0,
    nextIndex: raft.log.lastIndex + 1,
    progress: { state: "probe", waiting: false },
    retryAtMs: raft.nowMs,
    sentCommitIndex: 0,
    lastContactMs: raft.nowMs,
    ackedRound: 0,
  };
}

/** Sends the follower all that it may be sent now: nothing, when it has enough on its way. */
export function replicateTo(raft: Raft, peer: Peer): void {
  for (;;) {
    if (peer.progress.state === "snapshot") return;
    if (peer.nextIndex <= raft.log.baseIndex) {
      const snapshot = raft.snapshot!;
      peer.progress = { state: "snapshot", snapshot, offsetBytes: 0 };
      sendSnapshotChunk(raft, peer);
      return;
    }
    const { progress } = peer;
    if (progress.state === "probe" && progress.waiting) return;
    if (progress.state === "replicate") {
      if (progress.inflight.length >= raft.limits.inflightAppendsMax) return;
      const idle = peer.nextIndex > raft.log.lastIndex;
      if (idle && peer.sentCommitIndex >= raft.commitIndex) return;
    }
    sendAppend(raft, peer);
  }
}

function sendAppend(raft: Raft, peer: Peer): void {
  const { log, commitIndex } = raft;
  const previousIndex = peer.nextIndex - 1;
  const previousTerm = log.termAt(previousIndex);
  assert(previousTerm !== null, "a follower behind the log is sent a snapshot");
  const entries = log.slice(peer.nextIndex, {
    toIndex: log.lastIndex,
    bytesMax: raft.limits.appendBytesMax,
    countMax: raft.limits.appendEntriesMax,
  });
  const { term } = raft;
  send(raft.outbox, peer.brick, {
    type: "append",
    term,
    previousIndex,
    previousTerm,
    commitIndex,
    entries,
  });
  peer.sentCommitIndex = commitIndex;
  if (peer.progress.state === "probe") {
    peer.progress.waiting = true;
    peer.retryAtMs = raft.nowMs + raft.timing.retryMs;
  } else if (peer.progress.state === "replicate" && entries.length > 0) {
    if (peer.progress.inflight.length === 0) {
      peer.retryAtMs = raft.nowMs + raft.timing.retryMs;
    }
    peer.nextIndex += entries.length;
    peer.progress.inflight.push(peer.nextIndex - 1);
  }
}

/** Something sent to the follower has had no answer for too long. */
export function retry(raft: Raft, peer: Peer): void {
  if (raft.nowMs < peer.retryAtMs) return;
  const { progress } = peer;
  if (progress.state === "snapshot") sendSnapshotChunk(raft, peer);
  else if (progress.state === "probe") progress.waiting = false;
  else if (progress.inflight.length > 0) probeFrom(peer, peer.matchIndex + 1);
}

function probeFrom(peer: Peer, nextIndex: number): void {
  peer.nextIndex = Math.max(nextIndex, peer.matchIndex + 1);
  peer.progress = { state: "probe", waiting: false };
}

export function receiveAppend(raft: Raft, from: BrickNumber, message: Append): void {
  hearLeader(raft, from);
  const { log } = raft;
  // What is committed and whole here is the leader's as well, and may be compacted: begin after it.
  const settledIndex = Math.min(raft.commitIndex, log.wholeThroughIndex);
  const skip = Math.max(0, settledIndex - message.previousIndex);
  const previousIndex = message.previousIndex + skip;
  const previousTerm = skip > 0 ? log.termAt(previousIndex) : message.previousTerm;
  // Raft figure 2: "Reply false if log doesn't contain an entry at prevLogIndex whose term
  // matches prevLogTerm".
  if (log.termAt(previousIndex) !== previousTerm) {
    refuse(raft, from, message);
    return;
  }
  const entries = message.entries.slice(skip);
  for (const entry of entries) takeEntry(raft, entry);
  const agreedIndex = previousIndex + entries.length;
  raft.agreedIndex = Math.max(raft.agreedIndex, agreedIndex);
  takeCommitIndex(raft, Math.min(message.commitIndex, agreedIndex));
  const index = Math.min(agreedIndex, log.wholeThroughIndex);
  accept(raft, from, index);
}

export function accept(raft: Raft, to: BrickNumber, index: number): void {
  const healing = isLacking(raft);
  const { term } = raft;
  const reply = { type: "appendReply", term, ok: true, index, healing } as const;
  send(raft.outbox, to, { ...reply, hintIndex: 0, hintTerm: 0 });
}

function takeEntry(raft: Raft, entry: Entry): void {
  const { log, outbox } = raft;
  const term = log.termAt(entry.index);
  if (term === entry.term) {
    if (log.isHole(entry.index)) fillHole(raft, entry);
    return;
  }
  // Raft figure 2: "If an existing entry conflicts with a new one (same index but different
  // terms), delete the existing entry and all that follow it".
  if (term !== null) {
    assert(entry.index > raft.commitIndex, "a committed entry is never replaced");
    log.cutAfter(entry.index - 1);
    raft.configurations = raft.configurations.filter((one) => one.index < entry.index);
    persistCut(outbox, entry.index - 1);
  }
  appendToLog(raft, entry);
  persistEntry(outbox, entry);
}

export function fillHole(raft: Raft, entry: Entry): void {
  raft.log.fill(entry);
  noteConfiguration(raft, entry);
  persistRepair(raft.outbox, entry);
}

/** Tells the leader where to go on: before every entry whose term its own cannot have there. */
function refuse(raft: Raft, to: BrickNumber, message: Append): void {
  const { log } = raft;
  let hintIndex = Math.min(message.previousIndex, log.lastIndex);
  while (hintIndex > raft.commitIndex && log.termAt(hintIndex)! > message.previousTerm) {
    hintIndex -= 1;
  }
  send(raft.outbox, to, {
    type: "appendReply",
    term: raft.term,
    ok: false,
    index: message.previousIndex,
    hintIndex,
    hintTerm: log.termAt(hintIndex) ?? 0,
    healing: isLacking(raft),
  });
}

export function receiveAppendReply(raft: Raft, leader: Leader, peer: Peer, message: AppendReply) {
  if (message.ok) {
    takeMatch(raft, leader, peer, message.index);
    return;
  }
  const { progress } = peer;
  // What it had acknowledged it has lost: it says so itself, or refuses what it is asked for once more
  // right where it had agreed, and cannot know. An old refusal taken for that costs a round, no more.
  const asked = progress.state === "probe" && message.index === peer.nextIndex - 1;
  const unaware = asked && message.index === peer.matchIndex;
  if ((message.healing || unaware) && message.hintIndex < peer.matchIndex) {
    peer.matchIndex = message.hintIndex;
    probeFrom(peer, message.hintIndex + 1);
    return;
  }
  // A refusal of something older than what has been accepted, or answered already, is stale.
  if (message.index <= peer.matchIndex || progress.state === "snapshot") return;
  if (progress.state === "probe" && message.index !== peer.nextIndex - 1) return;
  // Down to the base, and past it: then the follower needs the snapshot.
  let nextIndex = Math.min(message.hintIndex, raft.log.lastIndex) + 1;
  while (nextIndex > raft.log.baseIndex && raft.log.termAt(nextIndex - 1)! > message.hintTerm) {
    nextIndex -= 1;
  }
  probeFrom(peer, nextIndex);
}

function takeMatch(raft: Raft, leader: Leader, peer: Peer, index: number): void {
  assert(index <= raft.log.lastIndex, "a follower has no more than it was sent");
  assert(leader.peers.get(peer.brick) === peer);
  const moved = index > peer.matchIndex;
  peer.matchIndex = Math.max(peer.matchIndex, index);
  peer.nextIndex = Math.max(peer.nextIndex, peer.matchIndex + 1);
  const { progress } = peer;
  if (progress.state === "replicate") {
    while (progress.inflight.length > 0 && progress.inflight[0]! <= index) {
      progress.inflight.shift();
    }
    if (moved) peer.retryAtMs = raft.nowMs + raft.timing.retryMs;
    return;
  }
  if (progress.state === "snapshot" && peer.matchIndex < progress.snapshot.index) return;
  peer.nextIndex = peer.matchIndex + 1;
  peer.progress = { state: "replicate", inflight: [] };
}

export function receiveHeartbeat(raft: Raft, from: BrickNumber, message: Heartbeat): void {
  hearLeader(raft, from);
  takeCommitIndex(raft, Math.min(message.commitIndex, raft.agreedIndex));
  send(raft.outbox, from, {
    type: "heartbeatReply",
    term: raft.term,
    round: message.round,
    lastIndex: raft.log.wholeThroughIndex,
    agreedIndex: raft.agreedIndex,
    healing: isLacking(raft),
  });
}

export function receiveHeartbeatReply(peer: Peer, message: HeartbeatReply): void {
  peer.ackedRound = Math.max(peer.ackedRound, message.round);
  // A follower that restarted may take no commit index before an append has shown it that its log
  // agrees: one is due, empty if need be.
  if (message.agreedIndex < Math.min(peer.matchIndex, peer.sentCommitIndex)) {
    peer.sentCommitIndex = 0;
  }
  if (message.healing && message.lastIndex < peer.matchIndex) {
    peer.matchIndex = message.lastIndex;
    probeFrom(peer, message.lastIndex + 1);
  }
}

function isLacking(raft: Raft): boolean {
  return raft.healing !== null || raft.log.holes.length > 0;
}

function takeCommitIndex(raft: Raft, commitIndex: number): void {
  assert(commitIndex <= raft.log.lastIndex);
  raft.commitIndex = Math.max(raft.commitIndex, commitIndex);
}
