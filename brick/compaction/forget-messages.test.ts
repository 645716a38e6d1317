import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeMapForget, encodeMapForget } from "./forget-messages.ts";

const forget = { branch: 2 ** 40 + 7, grain: 2 ** 41 + 9 };

test("golden bytes of what a gateway is told to forget, and back", () => {
  const body = Buffer.concat(encodeMapForget(forget));
  assert.equal(body.toString("hex"), "0100000000000100000000070000020000000009");
  assert.deepEqual(decodeMapForget(body), forget);
});

test("what is not exactly that is nothing", () => {
  const body = Buffer.concat(encodeMapForget(forget));
  for (const at of [0, 1, 3, 4, 5, 12, 13]) {
    const changed = Buffer.from(body);
    changed[at]! ^= 0x80;
    assert.equal(decodeMapForget(changed), null, `byte ${at}`);
  }
  assert.equal(decodeMapForget(body.subarray(1)), null);
});
