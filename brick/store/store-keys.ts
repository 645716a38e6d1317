import { assert } from "../assert.ts";
import { crc32 } from "../crc32.ts";
import type { RecordLocation } from "../log/log.ts";
import type { Segment } from "../log/segments.ts";
import { readUint64, writeUint64 } from "../log/uint64.ts";
import { pooledZeros } from "../pooled-zeros.ts";

/**
 * What the store keeps in the key-value store, big-endian:
 *
 * Chunk index. Key: 0x01, chunk key[32]. Value, 20 bytes:
 *   version[1] = 1, flags[1] (1: found damaged), zero[2], segment[4], segment epoch[4],
 *   offset in the segment[4], chunk length[4]
 *
 * Checkpoint. Key: 0x03 0x01. Value, 48 bytes:
 *   version[1] = 1, zero[3], next log position[8], segment[4], offset in it[4],
 *   checksum of the last batch header[4], chunk count[8], chunk bytes[8], zero[4], CRC-32[4]
 *
 * Segment. Key: 0x03 0x02, segment number[4]. Value, 32 bytes:
 *   version[1] = 1, state[1] (1 free, 2 current, 3 closed), zero[2], epoch[4],
 *   last log position[8], live chunk bytes[8], bytes written[4], CRC-32[4]
 */
export const kvPrefix = { chunk: 1, map: 2, store: 3 } as const;

export const chunkKvKeyBytes = 33;
/** All keys of chunks lie from here up to, not with, there. */
export const indexStart = Buffer.from([kvPrefix.chunk]);
export const indexEnd = Buffer.from([kvPrefix.chunk + 1]);
const chunkValueBytes = 20;
const flagDamaged = 1;

/** Where a chunk's bytes are. */
export interface ChunkEntry extends RecordLocation {
  /** Its bytes were found not to be what they should be: it must be written again. */
  damaged: boolean;
}

export function chunkKvKey(key: Buffer, out = Buffer.allocUnsafe(chunkKvKeyBytes)): Buffer {
  out[0] = kvPrefix.chunk;
  key.copy(out, 1);
  return out;
}

export function encodeChunkEntry(entry: ChunkEntry): Buffer {
  const out = pooledZeros(chunkValueBytes);
  out[0] = 1;
  out[1] = entry.damaged ? flagDamaged : 0;
  let at = out.writeUInt32BE(entry.segment, 4);
  at = out.writeUInt32BE(entry.epoch, at);
  at = out.writeUInt32BE(entry.offsetBytes, at);
  at = out.writeUInt32BE(entry.lengthBytes, at);
  assert(at === chunkValueBytes);
  return out;
}

export function decodeChunkEntry(value: Buffer): ChunkEntry | null {
  if (value.length !== chunkValueBytes || value[0] !== 1) return null;
  return {
    damaged: (value[1]! & flagDamaged) !== 0,
    segment: value.readUInt32BE(4),
    epoch: value.readUInt32BE(8),
    offsetBytes: value.readUInt32BE(12),
    lengthBytes: value.readUInt32BE(16),
  };
}

export const checkpointKvKey = Buffer.from([kvPrefix.store, 1]);
const checkpointBytes = 48;

/** What a checkpoint covers, and the totals as of then. */
export interface Checkpoint {
  position: number;
  segment: number;
  offsetBytes: number;
  previousChecksum: number;
  chunkCount: number;
  chunkBytes: number;
}

/** Before the first batch. */
export const checkpointNone: Checkpoint = {
  position: 1,
  segment: 0,
  offsetBytes: 0,
  previousChecksum: 0,
  chunkCount: 0,
  chunkBytes: 0,
};

export function encodeCheckpoint(checkpoint: Checkpoint): Buffer {
  const out = pooledZeros(checkpointBytes);
  out[0] = 1;
  let at = writeUint64(out, checkpoint.position, 4);
  at = out.writeUInt32BE(checkpoint.segment, at);
  at = out.writeUInt32BE(checkpoint.offsetBytes, at);
  at = out.writeUInt32BE(checkpoint.previousChecksum, at);
  at = writeUint64(out, checkpoint.chunkCount, at);
  at = writeUint64(out, checkpoint.chunkBytes, at) + 4;
  at = out.writeUInt32BE(crc32(out.subarray(0, at)), at);
  assert(at === checkpointBytes);
  return out;
}

export function decodeCheckpoint(value: Buffer): Checkpoint | null {
  if (value.length !== checkpointBytes || value[0] !== 1) return null;
  if (value.readUInt32BE(44) !== crc32(value.subarray(0, 44))) return null;
  return {
    position: readUint64(value, 4),
    segment: value.readUInt32BE(12),
    offsetBytes: value.readUInt32BE(16),
    previousChecksum: value.readUInt32BE(20),
    chunkCount: readUint64(value, 24),
    chunkBytes: readUint64(value, 32),
  };
}

const segmentKvPrefix = 2;
const segmentRowBytes = 32;
export const segmentRowsStart = Buffer.from([kvPrefix.store, segmentKvPrefix]);
export const segmentRowsEnd = Buffer.from([kvPrefix.store, segmentKvPrefix + 1]);
const states = ["free", "current", "closed"] as const;

export interface SegmentRow {
  number: number;
  state: (typeof states)[number];
  epoch: number;
  lastPosition: number;
  liveBytes: number;
  writtenBytes: number;
}

export function segmentKvKey(segment: number): Buffer {
  const key = Buffer.from([kvPrefix.store, segmentKvPrefix, 0, 0, 0, 0]);
  key.writeUInt32BE(segment, 2);
  return key;
}

export function encodeSegmentRow(segment: Segment): Buffer {
  const out = pooledZeros(segmentRowBytes);
  out[0] = 1;
  const state = segment.state === "ready" ? "free" : segment.state;
  out[1] = states.indexOf(state) + 1;
  let at = out.writeUInt32BE(segment.epoch, 4);
  at = writeUint64(out, segment.lastPosition, at);
  at = writeUint64(out, segment.liveBytes, at);
  at = out.writeUInt32BE(segment.writtenBytes, at);
  at = out.writeUInt32BE(crc32(out.subarray(0, at)), at);
  assert(at === segmentRowBytes);
  return out;
}

export function decodeSegmentRow(key: Buffer, value: Buffer): SegmentRow | null {
  if (key.length !== 6 || value.length !== segmentRowBytes || value[0] !== 1) return null;
  if (value.readUInt32BE(28) !== crc32(value.subarray(0, 28))) return null;
  const state = states[value[1]! - 1];
  if (state === undefined) return null;
  return {
    number: key.readUInt32BE(2),
    state,
    epoch: value.readUInt32BE(4),
    lastPosition: readUint64(value, 8),
    liveBytes: readUint64(value, 16),
    writtenBytes: value.readUInt32BE(24),
  };
}
