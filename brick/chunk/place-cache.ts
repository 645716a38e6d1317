import type { ChunkEntry } from "../store/store-keys.ts";
import { chunkKeyBytes } from "./key.ts";

/** Segment, epoch, offset, length. */
const wordsPerPlace = 4;

/**
 * Places of chunks that were looked up of late, in flat memory: 48 bytes each, no object a chunk. A
 * key has one slot, by its first bytes, and whoever comes later has it. Chunks that were found damaged
 * are not kept. Takes keys as strings of one character a byte, as the chunk index does.
 */
export class PlaceCache {
  readonly #mask: number;
  readonly #keys: Uint8Array;
  /** A length of 0: the slot is empty. */
  readonly #places: Uint32Array;

  /** `slots` is a power of two. */
  constructor(slots: number) {
    this.#mask = slots - 1;
    this.#keys = new Uint8Array(slots * chunkKeyBytes);
    this.#places = new Uint32Array(slots * wordsPerPlace);
  }

  get memoryBytes(): number {
    return this.#keys.byteLength + this.#places.byteLength;
  }

  get(name: string): ChunkEntry | undefined {
    const slot = this.#slotOf(name);
    const at = slot * wordsPerPlace;
    const places = this.#places;
    if (places[at + 3] === 0 || !this.#holds(slot, name)) return undefined;
    return {
      damaged: false,
      segment: places[at]!,
      epoch: places[at + 1]!,
      offsetBytes: places[at + 2]!,
      lengthBytes: places[at + 3]!,
    };
  }

  put(name: string, entry: ChunkEntry): void {
    if (entry.damaged) return;
    const slot = this.#slotOf(name);
    const keyAt = slot * chunkKeyBytes;
    for (let at = 0; at < chunkKeyBytes; at += 1) this.#keys[keyAt + at] = name.charCodeAt(at);
    const at = slot * wordsPerPlace;
    this.#places[at] = entry.segment;
    this.#places[at + 1] = entry.epoch;
    this.#places[at + 2] = entry.offsetBytes;
    this.#places[at + 3] = entry.lengthBytes;
  }

  /** The chunk is elsewhere now, or nowhere. */
  drop(name: string): void {
    const slot = this.#slotOf(name);
    if (this.#holds(slot, name)) this.#places[slot * wordsPerPlace + 3] = 0;
  }

  #slotOf(name: string): number {
    const low = name.charCodeAt(0) | (name.charCodeAt(1) << 8) | (name.charCodeAt(2) << 16);
    return low & this.#mask;
  }

  #holds(slot: number, name: string): boolean {
    const keyAt = slot * chunkKeyBytes;
    for (let at = 0; at < chunkKeyBytes; at += 1) {
      if (this.#keys[keyAt + at] !== name.charCodeAt(at)) return false;
    }
    return true;
  }
}
