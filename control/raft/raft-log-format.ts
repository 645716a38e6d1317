import { assert } from "../../brick/assert.ts";
import { crc32 } from "../../brick/crc32.ts";
import { readUint64, writeUint64 } from "../../brick/log/uint64.ts";
import { raftLimits } from "./raft-limits.ts";
import { checkedEntry, entryKindNumber } from "./raft-messages.ts";
import type { Entry, Hole, PersistEffect } from "./raft-types.ts";

/**
 * A log file of Raft, version 1, big-endian: records, each beginning on a multiple of 8 bytes.
 *
 * Record header, 48 bytes:
 *
 *     offset  bytes  field
 *          0      4  magic "ENDr"
 *          4      1  version = 1
 *          5      1  kind: 1 entry, 2 repair, 3 cut, 4 begin, 5 restart, 6 hole
 *          6      1  entry kind (of entry and repair), else 0
 *          7      1  zero
 *          8      8  batch: counts the flushes over all files
 *         16      8  index
 *         24      8  term
 *         32      4  payload length
 *         36      4  CRC-32 of the payload
 *         40      4  file number
 *         44      4  CRC-32 of the 44 bytes before, then of the record's offset[8] in the file
 *
 * then the payload, then zeros up to a multiple of 8. The header has its own checksum, so that an
 * entry whose payload is damaged is still known by index and term; file number and offset are
 * under it, so that a record that strayed is no record.
 *
 * A batch is what one flush made durable. It opens with `begin`, whose index counts the records
 * that follow in the batch, and whose payload lists the identities of its entries and holes once
 * more: index[8] term[8] count[8] for each dense run of one term, zeros for a restart. `entry`
 * voids all entries from its index on, `cut` all after its index, `repair` gives a hole its
 * content, `hole` is an entry whose content is lost, `restart` voids everything before.
 *
 * The file `tail` says which batch was flushed last; it is written and flushed after that, and before
 * anybody is told. Only a batch that it does not cover may be torn.
 */
export const recordKindNumber = {
  entry: 1,
  repair: 2,
  cut: 3,
  begin: 4,
  restart: 5,
  hole: 6,
} as const;
export type RecordKind = keyof typeof recordKindNumber;

export const recordHeaderBytes = 48;
export const recordAlignBytes = 8;
const recordMagic = 0x454e4472;
const recordVersion = 1;
const kindByNumber = new Map(
  Object.entries(recordKindNumber).map(([kind, number]) => [number as number, kind as RecordKind]),
);

export interface LogRecord {
  readonly kind: RecordKind;
  readonly entryKindNumber: number;
  readonly batch: number;
  readonly index: number;
  readonly term: number;
  readonly payload: Buffer;
}

export interface RecordPlace {
  readonly file: number;
  readonly offsetBytes: number;
}

/** What a record with such a payload occupies. */
export function recordBytes(payloadBytes: number): number {
  const bytes = recordHeaderBytes + payloadBytes;
  return Math.ceil(bytes / recordAlignBytes) * recordAlignBytes;
}

/** One after another, the first at `place`. */
export function encodeRecords(records: readonly LogRecord[], place: RecordPlace): Buffer[] {
  const out: Buffer[] = [];
  let { offsetBytes } = place;
  for (const record of records) {
    const { payload } = record;
    out.push(encodeHeader(record, { file: place.file, offsetBytes }), payload);
    const size = recordBytes(payload.length);
    const padding = size - recordHeaderBytes - payload.length;
    if (padding > 0) out.push(Buffer.alloc(padding));
    offsetBytes += size;
  }
  return out.filter((part) => part.length > 0);
}

