import assert from "node:assert/strict";
import { test } from "node:test";
import { messageBodyBytesMax } from "../rpc/frame.ts";
import { putStatus } from "./chunk-messages.ts";
import { chunkBytesMax, chunkKey } from "./key.ts";
import {
  type ChunkToPut,
  decodeChunkPuts,
  decodeChunkPutsReply,
  encodeChunkPuts,
  encodeChunkPutsReply,
  putsMax,
} from "./puts-messages.ts";

function chunkToPut(seed: number, lengthBytes: number): ChunkToPut {
  const bytes = Buffer.alloc(lengthBytes, seed);
  const cut = lengthBytes / 4;
  return {
    key: chunkKey(bytes),
    origin: { branch: 2 ** 40 + seed, grain: seed, firstSector: 127, sequence: 2 ** 50 },
    data: [bytes.subarray(0, cut), bytes.subarray(cut)],
    lengthBytes,
  };
}

test("several puts come back as they were sent, and as many as one message holds", () => {
  for (const count of [1, 2, putsMax]) {
    const sent = Array.from({ length: count }, (_, at) => {
      return chunkToPut(at, at % 2 === 0 ? chunkBytesMax : 512);
    });
    const body = Buffer.concat(encodeChunkPuts(sent, 2 ** 32 - 1));
    const received = sent.map(({ key, origin, data, lengthBytes }) => {
      return { key, origin, data: [Buffer.concat(data)], lengthBytes, gcEpoch: 2 ** 32 - 1 };
    });
    assert.deepEqual(decodeChunkPuts([body]), received);
    // To this brick itself they come in parts, whose data are not copied.
    const own = decodeChunkPuts(encodeChunkPuts(sent, 2 ** 32 - 1))!;
    for (const [at, { data }] of own.entries()) {
      assert.deepEqual(data, sent[at]!.data);
      assert.equal(data[0]!.buffer, sent[at]!.data[0]!.buffer);
    }
  }
  const largest = Array.from({ length: putsMax }, (_, at) => chunkToPut(at, chunkBytesMax));
  assert.ok(Buffer.concat(encodeChunkPuts(largest, 0)).length <= messageBodyBytesMax);
});

test("the bytes of two puts are laid out as docs/formats.md says", () => {
  const body = Buffer.concat(encodeChunkPuts([chunkToPut(1, 512), chunkToPut(2, 1024)], 7));
  const key = (seed: number, length: number) =>
    chunkKey(Buffer.alloc(length, seed)).toString("hex");
  const head = [
    "01 02 0000 00000007",
    `${key(1, 512)}0000010000000001 0000000000000001 0004000000000000 007f 0000 00000200`,
    `${key(2, 1024)}0000010000000002 0000000000000002 0004000000000000 007f 0000 00000400`,
  ];
  const expected = Buffer.from(head.join("").replaceAll(" ", ""), "hex");
  assert.deepEqual(body.subarray(0, expected.length), expected);
  const bytes = Buffer.concat([Buffer.alloc(512, 1), Buffer.alloc(1024, 2)]);
  assert.deepEqual(body.subarray(expected.length), bytes);
  const reply = Buffer.concat(encodeChunkPutsReply([putStatus.stored, putStatus.noSpace]));
  assert.equal(reply.toString("hex"), "010200000002");
});

test("what is not exactly so is refused", () => {
  const body = Buffer.concat(encodeChunkPuts([chunkToPut(1, 512), chunkToPut(2, 1024)], 7));
  const changed = (at: number, value: number) => {
    const copy = Buffer.from(body);
    copy[at] = value;
    return copy;
  };
  assert.equal(decodeChunkPuts([body.subarray(0, body.length - 1)]), null);
  assert.equal(decodeChunkPuts([Buffer.concat([body, Buffer.alloc(1)])]), null);
  assert.equal(decodeChunkPuts([Buffer.alloc(0)]), null);
  // Version; count: none, one fewer, too many; a length too small, too large, too large for the body.
  for (const [at, value] of [
    [0, 2],
    [1, 0],
    [1, 1],
    [1, 17],
    [70, 1],
    [69, 1],
    [70, 3],
  ] as const) {
    assert.equal(decodeChunkPuts([changed(at, value)]), null, `byte ${at} = ${value}`);
  }
  for (let length = 0; length < body.length; length += 37) {
    assert.equal(decodeChunkPuts([body.subarray(0, length)]), null);
  }
  const reply = Buffer.concat(encodeChunkPutsReply([0, 1, 2, 3, 4]));
  assert.deepEqual(decodeChunkPutsReply(reply), [0, 1, 2, 3, 4]);
  assert.equal(decodeChunkPutsReply(reply.subarray(0, 8)), null);
  reply[6] = 5;
  assert.equal(decodeChunkPutsReply(reply), null);
});
