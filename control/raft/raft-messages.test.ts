import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { encodeConfiguration } from "./configuration.ts";
import { decodeRecord, encodeRecords, recordsOf } from "./raft-log-format.ts";
import { decodeRaftMessage, encodeRaftMessage } from "./raft-messages.ts";
import {
  decodeHardState,
  decodeSnapshotFile,
  encodeHardState,
  encodeSnapshotFile,
} from "./raft-state-format.ts";
import type { Entry, RaftMessage } from "./raft-types.ts";

const configuration = { voters: [1, 3], learners: [2, 65_535] };
const entries: Entry[] = [
  { index: 8, term: 3, kind: "noop", payload: Buffer.alloc(0) },
  { index: 9, term: 4, kind: "configuration", payload: encodeConfiguration(configuration) },
  { index: 10, term: 4, kind: "command", payload: Buffer.from("payload") },
];

const samples: RaftMessage[] = [
  { type: "preVote", term: 4, lastIndex: 2 ** 40, lastTerm: 3 },
  { type: "preVoteReply", term: 4, granted: true },
  { type: "vote", term: 4, lastIndex: 7, lastTerm: 3, transfer: true },
  { type: "voteReply", term: 4, granted: false },
  { type: "append", term: 5, previousIndex: 7, previousTerm: 3, commitIndex: 6, entries },
  {
    type: "appendReply",
    term: 5,
    ok: false,
    index: 7,
    hintIndex: 6,
    hintTerm: 2,
    healing: true,
  },
  { type: "heartbeat", term: 5, round: 77, commitIndex: 6 },
  { type: "heartbeatReply", term: 5, round: 77, lastIndex: 6, agreedIndex: 5, healing: false },
  {
    type: "snapshotChunk",
    term: 5,
    index: 7,
    snapshotTerm: 3,
    configuration,
    sizeBytes: 20,
    checksum: 0xfedcba98,
    offsetBytes: 15,
    bytes: Buffer.from("piece"),
  },
  { type: "snapshotReply", term: 5, index: 7, offsetBytes: 20 },
  { type: "timeoutNow", term: 5 },
  { type: "repairRequest", term: 5, fromIndex: 3, toIndex: 4 },
  { type: "repairReply", term: 5, entries },
];

test("every message comes back as it was", () => {
  for (const message of samples) {
    const decoded = decodeRaftMessage(Buffer.concat(encodeRaftMessage(message)));
    assert.deepEqual(decoded, { ok: true, message });
  }
});

test("every message shortened or lengthened is malformed", () => {
  for (const message of samples) {
    const bytes = Buffer.concat(encodeRaftMessage(message));
    for (let length = 0; length < bytes.length; length += 1) {
      assert.equal(decodeRaftMessage(bytes.subarray(0, length)).ok, false, message.type);
    }
    assert.equal(decodeRaftMessage(Buffer.concat([bytes, Buffer.alloc(1)])).ok, false);
  }
});

test("junk never throws", () => {
  const mutated = fc.tuple(
    fc.constantFrom(...samples),
    fc.array(fc.tuple(fc.nat(200), fc.nat(255)), { minLength: 1, maxLength: 6 }),
  );
  fc.assert(
    fc.property(mutated, ([message, changes]) => {
      const bytes = Buffer.concat(encodeRaftMessage(message));
      for (const [at, value] of changes) bytes[at % bytes.length] = value;
      decodeRaftMessage(bytes);
    }),
    { numRuns: 3000 },
  );
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      decodeRaftMessage(Buffer.from(bytes));
    }),
    { numRuns: 2000 },
  );
});

test("an append whose entries do not follow each other is malformed", () => {
  const [message] = samples.filter((one) => one.type === "append");
  assert(message?.type === "append");
  for (const wrong of [
    { ...message, entries: [entries[1]!] },
    { ...message, entries: [entries[0]!, { ...entries[1]!, term: 2 }] },
    { ...message, term: 3, entries: [entries[0]!, entries[1]!] },
    { ...message, previousTerm: 9, entries: [] },
  ]) {
    assert.equal(decodeRaftMessage(Buffer.concat(encodeRaftMessage(wrong))).ok, false);
  }
});

test("the formats on the medium stay as they are", () => {
  const state = { term: 7, votedFor: 3, healing: { throughIndex: 9, term: 6 } };
  const hardState = encodeHardState({ sequence: 5, state });
  assert.deepEqual(decodeHardState(hardState), { sequence: 5, state });
  assert.equal(hardState.toString("hex"), golden.hardState);
  const snapshot = { index: 10, term: 4, configuration, data: Buffer.from("state") };
  const file = Buffer.concat(encodeSnapshotFile(snapshot));
  assert.deepEqual(decodeSnapshotFile(file), snapshot);
  assert.equal(file.toString("hex"), golden.snapshot);
  const log = Buffer.concat(encodeRecords(logRecords(), { file: 3, offsetBytes: 64 }));
  assert.equal(log.toString("hex"), golden.log);
});

test("a record is one only where it was written", () => {
  const log = Buffer.concat([
    Buffer.alloc(64),
    ...encodeRecords(logRecords(), { file: 3, offsetBytes: 64 }),
  ]);
  assert.equal(decodeRecord(log, { file: 3, offsetBytes: 64 })?.kind, "begin");
  assert.equal(decodeRecord(log, { file: 4, offsetBytes: 64 }), null);
  assert.equal(decodeRecord(log.subarray(8), { file: 3, offsetBytes: 56 }), null);
});

function logRecords() {
  const work = {
    type: "persist" as const,
    ticket: 1,
    hardState: null,
    snapshot: null,
    resetsLog: false,
    cutAfterIndex: 7,
    repairs: [],
    entries,
    compactThroughIndex: 0,
  };
  return recordsOf([work], 12);
}

const golden = {
  hardState:
    "454e446801000003000000000000000500000000000000070100000000000000000000000000000900000000000000062ab48f92",
  snapshot:
    "454e446e01000000000000000000000a00000000000000040000000e0000000000000005a393d2fb000000009019aef9010000020002000100030002ffff7374617465",
  log: "454e447201040000000000000000000c0000000000000004000000000000000000000030f338ba7f000000037247ee1f000000000000000800000000000000030000000000000001000000000000000900000000000000040000000000000002454e447201030000000000000000000c0000000000000007000000000000000000000000000000000000000345c2a5c3454e447201010300000000000000000c0000000000000008000000000000000300000000000000000000000360cb207c454e447201010200000000000000000c000000000000000900000000000000040000000e665bbe0300000003af47cb27010000020002000100030002ffff0000454e447201010100000000000000000c000000000000000a000000000000000400000007422c6a15000000036a1af99c7061796c6f616400",
};
