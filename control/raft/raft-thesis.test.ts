import assert from "node:assert/strict";
import { test } from "node:test";
import { defaultRaftTiming as timing } from "./raft-limits.ts";
import { append, command, Server, terms, vote } from "./testing-server.ts";

// The rules of Ongaro's thesis that END keeps beyond figure 2, and the healing of damage.

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
  server.give({ type: "read", id: 2 });
  answer(2);
  assert.equal(confirmed(), 1, "that round is from before the second read");
  answer(3);
  assert.equal(confirmed(), 2);
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
