import type { Kv, KvChange } from "../host.ts";
import { keyAfter } from "../kv-key.ts";
import type { Segments } from "../log/segments.ts";
import { type MemoryParts, memoryPartsDefault } from "../memory-budget.ts";
import {
  type ChunkEntry,
  chunkKvKey,
  chunkKvKeyBytes,
  decodeChunkEntry,
  encodeChunkEntry,
  indexEnd,
  indexStart,
} from "../store/store-keys.ts";
import { ChangedPlaces } from "./changed-places.ts";
import { GrowingKeyFilter } from "./growing-key-filter.ts";
import { PlaceCache } from "./place-cache.ts";

/** A key as a string of one character a byte: the fastest thing a Map can be asked for. */
export function keyName(key: Buffer): string {
  return key.toString("latin1", 0, 32);
}

/**
 * Chunk key -> place in the log: what the last checkpoint wrote, under a small overlay of what has
 * changed since. An entry whose segment has been used anew since is no entry. Most look-ups are for
 * chunks that are not here, as new data is: a filter in memory answers those, once it has learnt the
 * keys that were here before.
 */
export class ChunkIndex {
  count: number;
  bytes: number;
  readonly #kv: Kv;
  readonly #segments: Segments;
  /** Since the last `collect`; bounded by checkpoints. */
  #changed = new ChangedPlaces();
  /** Handed out, and not known to be kept. */
  #collecting = new ChangedPlaces();
  /** What the key-value store was asked for of late and has not been told to change since. */
  readonly #places: PlaceCache;
  readonly #filterBytesMax: number;
  readonly #scratch = Buffer.alloc(chunkKvKeyBytes);
  /** Knows every key; null until it has learnt them. */
  #filter: GrowingKeyFilter | null = null;
  /** One that is learning, and the key to go on from. */
  #learning: { readonly filter: GrowingKeyFilter; from: Buffer } | null;

  constructor(
    kv: Kv,
    segments: Segments,
    totals: { count: number; bytes: number },
    memory: Pick<MemoryParts, "keyFilterBytes" | "placeCacheSlots"> = memoryPartsDefault,
  ) {
    this.#kv = kv;
    this.#segments = segments;
    this.#places = new PlaceCache(memory.placeCacheSlots);
    this.#filterBytesMax = memory.keyFilterBytes;
    this.count = totals.count;
    this.bytes = totals.bytes;
    this.#learning = { filter: this.#newFilter(totals.count), from: indexStart };
  }

  #newFilter(keys: number): GrowingKeyFilter {
    return new GrowingKeyFilter(keys, this.#filterBytesMax);
  }

  /** Of what does not come and go with checkpoints. */
  get memoryBytes(): number {
    const filters = (this.#filter?.memoryBytes ?? 0) + (this.#learning?.filter.memoryBytes ?? 0);
    return this.#places.memoryBytes + filters;
  }

  /** Changes since the last `collect`. */
  get dirtyCount(): number {
    return this.#changed.size;
  }

  find(key: Buffer, name = keyName(key)): ChunkEntry | null {
    let entry = this.#known(name);
    if (entry === undefined) entry = this.#lookUp(key, name);
    return this.#ifCurrent(entry);
  }

  /** What memory says; undefined: only the key-value store knows. */
  #known(name: string): ChunkEntry | null | undefined {
    const changed = this.#unkept(name);
    if (changed !== undefined) return changed;
    if (this.#filter !== null && !this.#filter.mayHave(name)) return null;
    return this.#places.get(name);
  }

  /** undefined: the key-value store is up to date. */
  #unkept(name: string): ChunkEntry | null | undefined {
    const changed = this.#changed.get(name);
    if (changed !== undefined || this.#collecting.size === 0) return changed;
    return this.#collecting.get(name);
  }

  #ifCurrent(entry: ChunkEntry | null): ChunkEntry | null {
    return entry !== null && this.isCurrent(entry) ? entry : null;
  }

