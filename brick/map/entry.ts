import { assert } from "../assert.ts";
import { pooledZeros } from "../pooled-zeros.ts";
import { type BrickNumber, sectorsPerGrain } from "../units.ts";
import { holdersMax, isPart, withKeyDomain } from "./grain.ts";
import {
  type GroupPart,
  groupBytesOfPartsMax,
  groupPartBytes,
  type MapChange,
  readGroupParts,
  writeGroupParts,
} from "./group.ts";

/**
 * `reference`: a write of sectors that lie inside a chunk that the map names elsewhere already.
 * `group`: writes, references and unmaps of several grains that land together or not at all.
 */
export type EntryKind =
  | "write"
  | "unmap"
  | "fence"
  | "cancel"
  | "rehint"
  | "noop"
  | "reference"
  | "group";

/** By their numbers. */
const kinds: readonly EntryKind[] = [
  "noop",
  "write",
  "unmap",
  "fence",
  "cancel",
  "rehint",
  "reference",
  "group",
];

/** One operation of a shard's history. Fields that a kind does not use are 0 or empty. */
export interface Entry {
  readonly kind: EntryKind;
  readonly shard: number;
  /** Dense from 1 within the shard. */
  readonly op: number;
  /** The newest view in which this replica accepted the entry. */
  view: number;
  readonly branch: number;
  readonly generation: number;
  /** Attachment epoch and the gateway's sequence under it; 0 for the shard's own entries. */
  readonly epoch: number;
  readonly sequence: number;
  /** The gateway has settled every sequence below. */
  readonly lowWater: number;
  /** Of a group, the first part's; the rest is in the parts alone. */
  readonly grain: number;
  /** Whole grains of an unmap; 0 when sectors of one grain are meant. */
  readonly grainCount: number;
  readonly firstSector: number;
  readonly sectorCount: number;
  /** Where the sectors lie in the chunk, and its length in sectors. Of a write: 0 and sectorCount. */
  readonly chunkSector: number;
  readonly chunkSectors: number;
  /** 32 bytes; null unless write, reference or rehint. */
  readonly key: Buffer | null;
  holders: readonly BrickNumber[];
  /** Of a write or a reference, as in an extent. */
  readonly keyDomain?: number | undefined;
  /** Of a group; else none. */
  readonly parts: readonly GroupPart[];
  readonly clusterTimeMs: number;
  readonly gcEpoch: number;
  /** Length of the chunk that travels inside; 0 when the chunk was stored before. */
  readonly inlineBytes: number;
  /** Its bytes; null when they are in the chunk store only. */
  inline: Buffer | null;
  /** The head as it was encoded last: the log and every peer mostly get the same. */
  encoded?: { view: number; commitOp: number; withInline: boolean; head: Buffer };
}

/** Every change of grains that the entry makes, whatever its kind. */
export function changesOf(entry: Entry): readonly MapChange[] {
  switch (entry.kind) {
    case "write":
    case "reference":
    case "unmap":
      return [entry];
    case "group":
      return entry.parts;
    case "fence":
    case "cancel":
    case "rehint":
    case "noop":
      return [];
  }
}

/** Every chunk that the entry makes the map name, or name anew, and who holds it. */
export function chunksOf(
  entry: Entry,
): readonly { readonly key: Buffer; readonly holders: readonly BrickNumber[] }[] {
  const { key, holders, parts } = entry;
  const chunks = key === null ? [] : [{ key, holders }];
  for (const part of parts) {
    if (part.key !== null) chunks.push({ key: part.key, holders: part.holders });
  }
  return chunks;
}

export const entryHeadBytes = 152;
/** Of an entry without its inline chunk. */
export const entryBytesMax = entryHeadBytes + groupBytesOfPartsMax;
const entryVersion = 1;
/** What knows no groups must not take one for less. */
const groupVersion = 2;
const flagInlineFollows = 1;
const flagInlineStored = 2;
export const grainsPerUnmapMax = 1024;

