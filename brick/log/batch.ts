import { assert } from "../assert.ts";
import { crc32 } from "../crc32.ts";
import {
  alignUp,
  type BatchHeader,
  batchAlignBytes,
  batchHeaderBytes,
  decodeRecordHeader,
  encodeBatchHeader,
  encodeRecordHeader,
  type RecordChunk,
  type RecordHeader,
  recordAlignBytes,
  recordBytesInBatch,
  recordHeaderBytes,
} from "./batch-format.ts";

/** A batch is at most this long, a longer single record aside. */
export const batchBytesMax = 4 * 1024 * 1024;
export const batchRecordsMax = 1024;
/** Bodies below this are copied into the batch's slab: cheaper than one more piece to gather. */
const copyBytesMax = 1024;

const zeros = Buffer.alloc(batchAlignBytes);

/** What goes into a batch. */
export interface BatchRecord {
  readonly type: number;
  readonly parts: readonly Buffer[];
  readonly bodyBytes: number;
  readonly chunk: RecordChunk | null;
}

/** Where a batch goes, and what comes before it. */
export type BatchPlace = Omit<BatchHeader, "recordCount" | "lengthBytes" | "recordsChecksum">;

export interface EncodedBatch {
  /** Whole pages: header, records, zeros. */
  buffers: Buffer[];
  paddedBytes: number;
  checksum: number;
  /** Offset of each record's body in the segment. */
  bodyOffsets: number[];
}

/** Lays out one batch around the callers' own buffers. */
export function encodeBatch(
  place: BatchPlace,
  records: readonly BatchRecord[],
  salt: number,
): EncodedBatch {
  assert(records.length > 0 && records.length <= batchRecordsMax);
  const slab = Buffer.allocUnsafe(slabBytes(records));
  const buffers: Buffer[] = [];
  const bodyOffsets: number[] = [];
  let slabFrom = 0;
  let slabAt = batchHeaderBytes;
  let lengthBytes = batchHeaderBytes;
  let recordsChecksum = salt;
  for (let index = 0; index < records.length; index += 1) {
    const record = records[index]!;
    const header = slab.subarray(slabAt, slabAt + recordHeaderBytes);
    let bodyChecksum = salt;
    for (const part of record.parts) bodyChecksum = crc32(part, bodyChecksum);
    const { type, bodyBytes, chunk } = record;
    const { position, boot } = place;
    encodeRecordHeader(
      { type, position, boot, index, bodyBytes, bodyChecksum, chunk },
      header,
      salt,
    );
    recordsChecksum = crc32(header, recordsChecksum);
    slabAt += recordHeaderBytes;
    bodyOffsets.push(place.offsetBytes + lengthBytes + recordHeaderBytes);
    if (bodyBytes < copyBytesMax) {
      for (const part of record.parts) slabAt += part.copy(slab, slabAt);
    } else {
      buffers.push(slab.subarray(slabFrom, slabAt), ...record.parts);
      slabFrom = slabAt;
    }
    const padded = recordBytesInBatch(bodyBytes);
    const padEnd = slabAt + padded - recordHeaderBytes - bodyBytes;
    slab.fill(0, slabAt, padEnd);
    slabAt = padEnd;
    lengthBytes += padded;
  }
  assert(slabAt === slab.length);
  if (slabFrom < slabAt) buffers.push(slab.subarray(slabFrom, slabAt));
  const paddedBytes = alignUp(lengthBytes, batchAlignBytes);
  if (paddedBytes > lengthBytes) buffers.push(zeros.subarray(0, paddedBytes - lengthBytes));
  const header = { ...place, recordCount: records.length, lengthBytes, recordsChecksum };
  const checksum = encodeBatchHeader(header, slab.subarray(0, batchHeaderBytes), salt);
  return { buffers, paddedBytes, checksum, bodyOffsets };
}

/** The bytes of a batch that are not the callers' buffers: headers, small bodies, padding. */
function slabBytes(records: readonly BatchRecord[]): number {
  let bytes = batchHeaderBytes;
  for (const { bodyBytes } of records) {
    const large = bodyBytes < copyBytesMax ? 0 : bodyBytes;
    bytes += recordHeaderBytes + alignUp(bodyBytes, recordAlignBytes) - large;
  }
  return bytes;
}

/** A record as found in bytes read back. */
export interface FoundRecord {
  header: RecordHeader;
  /** Where the body begins in the bytes looked at. */
  bodyAt: number;
  /** False when the body does not agree with its checksum. */
  bodyWhole: boolean;
}

/**
 * The records of one batch. `bytes` begins at the batch header. `intact` says that the batch is
 * exactly what was written; otherwise the records are those that are still whole around the
 * damage, bodies aside.
 */
export function decodeBatch(
  bytes: Buffer,
  header: BatchHeader,
  salt: number,
): { records: FoundRecord[]; intact: boolean } {
  const end = header.lengthBytes;
  const records: FoundRecord[] = [];
  if (bytes.length >= end) {
    let at = batchHeaderBytes;
    let checksum = salt;
    let intact = true;
    for (let index = 0; index < header.recordCount; index += 1) {
      const found = recordAt(bytes, at, end, salt);
      if (found === null || !belongs(found.header, header, index)) {
        intact = false;
        break;
      }
      checksum = crc32(bytes.subarray(at, at + recordHeaderBytes), checksum);
      intact &&= found.bodyWhole;
      records.push(found);
      at += recordBytesInBatch(found.header.bodyBytes);
    }
    if (at === end && records.length === header.recordCount) {
      return { records, intact: intact && checksum === header.recordsChecksum };
    }
  }
  const { position, boot } = header;
  const scanned = salvageRecords(
    bytes.subarray(0, Math.min(end, bytes.length)),
    (found) => found.position === position && found.boot === boot,
    salt,
  );
  return { records: scanned, intact: false };
}

/** Every whole record header in a damaged stretch of the log that `wanted` accepts, in order. */
export function salvageRecords(
  bytes: Buffer,
  wanted: (header: RecordHeader) => boolean,
  salt: number,
): FoundRecord[] {
  const records: FoundRecord[] = [];
  let at = 0;
  while (at + recordHeaderBytes <= bytes.length) {
    const found = recordAt(bytes, at, bytes.length, salt);
    if (found === null || !wanted(found.header)) {
      at += recordAlignBytes;
      continue;
    }
    records.push(found);
    at += recordBytesInBatch(found.header.bodyBytes);
  }
  return records;
}

function recordAt(bytes: Buffer, at: number, end: number, salt: number): FoundRecord | null {
  const header = decodeRecordHeader(bytes, at, salt);
  if (header === null || at + recordBytesInBatch(header.bodyBytes) > end) return null;
  const bodyAt = at + recordHeaderBytes;
  const body = bytes.subarray(bodyAt, bodyAt + header.bodyBytes);
  return { header, bodyAt, bodyWhole: crc32(body, salt) === header.bodyChecksum };
}

function belongs(record: RecordHeader, batch: BatchHeader, index: number): boolean {
  return record.position === batch.position && record.boot === batch.boot && record.index === index;
}
