import assert from "node:assert/strict";
import { test } from "node:test";
import type { KvChange } from "./host.ts";
import { decodeBatch, encodeBatch } from "./kv-batch.ts";
import { Prng } from "./prng.ts";

test("a batch is read as it was written, empty values and removed keys included", () => {
  const prng = new Prng(5);
  const bytes = (length: number) => Buffer.alloc(length, prng.between(0, 255));
  for (let round = 0; round < 50; round += 1) {
    const changes: KvChange[] = [];
    for (let left = prng.between(0, 40); left > 0; left -= 1) {
      const value = prng.chance(0.3) ? null : bytes(prng.pick([0, 1, 28, 300]));
      changes.push({ key: bytes(prng.between(1, 40)), value });
    }
    assert.deepEqual([...decodeBatch(encodeBatch(changes))], changes);
  }
});

test("a batch that ends within a change is refused", () => {
  const whole = encodeBatch([{ key: Buffer.from("key"), value: Buffer.from("value") }]);
  assert.throws(() => [...decodeBatch(whole.slice(0, whole.byteLength - 1))]);
});
