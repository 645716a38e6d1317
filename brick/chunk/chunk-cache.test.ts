import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { ChunkCache } from "./chunk-cache.ts";

const keyOf = (number: number) => Buffer.alloc(32, number);

test("holds at most its bytes, and what it returns is what was put", () => {
  const step = fc.record({
    put: fc.boolean(),
    number: fc.nat(30),
    lengthBytes: fc.integer({ min: 1, max: 5000 }),
  });
  fc.assert(
    fc.property(
      fc.array(step, { maxLength: 200, size: "max" }),
      fc.nat(20_000),
      (steps, bytesMax) => {
        const cache = new ChunkCache(bytesMax);
        const model = new Map<number, Buffer>();
        for (const { put, number, lengthBytes } of steps) {
          if (put) {
            const bytes = model.get(number) ?? Buffer.alloc(lengthBytes, number);
            model.set(number, bytes);
            cache.put(keyOf(number), bytes);
          } else {
            const found = cache.get(keyOf(number));
            if (found !== undefined) assert.ok(found.equals(model.get(number)!));
          }
          assert.ok(cache.bytes <= bytesMax);
        }
      },
    ),
  );
});

test("the least recently used goes first", () => {
  const cache = new ChunkCache(3 * 1500);
  for (const number of [1, 2, 3]) cache.put(keyOf(number), Buffer.alloc(1200, number));
  assert.ok(cache.get(keyOf(1)));
  cache.put(keyOf(4), Buffer.alloc(1200, 4));
  assert.equal(cache.get(keyOf(2)), undefined);
  for (const number of [1, 3, 4]) assert.ok(cache.get(keyOf(number)));
});

test("does not pin a large receive buffer for a small chunk", () => {
  const cache = new ChunkCache(1 << 20);
  const received = Buffer.alloc(1 << 20, 9);
  cache.put(keyOf(1), received.subarray(4096, 8192));
  assert.ok(cache.get(keyOf(1))!.buffer.byteLength < 10_000);
});
