import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import type { Kv } from "../host.ts";
import { newSegment, type Segments } from "../log/segments.ts";
import { indexEnd, indexStart } from "../store/store-keys.ts";
import { TraceHost } from "../store/trace-disk.ts";
import { ChunkIndex, keyName } from "./chunk-index.ts";

const keyOf = (number: number) => createHash("sha256").update(String(number)).digest();
const entryOf = (number: number) => {
  return { segment: 1, epoch: 1, offsetBytes: 4096 * number, lengthBytes: 4096, damaged: false };
};
const segments = {
  byNumber: new Map([[1, newSegment(1)]]),
  addLive: () => {},
} as unknown as Segments;

/** Counts the look-ups that reach it. */
async function countedKv(): Promise<{ kv: Kv; gets: () => number }> {
  const kv = await new TraceHost().disk.openKv("index");
  let gets = 0;
  const get = (key: Buffer) => {
    gets += 1;
    return kv.get(key);
  };
  return { kv: { ...kv, get }, gets: () => gets };
}

function checkpoint(index: ChunkIndex, kv: Kv): void {
  kv.write(index.collect(), { sync: true });
  index.collected();
}

test("once it has learnt its keys, the index knows what it does not have without a look-up", async () => {
  const { kv, gets } = await countedKv();
  const first = new ChunkIndex(kv, segments, { count: 0, bytes: 0 });
  for (let number = 0; number < 100; number += 1) {
    first.set(keyName(keyOf(number)), entryOf(number), null);
  }
  checkpoint(first, kv);

  const index = new ChunkIndex(kv, segments, { count: 100, bytes: 409_600 });
  const before = gets();
  assert.equal(index.find(keyOf(1000)), null);
  assert.equal(gets() - before, 1, "it has learnt nothing yet");
  // Between two steps keys come and go, and a checkpoint moves them behind the place it is at.
  let steps = 0;
  for (let number = 100; index.learn(7); number += 1) {
    index.set(keyName(keyOf(number)), entryOf(number), null);
    index.remove(keyName(keyOf(number - 50)), entryOf(number - 50));
    if (number % 3 === 0) checkpoint(index, kv);
    steps += 1;
  }
  assert.ok(steps >= 10 && !index.wantsToLearn);
  const learnt = gets();
  let absent = 0;
  for (let number = 0; number < 100 + steps; number += 1) {
    const removed = number >= 50 && number < 50 + steps;
    const found = index.find(keyOf(number));
    if (removed) assert.equal(found, null);
    else assert.deepEqual(found, entryOf(number));
  }
  const keys = Array.from({ length: 200 + steps }, (_, number) => keyOf(number));
  assert.deepEqual(
    index.findMany(keys),
    keys.map((key) => index.find(key)),
  );
  for (const [kvKey, value] of kv.range(indexStart, indexEnd, 1000)) {
    const key = kvKey.subarray(1);
    assert.deepEqual(index.findStored(keyName(key), value), index.find(key));
  }
  for (let number = 1000; number < 2000; number += 1) {
    if (index.find(keyOf(number)) === null) absent += 1;
  }
  assert.equal(absent, 1000);
  assert.ok(gets() - learnt < 100 + steps + 50, `${gets() - learnt} look-ups`);
});
