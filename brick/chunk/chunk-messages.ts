import { assert } from "../assert.ts";
import type { ChunkOrigin } from "../log/batch-format.ts";
import { readUint64, writeUint64 } from "../log/uint64.ts";
import { pooledZeros } from "../pooled-zeros.ts";
import { PartsCursor } from "../rpc/parts.ts";
import { MiB } from "../units.ts";
import { chunkBytesMax, chunkBytesMin, chunkKeyBytes } from "./key.ts";

/**
 * Bodies of the chunk service's messages, version 1, big-endian. Received ones are checked: a
 * decode answers null for what is not exactly as written here.
 *
 * chunkPut request:  version[1] = 1, zero[3], length[4], key[32], origin: branch[8], grain[8],
 *                    sequence[8], first sector[2]; zero[2], garbage-collection epoch in which the
 *                    storing was begun[4]; then the chunk's bytes
 * chunkPut reply:    version[1] = 1, status[1], zero[2]
 * chunkGet request:  version[1] = 1, key count[1], zero[2]; then 32 bytes a key
 * chunkGet reply:    version[1] = 1, key count[1], zero[2]; a key in the order asked: status[1],
 *                    zero[3], length[4]; then the bytes of those found, in the same order
 * chunkHas request:  version[1] = 1, zero[1], key count[2]; then 32 bytes a key
 * chunkHas reply:    version[1] = 1, zero[1], key count[2]; then one bit a key, the first highest
 */

const version = 1;
const putHeaderBytes = 72;
const keysHeaderBytes = 4;
const getEntryBytes = 8;

export const getKeysMax = 16;
export const hasKeysMax = 1024;
/** Chunks after this many bytes of a reply are left out, to be asked for again. */
export const getReplyBytesMax = 1 * MiB;

export const putStatus = { stored: 0, deduplicated: 1, noSpace: 2, bad: 3, busy: 4 } as const;
export type PutStatus = (typeof putStatus)[keyof typeof putStatus];

/** `omitted`: the reply was full; ask again. */
export const getStatus = { found: 0, absent: 1, corrupt: 2, io: 3, omitted: 4 } as const;
export type GetStatus = (typeof getStatus)[keyof typeof getStatus];

export interface ChunkPut {
  key: Buffer;
  origin: ChunkOrigin;
  data: readonly Buffer[];
  lengthBytes: number;
  gcEpoch: number;
}

/** Begins with a header of its own; the bytes follow as they are given, in any number of parts. */
export function encodeChunkPut(
  key: Buffer,
  origin: ChunkOrigin,
  bytes: Buffer | readonly Buffer[],
  gcEpoch: number,
): Buffer[] {
  assert(key.length === chunkKeyBytes);
  const parts = Buffer.isBuffer(bytes) ? [bytes] : bytes;
  let lengthBytes = 0;
  for (const part of parts) lengthBytes += part.length;
  const header = pooledZeros(putHeaderBytes);
  header[0] = version;
  let at = header.writeUInt32BE(lengthBytes, 4);
  at += key.copy(header, at);
  at = writeUint64(header, origin.branch, at);
  at = writeUint64(header, origin.grain, at);
  at = writeUint64(header, origin.sequence, at);
  at = header.writeUInt16BE(origin.firstSector, at) + 2;
  at = header.writeUInt32BE(gcEpoch, at);
  assert(at === putHeaderBytes);
  return [header, ...parts];
}

/** Of a body that may be in parts, the first of which holds the header. */
export function decodeChunkPut(parts: readonly Buffer[]): ChunkPut | null {
  const body = parts[0];
  if (body === undefined || body.length < putHeaderBytes || body[0] !== version) return null;
  const lengthBytes = body.readUInt32BE(4);
  if (lengthBytes < chunkBytesMin || lengthBytes > chunkBytesMax) return null;
  const cursor = new PartsCursor(parts, putHeaderBytes);
  const data = cursor.take(lengthBytes);
  if (data === null || !cursor.isAtEnd) return null;
  return {
    key: body.subarray(8, 40),
    origin: {
      branch: readUint64(body, 40),
      grain: readUint64(body, 48),
      sequence: readUint64(body, 56),
      firstSector: body.readUInt16BE(64),
    },
    data,
    lengthBytes,
    gcEpoch: body.readUInt32BE(68),
  };
}

const putReplies = Object.values(putStatus).map((status) => Buffer.from([version, status, 0, 0]));

export function encodeChunkPutReply(status: PutStatus): Buffer[] {
  return [putReplies[status]!];
}

