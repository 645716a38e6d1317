import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { getStatus } from "./chunk-messages.ts";
import {
  decodeSliceReply,
  decodeSliceRequest,
  encodeSliceReply,
  encodeSliceRequest,
  type SliceResult,
} from "./slice-messages.ts";

const wishes = [
  { key: randomBytes(32), first: 0, count: 1, withOutline: true },
  { key: randomBytes(32), first: 15, count: 1, withOutline: false },
  { key: randomBytes(32), first: 3, count: 13, withOutline: false },
];

const results: SliceResult[] = [
  { status: getStatus.found, outline: randomBytes(512), bytes: randomBytes(4096) },
  { status: getStatus.absent },
  { status: getStatus.found, outline: null, bytes: randomBytes(8192) },
  { status: getStatus.io },
];

test("requests and replies come out as they went in", () => {
  assert.deepEqual(decodeSliceRequest(Buffer.concat(encodeSliceRequest(wishes))), wishes);
  assert.deepEqual(decodeSliceReply(Buffer.concat(encodeSliceReply(results))), results);
});

test("what is not exactly a message is none", () => {
  const request = Buffer.concat(encodeSliceRequest(wishes));
  const reply = Buffer.concat(encodeSliceReply(results));
  for (let length = 0; length < request.length; length += 1) {
    assert.equal(decodeSliceRequest(request.subarray(0, length)), null);
  }
  for (let length = 0; length < reply.length; length += 61) {
    assert.equal(decodeSliceReply(reply.subarray(0, length)), null);
  }
  const changed = (body: Buffer, at: number, to: number) => {
    const copy = Buffer.from(body);
    copy[at] = to;
    return copy;
  };
  // Version, count, first slice beyond the last, no slices, unknown flag, reserved byte.
  for (const [at, to] of [
    [0, 2],
    [1, 0],
    [1, 65],
    [36, 16],
    [37, 0],
    [38, 2],
    [39, 1],
  ] as const) {
    assert.equal(decodeSliceRequest(changed(request, at, to)), null, `byte ${at} = ${to}`);
  }
  // Version, count, unknown status, reserved byte, a length where nothing was found.
  for (const [at, to] of [
    [0, 2],
    [1, 0],
    [4, 9],
    [5, 1],
    [19, 1],
  ] as const) {
    assert.equal(decodeSliceReply(changed(reply, at, to)), null, `byte ${at} = ${to}`);
  }
  assert.equal(decodeSliceReply(Buffer.concat([reply, Buffer.alloc(1)])), null);
});
