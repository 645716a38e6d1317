import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  decodeChunkGet,
  decodeChunkGetReply,
  decodeChunkHas,
  decodeChunkHasReply,
  decodeChunkPut,
  decodeChunkPutReply,
  encodeChunkGet,
  encodeChunkGetReply,
  encodeChunkHas,
  encodeChunkHasReply,
  encodeChunkPut,
  encodeChunkPutReply,
  type GetResult,
  getReplyBytesMax,
  getStatus,
  putStatus,
} from "./chunk-messages.ts";
import { getResults } from "./chunk-service.ts";
import { chunkKey } from "./key.ts";

const keyOf = (seed: number) => chunkKey(Buffer.from([seed]));
const keys = [keyOf(1), keyOf(2), keyOf(3)];

test("a put and its reply come back as they were sent", () => {
  const origin = { branch: 2 ** 40, grain: 2 ** 37, firstSector: 127, sequence: 2 ** 50 };
  const bytes = Buffer.alloc(1024, 7);
  const body = Buffer.concat(
    encodeChunkPut(keyOf(1), origin, [bytes.subarray(0, 9), bytes.subarray(9)], 2 ** 32 - 1),
  );
  const facts = { key: keyOf(1), origin, lengthBytes: bytes.length, gcEpoch: 2 ** 32 - 1 };
  assert.deepEqual(decodeChunkPut([body]), { ...facts, data: [bytes] });
  for (const status of Object.values(putStatus)) {
    assert.equal(decodeChunkPutReply(Buffer.concat(encodeChunkPutReply(status))), status);
  }
  assert.equal(decodeChunkPut([body.subarray(0, body.length - 1)]), null);
  assert.equal(decodeChunkPut([body, Buffer.alloc(1)]), null);
});

test("gets and has-questions come back as they were sent", () => {
  assert.deepEqual(decodeChunkGet(Buffer.concat(encodeChunkGet(keys))), keys);
  assert.deepEqual(decodeChunkHas(Buffer.concat(encodeChunkHas(keys))), keys);
  const results: GetResult[] = [
    { status: getStatus.found, bytes: Buffer.alloc(512, 1) },
    { status: getStatus.absent },
    { status: getStatus.found, bytes: Buffer.alloc(600, 2) },
    { status: getStatus.omitted },
  ];
  assert.deepEqual(decodeChunkGetReply([Buffer.concat(encodeChunkGetReply(results))]), results);
  assert.deepEqual(decodeChunkGetReply(encodeChunkGetReply(results)), results);
  const has = [true, false, false, true, true, false, false, false, true];
  assert.deepEqual(decodeChunkHasReply(Buffer.concat(encodeChunkHasReply(has))), has);
});

test("a reply holds a bounded number of bytes, whoever asks", () => {
  const bytes = Buffer.alloc(getReplyBytesMax / 2 - 1);
  const reads = [1, 2, 3].map(() => ({ ok: true as const, bytes }));
  const statuses = getResults(reads).map((result) => result.status);
  assert.deepEqual(statuses, [getStatus.found, getStatus.found, getStatus.omitted]);
});

test("no received bytes crash a decoder", () => {
  const valid = fc.constantFrom(
    encodeChunkGet(keys),
    encodeChunkHas(keys),
    encodeChunkHasReply([true, false]),
    encodeChunkGetReply([{ status: getStatus.found, bytes: Buffer.alloc(512) }]),
    encodeChunkPut(
      keyOf(1),
      { branch: 1, grain: 1, firstSector: 1, sequence: 1 },
      Buffer.alloc(512),
      7,
    ),
  );
  const decoders = [
    (body: Buffer) => decodeChunkPut([body]),
    decodeChunkPutReply,
    decodeChunkGet,
    (body: Buffer) => decodeChunkGetReply([body]),
    decodeChunkHas,
    decodeChunkHasReply,
  ];
  fc.assert(
    fc.property(valid, fc.nat(80), fc.nat(255), fc.nat(700), (parts, at, value, length) => {
      const body = Buffer.from(Buffer.concat(parts).subarray(0, length));
      if (at < body.length) body[at] = value;
      for (const decode of decoders) decode(body);
    }),
    { numRuns: 500 },
  );
});