function encodeHeader(record: LogRecord, { file, offsetBytes }: RecordPlace): Buffer {
  assert(offsetBytes % recordAlignBytes === 0);
  const header = Buffer.alloc(recordHeaderBytes);
  let at = header.writeUInt32BE(recordMagic, 0);
  at = header.writeUInt8(recordVersion, at);
  at = header.writeUInt8(recordKindNumber[record.kind], at);
  at = header.writeUInt8(record.entryKindNumber, at) + 1;
  at = writeUint64(header, record.batch, at);
  at = writeUint64(header, record.index, at);
  at = writeUint64(header, record.term, at);
  at = header.writeUInt32BE(record.payload.length, at);
  at = header.writeUInt32BE(crc32(record.payload), at);
  at = header.writeUInt32BE(file, at);
  at = header.writeUInt32BE(headerChecksum(header, offsetBytes), at);
  assert(at === recordHeaderBytes);
  return header;
}

function headerChecksum(header: Buffer, offsetBytes: number): number {
  const offset = Buffer.alloc(8);
  writeUint64(offset, offsetBytes, 0);
  return crc32(offset, crc32(header.subarray(0, recordHeaderBytes - 4)));
}

export interface ScannedRecord extends LogRecord {
  readonly offsetBytes: number;
  /** False when the header holds and the payload does not. */
  readonly whole: boolean;
}

/** The record at this place of a file's bytes; null when its header does not hold. */
export function decodeRecord(
  bytes: Buffer,
  { file, offsetBytes }: RecordPlace,
): ScannedRecord | null {
  if (offsetBytes + recordHeaderBytes > bytes.length) return null;
  if (bytes.readUInt32BE(offsetBytes) !== recordMagic) return null;
  const header = bytes.subarray(offsetBytes, offsetBytes + recordHeaderBytes);
  if (header.readUInt32BE(44) !== headerChecksum(header, offsetBytes)) return null;
  const kind = kindByNumber.get(header[5]!);
  const length = header.readUInt32BE(32);
  if (header[4] !== recordVersion || kind === undefined || header[7] !== 0) return null;
  if (header.readUInt32BE(40) !== file || length > raftLimits.logFileBytesMax) return null;
  const start = offsetBytes + recordHeaderBytes;
  const payload = bytes.subarray(start, start + length);
  return {
    kind,
    entryKindNumber: header[6]!,
    batch: readUint64(header, 8),
    index: readUint64(header, 16),
    term: readUint64(header, 24),
    payload,
    offsetBytes,
    whole: payload.length === length && crc32(payload) === header.readUInt32BE(36),
  };
}

/** The records of a group of persist effects, as one batch; empty when the log is untouched. */
export function recordsOf(works: readonly PersistEffect[], batch: number): LogRecord[] {
  const records: LogRecord[] = [];
  for (const { resetsLog, cutAfterIndex, repairs, entries } of works) {
    if (resetsLog) records.push(bare("restart", batch, { index: 0, term: 0 }));
    if (cutAfterIndex !== null) records.push(bare("cut", batch, { index: cutAfterIndex, term: 0 }));
    for (const entry of repairs) records.push(entryRecord("repair", batch, entry));
    for (const entry of entries) records.push(entryRecord("entry", batch, entry));
  }
  return records.length === 0 ? [] : [beginRecord(batch, records), ...records];
}

/** The whole log written anew, after damage: what is whole, and the identities of what is not. */
export function restartRecords(log: readonly (Entry | Hole)[], batch: number): LogRecord[] {
  const records = log.map((entry) =>
    "payload" in entry ? entryRecord("entry", batch, entry) : bare("hole", batch, entry),
  );
  records.unshift(bare("restart", batch, { index: 0, term: 0 }));
  return [beginRecord(batch, records), ...records];
}

function entryRecord(kind: "entry" | "repair", batch: number, entry: Entry): LogRecord {
  return {
    ...bare(kind, batch, entry),
    entryKindNumber: entryKindNumber[entry.kind],
    payload: entry.payload,
  };
}

function bare(kind: RecordKind, batch: number, { index, term }: Hole): LogRecord {
  return { kind, batch, index, term, entryKindNumber: 0, payload: Buffer.alloc(0) };
}

