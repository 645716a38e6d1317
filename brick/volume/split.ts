import { assert } from "../assert.ts";
import { grainsPerShardRun } from "../cluster-state.ts";
import type { ChunkPart } from "../map/grain.ts";
import { groupPartsMax } from "../map/group.ts";
import { type BrickNumber, grainBytes, sectorBytes, sectorsPerGrain } from "../units.ts";

/**
 * One map operation of a command: part of one grain with data or without (an unmap), or, with a
 * `grainCount`, a run of whole grains of one shard run that are unmapped together.
 */
export interface Piece {
  grain: number;
  /** Whole grains; 0 for a piece inside one grain. */
  grainCount: number;
  /** Of the grain; 0 for a run. */
  firstSector: number;
  /** Inside the grain; 0 for a run. */
  sectorCount: number;
  /** null: the range becomes unmapped. */
  data: Buffer[] | null;
  lengthBytes: number;
  /** Without data: the chunk, known to the map already, in which the sectors lie. */
  part?: ReferencedPart;
  /** With a `part`: how often that was looked up before. Absent: never. */
  renewals?: number;
  /** With data that are encrypted: with whose key (crypt/volume-cipher.ts). */
  keyDomain?: number;
  /** Pieces inside grains that land together or not at all; all but the first grain is 0 then. */
  group?: readonly Piece[];
}

export interface ReferencedPart extends ChunkPart {
  readonly key: Buffer;
  readonly holders: readonly BrickNumber[];
}

const zeros = Buffer.alloc(grainBytes);

/** Whether all bytes are zero; most data says no at the first byte looked at. */
export function isZero(bytes: Buffer): boolean {
  const { length } = bytes;
  if (length === 0) return true;
  if (bytes[0] !== 0 || bytes[length - 1] !== 0 || bytes[length >> 1] !== 0) return false;
  for (let at = 0; at < length; at += grainBytes) {
    const end = Math.min(length, at + grainBytes);
    if (bytes.compare(zeros, 0, end - at, at, end) !== 0) return false;
  }
  return true;
}

/** Cuts a write at grain boundaries; grains' worth of zeros become unmaps. Copies nothing. */
export function splitWrite(offsetBytes: number, data: readonly Buffer[]): Piece[] {
  const pieces: Piece[] = [];
  for (const piece of cutAtGrains(offsetBytes, data)) addPiece(pieces, piece);
  return pieces;
}

/** The same for a write that lands as one: what lies in several grains is a group. */
export function splitAtomic(offsetBytes: number, data: readonly Buffer[]): Piece[] {
  const inGrains = cutAtGrains(offsetBytes, data);
  const [first] = inGrains;
  const crosses = first !== undefined && runOf(inGrains.at(-1)!.grain) !== runOf(first.grain);
  // What is owed to another shard must be there to be found: zeros too.
  if (crosses) return [groupOf(inGrains)];
  const pieces = splitWrite(offsetBytes, data);
  return pieces.length <= 1 ? pieces : [groupOf(inGrains.map(withoutZeros))];
}

/**
 * Has the map told of neighbouring pieces together, when their chunks are stored beforehand anyway: one
 * record of the shard's log instead of many. Pieces shorter than `storedBytesMin` travel inside the
 * map's records, and stay alone.
 */
export function groupStored(pieces: readonly Piece[], storedBytesMin: number): Piece[] {
  const grouped: Piece[] = [];
  let run: Piece[] = [];
  const endRun = () => {
    if (run.length > 1) grouped.push(groupOf(run));
    else grouped.push(...run);
    run = [];
  };
  for (const piece of pieces) {
    const first = run[0];
    const joins =
      first !== undefined &&
      runOf(piece.grain) === runOf(first.grain) &&
      piece.grain - first.grain < groupPartsMax;
    if (!joins) endRun();
    if (piece.data !== null && piece.lengthBytes >= storedBytesMin) run.push(piece);
    else {
      endRun();
      grouped.push(piece);
    }
  }
  endRun();
  return grouped;
}

function withoutZeros(piece: Piece): Piece {
  return piece.data!.every(isZero) ? { ...piece, data: null } : piece;
}

function cutAtGrains(offsetBytes: number, data: readonly Buffer[]): Piece[] {
  assert(offsetBytes % sectorBytes === 0);
  const pieces: Piece[] = [];
  let grain = Math.floor(offsetBytes / grainBytes);
  let insideBytes = offsetBytes - grain * grainBytes;
  let gathered: Buffer[] = [];
  let gatheredBytes = 0;
  for (const buffer of data) {
    let at = 0;
    while (at < buffer.length) {
      const room = grainBytes - insideBytes - gatheredBytes;
      const take = Math.min(room, buffer.length - at);
      gathered.push(take === buffer.length ? buffer : buffer.subarray(at, at + take));
      gatheredBytes += take;
      at += take;
      if (take < room) continue;
      pieces.push(partOfGrain(grain, insideBytes, gatheredBytes, gathered));
      grain += 1;
      insideBytes = 0;
      gathered = [];
      gatheredBytes = 0;
    }
  }
  if (gatheredBytes > 0) pieces.push(partOfGrain(grain, insideBytes, gatheredBytes, gathered));
  return pieces;
}

