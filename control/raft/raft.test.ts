import assert from "node:assert/strict";
import { test } from "node:test";
import { Prng } from "../../brick/prng.ts";
import { encodeConfiguration } from "./configuration.ts";
import { createRaft, type Raft, step } from "./raft.ts";
import { defaultRaftTiming as timing } from "./raft-limits.ts";
import type {
  Entry,
  HardState,
  Hole,
  RaftEffect,
  RaftEvent,
  RaftMessage,
  Snapshot,
} from "./raft-types.ts";

// A test for each sentence of figure 2 of "In Search of an Understandable Consensus Algorithm",
// and for the rules of Ongaro's thesis that END keeps besides.

/** Brick 1 with a log of the given terms, in a cluster of these voters. */
class Server {
  readonly raft: Raft;
  nowMs = 0;
  sent: { to: number; message: RaftMessage }[] = [];
  effects: RaftEffect[] = [];
  #ticket = 0;

  constructor(options: {
    voters?: readonly number[];
    learners?: readonly number[];
    terms?: readonly number[];
    state?: Partial<HardState>;
    snapshot?: Snapshot;
    holes?: readonly number[];
  }) {
    const { voters = [1, 2, 3], learners = [], terms = [], state, snapshot, holes = [] } = options;
    const first = (snapshot?.index ?? 0) + 1;
    const configuration = { voters, learners };
    const bootstrap = snapshot === undefined ? [1, ...terms] : terms;
    const entries = bootstrap.map((term, at): Entry | Hole => {
      const index = first + at;
      if (holes.includes(index)) return { index, term };
      if (index === 1) {
        return { index, term, kind: "configuration", payload: encodeConfiguration(configuration) };
      }
      return command(index, term);
    });
    const term = Math.max(1, ...terms);
    const hardState = { term, votedFor: 0, healing: null, ...state };
    const loaded = { hardState, snapshot: snapshot ?? null, entries };
    this.raft = createRaft({ self: 1, loaded, timing, prng: new Prng(1), nowMs: 0 });
  }

  give(event: RaftEvent): RaftEffect[] {
    const effects = step(this.raft, this.nowMs, event);
    for (const effect of effects) {
      if (effect.type === "send") this.sent.push({ to: effect.to, message: effect.message });
      if (effect.type === "persist") this.#ticket = effect.ticket;
    }
    this.effects.push(...effects);
    return effects;
  }

  receive(from: number, message: RaftMessage): RaftEffect[] {
    return this.give({ type: "message", from, message });
  }

