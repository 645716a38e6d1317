import { assert } from "../assert.ts";
import { type BrickNumber, grainBytes, MiB } from "../units.ts";
import { type Extent, extentBytes, isZeros, readExtents, writeExtent, zeroKey } from "./grain.ts";

/** What an entry changes in one grain; or, of an unmap, in whole grains. */
export interface MapChange {
  readonly grain: number;
  /** Whole grains of an unmap; 0 when sectors of one grain are meant. */
  readonly grainCount: number;
  readonly firstSector: number;
  readonly sectorCount: number;
  readonly chunkSector: number;
  readonly chunkSectors: number;
  /** null: the sectors become unmapped. */
  readonly key: Buffer | null;
  readonly holders: readonly BrickNumber[];
  /** As in an extent. */
  readonly keyDomain?: number | undefined;
  /** Of the map of what is owed to another shard (`owed.ts`); else absent or false. */
  readonly owed?: boolean;
}

/** One grain's part of a group: changes that one entry makes together, all or none. */
export interface GroupPart extends MapChange {
  readonly grainCount: 0;
  readonly owed: boolean;
}

/** The longest write that is one entry. */
export const groupBytesMax = 1 * MiB;
/** Its parts, when it begins and ends inside a grain. */
export const groupPartsMax = groupBytesMax / grainBytes + 1;
/**
 * A part as it is stored, here and in messages: grain[6], owed[1], zero[1], an extent as in a
 * grain record. */
export const groupPartBytes = 8 + extentBytes;
export const groupBytesOfPartsMax = groupPartsMax * groupPartBytes;

/** Whether these may be parts of one group: in order, one per grain, and as near as one write's are. */
export function isGroup(parts: readonly GroupPart[]): boolean {
  const [first] = parts;
  if (first === undefined) return false;
  return parts.every(({ grain }, at) => {
    const isNext = at === 0 || grain > parts[at - 1]!.grain;
    return isNext && grain - first.grain < groupPartsMax;
  });
}

/** An unmap is stored as explicit zeros. */
export function writeGroupParts(out: Buffer, parts: readonly GroupPart[], at: number): number {
  assert(isGroup(parts), "parts that are no group");
  let end = at;
  for (const part of parts) {
    end = out.writeUIntBE(part.grain, end, 6);
    end = out.writeUInt8(part.owed ? 1 : 0, end);
    end = out.writeUInt8(0, end);
    end = writeExtent(out, { ...part, key: part.key ?? zeroKey }, end);
  }
  return end;
}

/** The parts that lie from `at` on; null when they are not there, or no group. Keys are copied. */
export function readGroupParts(bytes: Buffer, at: number, count: number): GroupPart[] | null {
  if (count > groupPartsMax || bytes.length < at + count * groupPartBytes) return null;
  const parts: GroupPart[] = [];
  for (let from = at; parts.length < count; from += groupPartBytes) {
    const extents = readExtents(bytes, from + 8, 1);
    const owed = bytes[from + 6]!;
    if (extents === null || owed > 1 || bytes[from + 7] !== 0) return null;
    parts.push(groupPart(bytes.readUIntBE(from, 6), extents[0]!, owed === 1));
  }
  return isGroup(parts) ? parts : null;
}

function groupPart(grain: number, extent: Extent, owed: boolean): GroupPart {
  // Copied: a slice would keep the whole received slab alive for as long as the map knows it.
  const key = isZeros(extent) ? null : Buffer.from(extent.key);
  return { grain, grainCount: 0, ...extent, key, owed };
}
