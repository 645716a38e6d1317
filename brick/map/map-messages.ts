import { assert } from "../assert.ts";
import { grainsPerShardRun } from "../cluster-state.ts";
import { readUint64, writeUint64 } from "../log/uint64.ts";
import { pooledZeros } from "../pooled-zeros.ts";
import type { Wire } from "../rpc/words.ts";
import { type BrickNumber, sectorBytes, sectorsPerGrain } from "../units.ts";
import {
  type ChunkPart,
  type Extent,
  extentBytes,
  holdersMax,
  isPart,
  isZeros,
  keyBytes,
  readExtents,
  readHolders,
  withKeyDomain,
  writeExtent,
  writeHolders,
  zeroKey,
} from "./grain.ts";

/** What a gateway asks of a shard's primary, and how the answers read to it. */
export interface MapWriteRequest {
  shard: number;
  view: number;
  branch: number;
  generation: number;
  epoch: number;
  sequence: number;
  lowWater: number;
  grain: number;
  /** Whole grains that are unmapped; 0 for a part of one grain. */
  grainCount: number;
  firstSector: number;
  sectorCount: number;
  /** null: an unmap. */
  key: Buffer | null;
  /** Of a chunk that the map names elsewhere; null: a chunk of exactly these sectors, or an unmap. */
  part: ChunkPart | null;
  holders: readonly BrickNumber[];
  /** With a key, as in an extent. */
  keyDomain?: number | undefined;
  /** The chunk's bytes when they travel inline. */
  inline: readonly Buffer[] | null;
  /** The garbage-collection epoch in which storing the chunk was begun; 0 without one, or inline. */
  gcEpoch: number;
}

export interface MapLookupRequest {
  shard: number;
  view: number;
  branch: number;
  epoch: number;
  firstGrain: number;
  grainCount: number;
  /**
   * The next that the shard owes to another one, wherever that is at or after `firstGrain`: one
   * group's grains at most. `grainCount` is `groupPartsMax` then.
   */
  owed: boolean;
}

export interface MapFenceRequest {
  shard: number;
  view: number;
  branch: number;
  epoch: number;
}

export interface MapCancelRequest extends MapFenceRequest {
  sequence: number;
  lowWater: number;
}

/** The chunk is at other bricks now: every extent of it in the grain's record shall name them. */
export interface MapRehintRequest {
  shard: number;
  view: number;
  branch: number;
  generation: number;
  grain: number;
  key: Buffer;
  holders: readonly BrickNumber[];
  /** The garbage-collection epoch before anything was asked of the holders. */
  gcEpoch: number;
}

export type MapStatus =
  | "ok"
  /** Ask again, perhaps another brick. */
  | "not_now"
  | "fenced"
  | "cancelled"
  | "no_space"
  /** The chunk may have been swept since it was stored: it must be stored again. */
  | "stale"
  /** The primary cannot read the request: a fault of ours, or a newer version of theirs. */
  | "refused";

export interface MapReply {
  status: MapStatus;
  view: number;
  /** Of a write: the bricks that hold the inline chunk. */
  holders: readonly BrickNumber[];
}

export interface MapLookupReply {
  status: MapStatus;
  view: number;
  /** Grains from the first on that the answer speaks for. */
  coveredCount: number;
  /** Extents by grain, both in order; a covered grain that is absent reads as zeros. */
  grains: ReadonlyMap<number, readonly Extent[]>;
}

/** Statuses by their number in replies. */
const statuses: readonly MapStatus[] = [
  "ok",
  "not_now",
  "fenced",
  "cancelled",
  "no_space",
  "refused",
  "stale",
];

/** Grains that one look-up may ask for: a shard's grains lie together in such runs. */
export const lookupGrainsMax = grainsPerShardRun;

const version = 1;
const grainEnd = 2 ** 48;

/**
 * Write or unmap, 112 bytes and what the flags say; all messages are big-endian:
 *
 *     version[1] = 1, flags[1] (1: has a key, 2: the chunk's bytes follow, 4: a part of a chunk
 *     that the map names elsewhere: chunkSector[1], chunkSectors[1], zero[6] follow), shard[2], view[8],
 *     branch[6], grain[6], generation[4], grainCount[2], firstSector[1], sectorCount[1], epoch[8],
 *     sequence[8], lowWater[8], codec[1] = 0, form[1] = 0, key domain[2] (0 without a key), gcEpoch[4],
 *     holders[8 x 2] (0 after the last), key[32] (zeros when there is none)
 */
const writeBytes = 112;
const flagKey = 1;
const flagInline = 2;
const flagPart = 4;
const partBytes = 8;