  /** Everything given to the store becomes durable. */
  flush(): void {
    while (this.raft.outbox.durableTicket < this.#ticket) {
      this.give({ type: "persisted", ticket: this.#ticket });
    }
  }

  take(): { to: number; message: RaftMessage }[] {
    const sent = this.sent;
    this.sent = [];
    return sent;
  }

  replies(): RaftMessage[] {
    return this.take().map(({ message }) => message);
  }

  wait(ms: number): void {
    this.nowMs += ms;
    if (this.nowMs >= this.raft.wakeAtMs) this.give({ type: "wake" });
  }

  /** Becomes leader of the next term by the vote of brick 2. */
  lead(): void {
    this.wait(timing.electionTimeoutMsMax + 1);
    const term = this.raft.term + 1;
    if (this.raft.role.name === "preCandidate") {
      this.receive(2, { type: "preVoteReply", term, granted: true });
    }
    this.flush();
    this.receive(2, { type: "voteReply", term, granted: true });
    assert.equal(this.raft.role.name, "leader");
    this.take();
  }

  acknowledge(from: number, index: number): void {
    const { term } = this.raft;
    const nothing = { hintIndex: 0, hintTerm: 0, healing: false };
    this.receive(from, { type: "appendReply", term, ok: true, index, ...nothing });
  }
}

function command(index: number, term: number): Entry {
  return { index, term, kind: "command", payload: Buffer.from(`${index}.${term}`) };
}

function append(term: number, previous: [number, number], terms: number[], commitIndex = 0) {
  const [previousIndex, previousTerm] = previous;
  const entries = terms.map((one, at) => command(previousIndex + 1 + at, one));
  return { type: "append", term, previousIndex, previousTerm, commitIndex, entries } as const;
}

function vote(term: number, last: [number, number], transfer = false) {
  const [lastIndex, lastTerm] = last;
  return { type: "vote", term, lastIndex, lastTerm, transfer } as const;
}

function terms(raft: Raft): (number | null)[] {
  const out: (number | null)[] = [];
  for (let index = raft.log.baseIndex + 1; index <= raft.log.lastIndex; index += 1) {
    out.push(raft.log.termAt(index));
  }
  return out;
}

test("AppendEntries 1: reply false if term < currentTerm", () => {
  const server = new Server({ state: { term: 5 } });
  server.receive(2, append(4, [1, 1], [4]));
  const [reply] = server.replies();
  assert(reply?.type === "appendReply" && !reply.ok && reply.term === 5);
  assert.deepEqual(terms(server.raft), [1]);
});

test("AppendEntries 2: reply false if there is no entry at prevLogIndex of prevLogTerm", () => {
  for (const previous of [
    [4, 2],
    [2, 1],
  ] as [number, number][]) {
    const server = new Server({ terms: [2] });
    server.receive(2, append(2, previous, [2]));
    const [reply] = server.replies();
    assert(reply?.type === "appendReply" && !reply.ok);
    assert.deepEqual(terms(server.raft), [1, 2]);
  }
});

test("AppendEntries 3: a conflicting entry and all that follow it are deleted", () => {
  const server = new Server({ terms: [2, 2, 2] });
  server.receive(2, append(3, [2, 2], [3]));
  assert.deepEqual(terms(server.raft), [1, 2, 3]);
});

test("AppendEntries 3: entries that do not conflict stay, though the message ends before them", () => {
  const server = new Server({ terms: [2, 2, 2] });
  server.receive(2, append(2, [1, 1], [2]));
  assert.deepEqual(terms(server.raft), [1, 2, 2, 2]);
});

test("AppendEntries 4: entries not in the log are appended", () => {
  const server = new Server({ terms: [2] });
  server.receive(2, append(2, [1, 1], [2, 2, 2]));
  assert.deepEqual(terms(server.raft), [1, 2, 2, 2]);
});

test("AppendEntries 5: commitIndex = min(leaderCommit, index of last new entry)", () => {
  const server = new Server({ terms: [2, 2, 2] });
  server.receive(2, append(2, [1, 1], [2], 4));
  assert.equal(server.raft.commitIndex, 2);
  const [applied] = server.effects.filter((effect) => effect.type === "apply");
  assert.deepEqual(
    applied?.type === "apply" && applied.entries.map((entry) => entry.index),
    [1, 2],
  );
  server.receive(2, append(2, [4, 2], [], 3));
  assert.equal(server.raft.commitIndex, 3);
});

test("a heartbeat commits nothing that this leader has not shown to agree", () => {
  const server = new Server({ terms: [2, 2] });
  server.receive(2, { type: "heartbeat", term: 3, round: 1, commitIndex: 3 });
  assert.equal(server.raft.commitIndex, 0);
});

test("stable storage is updated before responding to an append", () => {
  const server = new Server({});
  server.receive(2, append(1, [1, 1], [1]));
  assert.deepEqual(server.take(), []);
  server.flush();
  const [reply] = server.replies();
  assert(reply?.type === "appendReply" && reply.ok && reply.index === 2);
});

test("stable storage is updated before a vote is given", () => {
  const server = new Server({});
  server.receive(2, vote(2, [1, 1]));
  assert.deepEqual(server.take(), []);
  server.flush();
  assert.deepEqual(server.replies(), [{ type: "voteReply", term: 2, granted: true }]);
});

test("RequestVote 1: reply false if term < currentTerm", () => {
  const server = new Server({ state: { term: 5 } });
  server.receive(2, vote(4, [9, 4]));
  assert.deepEqual(server.replies(), [{ type: "voteReply", term: 5, granted: false }]);
});

test("RequestVote 2: one vote a term, first come first served, also after a restart", () => {
  const server = new Server({});
  server.receive(2, vote(2, [1, 1]));
  server.receive(3, vote(2, [1, 1]));
  server.receive(2, vote(2, [1, 1]));
  server.flush();
  const granted = server
    .take()
    .map(({ to, message }) => [to, "granted" in message && message.granted]);
  assert.deepEqual(granted, [
    [2, true],
    [3, false],
    [2, true],
  ]);
  const restarted = new Server({ state: { term: 2, votedFor: 2 } });
  restarted.receive(3, vote(2, [1, 1]));
  assert.deepEqual(restarted.replies(), [{ type: "voteReply", term: 2, granted: false }]);
});

test("RequestVote 2: only a log at least as up to date gets the vote", () => {
  for (const { last, granted } of [
    { last: [9, 1] as [number, number], granted: false },
    { last: [2, 3] as [number, number], granted: false },
    { last: [3, 3] as [number, number], granted: true },
    { last: [2, 4] as [number, number], granted: true },
  ]) {
    const server = new Server({ terms: [3, 3] });
    server.receive(2, vote(5, last));
    server.flush();
    assert.deepEqual(server.replies(), [{ type: "voteReply", term: 5, granted }]);
  }
});

test("All servers: a higher term is entered, as follower", () => {
  const server = new Server({});
  server.lead();
  server.receive(3, {
    type: "appendReply",
    term: 9,
    ok: false,
    index: 0,
    hintIndex: 0,
    hintTerm: 0,
    healing: false,
  });
  assert.equal(server.raft.role.name, "follower");
  assert.equal(server.raft.term, 9);
  assert.equal(server.raft.votedFor, 0);
});

test("Followers: without a leader for the election timeout, an election begins", () => {
  const server = new Server({});
  server.wait(timing.electionTimeoutMsMin - 1);
  assert.equal(server.raft.role.name, "follower");
  server.wait(timing.electionTimeoutMsMax);
  assert.equal(server.raft.role.name, "preCandidate");
});

test("Followers: hearing the leader puts the election off", () => {
  const server = new Server({});
  for (let at = 0; at < 20; at += 1) {
    server.receive(2, { type: "heartbeat", term: 1, round: at + 1, commitIndex: 0 });
    server.wait(timing.electionTimeoutMsMin - 1);
    assert.equal(server.raft.role.name, "follower");
  }
});

test("Candidates: the term grows, the vote is one's own, everyone is asked once it is durable", () => {
  const server = new Server({});
  server.wait(timing.electionTimeoutMsMax + 1);
  server.take();
  server.receive(2, { type: "preVoteReply", term: 2, granted: true });
  assert.equal(server.raft.term, 2);
  assert.equal(server.raft.votedFor, 1);
  assert.deepEqual(server.take(), []);
  server.flush();
  const message = vote(2, [1, 1]);
  assert.deepEqual(server.take(), [
    { to: 2, message },
    { to: 3, message },
  ]);
});

test("Candidates: votes of a majority make a leader, and its own counts only when durable", () => {
  const alone = new Server({ voters: [1] });
  alone.wait(timing.electionTimeoutMsMax + 1);
  assert.equal(alone.raft.role.name, "candidate");
  alone.flush();
  assert.equal(alone.raft.role.name, "leader");
});

test("Candidates: votes of bricks that are no voters count nothing", () => {
  const server = new Server({ voters: [1, 2, 3], learners: [4, 5] });
  server.wait(timing.electionTimeoutMsMax + 1);
  for (const from of [4, 5, 9])
    server.receive(from, { type: "preVoteReply", term: 2, granted: true });
  assert.equal(server.raft.role.name, "preCandidate");
});

test("Candidates: an append of a new leader makes a follower", () => {
  const server = new Server({});
  server.wait(timing.electionTimeoutMsMax + 1);
  server.receive(2, { type: "preVoteReply", term: 2, granted: true });
  server.receive(3, append(2, [1, 1], [2]));
  assert.equal(server.raft.role.name, "follower");
  assert.equal(server.raft.leader, 3);
});

test("Leaders: heartbeats at once and during idle times", () => {
  const server = new Server({});
  server.lead();
  for (let at = 0; at < 3; at += 1) {
    server.wait(timing.heartbeatMs);
    const beats = server.take().filter(({ message }) => message.type === "heartbeat");
    assert.deepEqual(
      beats.map(({ to }) => to),
      [2, 3],
    );
  }
});

test("Leaders: a proposal is appended, replicated before the own flush, applied after a majority", () => {
  const server = new Server({});
  server.lead();
  server.flush();
  server.acknowledge(2, 2);
  server.take();
  server.give({ type: "propose", proposals: [{ id: 7, payload: Buffer.from("x") }] });
  assert(server.take().some(({ to, message }) => to === 2 && message.type === "append"));
  // Another brick has it, this one not durably: no majority of three.
  server.acknowledge(2, 3);
  assert.equal(server.raft.commitIndex, 2);
  server.flush();
  assert.equal(server.raft.commitIndex, 3);
});

test("Leaders: two followers are a majority while the leader's own disk is slow", () => {
  const server = new Server({});
  server.lead();
  server.acknowledge(2, 2);
  assert.equal(server.raft.commitIndex, 0);
  server.acknowledge(3, 2);
  assert.equal(server.raft.commitIndex, 2);
});

test("Leaders: an entry of an earlier term is committed only with one of the own (section 5.4.2)", () => {
  const server = new Server({ terms: [2, 2], state: { term: 3 } });
  server.lead();
  server.flush();
  server.acknowledge(2, 3);
  assert.equal(server.raft.commitIndex, 0);
  server.acknowledge(2, 4);
  assert.equal(server.raft.commitIndex, 4);
});

test("Leaders: after a refusal nextIndex goes down and the append is tried again", () => {
  const server = new Server({ terms: [2, 2, 3] });
  server.lead();
  const refusal = { ok: false, index: 4, hintIndex: 2, hintTerm: 2, healing: false } as const;
  server.receive(2, { type: "appendReply", term: 4, ...refusal });
  const [message] = server.replies();
  assert(message?.type === "append" && message.previousIndex === 2 && message.entries.length === 3);
});

test("Leaders: a follower that needs compacted entries is sent the snapshot", () => {
  const data = Buffer.from("state");
  const configuration = { voters: [1, 2, 3], learners: [] };
  const server = new Server({ snapshot: { index: 10, term: 2, configuration, data }, terms: [2] });
  server.lead();
  const refusal = { ok: false, index: 11, hintIndex: 0, hintTerm: 0, healing: false } as const;
  server.receive(2, { type: "appendReply", term: server.raft.term, ...refusal });
  const chunk = server.replies().find((message) => message.type === "snapshotChunk");
  assert(chunk?.type === "snapshotChunk" && chunk.index === 10 && chunk.bytes.equals(data));
});

test("Pre-vote: a server that cannot win does not raise its term", () => {
  const server = new Server({});
  for (let at = 0; at < 10; at += 1) server.wait(timing.electionTimeoutMsMax + 1);
  assert.equal(server.raft.term, 1);
});

test("Pre-vote: it is not granted while a leader is heard, nor does it change anything", () => {
  const server = new Server({});
  server.receive(2, { type: "heartbeat", term: 1, round: 1, commitIndex: 0 });
  server.take();
  const preVote = { type: "preVote", term: 5, lastIndex: 9, lastTerm: 4 } as const;
  server.receive(3, preVote);
  assert.deepEqual(server.replies(), [{ type: "preVoteReply", term: 1, granted: false }]);
  server.nowMs += timing.electionTimeoutMsMin;
  server.receive(3, preVote);
  assert.deepEqual(server.replies(), [{ type: "preVoteReply", term: 5, granted: true }]);
  assert.equal(server.raft.term, 1);
  assert.equal(server.raft.votedFor, 0);
});

test("Stickiness: a vote asked for while a leader is heard is ignored, unless the leader wants it", () => {
  const server = new Server({});
  server.receive(2, { type: "heartbeat", term: 1, round: 1, commitIndex: 0 });
  server.take();
  server.receive(3, vote(7, [1, 1]));
  server.flush();
  assert.deepEqual(server.take(), []);
  assert.equal(server.raft.term, 1);
  server.receive(3, vote(7, [1, 1], true));
  server.flush();
  assert.deepEqual(server.replies(), [{ type: "voteReply", term: 7, granted: true }]);
});

test("Check-quorum: a leader that no majority answers steps down", () => {
  const server = new Server({});
  server.lead();
  for (let at = 0; at < 20; at += 1) {
    server.wait(timing.heartbeatMs);
    if (server.raft.role.name !== "leader") break;
    const reply = { round: 1, lastIndex: 1, agreedIndex: 1, healing: false };
    if (at < 8) server.receive(3, { type: "heartbeatReply", term: server.raft.term, ...reply });
    else assert(at < 8 + 10, "it leads on without a majority");
  }
  assert.equal(server.raft.role.name, "follower");
});

test("Reads: confirmed by a round begun after the request, when an entry of the term is committed", () => {
  const server = new Server({});
  server.lead();
  const { term } = server.raft;
  const answer = (round: number) =>
    server.receive(2, {
      type: "heartbeatReply",
      term,
      round,
      lastIndex: 2,
      agreedIndex: 2,
      healing: false,
    });
  const confirmed = () => server.effects.filter((effect) => effect.type === "readConfirmed").length;
  server.give({ type: "read", id: 1 });
  // Round 1 was begun with the term, before the read was asked for.
  answer(1);
  assert.equal(confirmed(), 0);
  answer(2);
  assert.equal(confirmed(), 0, "nothing of this term is committed");
  server.flush();
  server.acknowledge(2, 2);
  assert.equal(confirmed(), 1);
});

test("Reads: all that come during a round share the next", () => {
  const server = new Server({});
  server.lead();
  server.flush();
  server.acknowledge(2, 2);
  server.take();
  const { term } = server.raft;
  const reply = { lastIndex: 2, agreedIndex: 2, healing: false };
  server.receive(2, { type: "heartbeatReply", term, round: 1, ...reply });
  for (let id = 1; id <= 100; id += 1) server.give({ type: "read", id });
  server.receive(2, { type: "heartbeatReply", term, round: 2, ...reply });
  server.receive(2, { type: "heartbeatReply", term, round: 3, ...reply });
  const beats = server.take().filter(({ to, message }) => to === 2 && message.type === "heartbeat");
  assert.equal(beats.length, 2);
  assert.equal(server.effects.filter((effect) => effect.type === "readConfirmed").length, 100);
});

test("Reads: a leader deposed rejects what waits", () => {
  const server = new Server({});
  server.lead();
  server.give({ type: "read", id: 5 });
  const effects = server.receive(3, append(9, [1, 1], []));
  const [rejected] = effects.filter((effect) => effect.type === "readRejected");
  assert(rejected?.type === "readRejected" && rejected.id === 5);
});

test("Membership: one change at a time, none before an entry of the term is committed", () => {
  const server = new Server({});
  server.lead();
  const codeOf = (brick: number) => {
    const effects = server.give({
      type: "changeMembership",
      id: 1,
      change: { type: "addLearner", brick },
    });
    const rejected = effects.find((effect) => effect.type === "rejected");
    return rejected?.type === "rejected" ? rejected.fault.code : "accepted";
  };
  assert.equal(codeOf(4), "change_pending");
  server.flush();
  server.acknowledge(2, 2);
  assert.equal(codeOf(4), "accepted");
  assert.equal(codeOf(5), "change_pending");
  server.flush();
  server.acknowledge(2, 3);
  assert.equal(codeOf(4), "invalid_change");
  assert.equal(codeOf(5), "accepted");
});

test("Membership: no change before an entry of the term is committed", () => {
  const configuration = { voters: [1, 2, 3], learners: [] };
  const snapshot = { index: 10, term: 2, configuration, data: Buffer.alloc(0) };
  const server = new Server({ snapshot, state: { term: 2 } });
  server.lead();
  const change = { type: "addLearner", brick: 4 } as const;
  const [rejected] = server
    .give({ type: "changeMembership", id: 1, change })
    .filter((effect) => effect.type === "rejected");
  assert(rejected?.type === "rejected" && rejected.fault.code === "change_pending");
});

test("Membership: a learner has no part in majorities and is promoted only when it has caught up", () => {
  const server = new Server({ voters: [1, 2], learners: [3] });
  server.lead();
  server.flush();
  server.acknowledge(3, 2);
  assert.equal(server.raft.commitIndex, 0);
  server.acknowledge(2, 2);
  const promote = {
    type: "changeMembership",
    id: 1,
    change: { type: "promote", brick: 3 },
  } as const;
  server.nowMs += timing.electionTimeoutMsMin + 1;
  const late = server.give(promote).find((effect) => effect.type === "rejected");
  assert(late?.type === "rejected" && late.fault.code === "not_caught_up");
  server.acknowledge(3, 2);
  assert(server.give(promote).some((effect) => effect.type === "accepted"));
  server.flush();
  // Three voters now, from the moment the change is in the log.
  server.acknowledge(3, 3);
  assert.equal(server.raft.commitIndex, 3);
});

test("Membership: a leader that removes itself leads until that commits, without its own vote", () => {
  const server = new Server({});
  server.lead();
  server.flush();
  server.acknowledge(2, 2);
  server.give({ type: "changeMembership", id: 1, change: { type: "remove", brick: 1 } });
  server.flush();
  server.acknowledge(2, 3);
  assert.equal(server.raft.role.name, "leader");
  server.take();
  server.acknowledge(3, 3);
  assert.equal(server.raft.commitIndex, 3);
  assert.equal(server.raft.role.name, "follower");
  assert(server.replies().some((message) => message.type === "timeoutNow"));
});

test("Membership: learners never stand for election, but vote when asked", () => {
  const server = new Server({ voters: [2, 3], learners: [1] });
  assert.equal(server.raft.wakeAtMs, 0);
  server.wait(0);
  assert.equal(server.raft.wakeAtMs, Number.POSITIVE_INFINITY);
  server.receive(2, vote(2, [1, 1]));
  server.flush();
  assert.deepEqual(server.replies(), [{ type: "voteReply", term: 2, granted: true }]);
});

test("Transfer: proposals stop, the other is told once it has everything, else the lead goes on", () => {
  const server = new Server({});
  server.lead();
  server.give({ type: "transferLeadership", to: 2 });
  assert(!server.replies().some((message) => message.type === "timeoutNow"));
  const refused = server.give({
    type: "propose",
    proposals: [{ id: 1, payload: Buffer.from("x") }],
  });
  assert(
    refused.some((effect) => effect.type === "rejected" && effect.fault.code === "transferring"),
  );
  server.acknowledge(2, 2);
  assert.deepEqual(
    server
      .take()
      .filter(({ message }) => message.type === "timeoutNow")
      .map(({ to }) => to),
    [2],
  );
  for (let at = 0; at < 12; at += 1) {
    server.wait(timing.heartbeatMs);
    server.acknowledge(3, 2);
  }
  const taken = server.give({ type: "propose", proposals: [{ id: 2, payload: Buffer.from("x") }] });
  assert(taken.some((effect) => effect.type === "accepted"));
});

test("Transfer: who is told to stand does so at once, past stickiness", () => {
  const server = new Server({});
  server.receive(2, { type: "heartbeat", term: 1, round: 1, commitIndex: 0 });
  server.take();
  server.receive(2, { type: "timeoutNow", term: 1 });
  server.flush();
  assert.deepEqual(server.replies(), [vote(2, [1, 1], true), vote(2, [1, 1], true)]);
});

test("Snapshots: one that the log reaches beyond keeps the rest of the log", () => {
  const server = new Server({ terms: [2, 2, 2] });
  receiveSnapshot(server, { index: 3, term: 2 });
  assert.deepEqual(terms(server.raft), [2]);
  assert.equal(server.raft.appliedIndex, 3);
});

test("Snapshots: one at odds with the log replaces it", () => {
  const server = new Server({ terms: [2, 2, 2] });
  receiveSnapshot(server, { index: 3, term: 3 });
  assert.deepEqual(terms(server.raft), []);
  assert.equal(server.raft.log.lastIndex, 3);
  const work = server.effects.filter((effect) => effect.type === "persist").at(-1);
  assert(work?.type === "persist" && work.resetsLog && work.snapshot?.index === 3);
  const reply = server.replies().find((message) => message.type === "appendReply");
  assert.equal(reply, undefined, "not before it is durable");
  server.flush();
  assert(server.replies().some((message) => message.type === "appendReply" && message.index === 3));
});

function receiveSnapshot(server: Server, { index, term }: { index: number; term: number }): void {
  server.receive(2, {
    type: "snapshotChunk",
    term: 4,
    index,
    snapshotTerm: term,
    configuration: { voters: [1, 2, 3], learners: [] },
    sizeBytes: 0,
    checksum: 0,
    offsetBytes: 0,
    bytes: Buffer.alloc(0),
  });
}

test("Healing: a server that may have forgotten entries neither votes nor stands", () => {
  const healing = { throughIndex: 9, term: 2 };
  const server = new Server({ terms: [2], state: { term: 2, healing } });
  server.receive(3, vote(3, [20, 2]));
  server.flush();
  assert.deepEqual(server.replies(), [{ type: "voteReply", term: 3, granted: false }]);
  server.wait(60_000);
  assert.equal(server.raft.role.name, "follower");
});

test("Healing: ends with everything up to the loss, durable and the leader's", () => {
  const healing = { throughIndex: 4, term: 2 };
  const server = new Server({ terms: [2], state: { term: 2, healing } });
  server.receive(2, append(2, [2, 2], [2], 4));
  server.flush();
  assert.notEqual(server.raft.healing, null);
  server.receive(2, append(2, [3, 2], [2], 4));
  assert.notEqual(server.raft.healing, null, "not yet durable");
  server.flush();
  assert.equal(server.raft.healing, null);
});

test("Healing: entries that were durable and voided do not count for those in their place", () => {
  const healing = { throughIndex: 4, term: 2 };
  const server = new Server({ terms: [2, 2, 2], state: { term: 2, healing } });
  server.receive(2, append(3, [1, 1], [3, 3, 3]));
  assert.notEqual(server.raft.healing, null);
  server.flush();
  assert.equal(server.raft.healing, null);
});

test("Healing: a flush of entries voided meanwhile does not count for those in their place", () => {
  const healing = { throughIndex: 3, term: 2 };
  const server = new Server({ state: { term: 2, healing } });
  server.receive(2, append(2, [1, 1], [2]));
  const first = server.raft.outbox.issuedTicket;
  server.receive(2, append(3, [1, 1], [3, 3]));
  server.give({ type: "persisted", ticket: first });
  assert.equal(server.raft.outbox.durableIndex, 1);
  server.flush();
  assert.equal(server.raft.healing, null);
});

test("Healing: ends with a later leader's own commit, should its log be shorter", () => {
  const healing = { throughIndex: 40, term: 2 };
  const server = new Server({ terms: [2], state: { term: 2, healing } });
  server.receive(2, append(3, [2, 2], [3], 2));
  server.flush();
  assert.notEqual(server.raft.healing, null);
  server.receive(2, append(3, [3, 3], [], 3));
  assert.equal(server.raft.healing, null);
});

test("Holes: asked of everyone, filled by the very entry only, not acknowledged before", () => {
  const server = new Server({ terms: [2, 2], holes: [2] });
  server.wait(0);
  const asked = server.take().filter(({ message }) => message.type === "repairRequest");
  server.wait(60_000);
  assert.equal(server.raft.role.name, "follower", "a leader gives others every entry");
  server.take();
  assert.deepEqual(
    asked.map(({ to }) => to),
    [2, 3],
  );
  server.receive(2, append(2, [3, 2], [], 3));
  server.flush();
  const [reply] = server.replies();
  assert(reply?.type === "appendReply" && reply.ok && reply.index === 1);
  assert.equal(server.raft.appliedIndex, 1);
  server.receive(3, { type: "repairReply", term: 2, entries: [command(2, 1)] });
  assert.deepEqual(server.raft.log.holes, [2]);
  server.receive(3, { type: "repairReply", term: 2, entries: [command(2, 2)] });
  assert.deepEqual(server.raft.log.holes, []);
  assert.equal(server.raft.appliedIndex, 3);
});

test("bounds: too much uncommitted is refused as busy, a large payload as too large", () => {
  const server = new Server({});
  server.lead();
  const faultOf = (bytes: number) => {
    const proposals = [{ id: 1, payload: Buffer.alloc(bytes) }];
    const effects = server.give({ type: "propose", proposals });
    const rejected = effects.find((effect) => effect.type === "rejected");
    return rejected?.type === "rejected" ? rejected.fault.code : null;
  };
  assert.equal(faultOf(server.raft.limits.payloadBytesMax + 1), "too_large");
  let taken = 0;
  while (faultOf(server.raft.limits.payloadBytesMax) === null) taken += 1;
  // The configuration of the beginning is not committed either.
  assert.equal(taken, 15);
  assert.equal(faultOf(server.raft.limits.payloadBytesMax), "busy");
});