/** Whether the map has more than one record of the range. */
export function crossesGrains(offsetBytes: number, lengthBytes: number): boolean {
  return (offsetBytes % grainBytes) + lengthBytes > grainBytes;
}

export function runOf(grain: number): number {
  return Math.floor(grain / grainsPerShardRun);
}

function groupOf(group: readonly Piece[]): Piece {
  assert(group.length <= groupPartsMax, "a group of too many grains");
  const lengthBytes = group.reduce((sum, piece) => sum + piece.lengthBytes, 0);
  const { grain } = group[0]!;
  return { grain, grainCount: 0, firstSector: 0, sectorCount: 0, data: null, lengthBytes, group };
}

/** Cuts an unmap at grain boundaries; whole grains of one shard run stay together. */
export function splitUnmap(offsetBytes: number, lengthBytes: number): Piece[] {
  assert(offsetBytes % sectorBytes === 0 && lengthBytes % sectorBytes === 0);
  const pieces: Piece[] = [];
  const endBytes = offsetBytes + lengthBytes;
  let at = offsetBytes;
  while (at < endBytes) {
    const grain = Math.floor(at / grainBytes);
    const insideBytes = at - grain * grainBytes;
    const wholeGrains = insideBytes > 0 ? 0 : Math.floor((endBytes - at) / grainBytes);
    if (wholeGrains > 0) {
      const count = Math.min(wholeGrains, (runOf(grain) + 1) * grainsPerShardRun - grain);
      pieces.push(unmapRun(grain, count));
      at += count * grainBytes;
    } else {
      const take = Math.min(grainBytes - insideBytes, endBytes - at);
      pieces.push(partOfGrain(grain, insideBytes, take, null));
      at += take;
    }
  }
  return pieces;
}

/** Cuts a range whose sectors lie side by side in a chunk at grain boundaries. */
export function splitReference(
  offsetBytes: number,
  lengthBytes: number,
  part: ReferencedPart,
): Piece[] {
  const pieces: Piece[] = [];
  for (let done = 0; done < lengthBytes; ) {
    const at = offsetBytes + done;
    const grain = Math.floor(at / grainBytes);
    const insideBytes = at - grain * grainBytes;
    const take = Math.min(grainBytes - insideBytes, lengthBytes - done);
    const chunkSector = part.chunkSector + done / sectorBytes;
    const piece = partOfGrain(grain, insideBytes, take, null);
    pieces.push({ ...piece, part: { ...part, chunkSector } });
    done += take;
  }
  return pieces;
}

/** Adds one grain's piece; whole grains of zeros of one shard run become one unmap. */
function addPiece(pieces: Piece[], piece: Piece): void {
  if (!piece.data!.every(isZero)) {
    pieces.push(piece);
    return;
  }
  if (piece.lengthBytes < grainBytes) {
    pieces.push({ ...piece, data: null });
    return;
  }
  const { grain } = piece;
  const last = pieces.at(-1);
  if (last !== undefined && last.grainCount > 0 && grain % grainsPerShardRun !== 0) {
    assert(last.grain + last.grainCount === grain);
    last.grainCount += 1;
    last.lengthBytes += grainBytes;
  } else {
    pieces.push(unmapRun(grain, 1));
  }
}

function partOfGrain(
  grain: number,
  insideBytes: number,
  lengthBytes: number,
  data: Buffer[] | null,
): Piece {
  const firstSector = insideBytes / sectorBytes;
  const sectorCount = lengthBytes / sectorBytes;
  assert(lengthBytes % sectorBytes === 0, "data does not fill whole sectors");
  assert(firstSector + sectorCount <= sectorsPerGrain);
  return { grain, grainCount: 0, firstSector, sectorCount, data, lengthBytes };
}

function unmapRun(grain: number, grainCount: number): Piece {
  const lengthBytes = grainCount * grainBytes;
  return { grain, grainCount, firstSector: 0, sectorCount: 0, data: null, lengthBytes };
}

/** The buffers' bytes [from, from + length), or what there is of them, without a copy. */
export function sliceOf(buffers: readonly Buffer[], from: number, length: number): Buffer[] {
  const parts: Buffer[] = [];
  let at = 0;
  for (const buffer of buffers) {
    const begin = Math.max(0, from - at);
    const end = Math.min(buffer.length, from + length - at);
    if (begin < end) parts.push(buffer.subarray(begin, end));
    at += buffer.length;
  }
  return parts;
}

export function lengthOf(buffers: readonly Buffer[]): number {
  let lengthBytes = 0;
  for (const buffer of buffers) lengthBytes += buffer.length;
  return lengthBytes;
}
