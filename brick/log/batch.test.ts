import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { decodeBatch, encodeBatch } from "./batch.ts";
import {
  batchHeaderBytes,
  decodeBatchHeader,
  decodeRecordHeader,
  encodeBatchHeader,
  encodeRecordHeader,
  logSalt,
  recordHeaderBytes,
  recordType,
} from "./batch-format.ts";

const salt = logSalt("ab".repeat(16));

const batchHeader = {
  brick: 0x0102,
  segment: 0x03040506,
  epoch: 0x0708090a,
  offsetBytes: 0x0b0c1000,
  boot: 0x0d0e0f10,
  position: 0x0011_1213_1415,
  previousChecksum: 0x16171819,
  recordCount: 3,
  lengthBytes: 0x2000,
  recordsChecksum: 0x1a1b1c1d,
};

test("golden bytes of the batch header", () => {
  const bytes = Buffer.alloc(batchHeaderBytes, 0xff);
  encodeBatchHeader(batchHeader, bytes, salt);
  assert.equal(
    bytes.toString("hex"),
    "454e446201000102030405060708090a0b0c10000d0e0f10000000111213141516171819" +
      "00000003000020001a1b1c1d0000000000000000000000003c5f4e58",
  );
  assert.deepEqual(decodeBatchHeader(bytes, 0, salt), batchHeader);
  assert.equal(decodeBatchHeader(bytes, 0, salt ^ 1), null);
});

const recordHeader = {
  type: recordType.map,
  position: 0x0011_1213_1415,
  boot: 0x0d0e0f10,
  index: 2,
  bodyBytes: 0x1234,
  bodyChecksum: 0xdeadbeef,
  chunk: {
    key: Buffer.from(Array.from({ length: 32 }, (_, at) => at)),
    offsetBytes: 0x34,
    lengthBytes: 0x1200,
    origin: { branch: 0x55, grain: 0x0066_0000_0077, sequence: 0x88, firstSector: 0x7f },
  },
};

test("golden bytes of the record header", () => {
  const bytes = Buffer.alloc(recordHeaderBytes, 0xff);
  encodeRecordHeader(recordHeader, bytes, salt);
  assert.equal(
    bytes.toString("hex"),
    "454e44720102010000000011121314150d0e0f100000000200001234deadbeef" +
      "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f" +
      "0000003400001200000000000000005500000066000000770000000000000088" +
      "007f000000000000000000003b8809a1",
  );
  assert.deepEqual(decodeRecordHeader(bytes, 0, salt), recordHeader);
});

const place = {
  brick: 7,
  segment: 2,
  epoch: 1,
  offsetBytes: 8192,
  boot: 4,
  position: 99,
  previousChecksum: 5,
};

function recordOf(body: Uint8Array) {
  const bytes = Buffer.from(body);
  const half = bytes.length >> 1;
  const parts = [bytes.subarray(0, half), bytes.subarray(half)];
  return { type: recordType.map, parts, bodyBytes: bytes.length, chunk: null };
}

const bodies = fc.array(fc.uint8Array({ maxLength: 3000 }), { minLength: 1, maxLength: 8 });

test("a batch is whole pages and gives back its records", () => {
  fc.assert(
    fc.property(bodies, (list) => {
      const batch = encodeBatch(place, list.map(recordOf), salt);
      const bytes = Buffer.concat(batch.buffers);
      assert.equal(bytes.length, batch.paddedBytes);
      assert.equal(bytes.length % 4096, 0);
      const header = decodeBatchHeader(bytes, 0, salt)!;
      const { records, intact } = decodeBatch(bytes, header, salt);
      assert.equal(intact, true);
      for (const [at, { bodyAt, header: found }] of records.entries()) {
        assert.equal(batch.bodyOffsets[at], place.offsetBytes + bodyAt);
        const body = bytes.subarray(bodyAt, bodyAt + found.bodyBytes);
        assert.deepEqual(body, Buffer.from(list[at]!));
      }
      assert.equal(records.length, list.length);
    }),
  );
});

test("one flipped bit of header or records is detected, and costs one record at most", () => {
  fc.assert(
    fc.property(bodies, fc.nat(), fc.nat(7), (list, where, bit) => {
      const batch = encodeBatch(place, list.map(recordOf), salt);
      const bytes = Buffer.concat(batch.buffers);
      const length = decodeBatchHeader(bytes, 0, salt)!.lengthBytes;
      const at = where % length;
      bytes[at]! ^= 1 << bit;
      const header = decodeBatchHeader(bytes, 0, salt);
      assert.equal(header === null, at < batchHeaderBytes);
      if (header === null) return;
      const { records, intact } = decodeBatch(bytes, header, salt);
      const whole = records.filter((record) => record.bodyWhole);
      const isPadding = whole.length === list.length;
      assert.equal(intact, isPadding);
      assert.ok(whole.length >= list.length - 1);
    }),
    { numRuns: 300 },
  );
});
