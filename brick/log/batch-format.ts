import { assert } from "../assert.ts";
import { chunkKeyBytes } from "../chunk/key.ts";
import { crc32 } from "../crc32.ts";
import { readUint64, writeUint64 } from "./uint64.ts";

/**
 * The bytes of the log. A batch is what one commit writes: a header, then records, then zeros up
 * to the next multiple of 4 KiB. Big-endian; every checksum is a CRC-32 that begins with the
 * brick's salt, so that another brick's log, stored here as somebody's data, is never taken for
 * our own.
 *
 * Batch header, version 1, 64 bytes, at a multiple of 4096 in its segment:
 *
 *   at  field
 *    0  magic[4] = "ENDb"
 *    4  version[1] = 1
 *    5  zero[1]
 *    6  brick number[2]
 *    8  segment number[4]
 *   12  segment epoch[4]           counts the uses of the segment's file
 *   16  offset in the segment[4]
 *   20  boot number[4]
 *   24  log position[8]            1, 2, 3, ... over the life of the brick
 *   32  checksum of the batch header before it in the log[4]
 *   36  record count[4]
 *   40  byte length[4]             header and records, without the zeros at the end
 *   44  checksum of all record headers of the batch[4]
 *   48  zero[12]
 *   60  checksum of bytes 0 to 59[4]
 *
 * Record header, version 1, 112 bytes, at a multiple of 8 in its batch, followed by the body and
 * zeros up to the next multiple of 8:
 *
 *   at  field
 *    0  magic[4] = "ENDr"
 *    4  version[1] = 1
 *    5  type[1]                    1 chunk, 2 map, 3 seal
 *    6  flags[1]                   1: the body holds a chunk
 *    7  zero[1]
 *    8  log position of its batch[8]
 *   16  boot number[4]
 *   20  number within the batch, from 0[4]
 *   24  body length[4]
 *   28  checksum of the body[4]
 *   32  chunk key[32]              zero without flag 1, like all that follows
 *   64  chunk's offset in the body[4]
 *   68  chunk length[4]
 *   72  origin: branch[8]
 *   80  origin: grain[8]
 *   88  origin: sequence[8]
 *   96  origin: first sector in the grain[2]
 *   98  zero[10]
 *  108  checksum of bytes 0 to 107[4]
 *
 * The checksum over record headers covers the bodies through the checksums inside them: no byte
 * is summed twice.
 */

export const batchAlignBytes = 4096;
export const batchHeaderBytes = 64;
export const recordHeaderBytes = 112;
export const recordAlignBytes = 8;

const batchMagic = 0x454e4462;
const recordMagic = 0x454e4472;
const formatVersion = 1;
const flagChunk = 1;

export const recordType = { chunk: 1, map: 2, seal: 3 } as const;

/** Where a chunk came from, so that a lost map could be rebuilt from chunks. */
export interface ChunkOrigin {
  branch: number;
  grain: number;
  firstSector: number;
  sequence: number;
}

/** The chunk inside a record's body. */
export interface RecordChunk {
  key: Buffer;
  offsetBytes: number;
  lengthBytes: number;
  origin: ChunkOrigin;
}

export interface BatchHeader {
  brick: number;
  segment: number;
  epoch: number;
  offsetBytes: number;
  boot: number;
  position: number;
  previousChecksum: number;
  recordCount: number;
  lengthBytes: number;
  recordsChecksum: number;
}

export interface RecordHeader {
  type: number;
  position: number;
  boot: number;
  index: number;
  bodyBytes: number;
  bodyChecksum: number;
  chunk: RecordChunk | null;
}

/** The salt of a brick's log: what its checksums begin with. */
export function logSalt(uuid: string): number {
  return crc32(Buffer.from(uuid, "hex"));
}

export function alignUp(bytes: number, alignBytes: number): number {
  return Math.ceil(bytes / alignBytes) * alignBytes;
}

/** What a record takes in a batch. */
export function recordBytesInBatch(bodyBytes: number): number {
  return recordHeaderBytes + alignUp(bodyBytes, recordAlignBytes);
}

/** Writes the header and returns its checksum, which the next batch repeats. */
export function encodeBatchHeader(header: BatchHeader, out: Buffer, salt: number): number {
  assert(out.length === batchHeaderBytes);
  assert(header.offsetBytes % batchAlignBytes === 0);
  out.fill(0);
  let at = out.writeUInt32BE(batchMagic, 0);
  at = out.writeUInt8(formatVersion, at) + 1;
  at = out.writeUInt16BE(header.brick, at);
  at = out.writeUInt32BE(header.segment, at);
  at = out.writeUInt32BE(header.epoch, at);
  at = out.writeUInt32BE(header.offsetBytes, at);
  at = out.writeUInt32BE(header.boot, at);
  at = writeUint64(out, header.position, at);
  at = out.writeUInt32BE(header.previousChecksum, at);
  at = out.writeUInt32BE(header.recordCount, at);
  at = out.writeUInt32BE(header.lengthBytes, at);
  at = out.writeUInt32BE(header.recordsChecksum, at) + 12;
  const checksum = crc32(out.subarray(0, at), salt);
  at = out.writeUInt32BE(checksum, at);
  assert(at === batchHeaderBytes);
  return checksum;
}

