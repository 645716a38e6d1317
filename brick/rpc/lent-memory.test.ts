import assert from "node:assert/strict";
import { test } from "node:test";
import { giveBack, LentMemory } from "./lent-memory.ts";

test("what is given back is empty, in every view of it", () => {
  const bytes = Buffer.allocUnsafeSlow(100).fill(7);
  const views = [bytes.subarray(0, 10), bytes.subarray(50), new Uint8Array(bytes.buffer)];
  giveBack(bytes);
  for (const view of [bytes, ...views]) assert.equal(view.length, 0);
});

test("a part of memory is not given back: others have the rest", () => {
  const bytes = Buffer.allocUnsafeSlow(100);
  assert.throws(() => giveBack(bytes.subarray(0, 50)));
  assert.throws(() => giveBack(bytes.subarray(50)));
  assert.equal(bytes.length, 100);
  giveBack(bytes);
  assert.throws(() => giveBack(bytes));
});

test("the last one to release gives all of it back, once", () => {
  const memory = new LentMemory();
  const given: number[] = [];
  memory.add(() => given.push(1));
  memory.add(() => given.push(2));
  memory.hold();
  memory.release();
  assert.deepEqual(given, []);
  memory.release();
  assert.deepEqual(given, [1, 2]);
  assert.throws(() => memory.release());
  assert.throws(() => memory.hold());
  assert.throws(() => memory.add(() => {}));
});
