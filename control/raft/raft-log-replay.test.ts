import assert from "node:assert/strict";
import { test } from "node:test";
import {
  decodeTail,
  encodeRecords,
  encodeTail,
  recordsOf,
  type Tail,
  tailSlotBytes,
} from "./raft-log-format.ts";
import { replayLog, unknownIndex } from "./raft-log-replay.ts";
import type { Entry, PersistEffect } from "./raft-types.ts";

const nothing = { index: 0, term: 0 };

function entries(first: number, terms: readonly number[]): Entry[] {
  return terms.map((term, at) => {
    const index = first + at;
    return { index, term, kind: "command", payload: Buffer.from(`${index}.${term}`) };
  });
}

/** One file with these batches; a null leaves its number out. */
function fileOf(batches: readonly (readonly Entry[] | null)[]): Buffer {
  let bytes = Buffer.alloc(0);
  for (const [at, batch] of batches.entries()) {
    if (batch === null) continue;
    const work: PersistEffect = {
      type: "persist",
      ticket: 1,
      hardState: null,
      snapshot: null,
      resetsLog: false,
      cutAfterIndex: null,
      repairs: [],
      entries: batch,
      compactThroughIndex: 0,
    };
    const records = recordsOf([work], at + 1);
    bytes = Buffer.concat([
      bytes,
      ...encodeRecords(records, { file: 1, offsetBytes: bytes.length }),
    ]);
  }
  return bytes;
}

function replay(bytes: Buffer, latest: Tail, isLast = true) {
  return replayLog([{ number: 1, bytes }], { latest, isLast }, nothing);
}

test("a last batch that is bad and was not flushed is a torn tail", () => {
  const good = fileOf([entries(1, [1, 1])]);
  const bytes = fileOf([entries(1, [1, 1]), entries(3, [1])]);
  bytes[bytes.length - 6]! ^= 1;
  const { torn, log, mustRestart, nextBatch } = replay(bytes, {
    batch: 1,
    lastIndex: 2,
    lastTerm: 1,
  });
  assert.deepEqual(torn, { file: 1, atBytes: good.length });
  assert.deepEqual(log, entries(1, [1, 1]));
  assert.equal(mustRestart, false);
  assert.equal(nextBatch, 2);
});

test("the same bad batch is damage when it was flushed", () => {
  const bytes = fileOf([entries(1, [1, 1]), entries(3, [1])]);
  bytes[bytes.length - 6]! ^= 1;
  const { torn, log } = replay(bytes, { batch: 2, lastIndex: 3, lastTerm: 1 });
  assert.equal(torn, null);
  assert.deepEqual(log, [...entries(1, [1, 1]), { index: 3, term: 1 }]);
});

test("a bad batch that good ones follow is damage", () => {
  const bytes = fileOf([entries(1, [1, 1]), entries(3, [1]), entries(4, [1])]);
  const at = bytes.indexOf("3.1");
  bytes[at]! ^= 1;
  const { torn, log, lostThroughIndex } = replay(bytes, { batch: 3, lastIndex: 4, lastTerm: 1 });
  assert.equal(torn, null);
  assert.equal(lostThroughIndex, null);
  assert.deepEqual(log, [...entries(1, [1, 1]), { index: 3, term: 1 }, ...entries(4, [1])]);
});

test("entries that are missing between two of one term are known to be of that term", () => {
  const bytes = fileOf([entries(1, [1, 1]), null, entries(5, [1])]);
  const { log, lostThroughIndex } = replay(bytes, { batch: 3, lastIndex: 5, lastTerm: 1 });
  assert.equal(lostThroughIndex, null);
  const holes = [3, 4].map((index) => ({ index, term: 1 }));
  assert.deepEqual(log, [...entries(1, [1, 1]), ...holes, ...entries(5, [1])]);
});

test("where the term changed across a missing batch, what is before it may have been voided", () => {
  // The missing batch had entry 3 of term 2.
  const bytes = fileOf([entries(1, [1, 1, 1]), null, entries(4, [2])]);
  const { log, lostThroughIndex } = replay(bytes, { batch: 3, lastIndex: 4, lastTerm: 2 });
  assert.equal(lostThroughIndex, 4);
  assert.deepEqual(log, entries(1, [1, 1, 1]));
});

test("a flushed batch of which nothing is left is missed", () => {
  const bytes = fileOf([entries(1, [1, 1])]);
  const same = replay(bytes, { batch: 2, lastIndex: 4, lastTerm: 1 });
  assert.deepEqual(same.log, [...entries(1, [1, 1]), { index: 3, term: 1 }, { index: 4, term: 1 }]);
  const later = replay(bytes, { batch: 2, lastIndex: 4, lastTerm: 2 });
  assert.equal(later.lostThroughIndex, 4);
});

test("a damaged end of the log is lost without a bound where the tail may have known of more", () => {
  const bytes = fileOf([entries(1, [1, 1]), entries(3, [1])]);
  bytes.fill(0x55, fileOf([entries(1, [1, 1])]).length);
  const before = { batch: 1, lastIndex: 2, lastTerm: 1 };
  // Not torn, and no hole that the others fill: what was acknowledged there may have been any.
  const { torn, log, lostThroughIndex } = replay(bytes, before, false);
  assert.deepEqual([torn, lostThroughIndex], [null, unknownIndex]);
  assert.deepEqual(log, entries(1, [1, 1]));
  assert.notEqual(replay(bytes, before).torn, null);
});

test("a tail that is more than one batch behind the log was damaged", () => {
  const bytes = fileOf([entries(1, [1]), entries(2, [1]), entries(3, [1])]);
  bytes.fill(0x55, fileOf([entries(1, [1]), entries(2, [1])]).length);
  const blank = { batch: 0, lastIndex: 0, lastTerm: 0 };
  assert.equal(replay(bytes, blank).lostThroughIndex, unknownIndex);
});

test("the tail is the later slot, and the last one only beside the one before it", () => {
  const tailOf = (batch: number): Tail => ({ batch, lastIndex: 10 * batch, lastTerm: 1 });
  const fileOfSlots = (...batches: readonly (number | "damaged" | null)[]) => {
    const bytes = Buffer.alloc(2 * tailSlotBytes);
    for (const [at, batch] of batches.entries()) {
      const from = at * tailSlotBytes;
      if (batch !== null) encodeTail(tailOf(batch === "damaged" ? 1 : batch)).copy(bytes, from);
      if (batch === "damaged") bytes[from + 9]! ^= 1;
    }
    return bytes;
  };
  const found = (...batches: readonly (number | "damaged" | null)[]) => {
    const { latest, isLast } = decodeTail(fileOfSlots(...batches));
    return [latest.batch, isLast];
  };
  assert.deepEqual(decodeTail(Buffer.alloc(0)).isLast, true);
  assert.deepEqual(found(null, null), [0, true]);
  assert.deepEqual(found(null, 1), [1, true]);
  assert.deepEqual(found(2, 1), [2, true]);
  assert.deepEqual(found(2, 3), [3, true]);
  assert.deepEqual(found(2, null), [2, false]);
  assert.deepEqual(found(null, 3), [3, false]);
  assert.deepEqual(found("damaged", 1), [1, false]);
  assert.deepEqual(found(4, "damaged"), [4, false]);
  assert.deepEqual(found(6, 3), [6, false]);
});