export function decodeChunkPutReply(body: Buffer): PutStatus | null {
  if (body.length !== 4 || body[0] !== version || body[1]! > putStatus.busy) return null;
  return body[1] as PutStatus;
}

export function encodeChunkGet(keys: readonly Buffer[]): Buffer[] {
  assert(keys.length >= 1 && keys.length <= getKeysMax);
  return [Buffer.from([version, keys.length, 0, 0]), ...keys];
}

export function decodeChunkGet(body: Buffer): Buffer[] | null {
  if (body.length < keysHeaderBytes || body[0] !== version) return null;
  const count = body[1]!;
  return count > getKeysMax ? null : decodeKeys(body, count);
}

function decodeKeys(body: Buffer, count: number): Buffer[] | null {
  if (count === 0 || body.length !== keysHeaderBytes + count * chunkKeyBytes) return null;
  const keys: Buffer[] = [];
  for (let at = keysHeaderBytes; at < body.length; at += chunkKeyBytes) {
    keys.push(body.subarray(at, at + chunkKeyBytes));
  }
  return keys;
}

export type GetResult =
  | { status: typeof getStatus.found; bytes: Buffer }
  | { status: Exclude<GetStatus, 0> };

export function encodeChunkGetReply(results: readonly GetResult[]): Buffer[] {
  assert(results.length >= 1 && results.length <= getKeysMax);
  const header = pooledZeros(keysHeaderBytes + results.length * getEntryBytes);
  header[0] = version;
  header[1] = results.length;
  const parts: Buffer[] = [header];
  let at = keysHeaderBytes;
  for (const result of results) {
    header[at] = result.status;
    if (result.status === getStatus.found) {
      header.writeUInt32BE(result.bytes.length, at + 4);
      parts.push(result.bytes);
    }
    at += getEntryBytes;
  }
  return parts;
}

/** Of a body that may be in parts, the first of which holds the header. */
export function decodeChunkGetReply(parts: readonly Buffer[]): GetResult[] | null {
  const body = parts[0];
  if (body === undefined || body.length < keysHeaderBytes || body[0] !== version) return null;
  const count = body[1]!;
  const headerBytes = keysHeaderBytes + count * getEntryBytes;
  if (count === 0 || count > getKeysMax || body.length < headerBytes) return null;
  const cursor = new PartsCursor(parts, headerBytes);
  const results: GetResult[] = [];
  for (let entry = keysHeaderBytes; entry < keysHeaderBytes + count * getEntryBytes; ) {
    const status = body[entry]!;
    const lengthBytes = body.readUInt32BE(entry + 4);
    entry += getEntryBytes;
    if (status > getStatus.omitted) return null;
    if (status !== getStatus.found) {
      if (lengthBytes !== 0) return null;
      results.push({ status: status as Exclude<GetStatus, 0> });
      continue;
    }
    const data = lengthBytes > chunkBytesMax ? null : cursor.take(lengthBytes);
    if (data === null) return null;
    results.push({
      status: getStatus.found,
      bytes: data.length === 1 ? data[0]! : Buffer.concat(data),
    });
  }
  return cursor.isAtEnd ? results : null;
}

export function encodeChunkHas(keys: readonly Buffer[]): Buffer[] {
  assert(keys.length >= 1 && keys.length <= hasKeysMax);
  return [countHeader(keys.length), ...keys];
}

export function decodeChunkHas(body: Buffer): Buffer[] | null {
  if (body.length < keysHeaderBytes || body[0] !== version) return null;
  const count = body.readUInt16BE(2);
  return count > hasKeysMax ? null : decodeKeys(body, count);
}

export function encodeChunkHasReply(has: readonly boolean[]): Buffer[] {
  const bits = pooledZeros(Math.ceil(has.length / 8));
  for (let at = 0; at < has.length; at += 1) if (has[at]) bits[at >> 3]! |= 0x80 >> (at & 7);
  return [countHeader(has.length), bits];
}

export function decodeChunkHasReply(body: Buffer): boolean[] | null {
  if (body.length < keysHeaderBytes || body[0] !== version) return null;
  const count = body.readUInt16BE(2);
  if (count > hasKeysMax || body.length !== keysHeaderBytes + Math.ceil(count / 8)) return null;
  const has: boolean[] = [];
  for (let at = 0; at < count; at += 1) {
    has.push((body[keysHeaderBytes + (at >> 3)]! & (0x80 >> (at & 7))) !== 0);
  }
  return has;
}

function countHeader(count: number): Buffer {
  const header = Buffer.from([version, 0, 0, 0]);
  header.writeUInt16BE(count, 2);
  return header;
}
