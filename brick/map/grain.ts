import { assert } from "../assert.ts";
import { readUint64, writeUint64 } from "../log/uint64.ts";
import { type BrickNumber, sectorsPerGrain } from "../units.ts";

/** Hints kept per extent; more are not needed to find a chunk. */
export const holdersMax = 8;
export const keyBytes = 32;
/** The key of explicit zeros: no chunk hashes to it. Never written into. */
export const zeroKey = Buffer.alloc(keyBytes);

/** Part of a grain's content: a range of sectors, and where inside which chunk they are. */
export interface Extent {
  readonly firstSector: number;
  readonly sectorCount: number;
  /** First sector inside the chunk; 0 in explicit zeros. */
  readonly chunkSector: number;
  /** Sectors of the whole chunk; `sectorCount` in explicit zeros. */
  readonly chunkSectors: number;
  /** `zeroKey`: explicit zeros, which only an overlay has. */
  readonly key: Buffer;
  /** Hints: the bricks that stored the chunk; at most `holdersMax`. */
  readonly holders: readonly BrickNumber[];
  /** Whose key the chunk is encrypted with (crypt/); absent: it is not. */
  readonly keyDomain?: number | undefined;
}

/**
 * The map record of one grain, exact as of its `op`: extents in order of sectors that do not
 * overlap. What they leave out reads as zeros; in an overlay, as the record below it says.
 */
export interface Grain {
  readonly op: number;
  readonly extents: readonly Extent[];
}

/** An unmap of `op`. An overlay must remember it, as an extent of explicit zeros. */
export function clearSectors(
  grain: Grain | undefined,
  op: number,
  firstSector: number,
  sectorCount: number,
  explicitZeros: boolean,
): Grain {
  assert(isRange(firstSector, sectorCount));
  const zeros = explicitZeros ? zerosOf(firstSector, sectorCount) : null;
  return replaceSectors(grain, op, firstSector, sectorCount, zeros);
}

/** The chunk is at other bricks as of `op`: every extent of it names them. */
export function rehint(
  grain: Grain,
  op: number,
  key: Buffer,
  holders: readonly BrickNumber[],
): Grain {
  assert(op >= grain.op && holders.length <= holdersMax && !key.equals(zeroKey));
  const extents = grain.extents.map((extent) =>
    extent.key.equals(key) ? { ...extent, holders } : extent,
  );
  return { op, extents };
}

/**
 * The complete record that a base record and the overlay above it make together. A base record as
 * new as the overlay already holds all that the overlay says, and perhaps more.
 */
export function overlayOver(base: Grain | undefined, overlay: Grain): Grain {
  if (base !== undefined && base.op >= overlay.op) return base;
  let extents: readonly Extent[] = base === undefined ? [] : base.extents;
  for (const extent of overlay.extents) {
    const put = isZeros(extent) ? null : extent;
    extents = splice(extents, extent.firstSector, extent.sectorCount, put);
  }
  return { op: overlay.op, extents };
}

export function mappedSectors(grain: Grain | undefined): number {
  let sectors = 0;
  if (grain === undefined) return sectors;
  for (const extent of grain.extents) if (!isZeros(extent)) sectors += extent.sectorCount;
  return sectors;
}

/** Explicit zeros have the very `zeroKey`: whoever makes an extent sees to it. To look at the bytes of
 * every key of a record would be most of what a small write costs. */
export function isZeros({ key }: Extent): boolean {
  return key === zeroKey;
}

/** Whether an extent, computed or decoded, may name a part of a chunk. */
export function isChunkExtent(extent: Extent): boolean {
  return (
    isRange(extent.firstSector, extent.sectorCount) &&
    isPart(extent, extent.sectorCount) &&
    extent.holders.length <= holdersMax &&
    !isZeroKey(extent.key)
  );
}

/** Where `sectorCount` sectors lie in a chunk. */
export interface ChunkPart {
  readonly chunkSector: number;
  /** Sectors of the whole chunk. */
  readonly chunkSectors: number;
}

export function isPart({ chunkSector, chunkSectors }: ChunkPart, sectorCount: number): boolean {
  return isRange(0, chunkSectors) && chunkSector + sectorCount <= chunkSectors;
}