/**
 * The head of an entry, version 1 (of a group 2), big-endian, 152 bytes, on the wire and in the log
 * alike; the parts of a group follow it:
 *
 *     0 version[1] kind[1] flags[1] zero[1]   4 shard[2] holderCount[1] zero[1]
 *     8 view[4] generation[4]   16 zero[2] op[6]   24 zero[2] commitOp[6]   32 zero[2] branch[6]
 *     40 zero[2] epoch[6]   48 zero[2] sequence[6]   56 zero[2] lowWater[6]   64 zero[2] grain[6]
 *     72 grainCount[4] firstSector[1] sectorCount[1] chunkSector[1] chunkSectors[1]
 *     80 zero[2] clusterTime[6]
 *     88 gcEpoch[4] groupBarrier[4]=0   96 holders[8 x 2]   112 key[32]
 *     144 inlineBytes[4] partCount[2] keyDomain[2]
 *
 * flags: 1 the inline chunk follows the head; 2 it is left out, being in the chunk store.
 * `chunkSector` and `chunkSectors` are zero in all kinds but a reference, `keyDomain` in all but a write
 * and a reference.
 * `commitOp` is the primary's commit point when the entry was sent.
 */
export function encodeEntryHead(entry: Entry, commitOp: number, withInline: boolean): Buffer {
  const { encoded, view } = entry;
  const same = encoded?.commitOp === commitOp && encoded.withInline === withInline;
  if (same && encoded.view === view) return encoded.head;
  const head = writeEntryHead(entry, commitOp, withInline);
  entry.encoded = { view, commitOp, withInline, head };
  return head;
}

function writeEntryHead(entry: Entry, commitOp: number, withInline: boolean): Buffer {
  const partsBytes = entry.parts.length * groupPartBytes;
  const head = pooledZeros(entryHeadBytes + partsBytes);
  const isOfParts = entry.kind === "group";
  assert(isOfParts === partsBytes > 0);
  head[0] = isOfParts ? groupVersion : entryVersion;
  head[1] = kinds.indexOf(entry.kind);
  if (entry.inlineBytes > 0) head[2] = withInline ? flagInlineFollows : flagInlineStored;
  head.writeUInt16BE(entry.shard, 4);
  head[6] = entry.holders.length;
  head.writeUInt32BE(entry.view, 8);
  head.writeUInt32BE(entry.generation, 12);
  head.writeUIntBE(entry.op, 18, 6);
  head.writeUIntBE(commitOp, 26, 6);
  head.writeUIntBE(entry.branch, 34, 6);
  head.writeUIntBE(entry.epoch, 42, 6);
  head.writeUIntBE(entry.sequence, 50, 6);
  head.writeUIntBE(entry.lowWater, 58, 6);
  head.writeUIntBE(entry.grain, 66, 6);
  head.writeUInt32BE(entry.grainCount, 72);
  head[76] = entry.firstSector;
  head[77] = entry.sectorCount;
  if (entry.kind === "reference") {
    head[78] = entry.chunkSector;
    head[79] = entry.chunkSectors;
  }
  head.writeUIntBE(entry.clusterTimeMs, 82, 6);
  head.writeUInt32BE(entry.gcEpoch, 88);
  assert(entry.holders.length <= holdersMax);
  for (let at = 0; at < entry.holders.length; at += 1) {
    head.writeUInt16BE(entry.holders[at]!, 96 + 2 * at);
  }
  entry.key?.copy(head, 112);
  head.writeUInt32BE(entry.inlineBytes, 144);
  if (entry.keyDomain !== undefined) head.writeUInt16BE(entry.keyDomain, 150);
  if (!isOfParts) return head;
  head.writeUInt16BE(entry.parts.length, 148);
  assert(writeGroupParts(head, entry.parts, entryHeadBytes) === head.length);
  return head;
}

export interface DecodedEntry {
  entry: Entry;
  commitOp: number;
  /** Where the next entry may begin. */
  endBytes: number;
}

