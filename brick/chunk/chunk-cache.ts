import { assert } from "../assert.ts";
import { chunkKeyBytes } from "./key.ts";

/** What an entry costs beyond its bytes: its places in the tables below, the buffer object. */
const entryOverheadBytes = 256;
/** A slice of a receive buffer this much larger than itself is copied, not to pin the whole. */
const pinnedRatioMax = 2;
/** When it is full, this part of it is dropped at once. */
const dropPart = 1 / 16;
const entriesMin = 64;
/** Places of the table for each entry, at least. */
const tableShare = 2;
/** Comers that are remembered for each entry that there is room for. */
const comersShare = 4;

/** What of a chunk is kept, as a number: all of it, its outline, or slices of it. */
export const wholePart = 0;
export const outlinePart = 1;
/** Slices of a chunk: fewer than so many. */
const slicesMax = 256;

/** Slices `first`, `first` + 1, ... of a chunk. */
export function slicesPart(first: number, count: number): number {
  return outlinePart + 1 + first * slicesMax + count;
}

const nobody = -1;

/**
 * Chunks and their parts by key; at most `bytesMax`. When it is full those are dropped that were not
 * asked for since a hand passed them last; and from then on it takes only what comes a second time:
 * reads all over a large volume would push out everything, each for a copy that nobody asks for again.
 * Outlines are always taken: they are small, and each serves a whole chunk.
 *
 * Flat tables: a Map by strings costs a look-up several places in memory that are in no cache, and a
 * read makes three of them. Keys are hashes, so that their first bytes spread them evenly.
 */
export class ChunkCache {
  readonly #bytesMax: number;
  #bytes = 0;
  /** Numbers of entries, by hash, at the first free place from there on. */
  #table = new Int32Array(entriesMin * tableShare).fill(nobody);
  // Of each entry, by its number.
  #keys = new Uint8Array(entriesMin * chunkKeyBytes);
  #hashes = new Uint32Array(entriesMin);
  #parts = new Uint32Array(entriesMin);
  /** Asked for since the hand passed it. */
  #used = new Uint8Array(entriesMin);
  readonly #kept: (Buffer | null)[] = [];
  readonly #free: number[] = [];
  #hand = 0;
  /** Of what came once of late, a word of the key, by hash; null until the cache has been full. */
  #comers: Uint32Array | null = null;
  hits = 0;
  misses = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Whether the whole chunk is here; asking for that is not asking for it. */
  has(key: Buffer): boolean {
    return this.#find(key, wholePart, hashOf(key, wholePart)) !== nobody;
  }

  get(key: Buffer, part = wholePart): Buffer | undefined {
    const entry = this.#find(key, part, hashOf(key, part));
    if (entry === nobody) {
      this.misses += 1;
      return undefined;
    }
    this.hits += 1;
    this.#used[entry] = 1;
    return this.#kept[entry]!;
  }