function isRange(firstSector: number, sectorCount: number): boolean {
  return firstSector >= 0 && sectorCount >= 1 && firstSector + sectorCount <= sectorsPerGrain;
}

function zerosOf(firstSector: number, sectorCount: number): Extent {
  const chunk = { chunkSector: 0, chunkSectors: sectorCount, key: zeroKey, holders: [] };
  return { firstSector, sectorCount, ...chunk };
}

/** The grain with a range of sectors taken out and `put` in its place. */
export function replaceSectors(
  grain: Grain | undefined,
  op: number,
  firstSector: number,
  sectorCount: number,
  put: Extent | null,
): Grain {
  if (grain === undefined) return { op, extents: put === null ? [] : [put] };
  // An older entry is part of the record already, and must not cover what came after it.
  assert(op >= grain.op, "an entry older than the grain's record");
  return { op, extents: splice(grain.extents, firstSector, sectorCount, put) };
}

/** The extents with [firstSector, +sectorCount) cut out and `put` in its place. */
function splice(
  extents: readonly Extent[],
  firstSector: number,
  sectorCount: number,
  put: Extent | null,
): Extent[] {
  const endSector = firstSector + sectorCount;
  const spliced: Extent[] = [];
  let placed = put === null;
  for (const extent of extents) {
    const first = extent.firstSector;
    const end = first + extent.sectorCount;
    if (first < firstSector) append(spliced, part(extent, first, Math.min(end, firstSector)));
    if (!placed && end > firstSector) {
      append(spliced, put!);
      placed = true;
    }
    if (end > endSector) append(spliced, part(extent, Math.max(first, endSector), end));
  }
  if (!placed) append(spliced, put!);
  return spliced;
}

function part(extent: Extent, first: number, end: number): Extent {
  const sectorCount = end - first;
  if (sectorCount === extent.sectorCount) return extent;
  if (isZeros(extent)) return zerosOf(first, sectorCount);
  const chunkSector = extent.chunkSector + first - extent.firstSector;
  return { ...extent, firstSector: first, sectorCount, chunkSector };
}

/** Explicit zeros side by side become one extent, so that unmaps in small steps leave one. */
function append(extents: Extent[], extent: Extent): void {
  const last = extents[extents.length - 1];
  if (last === undefined || !isZeros(extent) || !isZeros(last)) {
    extents.push(extent);
    return;
  }
  if (last.firstSector + last.sectorCount === extent.firstSector) {
    const sectorCount = last.sectorCount + extent.sectorCount;
    extents[extents.length - 1] = zerosOf(last.firstSector, sectorCount);
  } else {
    extents.push(extent);
  }
}

/**
 * Grain record, version 1, big-endian:
 *
 *     version[1] = 1, zero[1], extent count[2], op[8], then for each extent, in order of sectors:
 *     firstSector[1] sectorCount[1] chunkSector[1] chunkSectors[1] codec[1] = 0
 *     form[1] (0 replicated chunk, 1 explicit zeros) key domain[2] holders[8 x 2] key[32]
 *
 * Holders after the last are 0. Explicit zeros have chunkSector 0, chunkSectors = sectorCount, no
 * holders, key domain 0 and a key of zeros. Key domain 0: the chunk is not encrypted.
 */
const recordVersion = 1;
export const recordHeaderBytes = 12;
const formChunk = 0;
const formZeros = 1;
/** An extent as it is stored, here and in messages. */
export const extentBytes = 56;
export const grainRecordBytesMax = recordHeaderBytes + sectorsPerGrain * extentBytes;

/** A record with room for so many extents, which are to be written behind its header. */
export function beginRecord(extentCount: number, op: number): Buffer {
  assert(extentCount <= sectorsPerGrain);
  const out = Buffer.allocUnsafe(recordHeaderBytes + extentCount * extentBytes);
  out[0] = recordVersion;
  out[1] = 0;
  out.writeUInt16BE(extentCount, 2);
  writeUint64(out, op, 4);
  return out;
}

export function encodeGrain(grain: Grain): Buffer {
  const { extents, op } = grain;
  const out = beginRecord(extents.length, op);
  let at = recordHeaderBytes;
  for (const extent of extents) at = writeExtent(out, extent, at);
  assert(at === out.length);
  return out;
}

