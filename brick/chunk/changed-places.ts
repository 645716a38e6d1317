import type { ChunkEntry } from "../store/store-keys.ts";
import { chunkKeyBytes } from "./key.ts";

/** A power of two. */
const slotsMin = 1024;
/** What a checkpoint takes in the usual course; more is there only while checkpoints are put off. */
const slotsKept = 16_384;
/** Segment, epoch, offset, length, and what is said of the chunk. */
const wordsPerSlot = 5;
const whole = 0;
const damaged = 1;
const removed = 2;

/**
 * What has changed of a chunk index since its last checkpoint: where each chunk is now, or that it is
 * gone. In flat memory, since all of it is dropped again with the next checkpoint: as objects it would be
 * copied by scavenges just before. Takes keys as strings of one character a byte, as the index does.
 */
export class ChangedPlaces {
  size = 0;
  #table = tableOf(slotsMin);

  /** null: it is gone; undefined: nothing has changed. */
  get(name: string): ChunkEntry | null | undefined {
    const slot = this.#table.hashed[this.#find(name)]! - 1;
    return slot < 0 ? undefined : this.#entryOf(slot);
  }

  set(name: string, entry: ChunkEntry | null): void {
    let at = this.#find(name);
    if (this.#table.hashed[at] === 0) {
      if (2 * (this.size + 1) > this.#table.hashed.length) {
        this.#grow();
        at = this.#find(name);
      }
      this.#table.keys.write(name, this.size * chunkKeyBytes, "latin1");
      this.size += 1;
      this.#table.hashed[at] = this.size;
    }
    const wordAt = (this.#table.hashed[at]! - 1) * wordsPerSlot;
    const words = this.#table.words;
    words[wordAt] = entry === null ? 0 : entry.segment;
    words[wordAt + 1] = entry === null ? 0 : entry.epoch;
    words[wordAt + 2] = entry === null ? 0 : entry.offsetBytes;
    words[wordAt + 3] = entry === null ? 0 : entry.lengthBytes;
    words[wordAt + 4] = entry === null ? removed : entry.damaged ? damaged : whole;
  }

  /** In the order of their first change; the keys are slices, to be used before the next change. */
  *[Symbol.iterator](): IterableIterator<readonly [key: Buffer, entry: ChunkEntry | null]> {
    for (let slot = 0; slot < this.size; slot += 1) {
      const at = slot * chunkKeyBytes;
      yield [this.#table.keys.subarray(at, at + chunkKeyBytes), this.#entryOf(slot)];
    }
  }

  clear(): void {
    this.size = 0;
    const { hashed } = this.#table;
    if (hashed.length <= 2 * slotsKept) hashed.fill(0);
    else this.#table = tableOf(slotsMin);
  }

  #entryOf(slot: number): ChunkEntry | null {
    const words = this.#table.words;
    const at = slot * wordsPerSlot;
    if (words[at + 4] === removed) return null;
    return {
      damaged: words[at + 4] === damaged,
      segment: words[at]!,
      epoch: words[at + 1]!,
      offsetBytes: words[at + 2]!,
      lengthBytes: words[at + 3]!,
    };
  }

  /** Where the key's slot is named, or would be. */
  #find(name: string): number {
    const { hashed } = this.#table;
    const mask = hashed.length - 1;
    let at = hashOf(name) & mask;
    while (hashed[at] !== 0 && !this.#holds(hashed[at]! - 1, name)) at = (at + 1) & mask;
    return at;
  }

  #holds(slot: number, name: string): boolean {
    const keyAt = slot * chunkKeyBytes;
    for (let at = 0; at < chunkKeyBytes; at += 1) {
      if (this.#table.keys[keyAt + at] !== name.charCodeAt(at)) return false;
    }
    return true;
  }

  #grow(): void {
    const before = this.#table;
    const table = tableOf(before.hashed.length);
    const { hashed, keys, words } = table;
    before.keys.copy(keys);
    words.set(before.words);
    this.#table = table;
    const mask = hashed.length - 1;
    for (let slot = 0; slot < this.size; slot += 1) {
      const name = keys.toString("latin1", slot * chunkKeyBytes, slot * chunkKeyBytes + 4);
      let at = hashOf(name) & mask;
      while (hashed[at] !== 0) at = (at + 1) & mask;
      hashed[at] = slot + 1;
    }
  }
}

/**
 * `hashed`: slots by the first bytes of their key, open addressing; 0 is empty, else a slot's number + 1.
 * `keys` and `words`: by slot.
 */
function tableOf(slots: number) {
  return {
    hashed: new Int32Array(2 * slots),
    keys: Buffer.alloc(slots * chunkKeyBytes),
    words: new Uint32Array(slots * wordsPerSlot),
  };
}

/** Keys are hashes already. */
function hashOf(name: string): number {
  return (
    name.charCodeAt(0) |
    (name.charCodeAt(1) << 8) |
    (name.charCodeAt(2) << 16) |
    (name.charCodeAt(3) << 24)
  );
}