export function encodeMapWrite(request: MapWriteRequest): Buffer[] {
  const { key, inline, part } = request;
  assert((inline === null && part === null) || key !== null);
  assert(inline === null || part === null);
  const out = Buffer.allocUnsafe(writeBytes);
  out[1] = (key ? flagKey : 0) | (inline ? flagInline : 0) | (part ? flagPart : 0);
  let at = writeStart(out, request.shard, request.view);
  at = out.writeUIntBE(request.branch, at, 6);
  at = out.writeUIntBE(request.grain, at, 6);
  at = out.writeUInt32BE(request.generation, at);
  at = out.writeUInt16BE(request.grainCount, at);
  at = out.writeUInt8(request.firstSector, at);
  at = out.writeUInt8(request.sectorCount, at);
  at = writeUint64(out, request.epoch, at);
  at = writeUint64(out, request.sequence, at);
  at = writeUint64(out, request.lowWater, at);
  out.fill(0, at, at + 2);
  at = out.writeUInt16BE(request.keyDomain ?? 0, at + 2);
  at = out.writeUInt32BE(request.gcEpoch, at);
  at = writeHolders(out, request.holders, at);
  at += (key ?? zeroKey).copy(out, at);
  assert(at === writeBytes);
  assert(isWriteRange(request), "a map write of no valid range");
  if (part === null) return inline === null ? [out] : [out, ...inline];
  assert(isPart(part, request.sectorCount));
  const tail = pooledZeros(partBytes);
  tail[0] = part.chunkSector;
  tail[1] = part.chunkSectors;
  return [out, tail];
}

/** `key` and `inline` are slices of the message. */
export function decodeMapWrite(body: Buffer): MapWriteRequest | null {
  const flags = body[1];
  if (body.length < writeBytes || body[0] !== version || !writeFlags.includes(flags!)) return null;
  if (!isZeroAt(body, 56, 2)) return null;
  const keyDomain = body.readUInt16BE(58);
  if (keyDomain !== 0 && (flags! & flagKey) === 0) return null;
  const holders = readHolders(body, 64);
  if (holders === null) return null;
  const key = body.subarray(80, writeBytes);
  if (key.equals(zeroKey) !== ((flags! & flagKey) === 0)) return null;
  const received = {
    shard: body.readUInt16BE(2),
    view: readUint64(body, 4),
    branch: body.readUIntBE(12, 6),
    grain: body.readUIntBE(18, 6),
    generation: body.readUInt32BE(24),
    grainCount: body.readUInt16BE(28),
    firstSector: body[30]!,
    sectorCount: body[31]!,
    epoch: readUint64(body, 32),
    sequence: readUint64(body, 40),
    lowWater: readUint64(body, 48),
    key: (flags! & flagKey) === 0 ? null : key,
    part: (flags! & flagPart) === 0 ? null : readPart(body),
    holders,
    inline: (flags! & flagInline) === 0 ? null : [body.subarray(writeBytes)],
    gcEpoch: body.readUInt32BE(60),
  };
  const request = withKeyDomain(received, keyDomain);
  const { view, epoch, sequence, lowWater, sectorCount, inline, part } = request;
  if (!areExact(view, epoch, sequence, lowWater) || !isWriteRange(request)) return null;
  if (flags! & flagPart) return part !== null && isPart(part, sectorCount) ? request : null;
  const inlineBytes = inline === null ? 0 : sectorCount * sectorBytes;
  return body.length === writeBytes + inlineBytes ? request : null;
}

export const mapWriteWire: Wire<MapWriteRequest> = {
  encode: encodeMapWrite,
  decode: decodeMapWrite,
};

/** The flags that go together. */
const writeFlags = [0, flagKey, flagKey | flagInline, flagKey | flagPart];

function readPart(body: Buffer): ChunkPart | null {
  if (body.length !== writeBytes + partBytes || !isZeroAt(body, writeBytes + 2, 6)) return null;
  return { chunkSector: body[writeBytes]!, chunkSectors: body[writeBytes + 1]! };
}

/** Part of one grain, or for an unmap whole grains of one shard run. */
function isWriteRange(request: {
  grain: number;
  grainCount: number;
  firstSector: number;
  sectorCount: number;
  key: Buffer | null;
}): boolean {
  const { grain, grainCount, firstSector, sectorCount, key } = request;
  if (grainCount === 0) return sectorCount >= 1 && firstSector + sectorCount <= sectorsPerGrain;
  if (key !== null || firstSector !== 0 || sectorCount !== 0) return false;
  return (grain % grainsPerShardRun) + grainCount <= grainsPerShardRun;
}

/**
 * Look-up, 40 bytes:
 *
 *     version[1] = 1, owed[1], shard[2], view[8], branch[6], firstGrain[6], epoch[8],
 *     grainCount[4] (1..1024), zero[4]
 */
const lookupBytes = 40;

