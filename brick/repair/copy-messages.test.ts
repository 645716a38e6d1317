import assert from "node:assert/strict";
import { test } from "node:test";
import { Prng } from "../prng.ts";
import {
  decodeChunkCopy,
  decodeChunkCopyReply,
  encodeChunkCopy,
  encodeChunkCopyReply,
} from "./copy-messages.ts";

const key = new Prng(1).fill(Buffer.alloc(32));

test("a request to copy comes back as it was, and is its bytes to the letter", () => {
  for (const urgency of ["repair", "balance"] as const) {
    const request = { key, sources: [3, 65_535], gcEpoch: 7, urgency };
    const body = Buffer.concat(encodeChunkCopy(request));
    assert.deepEqual(decodeChunkCopy(body), request);
    const head = urgency === "repair" ? "0200000000000007" : "0201000000000007";
    assert.equal(body.toString("hex"), `${head}${key.toString("hex")}0003ffff`);
  }
});

test("what is no such request is not taken for one", () => {
  const body = Buffer.concat(encodeChunkCopy({ key, sources: [3], gcEpoch: 7, urgency: "repair" }));
  assert.equal(decodeChunkCopy(body.subarray(0, -1)), null);
  assert.equal(decodeChunkCopy(Buffer.concat([body, Buffer.alloc(2)])), null);
  assert.equal(decodeChunkCopy(Buffer.alloc(0)), null);
  body[1] = 2;
  assert.equal(decodeChunkCopy(body), null);
});

test("its answer says how much travelled, or that it could not be done", () => {
  for (const bytes of [0, 512, 65_536, null]) {
    assert.equal(decodeChunkCopyReply(Buffer.concat(encodeChunkCopyReply(bytes))), bytes);
  }
  assert.equal(decodeChunkCopyReply(Buffer.alloc(7)), null);
});
