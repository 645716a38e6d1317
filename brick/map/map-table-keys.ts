import { assert } from "../assert.ts";

export interface GrainKey {
  branch: number;
  grain: number;
  generation: number;
}

/** A complete replica has a base table; a candidate an overlay beside it. */
export type TableKind = "base" | "overlay";

/** One table of a brick. */
export interface TableName {
  readonly kind: TableKind;
  readonly shard: number;
  readonly incarnation: number;
}

/** What the map keeps in the key-value store is not what was written: nothing may be served. */
export class MapTableError extends Error {
  override readonly name = "MapTableError";
}

export const noteNameBytesMax = 64;

/**
 * Keys of the map in the key-value store, big-endian:
 *
 *     record: 0x02, kind[1] (1 base, 2 overlay), shard[2], incarnation[4], branch[6], grain[6],
 *             2^32 - 1 - generation[4]; the value is a grain record (grain.ts)
 *     state:  0x02, 3, shard[2]; the value is the shard replica's own
 *     note:   0x02, 4, name[up to 64]
 */
export const keyPrefix = 2;
export const kindByte = { base: 1, overlay: 2 } as const;
export const stateByte = 3;
export const noteByte = 4;
export const tablePrefixBytes = 8;
const recordKeyBytes = 24;
export const uint32Max = 2 ** 32 - 1;
const uint48Max = 2 ** 48 - 1;
/** Above the rest of any record key. */
export const aboveRecords = Buffer.alloc(recordKeyBytes - tablePrefixBytes + 1, 0xff);
export const recordsEnd = Buffer.from([keyPrefix, stateByte]);

export function tablePrefix(kind: TableKind, shard: number, incarnation: number): Buffer {
  const prefix = Buffer.allocUnsafe(tablePrefixBytes);
  writePrefix(prefix, kind, shard, incarnation);
  return prefix;
}

function writePrefix(out: Buffer, kind: TableKind, shard: number, incarnation: number): void {
  out[0] = keyPrefix;
  out[1] = kindByte[kind];
  out.writeUInt16BE(shard, 2);
  out.writeUInt32BE(incarnation, 4);
}

function writeKey(out: Buffer, branch: number, grain: number, generation: number): void {
  assert(branch <= uint48Max && grain <= uint48Max && generation <= uint32Max);
  let at = out.writeUIntBE(branch, tablePrefixBytes, 6);
  at = out.writeUIntBE(grain, at, 6);
  at = out.writeUInt32BE(uint32Max - generation, at);
  assert(at === recordKeyBytes);
}

export function recordKey(table: TableName, { branch, grain, generation }: GrainKey): Buffer {
  const out = Buffer.allocUnsafe(recordKeyBytes);
  writePrefix(out, table.kind, table.shard, table.incarnation);
  writeKey(out, branch, grain, generation);
  return out;
}

export function keyIn(prefix: Buffer, key: GrainKey): Buffer {
  const out = Buffer.allocUnsafe(recordKeyBytes);
  prefix.copy(out);
  writeKey(out, key.branch, key.grain, key.generation);
  return out;
}

export function parseKey(key: Buffer): GrainKey {
  if (key.length !== recordKeyBytes) throw new MapTableError("a key in the map table is damaged");
  return {
    branch: key.readUIntBE(tablePrefixBytes, 6),
    grain: key.readUIntBE(tablePrefixBytes + 6, 6),
    generation: uint32Max - key.readUInt32BE(tablePrefixBytes + 12),
  };
}

export function stateKey(shard: number): Buffer {
  const key = Buffer.from([keyPrefix, stateByte, 0, 0]);
  key.writeUInt16BE(shard, 2);
  return key;
}

export function noteKey(name: string): Buffer {
  const key = Buffer.concat([Buffer.from([keyPrefix, noteByte]), Buffer.from(name)]);
  assert(key.length > 2 && key.length <= 2 + noteNameBytesMax);
  return key;
}