export function encodeMapLookup(request: MapLookupRequest): Buffer[] {
  const { grainCount } = request;
  assert(grainCount >= 1 && grainCount <= lookupGrainsMax);
  const out = pooledZeros(lookupBytes);
  out[1] = request.owed ? 1 : 0;
  let at = writeStart(out, request.shard, request.view);
  at = out.writeUIntBE(request.branch, at, 6);
  at = out.writeUIntBE(request.firstGrain, at, 6);
  at = writeUint64(out, request.epoch, at);
  at = out.writeUInt32BE(grainCount, at) + 4;
  assert(at === lookupBytes);
  return [out];
}

export function decodeMapLookup(body: Buffer): MapLookupRequest | null {
  if (body.length !== lookupBytes || body[0] !== version || body[1]! > 1) return null;
  if (!isZeroAt(body, 36, 4)) return null;
  const request = {
    shard: body.readUInt16BE(2),
    view: readUint64(body, 4),
    branch: body.readUIntBE(12, 6),
    firstGrain: body.readUIntBE(18, 6),
    epoch: readUint64(body, 24),
    grainCount: body.readUInt32BE(32),
    owed: body[1] === 1,
  };
  const { view, epoch, firstGrain, grainCount } = request;
  if (grainCount < 1 || grainCount > lookupGrainsMax) return null;
  return areExact(view, epoch) && firstGrain + grainCount <= grainEnd ? request : null;
}

/**
 * Fence, 32 bytes, and cancel, 48 bytes:
 *
 *     version[1] = 1, zero[1], shard[2], view[8], branch[6], zero[6], epoch[8]
 *     and of a cancel: sequence[8], lowWater[8]
 */
const fenceBytes = 32;
const cancelBytes = 48;

export function encodeMapFence(request: MapFenceRequest): Buffer[] {
  const out = pooledZeros(fenceBytes);
  assert(writeFence(out, request) === fenceBytes);
  return [out];
}

export function decodeMapFence(body: Buffer): MapFenceRequest | null {
  return isStart(body, fenceBytes) ? readFence(body) : null;
}

export function encodeMapCancel(request: MapCancelRequest): Buffer[] {
  const out = pooledZeros(cancelBytes);
  let at = writeFence(out, request);
  at = writeUint64(out, request.sequence, at);
  at = writeUint64(out, request.lowWater, at);
  assert(at === cancelBytes);
  return [out];
}

export function decodeMapCancel(body: Buffer): MapCancelRequest | null {
  const fence = isStart(body, cancelBytes) ? readFence(body) : null;
  if (fence === null) return null;
  const sequence = readUint64(body, 32);
  const lowWater = readUint64(body, 40);
  return areExact(sequence, lowWater) ? { ...fence, sequence, lowWater } : null;
}

function writeFence(out: Buffer, request: MapFenceRequest): number {
  let at = writeStart(out, request.shard, request.view);
  at = out.writeUIntBE(request.branch, at, 6) + 6;
  return writeUint64(out, request.epoch, at);
}

function readFence(body: Buffer): MapFenceRequest | null {
  const view = readUint64(body, 4);
  const epoch = readUint64(body, 24);
  if (!isZeroAt(body, 18, 6) || !areExact(view, epoch)) return null;
  return { shard: body.readUInt16BE(2), view, branch: body.readUIntBE(12, 6), epoch };
}

/**
 * New holder hints, 80 bytes:
 *
 *     version[1] = 1, zero[1], shard[2], view[8], branch[6], grain[6], generation[4], zero[4],
 *     holders[8 x 2] (0 after the last), key[32]
 */
const rehintBytes = 80;

export function encodeMapRehint(request: MapRehintRequest): Buffer[] {
  const out = pooledZeros(rehintBytes);
  let at = writeStart(out, request.shard, request.view);
  at = out.writeUIntBE(request.branch, at, 6);
  at = out.writeUIntBE(request.grain, at, 6);
  at = out.writeUInt32BE(request.generation, at);
  at = out.writeUInt32BE(request.gcEpoch, at);
  at = writeHolders(out, request.holders, at);
  at += request.key.copy(out, at);
  assert(at === rehintBytes);
  return [out];
}

export function decodeMapRehint(body: Buffer): MapRehintRequest | null {
  if (!isStart(body, rehintBytes)) return null;
  const holders = readHolders(body, 32);
  const key = body.subarray(48, 48 + keyBytes);
  if (holders === null || key.equals(zeroKey)) return null;
  const request = {
    shard: body.readUInt16BE(2),
    view: readUint64(body, 4),
    branch: body.readUIntBE(12, 6),
    grain: body.readUIntBE(18, 6),
    generation: body.readUInt32BE(24),
    key,
    holders,
    gcEpoch: body.readUInt32BE(28),
  };
  return areExact(request.view) ? request : null;
}

/**
 * Reply, 28 bytes:
 *
 *     version[1] = 1, status[1] (0 ok, 1 not now, 2 fenced, 3 cancelled, 4 no space, 5 refused,
 *     6 stale),
 *     zero[2], view[8], holders[8 x 2] (0 after the last)
 */
