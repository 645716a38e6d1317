import { assert } from "../assert.ts";
import { readUint64 } from "../log/uint64.ts";
import {
  beginRecord,
  type Extent,
  extentBytes,
  isChunkExtent,
  recordHeaderBytes,
  writeExtent,
} from "./grain.ts";

/**
 * A write's effect on a grain record as it is stored (grain.ts): most changes of the map are small
 * writes into a grain that has many extents, and an object for each of them would cost more than all
 * else that is done for the write. Records given to these functions are well formed.
 */

export function recordOp(record: Buffer): number {
  return readUint64(record, 4);
}

export function mappedInRecord(record: Buffer | undefined): number {
  let sectors = 0;
  if (record === undefined) return sectors;
  for (let at = recordHeaderBytes; at < record.length; at += extentBytes) {
    if (!isZerosAt(record, at)) sectors += record[at + 1]!;
  }
  return sectors;
}

/** The extent replaces what was in its range. The result shares no memory with its arguments. */
export function overwriteRecord(record: Buffer | undefined, op: number, extent: Extent): Buffer {
  assert(isChunkExtent(extent), "the extent of a write is malformed");
  const first = extent.firstSector;
  const end = first + extent.sectorCount;
  if (record === undefined) {
    const made = beginRecord(1, op);
    writeExtent(made, extent, recordHeaderBytes);
    return made;
  }
  // An older entry is part of the record already, and must not cover what came after it.
  assert(op >= recordOp(record), "an entry older than the grain's record");
  let from = recordHeaderBytes;
  while (from < record.length && endAt(record, from) <= first) from += extentBytes;
  let to = from;
  while (to < record.length && record[to]! < end) to += extentBytes;
  // What is cut at either end stays in part; it may be two parts of one extent.
  const before = to > from && record[from]! < first;
  const behind = to > from && endAt(record, to - extentBytes) > end;
  const kept = (from - recordHeaderBytes + record.length - to) / extentBytes;
  const made = beginRecord(kept + 1 + (before ? 1 : 0) + (behind ? 1 : 0), op);
  let at = recordHeaderBytes;
  at += record.copy(made, at, recordHeaderBytes, from);
  if (before) at = copyPart(record, from, record[from]!, first, made, at);
  at = writeExtent(made, extent, at);
  if (behind) {
    const last = to - extentBytes;
    at = copyPart(record, last, end, endAt(record, last), made, at);
  }
  at += record.copy(made, at, to);
  assert(at === made.length);
  return made;
}

function endAt(record: Buffer, at: number): number {
  return record[at]! + record[at + 1]!;
}

function isZerosAt(record: Buffer, at: number): boolean {
  return record[at + 5] !== 0;
}

/** Sectors [first, end) of the extent at `from`. */
function copyPart(
  record: Buffer,
  from: number,
  first: number,
  end: number,
  into: Buffer,
  at: number,
): number {
  record.copy(into, at, from, from + extentBytes);
  const cut = first - record[from]!;
  into[at] = first;
  into[at + 1] = end - first;
  if (isZerosAt(record, from)) into[at + 3] = end - first;
  else into[at + 2] = record[from + 2]! + cut;
  return at + extentBytes;
}