  /**
   * `find` for each key. Whoever asks for this many asks once: their places are not kept for others.
   */
  findMany(keys: readonly Buffer[]): (ChunkEntry | null)[] {
    const found: (ChunkEntry | null)[] = [];
    const stored: number[] = [];
    for (const [at, key] of keys.entries()) {
      const entry = this.#known(keyName(key));
      if (entry === undefined) stored.push(at);
      found.push(entry ?? null);
    }
    const values = this.#kv.getMany(stored.map((at) => chunkKvKey(keys[at]!)));
    for (const [nth, at] of stored.entries()) {
      const value = values[nth];
      if (value !== undefined) found[at] = decodeChunkEntry(value);
    }
    return found.map((entry) => this.#ifCurrent(entry));
  }

  /** `find` for a key of which the caller has read what the key-value store holds. */
  findStored(name: string, value: Buffer): ChunkEntry | null {
    const changed = this.#unkept(name);
    return this.#ifCurrent(changed === undefined ? decodeChunkEntry(value) : changed);
  }

  #lookUp(key: Buffer, name: string): ChunkEntry | null {
    const value = this.#kv.get(chunkKvKey(key, this.#scratch));
    const entry = value === undefined ? null : decodeChunkEntry(value);
    if (entry !== null) this.#places.put(name, entry);
    return entry;
  }

  /** Whether the segment still holds what it held when the entry was made. */
  isCurrent(entry: ChunkEntry): boolean {
    return this.#segments.byNumber.get(entry.segment)?.epoch === entry.epoch;
  }

  /** `previous` is what `find` says: the caller has asked already. */
  set(name: string, entry: ChunkEntry, previous: ChunkEntry | null): void {
    this.#forget(previous);
    this.#filter?.add(name);
    this.#learning?.filter.add(name);
    this.#changed.set(name, entry);
    this.count += 1;
    this.bytes += entry.lengthBytes;
    this.#segments.addLive(entry.segment, entry.epoch, entry.lengthBytes);
  }

  /**
   * The chunk is gone as far as this brick is concerned; durable with the next checkpoint. `entry` is
   * what `find` says: the caller has asked already.
   */
  remove(name: string, entry: ChunkEntry): void {
    this.#forget(entry);
    this.#changed.set(name, null);
  }

  markDamaged(key: Buffer, entry: ChunkEntry): void {
    this.#changed.set(keyName(key), { ...entry, damaged: true });
  }

  markWhole(key: Buffer, entry: ChunkEntry): void {
    this.#changed.set(keyName(key), { ...entry, damaged: false });
  }

  #forget(entry: ChunkEntry | null): void {
    if (entry === null) return;
    this.count -= 1;
    this.bytes -= entry.lengthBytes;
    this.#segments.addLive(entry.segment, entry.epoch, -entry.lengthBytes);
  }

  get wantsToLearn(): boolean {
    return this.#learning !== null || this.#filter?.isWorn(this.count) === true;
  }

  /**
   * Lets the filter learn about `limit` more of the keys of the last checkpoint, or begins a new one
   * when that has become worn; says whether there is more to learn.
   */
  learn(limit: number): boolean {
    if (this.#learning === null) {
      if (this.#filter?.isWorn(this.count) !== true) return false;
      this.#learning = { filter: this.#newFilter(this.count), from: indexStart };
      // What has changed since the checkpoint is to be read nowhere else.
      for (const places of [this.#collecting, this.#changed]) {
        for (const [key] of places) this.#learning.filter.add(keyName(key));
      }
    }
    const found = this.#kv.range(this.#learning.from, indexEnd, limit);
    for (const [kvKey] of found) this.#learning.filter.add(keyName(kvKey.subarray(1)));
    if (found.length === limit) {
      this.#learning.from = keyAfter(found.at(-1)![0]);
      return true;
    }
    this.#filter = this.#learning.filter;
    this.#learning = null;
    return false;
  }

  /** All changes that are not known to be kept, for one batch; `collected` once they are. */
  collect(): KvChange[] {
    if (this.#collecting.size === 0) {
      [this.#collecting, this.#changed] = [this.#changed, this.#collecting];
    } else {
      // What was handed out before was not kept.
      for (const [key, entry] of this.#changed) this.#collecting.set(keyName(key), entry);
      this.#changed.clear();
    }
    const changes: KvChange[] = [];
    for (const [key, entry] of this.#collecting) {
      const value = entry === null ? null : encodeChunkEntry(entry);
      changes.push({ key: chunkKvKey(key), value });
    }
    return changes;
  }

  /** Keys whose place is not known to be kept, and which are still there. */
  dirtyKeys(): Buffer[] {
    const keys = new Map<string, Buffer>();
    for (const places of [this.#collecting, this.#changed]) {
      for (const [key, entry] of places) {
        if (entry === null) keys.delete(keyName(key));
        else keys.set(keyName(key), Buffer.from(key));
      }
    }
    return [...keys.values()];
  }

  /** The key-value store has what was handed out last. */
  collected(): void {
    for (const [key] of this.#collecting) this.#places.drop(keyName(key));
    this.#collecting.clear();
  }
}
