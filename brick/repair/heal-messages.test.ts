import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeChunkHeal, encodeChunkHeal, healKeysMax } from "./heal-messages.ts";

const keys = [1, 2, 3].map((byte) => Buffer.alloc(32, byte));

test("golden bytes of a request to heal, and back", () => {
  const body = Buffer.concat(encodeChunkHeal(keys.slice(0, 1)));
  assert.equal(body.toString("hex"), `0100000100000000${"01".repeat(32)}`);
  assert.deepEqual(decodeChunkHeal(Buffer.concat(encodeChunkHeal(keys))), keys);
});

test("what is not exactly such a request is none", () => {
  const body = Buffer.concat(encodeChunkHeal(keys));
  for (const at of [0, 1, 2, 3, 4, 7]) {
    const changed = Buffer.from(body);
    changed[at]! ^= 0x80;
    assert.equal(decodeChunkHeal(changed), null, `byte ${at}`);
  }
  assert.equal(decodeChunkHeal(body.subarray(0, body.length - 1)), null);
  assert.equal(decodeChunkHeal(body.subarray(0, 7)), null);
  const many = Array.from({ length: healKeysMax + 1 }, () => keys[0]!);
  assert.throws(() => encodeChunkHeal(many));
});
