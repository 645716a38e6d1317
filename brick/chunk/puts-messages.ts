import { assert } from "../assert.ts";
import { readUint64, writeUint64 } from "../log/uint64.ts";
import { pooledZeros } from "../pooled-zeros.ts";
import { PartsCursor } from "../rpc/parts.ts";
import { MiB } from "../units.ts";
import { type ChunkPut, type PutStatus, putStatus } from "./chunk-messages.ts";
import { chunkBytesMax, chunkBytesMin, chunkKeyBytes } from "./key.ts";

/**
 * Several chunks for one brick in one message, version 1, big-endian.
 *
 * chunkPuts request: version[1] = 1, chunk count[1], zero[2], garbage-collection epoch in which the
 *                    newest storing was begun[4]; a chunk: key[32], origin: branch[8], grain[8],
 *                    sequence[8], first sector[2]; zero[2], length[4]; then the chunks' bytes, in
 *                    the same order
 * chunkPuts reply:   version[1] = 1, chunk count[1], zero[2]; a chunk: status[1], as of chunkPut
 */

const version = 1;
const headerBytes = 8;
const entryBytes = 64;
const replyHeaderBytes = 4;

export const putsMax = 16;
/** Of the chunks in one message. */
export const putsBytesMax = 1 * MiB;

export type ChunkToPut = Omit<ChunkPut, "gcEpoch">;

export function encodeChunkPuts(chunks: readonly ChunkToPut[], gcEpoch: number): Buffer[] {
  assert(chunks.length >= 1 && chunks.length <= putsMax);
  const header = pooledZeros(headerBytes + chunks.length * entryBytes);
  header[0] = version;
  header[1] = chunks.length;
  let at = header.writeUInt32BE(gcEpoch, 4);
  const parts: Buffer[] = [header];
  for (const { key, origin, data, lengthBytes } of chunks) {
    assert(key.length === chunkKeyBytes);
    at += key.copy(header, at);
    at = writeUint64(header, origin.branch, at);
    at = writeUint64(header, origin.grain, at);
    at = writeUint64(header, origin.sequence, at);
    at = header.writeUInt16BE(origin.firstSector, at) + 2;
    at = header.writeUInt32BE(lengthBytes, at);
    for (const part of data) parts.push(part);
  }
  assert(at === header.length);
  return parts;
}

/** Of a body that may be in parts, the first of which holds the header. */
export function decodeChunkPuts(parts: readonly Buffer[]): ChunkPut[] | null {
  const body = parts[0];
  if (body === undefined || body.length < headerBytes || body[0] !== version) return null;
  const count = body[1]!;
  const dataAt = headerBytes + count * entryBytes;
  if (count === 0 || count > putsMax || body.length < dataAt) return null;
  const cursor = new PartsCursor(parts, dataAt);
  const gcEpoch = body.readUInt32BE(4);
  const puts: ChunkPut[] = [];
  for (let at = headerBytes; puts.length < count; at += entryBytes) {
    const lengthBytes = body.readUInt32BE(at + 60);
    if (lengthBytes < chunkBytesMin || lengthBytes > chunkBytesMax) return null;
    const data = cursor.take(lengthBytes);
    if (data === null) return null;
    puts.push({
      key: body.subarray(at, at + chunkKeyBytes),
      origin: {
        branch: readUint64(body, at + 32),
        grain: readUint64(body, at + 40),
        sequence: readUint64(body, at + 48),
        firstSector: body.readUInt16BE(at + 56),
      },
      data,
      lengthBytes,
      gcEpoch,
    });
  }
  return cursor.isAtEnd ? puts : null;
}

export function encodeChunkPutsReply(statuses: readonly PutStatus[]): Buffer[] {
  assert(statuses.length >= 1 && statuses.length <= putsMax);
  return [Buffer.from([version, statuses.length, 0, 0, ...statuses])];
}

export function decodeChunkPutsReply(body: Buffer): PutStatus[] | null {
  if (body.length < replyHeaderBytes || body[0] !== version) return null;
  const count = body[1]!;
  if (count === 0 || count > putsMax || body.length !== replyHeaderBytes + count) return null;
  const statuses = [...body.subarray(replyHeaderBytes)];
  return statuses.every((status) => status <= putStatus.busy) ? (statuses as PutStatus[]) : null;
}
