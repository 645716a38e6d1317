import assert from "node:assert/strict";
import { test } from "node:test";
import { defaultRaftTiming as timing } from "./raft-limits.ts";
import { append, Server, terms, vote } from "./testing-server.ts";

// A test for each sentence of figure 2 of "In Search of an Understandable Consensus Algorithm".

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

test("Leaders: a follower that lost what it had acknowledged, and does not know it, gets it again", () => {
  const server = new Server({ terms: [2, 2, 3] });
  server.lead();
  server.acknowledge(2, 4);
  server.take();
  // It has started anew with a log that ends earlier, and refuses what follows.
  const refusal = { ok: false, index: 4, hintIndex: 1, hintTerm: 2, healing: false } as const;
  const { term } = server.raft;
  const refuse = () => server.receive(2, { type: "appendReply", term, ...refusal });
  server.give({ type: "propose", proposals: [{ id: 7, payload: Buffer.from("x") }] });
  // The first may be an old answer; the same to what is asked again cannot be.
  refuse();
  server.take();
  server.wait(timing.retryMs);
  refuse();
  const appends = server.replies().filter((message) => message.type === "append");
  assert.ok(appends.some((one) => one.previousIndex === 1 && one.entries.length >= 3));
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
