import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { ChunkCache, outlinePart, slicesPart } from "./chunk-cache.ts";

const keyOf = (number: number) => Buffer.alloc(32, number);

/** Many keys that are looked for at the same places. */
const crowdedKeyOf = (number: number) => Buffer.alloc(32, number).fill(number % 3, 0, 4);

test("holds at most its bytes, and what it returns is what was put", () => {
  const step = fc.record({
    put: fc.boolean(),
    number: fc.nat(250),
    lengthBytes: fc.integer({ min: 1, max: 5000 }),
  });
  fc.assert(
    fc.property(
      fc.array(step, { maxLength: 600, size: "max" }),
      fc.nat(400_000),
      (steps, bytesMax) => {
        const cache = new ChunkCache(bytesMax);
        const model = new Map<number, Buffer>();
        for (const { put, number, lengthBytes } of steps) {
          if (put) {
            const bytes = model.get(number) ?? Buffer.alloc(lengthBytes, number);
            model.set(number, bytes);
            cache.put(crowdedKeyOf(number), bytes);
          } else {
            const found = cache.get(crowdedKeyOf(number));
            if (found !== undefined) assert.ok(found.equals(model.get(number)!));
          }
          assert.ok(cache.bytes <= bytesMax);
        }
        let found = 0;
        for (const [number, bytes] of model) {
          if (cache.has(crowdedKeyOf(number))) found += bytes.length + 256;
        }
        assert.equal(found, cache.bytes);
      },
    ),
  );
});

const put = (cache: ChunkCache, number: number) =>
  cache.put(keyOf(number), Buffer.alloc(1200, number));
const holds = (cache: ChunkCache, number: number) => cache.get(keyOf(number)) !== undefined;

test("what was asked for is spared when the oldest go", () => {
  const cache = new ChunkCache(40 * 1500);
  for (let number = 1; number <= 40; number += 1) put(cache, number);
  assert.ok(holds(cache, 1));
  for (const number of [41, 42]) put(cache, number);
  assert.ok(holds(cache, 1) && holds(cache, 40));
  assert.ok(!holds(cache, 2) && !holds(cache, 3));
});

test("once it has been full, what comes once pushes nothing out, and what comes again is kept", () => {
  const cache = new ChunkCache(40 * 1500);
  for (let number = 1; number <= 42; number += 1) put(cache, number);
  const kept = [];
  for (let number = 1; number <= 42; number += 1) if (holds(cache, number)) kept.push(number);
  for (let number = 50; number < 250; number += 1) put(cache, number);
  for (const number of kept) assert.ok(holds(cache, number), `${number} was pushed out`);
  assert.ok(!holds(cache, 60));
  put(cache, 60);
  assert.ok(holds(cache, 60));
});

test("outlines are kept at once, and parts of a chunk are told apart", () => {
  const cache = new ChunkCache(40 * 1500);
  for (let number = 1; number <= 42; number += 1) put(cache, number);
  cache.put(keyOf(99), Buffer.alloc(512, 1), outlinePart);
  assert.equal(cache.get(keyOf(99), outlinePart)?.length, 512);
  for (const _ of [1, 2]) cache.put(keyOf(99), Buffer.alloc(1024, 2), slicesPart(3, 1));
  assert.equal(cache.get(keyOf(99), slicesPart(3, 1))?.length, 1024);
  assert.equal(cache.get(keyOf(99), slicesPart(3, 2)), undefined);
  assert.equal(cache.get(keyOf(99)), undefined);
});

test("does not pin a large receive buffer for a small chunk", () => {
  const cache = new ChunkCache(1 << 20);
  const received = Buffer.alloc(1 << 20, 9);
  cache.put(keyOf(1), received.subarray(4096, 8192));
  assert.ok(cache.get(keyOf(1))!.buffer.byteLength < 10_000);
});