/** The header at `at`; null when there is none that is whole. */
export function decodeBatchHeader(bytes: Buffer, at: number, salt: number): BatchHeader | null {
  if (bytes.length - at < batchHeaderBytes) return null;
  if (bytes.readUInt32BE(at) !== batchMagic) return null;
  if (bytes.readUInt32BE(at + 60) !== crc32(bytes.subarray(at, at + 60), salt)) return null;
  if (bytes[at + 4] !== formatVersion) return null;
  const header: BatchHeader = {
    brick: bytes.readUInt16BE(at + 6),
    segment: bytes.readUInt32BE(at + 8),
    epoch: bytes.readUInt32BE(at + 12),
    offsetBytes: bytes.readUInt32BE(at + 16),
    boot: bytes.readUInt32BE(at + 20),
    position: readUint64(bytes, at + 24),
    previousChecksum: bytes.readUInt32BE(at + 32),
    recordCount: bytes.readUInt32BE(at + 36),
    lengthBytes: bytes.readUInt32BE(at + 40),
    recordsChecksum: bytes.readUInt32BE(at + 44),
  };
  if (header.lengthBytes < batchHeaderBytes + recordHeaderBytes) return null;
  return header;
}

/** The checksum of a whole batch header's bytes: what the next batch must repeat. */
export function batchHeaderChecksum(bytes: Buffer, at: number): number {
  return bytes.readUInt32BE(at + 60);
}

export function encodeRecordHeader(header: RecordHeader, out: Buffer, salt: number): void {
  assert(out.length === recordHeaderBytes);
  const chunk = header.chunk;
  out.fill(0);
  let at = out.writeUInt32BE(recordMagic, 0);
  at = out.writeUInt8(formatVersion, at);
  at = out.writeUInt8(header.type, at);
  at = out.writeUInt8(chunk === null ? 0 : flagChunk, at) + 1;
  at = writeUint64(out, header.position, at);
  at = out.writeUInt32BE(header.boot, at);
  at = out.writeUInt32BE(header.index, at);
  at = out.writeUInt32BE(header.bodyBytes, at);
  at = out.writeUInt32BE(header.bodyChecksum, at);
  if (chunk !== null) {
    assert(chunk.key.length === chunkKeyBytes);
    assert(chunk.offsetBytes + chunk.lengthBytes <= header.bodyBytes);
    at += chunk.key.copy(out, at);
    at = out.writeUInt32BE(chunk.offsetBytes, at);
    at = out.writeUInt32BE(chunk.lengthBytes, at);
    at = writeUint64(out, chunk.origin.branch, at);
    at = writeUint64(out, chunk.origin.grain, at);
    at = writeUint64(out, chunk.origin.sequence, at);
    at = out.writeUInt16BE(chunk.origin.firstSector, at);
  }
  at = 108;
  at = out.writeUInt32BE(crc32(out.subarray(0, at), salt), at);
  assert(at === recordHeaderBytes);
}

export function decodeRecordHeader(bytes: Buffer, at: number, salt: number): RecordHeader | null {
  if (bytes.length - at < recordHeaderBytes) return null;
  if (bytes.readUInt32BE(at) !== recordMagic) return null;
  if (bytes.readUInt32BE(at + 108) !== crc32(bytes.subarray(at, at + 108), salt)) return null;
  if (bytes[at + 4] !== formatVersion) return null;
  const header: RecordHeader = {
    type: bytes[at + 5]!,
    position: readUint64(bytes, at + 8),
    boot: bytes.readUInt32BE(at + 16),
    index: bytes.readUInt32BE(at + 20),
    bodyBytes: bytes.readUInt32BE(at + 24),
    bodyChecksum: bytes.readUInt32BE(at + 28),
    chunk: null,
  };
  if ((bytes[at + 6]! & flagChunk) === 0) return header;
  const chunk: RecordChunk = {
    key: Buffer.from(bytes.subarray(at + 32, at + 64)),
    offsetBytes: bytes.readUInt32BE(at + 64),
    lengthBytes: bytes.readUInt32BE(at + 68),
    origin: {
      branch: readUint64(bytes, at + 72),
      grain: readUint64(bytes, at + 80),
      sequence: readUint64(bytes, at + 88),
      firstSector: bytes.readUInt16BE(at + 96),
    },
  };
  if (chunk.offsetBytes + chunk.lengthBytes > header.bodyBytes) return null;
  header.chunk = chunk;
  return header;
}
