import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { giveBack, lentBytesMin } from "../brick/rpc/lent-memory.ts";
import { crc32c } from "./crc32c.ts";
import { Outbox } from "./outbox.ts";
import {
  bhsBytes,
  commandCdb,
  common,
  dataIn,
  decode,
  decodeAhs,
  encode,
  encodeAhs,
  type Layout,
  layouts,
  nopOut,
  scsiCommand,
} from "./pdu.ts";
import { type Pdu, PduStream } from "./pdu-stream.ts";
import { serialAdd, serialLess, serialWithin } from "./serial32.ts";

test("CRC32C of RFC 3720's examples", () => {
  // RFC 3720 B.4 prints the digests as their bytes stand on the wire.
  assert.equal(crc32c(Buffer.alloc(32)), 0x8a9136aa);
  assert.equal(crc32c(Buffer.alloc(32, 0xff)), 0x62a8ab43);
  assert.equal(crc32c(Buffer.from(Array.from({ length: 32 }, (_, at) => at))), 0x46dd794e);
  assert.equal(crc32c(Buffer.from(Array.from({ length: 32 }, (_, at) => 31 - at))), 0x113fdb5c);
  assert.equal(crc32c(Buffer.from("123456789")), 0xe3069283);
});

test("CRC32C in pieces is CRC32C of the whole", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 1000 }), fc.nat(1000), (given, cut) => {
      const bytes = Buffer.from(given);
      const whole = crc32c(bytes);
      assert.equal(crc32c(bytes.subarray(cut), crc32c(bytes.subarray(0, cut))), whole);
    }),
  );
});

test("serial numbers wrap", () => {
  assert.equal(serialAdd(0xffff_fffe, 3), 1);
  assert(serialLess(0xffff_fff0, 5));
  assert(!serialLess(5, 0xffff_fff0));
  assert(!serialLess(5, 5));
  assert(serialWithin(1, 0xffff_ffff, 3));
  assert(!serialWithin(4, 0xffff_ffff, 3));
  assert(!serialWithin(9, 9, 8), "an empty window holds nothing");
});

const header = fc.uint8Array({ minLength: bhsBytes, maxLength: bhsBytes });

for (const [name, layout] of Object.entries(layouts) as [string, Layout][]) {
  test(`${name}: what a header decodes to encodes to the same values`, () => {
    fc.assert(
      fc.property(header, (bytes) => {
        const values = decode(layout, Buffer.from(bytes));
        const again = Buffer.alloc(bhsBytes);
        encode(layout, values, again);
        assert.deepEqual(decode(layout, again), values);
        assert.equal(common.opcode.get(again), layout.opcode);
      }),
    );
  });
}

test("a SCSI command as RFC 7143 §11.3 lays it out", () => {
  const bhs = Buffer.alloc(bhsBytes);
  encode(
    scsiCommand,
    {
      final: true,
      read: true,
      attribute: 1,
      initiatorTaskTag: 0x01020304,
      expectedLength: 0x1000,
      cmdSn: 7,
      expStatSn: 9,
      cdb: Buffer.from("28000000000800000800000000000000", "hex"),
    },
    bhs,
  );
  const expected =
    "01c1000000000000" +
    "0000000000000000" +
    "0102030400001000" +
    "0000000700000009" +
    "28000000000800000800000000000000";
  assert.equal(bhs.toString("hex"), expected);
});

test("additional header segments come back, and lengths that do not fit are refused", () => {
  const segment = fc.record(
    {
      type: fc.nat(255),
      specific: fc.uint8Array({ minLength: 1, maxLength: 40 }).map((bytes) => Buffer.from(bytes)),
    },
    { noNullPrototype: true },
  );
  fc.assert(
    fc.property(fc.array(segment, { maxLength: 4 }), (segments) => {
      assert.deepEqual(decodeAhs(encodeAhs(segments)), segments);
    }),
  );
  assert.equal(decodeAhs(Buffer.from([0, 9, 1, 0])), undefined);
  assert.equal(decodeAhs(Buffer.from([0, 0, 1, 0])), undefined);
});

test("an extended CDB continues the sixteen bytes", () => {
  const bhs = Buffer.alloc(bhsBytes, 1);
  const ahs = encodeAhs([{ type: 1, specific: Buffer.from([0, 2, 2, 2, 2]) }]);
  assert.equal(commandCdb(bhs, ahs)?.toString("hex"), `${"01".repeat(16)}02020202`);
});

interface Sent {
  data: Buffer;
  tag: number;
}

/** What the stream makes of bytes that arrive in pieces of the given sizes. */
function received(stream: PduStream, bytes: Buffer, sizes: readonly number[]): Sent[] {
  const found: Sent[] = [];
  for (let at = 0, turn = 0; at < bytes.length; turn += 1) {
    const size = sizes[turn % sizes.length]!;
    stream.push(Buffer.from(bytes.subarray(at, at + size)));
    at += size;
    for (const { bhs, data } of wholePdus(stream)) {
      found.push({ data: Buffer.concat(data), tag: common.initiatorTaskTag.get(bhs) });
    }
  }
  return found;
}

function* wholePdus(stream: PduStream): Generator<Pdu> {
  for (let event = stream.next(); event !== null; event = stream.next()) {
    assert(event.ok);
    const { data, dataLength } = event.pdu;
    const dataBytes = data.reduce((sum, slice) => sum + slice.length, 0);
    assert.equal(dataBytes, dataLength);
    yield event.pdu;
  }
}