/** null: malformed. The extents' keys are slices of the bytes. */
export function decodeGrain(bytes: Buffer): Grain | null {
  if (bytes.length < recordHeaderBytes || bytes[0] !== recordVersion || bytes[1] !== 0) return null;
  const count = bytes.readUInt16BE(2);
  const op = readUint64(bytes, 4);
  if (count > sectorsPerGrain || !Number.isSafeInteger(op)) return null;
  if (bytes.length !== recordHeaderBytes + count * extentBytes) return null;
  const extents = readExtents(bytes, recordHeaderBytes, count);
  return extents === null ? null : { op, extents };
}

export function writeExtent(out: Buffer, extent: Extent, at: number): number {
  const { holders } = extent;
  const zeros = isZeros(extent);
  assert(zeros ? isZerosExtent(extent) : isChunkExtent(extent), "an extent is malformed");
  out[at] = extent.firstSector;
  out[at + 1] = extent.sectorCount;
  out[at + 2] = extent.chunkSector;
  out[at + 3] = extent.chunkSectors;
  out[at + 4] = 0;
  out[at + 5] = zeros ? formZeros : formChunk;
  out.writeUInt16BE(extent.keyDomain ?? 0, at + 6);
  writeHolders(out, holders, at + 8);
  assert(extent.key.copy(out, at + 24) === keyBytes);
  return at + extentBytes;
}

/** `count` extents from `at` on, which must be there, in order and not overlapping; null if not. */
export function readExtents(bytes: Buffer, at: number, count: number): Extent[] | null {
  const extents: Extent[] = [];
  let sector = 0;
  for (let index = 0; index < count; index += 1) {
    const extent = readExtent(bytes, at + index * extentBytes);
    if (extent === null || extent.firstSector < sector) return null;
    sector = extent.firstSector + extent.sectorCount;
    extents.push(extent);
  }
  return extents;
}

function readExtent(bytes: Buffer, at: number): Extent | null {
  const form = bytes[at + 5]!;
  if (bytes[at + 4] !== 0 || form > formZeros) return null;
  const holders = readHolders(bytes, at + 8);
  if (holders === null) return null;
  const key = bytes.subarray(at + 24, at + extentBytes);
  const extent = {
    firstSector: bytes[at]!,
    sectorCount: bytes[at + 1]!,
    chunkSector: bytes[at + 2]!,
    chunkSectors: bytes[at + 3]!,
    key,
    holders,
  };
  const keyDomain = bytes.readUInt16BE(at + 6);
  if (form === formChunk) return isChunkExtent(extent) ? withKeyDomain(extent, keyDomain) : null;
  return keyDomain === 0 && isZerosExtent(extent) ? { ...extent, key: zeroKey } : null;
}

/** What is not encrypted has no such member: most records are of such extents alone. */
export function withKeyDomain<T extends object>(
  of: T,
  keyDomain: number | undefined,
): T & { readonly keyDomain?: number | undefined } {
  return keyDomain ? { ...of, keyDomain } : of;
}

function isZerosExtent(extent: Extent): boolean {
  return (
    isRange(extent.firstSector, extent.sectorCount) &&
    extent.chunkSector === 0 &&
    extent.chunkSectors === extent.sectorCount &&
    extent.holders.length === 0 &&
    extent.keyDomain === undefined &&
    isZeroKey(extent.key)
  );
}

function isZeroKey(key: Buffer): boolean {
  return key === zeroKey || key.equals(zeroKey);
}

/** holders[8 x 2]: 0 after the last. */
export function writeHolders(out: Buffer, holders: readonly BrickNumber[], at: number): number {
  assert(holders.length <= holdersMax);
  for (let index = 0; index < holdersMax; index += 1) {
    const holder = holders[index] ?? 0;
    out[at + index * 2] = holder >>> 8;
    out[at + index * 2 + 1] = holder & 0xff;
  }
  return at + holdersMax * 2;
}

/** null when a holder comes after the end. */
export function readHolders(bytes: Buffer, at: number): BrickNumber[] | null {
  const holders: BrickNumber[] = [];
  for (let index = 0; index < holdersMax; index += 1) {
    const holder = (bytes[at + index * 2]! << 8) | bytes[at + index * 2 + 1]!;
    if (holder === 0) continue;
    if (holders.length !== index) return null;
    holders.push(holder);
  }
  return holders;
}
