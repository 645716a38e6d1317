import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { chunkKey } from "./key.ts";
import { areSlicesOf, isOutlineOf, isSliced, outlineOf, sliceBytes } from "./outline.ts";

const sizes = Array.from({ length: 13 }, (_, at) => (at + 4) * sliceBytes);

test("the outline of a chunk of any length hashes to its key, and to no other", () => {
  for (const size of sizes) {
    const chunk = randomBytes(size);
    const outline = outlineOf(chunk);
    assert.equal(outline.length, (size / sliceBytes) * 32);
    assert.ok(isOutlineOf(outline, chunkKey(chunk)), `${size} B`);
    assert.ok(!isOutlineOf(outline, chunkKey(randomBytes(size))));
    for (let at = 0; at < outline.length; at += 7) {
      const changed = Buffer.from(outline);
      changed[at]! ^= 1 << (at % 8);
      assert.ok(!isOutlineOf(changed, chunkKey(chunk)), `byte ${at} of the outline of ${size} B`);
    }
  }
});

test("slices are proven by the outline, in their place only", () => {
  for (const size of sizes) {
    const chunk = randomBytes(size);
    const outline = outlineOf(chunk);
    const count = size / sliceBytes;
    for (let first = 0; first < count; first += 1) {
      const length = 1 + (first % Math.min(3, count - first));
      const bytes = Buffer.from(chunk.subarray(first * sliceBytes, (first + length) * sliceBytes));
      assert.ok(areSlicesOf(outline, first, bytes));
      assert.ok(!areSlicesOf(outline, (first + 1) % count, bytes));
      bytes[(first * 997) % bytes.length]! ^= 0x10;
      assert.ok(!areSlicesOf(outline, first, bytes));
    }
  }
});

test("what no outline can prove is refused", () => {
  const chunk = randomBytes(8 * sliceBytes);
  const outline = outlineOf(chunk);
  const key = chunkKey(chunk);
  assert.ok(!isOutlineOf(outline.subarray(0, 7 * 32), key));
  assert.ok(!isOutlineOf(outline.subarray(0, 33), key));
  assert.ok(!isOutlineOf(Buffer.concat([outline, outline, outline]), key));
  assert.ok(!areSlicesOf(outline, 0, chunk.subarray(0, 100)));
  assert.ok(!areSlicesOf(outline, 8, chunk.subarray(0, sliceBytes)));
  assert.ok(!areSlicesOf(outline, 7, chunk.subarray(7 * sliceBytes - sliceBytes)));
  assert.ok(!areSlicesOf(outline, -1, chunk.subarray(0, sliceBytes)));
  assert.deepEqual([512, 4096, 16384, 16896, 65536, 69632].map(isSliced), [
    false,
    false,
    true,
    false,
    true,
    false,
  ]);
});
