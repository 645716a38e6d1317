import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { crc32 } from "../crc32.ts";
import type { Message } from "../host.ts";
import {
  decodeFrameHeader,
  encodeFrameHeader,
  type Frame,
  FrameReader,
  frameHeaderBytes,
  messageBodyBytesMax,
  receiveSlabBytes,
} from "./frame.ts";
import { giveBack, lentBytesMin } from "./lent-memory.ts";

function frame(message: Message, from: number): Buffer {
  const header = Buffer.alloc(frameHeaderBytes, 0xee);
  encodeFrameHeader(message, from, header, 0);
  return Buffer.concat([header, ...message.body]);
}

/** Feeds the bytes in pieces of the sizes given, over and over. */
function read(reader: FrameReader, bytes: Buffer, pieces: readonly number[]) {
  const frames: Frame[] = [];
  for (let at = 0, turn = 0; at < bytes.length; turn += 1) {
    const room = reader.room();
    assert.ok(room.length > 0);
    const piece = bytes.subarray(at, at + Math.min(pieces[turn % pieces.length]!, room.length));
    piece.copy(room);
    reader.filled(piece.length);
    at += piece.length;
    for (let next = reader.next(); next !== null; next = reader.next()) {
      if ("code" in next) return { frames, fault: next };
      frames.push(next);
    }
  }
  return { frames, fault: null };
}

test("the header's bytes are as documented", () => {
  const body = [Buffer.from("ab"), Buffer.from("c")];
  const bytes = frame(
    { type: 0x0102, request: 0x03040506, reply: true, boot: 2 ** 33 + 7, body },
    9,
  );
  assert.equal(
    bytes.toString("hex"),
    "454e446601010102" + // magic, version, flags, type
      "0304050600090000" + // request, from, zero
      "0000000200000007" + // boot
      "00000003352441c2" + // body length, CRC-32 of "abc"
      "000000000000000000000000" +
      "4eca3e3f616263",
  );
});

test("frames come back whole, however the stream is cut", () => {
  const message = fc.record({
    type: fc.integer({ min: 1, max: 0xffff }),
    request: fc.nat(0xffffffff),
    reply: fc.boolean(),
    boot: fc.maxSafeNat(),
    bodyBytes: fc.oneof(fc.nat(200), fc.nat(70_000)),
  });
  const pieces = fc.array(fc.oneof(fc.integer({ min: 1, max: 60 }), fc.nat(60_000)), {
    minLength: 1,
  });
  fc.assert(
    fc.property(fc.array(message, { maxLength: 12 }), pieces, (facts, sizes) => {
      const messages = facts.map(({ bodyBytes, ...rest }, at) => ({
        ...rest,
        body: [Buffer.alloc(bodyBytes, at + 1)],
      }));
      const stream = Buffer.concat(messages.map((each) => frame(each, 3)));
      const { frames, fault } = read(new FrameReader(), stream, [...sizes, 1]);
      assert.equal(fault, null);
      assert.equal(frames.length, messages.length);
      // Compared after all have come: bodies must not be overwritten by later ones.
      for (const [at, { header, body }] of frames.entries()) {
        const sent = messages[at]!;
        const { type, request, reply, boot } = sent;
        const { bodyCrc: _, ...facts } = header;
        const bodyBytes = sent.body[0]!.length;
        assert.deepEqual(facts, { type, request, reply, boot, from: 3, bodyBytes });
        assert.ok(body.equals(sent.body[0]!));
      }
    }),
    { numRuns: 60 },
  );
});

test("the longest body passes, and crosses slabs", () => {
  const body = Buffer.alloc(messageBodyBytesMax, 5);
  assert.ok(body.length > receiveSlabBytes);
  const message = { type: 1, request: 1, reply: false, boot: 1, body: [body] };
  const stream = Buffer.concat([frame(message, 1), frame(message, 1), frame(message, 1)]);
  const { frames } = read(new FrameReader(), stream, [65_536]);
  assert.equal(frames.length, 3);
  for (const each of frames) assert.ok(each.body.equals(body));
});

test("a long body is alone in its memory, which can be given back without harm to others", () => {
  const sizes = [10, lentBytesMin, 300, lentBytesMin - 1, 2 * lentBytesMin, 3 * lentBytesMin, 5];
  const bodies = sizes.map((size, at) => Buffer.alloc(size, at + 1));
  const messages = bodies.map((body, at) => {
    return { type: 1, request: at, reply: false, boot: 1, body: [body] };
  });
  const stream = Buffer.concat(messages.map((message) => frame(message, 1)));
  for (const pieces of [[stream.length], [4096], [100_000, 7]]) {
    const { frames } = read(new FrameReader(), stream, pieces);
    assert.deepEqual(
      frames.map(({ lent }) => lent),
      sizes.map((size) => size >= lentBytesMin),
    );
    for (const { body, lent } of frames) if (lent) giveBack(body);
    for (const [at, { body, lent }] of frames.entries()) {
      if (lent) assert.equal(body.length, 0);
      else assert.ok(body.equals(bodies[at]!));
    }
  }
});

test("any flipped bit is a fault, never another frame", () => {
  const bytes = frame(
    { type: 7, request: 8, reply: false, boot: 9, body: [Buffer.from("some body")] },
    2,
  );
  for (let bit = 0; bit < bytes.length * 8; bit += 1) {
    const bad = Buffer.from(bytes);
    bad[bit >> 3]! ^= 1 << (bit & 7);
    const { frames, fault } = read(new FrameReader(), bad, [1000]);
    assert.equal(frames.length, 0);
    assert.ok(fault !== null);
  }
});

test("a header with a right checksum and wrong facts is a fault", () => {
  const message = { type: 1, request: 1, reply: false, boot: 1, body: [] };
  const damaged = (at: number, value: number) => {
    const header = frame(message, 1);
    header[at] = value;
    header.writeUInt32BE(crc32(header.subarray(0, 44)), 44);
    return decodeFrameHeader(header, 0);
  };
  assert.ok(!("code" in damaged(5, 0)));
  assert.deepEqual(damaged(4, 2), { code: "frame_version", version: 2 });
  assert.deepEqual(damaged(5, 2), { code: "frame_reserve" });
  assert.deepEqual(damaged(40, 1), { code: "frame_reserve" });
  assert.deepEqual(damaged(16, 1), { code: "frame_boot" });
  assert.deepEqual(damaged(24, 1), { code: "frame_too_long", lengthBytes: 2 ** 24 });
  const tooLong = { ...message, body: [Buffer.alloc(messageBodyBytesMax + 1)] };
  assert.throws(() => frame(tooLong, 1));
});