function beginRecord(batch: number, records: readonly LogRecord[]): LogRecord {
  const runs: { index: number; term: number; count: number }[] = [];
  for (const { kind, index, term } of records) {
    if (kind === "restart") runs.push({ index: 0, term: 0, count: 0 });
    if (kind !== "entry" && kind !== "hole") continue;
    const run = runs.at(-1);
    if (run !== undefined && run.term === term && run.index + run.count === index) run.count += 1;
    else runs.push({ index, term, count: 1 });
  }
  const payload = Buffer.alloc(24 * runs.length);
  let at = 0;
  for (const { index, term, count } of runs) {
    at = writeUint64(payload, index, at);
    at = writeUint64(payload, term, at);
    at = writeUint64(payload, count, at);
  }
  return { ...bare("begin", batch, { index: records.length, term: 0 }), payload };
}

/** Stands for `restart` among the identities of entries. */
export const restartIdentity: Hole = { index: 0, term: 0 };

/** Of a whole `begin`: which entries its batch has, in order. */
export function decodeIdentities(payload: Buffer): Hole[] {
  const out: Hole[] = [];
  for (let at = 0; at + 24 <= payload.length; at += 24) {
    const first = readUint64(payload, at);
    const term = readUint64(payload, at + 8);
    const count = readUint64(payload, at + 16);
    if (count === 0) out.push(restartIdentity);
    for (let index = first; index < first + count; index += 1) out.push({ index, term });
  }
  return out;
}

/** null when the content is damaged. */
export function entryOf({ index, term, payload, whole, entryKindNumber }: ScannedRecord) {
  return whole ? checkedEntry(entryKindNumber, { index, term, payload }) : null;
}

/** The last batch that was flushed, and the last entry of the log then. */
export interface Tail {
  readonly batch: number;
  readonly lastIndex: number;
  readonly lastTerm: number;
}

export const tailSlotBytes = 512;
const tailBytes = 36;
const tailMagic = 0x454e4474;

/**
 * One of the two slots of `tail`, used in turn: magic[4]="ENDt" version[1]=1 zero[3] batch[8]
 * lastIndex[8] lastTerm[8] checksum[4], the CRC-32 of the bytes before.
 */
export function encodeTail({ batch, lastIndex, lastTerm }: Tail): Buffer {
  const out = Buffer.alloc(tailBytes);
  let at = out.writeUInt32BE(tailMagic, 0);
  at = out.writeUInt8(1, at) + 3;
  at = writeUint64(out, batch, at);
  at = writeUint64(out, lastIndex, at);
  at = writeUint64(out, lastTerm, at);
  at = out.writeUInt32BE(crc32(out.subarray(0, at)), at);
  assert(at === out.length);
  return out;
}

/** What `tail` says. */
export interface FoundTail {
  /** Of the slots that hold the later one; zeros when none does. */
  readonly latest: Tail;
  /** No batch after it was flushed, unless the log itself has it: the other slot is the one before. */
  readonly isLast: boolean;
}

const nothingFlushed: Tail = { batch: 0, lastIndex: 0, lastTerm: 0 };

export function decodeTail(bytes: Buffer): FoundTail {
  const slots = [0, tailSlotBytes].map((at) => bytes.subarray(at, at + tailBytes));
  const tails = slots.map(decodeTailSlot).filter((tail) => tail !== null);
  const [latest = nothingFlushed, before = nothingFlushed] = tails.sort(laterFirst);
  const blanks = slots.filter((slot) => slot.every((byte) => byte === 0));
  const isEach = tails.length + blanks.length === slots.length;
  return { latest, isLast: isEach && before.batch === Math.max(0, latest.batch - 1) };
}

function laterFirst(a: Tail, b: Tail): number {
  return b.batch - a.batch;
}

function decodeTailSlot(slot: Buffer): Tail | null {
  if (slot.length < tailBytes || slot.readUInt32BE(0) !== tailMagic || slot[4] !== 1) return null;
  if (slot.readUInt32BE(32) !== crc32(slot.subarray(0, 32))) return null;
  const batch = readUint64(slot, 8);
  return { batch, lastIndex: readUint64(slot, 16), lastTerm: readUint64(slot, 24) };
}