/** The same of bytes that are received where the stream wants them, as many at a time as there is room. */
function receivedInPlace(stream: PduStream, bytes: Buffer, sizes: readonly number[]): Pdu[] {
  const found: Pdu[] = [];
  for (let at = 0, turn = 0; at < bytes.length; turn += 1) {
    const room = stream.room();
    assert(room.length > 0);
    const count = bytes.copy(room, 0, at, at + sizes[turn % sizes.length]!);
    at += count;
    stream.filled(count);
    found.push(...wholePdus(stream));
  }
  return found;
}

test("long data are received into memory of their own, which can be given back", () => {
  const length = fc.oneof(fc.nat(700), fc.integer({ min: lentBytesMin - 5, max: 200_000 }));
  const sizes = fc.array(fc.oneof(fc.integer({ min: 1, max: 300 }), fc.nat(150_000)), {
    minLength: 1,
    maxLength: 8,
  });
  fc.assert(
    fc.property(
      fc.array(length, { maxLength: 8 }),
      sizes,
      fc.boolean(),
      (lengths, cuts, digests) => {
        const outbox = new Outbox();
        const stream = new PduStream();
        outbox.headerDigest = outbox.dataDigest = digests;
        stream.headerDigest = stream.dataDigest = digests;
        stream.dataBytesMax = 1 << 20;
        const sent = lengths.map((bytes, tag) => Buffer.alloc(bytes, tag + 1));
        for (const [tag, data] of sent.entries()) {
          outbox.pdu(nopOut, { initiatorTaskTag: tag }, [data], data.length);
        }
        const pdus = receivedInPlace(stream, Buffer.concat(outbox.take()), [...cuts, 1]);
        assert.equal(pdus.length, sent.length);
        for (const [tag, { lent, data }] of pdus.entries()) {
          assert(Buffer.concat(data).equals(sent[tag]!));
          assert.equal(lent, data.length > 0 && sent[tag]!.length >= lentBytesMin);
          if (lent) giveBack(data[0]!);
        }
        for (const [tag, { lent, data }] of pdus.entries()) {
          if (!lent) assert(Buffer.concat(data).equals(sent[tag]!));
        }
      },
    ),
    { numRuns: 60 },
  );
});

test("a stream cut anywhere gives the PDUs that were sent", () => {
  const pdus = fc.array(
    fc.record(
      {
        data: fc.uint8Array({ maxLength: 700 }).map((bytes) => Buffer.from(bytes)),
        tag: fc.nat(0xffff),
      },
      { noNullPrototype: true },
    ),
    { maxLength: 8 },
  );
  const sizes = fc.array(fc.integer({ min: 1, max: 300 }), { minLength: 1, maxLength: 8 });
  fc.assert(
    fc.property(pdus, sizes, fc.boolean(), fc.boolean(), (sent, cuts, headers, datas) => {
      const outbox = new Outbox();
      const stream = new PduStream();
      outbox.headerDigest = headers;
      outbox.dataDigest = datas;
      stream.headerDigest = headers;
      stream.dataDigest = datas;
      for (const { data, tag } of sent) {
        outbox.pdu(nopOut, { initiatorTaskTag: tag }, [data], data.length);
      }
      assert.deepEqual(received(stream, Buffer.concat(outbox.take()), cuts), sent);
    }),
  );
});

test("any flipped bit under digests is noticed", () => {
  const outbox = new Outbox();
  outbox.headerDigest = true;
  outbox.dataDigest = true;
  outbox.pdu(nopOut, { initiatorTaskTag: 5 }, [Buffer.from("seven..")], 7);
  const clean = Buffer.concat(outbox.take());
  for (let bit = 0; bit < clean.length * 8; bit += 1) {
    const bytes = Buffer.from(clean);
    bytes[bit >> 3]! ^= 1 << (bit & 7);
    const stream = new PduStream();
    stream.headerDigest = true;
    stream.dataDigest = true;
    stream.push(bytes);
    const event = stream.next();
    // A longer length that the digest would refute leaves the stream waiting for more.
    assert(event === null || !event.ok, `bit ${bit} went unnoticed`);
  }
});

test("more data or header segments than declared are faults", () => {
  const stream = new PduStream();
  stream.dataBytesMax = 512;
  const bhs = Buffer.alloc(bhsBytes);
  common.dataLength.set(bhs, 513);
  stream.push(bhs);
  const event = stream.next();
  assert(event !== null && !event.ok && event.fault.code === "data_too_long");
  const other = new PduStream();
  const long = Buffer.alloc(bhsBytes);
  common.ahsWords.set(long, 255);
  other.push(long);
  const second = other.next();
  assert(second !== null && !second.ok && second.fault.code === "ahs_too_long");
});

test("the outbox keeps order when it copies small data and passes large data on", () => {
  const outbox = new Outbox();
  // Enough to need a second slab of headers.
  const sizes = [0, 1, 255, 256, 257, 5000, 3, 0, 20_000];
  const lengths = Array.from({ length: 200 }, (_, at) => sizes[at % sizes.length]!);
  for (const [tag, length] of lengths.entries()) {
    const data = Buffer.alloc(length, tag);
    outbox.pdu(dataIn, { initiatorTaskTag: tag }, [data.subarray(0, 2), data.subarray(2)], length);
  }
  const stream = new PduStream();
  stream.dataBytesMax = 1 << 20;
  const found = received(stream, Buffer.concat(outbox.take()), [1 << 20]);
  assert.deepEqual(
    found,
    lengths.map((length, tag) => ({ tag, data: Buffer.alloc(length, tag) })),
  );
  assert.deepEqual(outbox.take(), []);
});