/** Reads an entry at `at`; its inline bytes are a slice. null: not a well-formed entry. */
export function decodeEntry(bytes: Buffer, at: number): DecodedEntry | null {
  if (bytes.length - at < entryHeadBytes) return null;
  const head = bytes.subarray(at, at + entryHeadBytes);
  const kind = kinds[head[1]!];
  const holderCount = head[6]!;
  const inlineBytes = head.readUInt32BE(144);
  const flags = head[2]!;
  if (kind === undefined || holderCount > holdersMax) return null;
  const isOfParts = kind === "group";
  if (head[0] !== (isOfParts ? groupVersion : entryVersion)) return null;
  if (head[3] !== 0 || head[7] !== 0 || head.readUInt32BE(92) !== 0) return null;
  if (flags !== 0 && flags !== flagInlineFollows && flags !== flagInlineStored) return null;
  if ((flags === 0) !== (inlineBytes === 0)) return null;
  const firstSector = head[76]!;
  const sectorCount = head[77]!;
  if (firstSector + sectorCount > sectorsPerGrain) return null;
  const partCount = head.readUInt16BE(148);
  if (isOfParts !== partCount > 0) return null;
  const parts = isOfParts ? readGroupParts(bytes, at + entryHeadBytes, partCount) : [];
  if (parts === null) return null;
  const inlineAt = at + entryHeadBytes + partCount * groupPartBytes;
  const follows = flags === flagInlineFollows ? inlineBytes : 0;
  const endBytes = inlineAt + follows;
  if (endBytes > bytes.length) return null;
  const holders: number[] = [];
  for (let index = 0; index < holderCount; index += 1) {
    holders.push(head.readUInt16BE(96 + 2 * index));
  }
  const refers = kind === "reference";
  const keyDomain = head.readUInt16BE(150);
  if (keyDomain !== 0 && kind !== "write" && !refers) return null;
  const hasKey = kind === "write" || kind === "rehint" || refers;
  const part = refers
    ? { chunkSector: head[78]!, chunkSectors: head[79]! }
    : { chunkSector: 0, chunkSectors: kind === "write" ? sectorCount : 0 };
  const grainCount = head.readUInt32BE(72);
  if ((kind === "write" || refers) && (sectorCount === 0 || grainCount !== 0)) return null;
  if (refers && (inlineBytes > 0 || !isPart(part, sectorCount))) return null;
  if (kind === "unmap" && (sectorCount === 0) === (grainCount === 0)) return null;
  if (grainCount > grainsPerUnmapMax) return null;
  // All that a group says of grains and chunks, its parts say.
  const isBare = holderCount + sectorCount + firstSector + grainCount + inlineBytes === 0;
  if (isOfParts && (!isBare || head.readUIntBE(66, 6) !== parts[0]!.grain)) return null;
  const entry: Entry = {
    kind,
    shard: head.readUInt16BE(4),
    op: head.readUIntBE(18, 6),
    view: head.readUInt32BE(8),
    branch: head.readUIntBE(34, 6),
    generation: head.readUInt32BE(12),
    epoch: head.readUIntBE(42, 6),
    sequence: head.readUIntBE(50, 6),
    lowWater: head.readUIntBE(58, 6),
    grain: head.readUIntBE(66, 6),
    grainCount,
    firstSector,
    sectorCount,
    chunkSector: part.chunkSector,
    chunkSectors: part.chunkSectors,
    // Copied: a slice would keep the whole received slab alive for as long as the map knows it.
    key: hasKey ? Buffer.from(head.subarray(112, 144)) : null,
    holders,
    parts,
    clusterTimeMs: head.readUIntBE(82, 6),
    gcEpoch: head.readUInt32BE(88),
    inlineBytes,
    inline: follows > 0 ? bytes.subarray(inlineAt, endBytes) : null,
  };
  return { entry: withKeyDomain(entry, keyDomain), commitOp: head.readUIntBE(26, 6), endBytes };
}