  /**
   * Keeps verified bytes, perhaps; the caller never writes into them again. True when it keeps the very
   * memory that they are in, which must not be given back then.
   */
  put(key: Buffer, bytes: Buffer, part = wholePart): boolean {
    const costBytes = bytes.length + entryOverheadBytes;
    if (costBytes > this.#bytesMax) return false;
    const hash = hashOf(key, part);
    // Equal keys are equal bytes: an entry that is there need not be replaced.
    if (this.#find(key, part, hash) !== nobody) return false;
    if (part !== outlinePart && !this.#comesAgain(key, part, hash)) return false;
    const pins = bytes.buffer.byteLength > bytes.length * pinnedRatioMax;
    this.#add(key, part, hash, pins ? copyAlone(bytes) : bytes);
    this.#bytes += costBytes;
    if (this.#bytes > this.#bytesMax) this.#drop();
    return !pins;
  }

  clear(): void {
    this.#table.fill(nobody);
    this.#kept.length = 0;
    this.#free.length = 0;
    this.#hand = 0;
    this.#bytes = 0;
  }

  #find(key: Buffer, part: number, hash: number): number {
    const mask = this.#table.length - 1;
    for (let at = hash & mask; ; at = (at + 1) & mask) {
      const entry = this.#table[at]!;
      if (entry === nobody) return nobody;
      if (this.#hashes[entry] !== hash || this.#parts[entry] !== part) continue;
      if (this.#isKeyOf(entry, key)) return entry;
    }
  }

  #isKeyOf(entry: number, key: Buffer): boolean {
    const keys = this.#keys;
    const from = entry * chunkKeyBytes;
    for (let at = 0; at < chunkKeyBytes; at += 1) if (keys[from + at] !== key[at]) return false;
    return true;
  }

  #add(key: Buffer, part: number, hash: number, bytes: Buffer): void {
    const entry = this.#free.pop() ?? this.#kept.length;
    if (entry >= this.#hashes.length) this.#grow();
    this.#keys.set(key, entry * chunkKeyBytes);
    this.#hashes[entry] = hash;
    this.#parts[entry] = part;
    this.#used[entry] = 0;
    this.#kept[entry] = bytes;
    this.#enter(entry);
  }

  #enter(entry: number): void {
    const mask = this.#table.length - 1;
    let at = this.#hashes[entry]! & mask;
    while (this.#table[at] !== nobody) at = (at + 1) & mask;
    this.#table[at] = entry;
  }

  #grow(): void {
    const entries = this.#hashes.length * 2;
    this.#keys = grown(this.#keys, new Uint8Array(entries * chunkKeyBytes));
    this.#hashes = grown(this.#hashes, new Uint32Array(entries));
    this.#parts = grown(this.#parts, new Uint32Array(entries));
    this.#used = grown(this.#used, new Uint8Array(entries));
    this.#table = new Int32Array(entries * tableShare).fill(nobody);
    for (const [entry, bytes] of this.#kept.entries()) if (bytes !== null) this.#enter(entry);
  }

  #remove(entry: number): void {
    const mask = this.#table.length - 1;
    let gap = this.#hashes[entry]! & mask;
    while (this.#table[gap] !== entry) gap = (gap + 1) & mask;
    // Those behind it that would be looked for across the gap move into it.
    for (let at = (gap + 1) & mask; this.#table[at] !== nobody; at = (at + 1) & mask) {
      const home = this.#hashes[this.#table[at]!]! & mask;
      if (((at - home) & mask) < ((at - gap) & mask)) continue;
      this.#table[gap] = this.#table[at]!;
      gap = at;
    }
    this.#table[gap] = nobody;
    this.#bytes -= this.#kept[entry]!.length + entryOverheadBytes;
    this.#kept[entry] = null;
    this.#free.push(entry);
  }

  #comesAgain(key: Buffer, part: number, hash: number): boolean {
    if (this.#comers === null) return true;
    const at = hash & (this.#comers.length - 1);
    const word = (key.readUInt32LE(4) ^ part) >>> 0;
    if (this.#comers[at] === word) return true;
    this.#comers[at] = word;
    return false;
  }

  #drop(): void {
    this.#comers ??= new Uint32Array(this.#hashes.length * comersShare);
    const bytesMax = this.#bytesMax * (1 - dropPart);
    // Twice around at most: whoever is spared the first time is not asked for meanwhile.
    for (let steps = 2 * this.#kept.length; this.#bytes > bytesMax; steps -= 1) {
      assert(steps > 0, "a full cache holds nothing");
      if (this.#hand >= this.#kept.length) this.#hand = 0;
      const entry = this.#hand;
      this.#hand += 1;
      if (this.#kept[entry] === null) continue;
      if (this.#used[entry] === 1) this.#used[entry] = 0;
      else this.#remove(entry);
    }
  }
}

function hashOf(key: Buffer, part: number): number {
  const word = key[0]! | (key[1]! << 8) | (key[2]! << 16) | (key[3]! << 24);
  return (word ^ Math.imul(part, 0x9e37_79b1)) >>> 0;
}

function grown<T extends Uint8Array | Uint32Array>(from: T, into: T): T {
  into.set(from);
  return into;
}

/** A copy with memory of its own, outside of Node's shared pool. */
function copyAlone(bytes: Buffer): Buffer {
  const copy = Buffer.allocUnsafeSlow(bytes.length);
  bytes.copy(copy);
  return copy;
}