const replyBytes = 12 + holdersMax * 2;

export function encodeMapReply(reply: MapReply): Buffer[] {
  const out = Buffer.allocUnsafe(replyBytes);
  assert(writeHolders(out, reply.holders, writeReplyStart(out, reply)) === replyBytes);
  return [out];
}

export function decodeMapReply(body: Buffer): MapReply | null {
  const start = body.length === replyBytes ? readReplyStart(body) : null;
  const holders = start === null ? null : readHolders(body, 12);
  return holders === null ? null : { ...start!, holders };
}

export const mapReplyWire: Wire<MapReply> = { encode: encodeMapReply, decode: decodeMapReply };

/**
 * Look-up reply, 20 bytes and the grains in order:
 *
 *     version[1] = 1, status[1], zero[2], view[8], coveredCount[4], grains that follow[4]
 *     each grain: grain[6], extent count[2], then the extents as in a grain record, no zeros
 */
const lookupReplyBytes = 20;
const lookupGrainHeaderBytes = 8;

/** What a grain of so many extents takes in a look-up reply. */
export function lookupGrainBytes(extentCount: number): number {
  return lookupGrainHeaderBytes + extentCount * extentBytes;
}

export function encodeLookupReply(reply: MapLookupReply): Buffer[] {
  const { coveredCount, grains } = reply;
  assert(coveredCount <= lookupGrainsMax && grains.size <= coveredCount);
  let sizeBytes = lookupReplyBytes;
  for (const extents of grains.values()) sizeBytes += lookupGrainBytes(extents.length);
  const out = Buffer.allocUnsafe(sizeBytes);
  let at = writeReplyStart(out, reply);
  at = out.writeUInt32BE(coveredCount, at);
  at = out.writeUInt32BE(grains.size, at);
  let last = -1;
  for (const [grain, extents] of grains) {
    assert(grain > last, "the grains of a look-up reply are out of order");
    last = grain;
    at = out.writeUIntBE(grain, at, 6);
    at = out.writeUInt16BE(extents.length, at);
    for (const extent of extents) {
      assert(!isZeros(extent));
      at = writeExtent(out, extent, at);
    }
  }
  assert(at === sizeBytes);
  return [out];
}

export function decodeLookupReply(body: Buffer): MapLookupReply | null {
  const start = body.length >= lookupReplyBytes ? readReplyStart(body) : null;
  if (start === null) return null;
  const coveredCount = body.readUInt32BE(12);
  const count = body.readUInt32BE(16);
  if (coveredCount > lookupGrainsMax || count > coveredCount) return null;
  const grains = new Map<number, readonly Extent[]>();
  let at = lookupReplyBytes;
  let first = -1;
  let last = -1;
  for (let index = 0; index < count; index += 1) {
    if (body.length < at + lookupGrainHeaderBytes) return null;
    const grain = body.readUIntBE(at, 6);
    const extentCount = body.readUInt16BE(at + 6);
    if (index === 0) first = grain;
    if (grain <= last || grain - first >= coveredCount) return null;
    last = grain;
    at += lookupGrainHeaderBytes;
    if (extentCount > sectorsPerGrain || body.length < at + extentCount * extentBytes) return null;
    const extents = readExtents(body, at, extentCount);
    if (extents === null || extents.some(isZeros)) return null;
    grains.set(grain, extents);
    at += extentCount * extentBytes;
  }
  return at === body.length ? { ...start, coveredCount, grains } : null;
}

/** The caller has cleared or will set the byte after the version. */
function writeStart(out: Buffer, shard: number, view: number): number {
  out[0] = version;
  return writeUint64(out, view, out.writeUInt16BE(shard, 2));
}

function isStart(body: Buffer, sizeBytes: number): boolean {
  return body.length === sizeBytes && body[0] === version && body[1] === 0;
}

function writeReplyStart(out: Buffer, reply: { status: MapStatus; view: number }): number {
  const status = statuses.indexOf(reply.status);
  assert(status >= 0);
  out[0] = version;
  out[1] = status;
  return writeUint64(out, reply.view, out.writeUInt16BE(0, 2));
}

function readReplyStart(body: Buffer): { status: MapStatus; view: number } | null {
  const status = statuses[body[1]!];
  const view = readUint64(body, 4);
  if (body[0] !== version || status === undefined || !isZeroAt(body, 2, 2)) return null;
  return areExact(view) ? { status, view } : null;
}

function areExact(...numbers: number[]): boolean {
  return numbers.every(Number.isSafeInteger);
}

function isZeroAt(body: Buffer, from: number, count: number): boolean {
  for (let at = from; at < from + count; at += 1) if (body[at] !== 0) return false;
  return true;
}
