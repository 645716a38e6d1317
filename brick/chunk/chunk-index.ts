import type { Kv, KvChange } from "../host.ts";
import type { Segments } from "../log/segments.ts";
import {
  type ChunkEntry,
  chunkKvKey,
  chunkKvKeyBytes,
  decodeChunkEntry,
  encodeChunkEntry,
} from "../store/store-keys.ts";

/** A key as a string of one character a byte: the fastest thing a Map can be asked for. */
export function keyName(key: Buffer): string {
  return key.toString("latin1", 0, 32);
}

/**
 * Chunk key -> place in the log: what the last checkpoint wrote, under a small overlay of what has
 * changed since. An entry whose segment has been used anew since is no entry.
 */
export class ChunkIndex {
  count: number;
  bytes: number;
  readonly #kv: Kv;
  readonly #segments: Segments;
  /** null: removed. Bounded by checkpoints. */
  readonly #overlay = new Map<string, ChunkEntry | null>();
  readonly #scratch = Buffer.alloc(chunkKvKeyBytes);

  constructor(kv: Kv, segments: Segments, totals: { count: number; bytes: number }) {
    this.#kv = kv;
    this.#segments = segments;
    this.count = totals.count;
    this.bytes = totals.bytes;
  }

  get dirtyCount(): number {
    return this.#overlay.size;
  }

  find(key: Buffer, name = keyName(key)): ChunkEntry | null {
    let entry = this.#overlay.get(name);
    if (entry === undefined) {
      const value = this.#kv.get(chunkKvKey(key, this.#scratch));
      entry = value === undefined ? null : decodeChunkEntry(value);
    }
    return entry !== null && this.isCurrent(entry) ? entry : null;
  }

  /** Whether the segment still holds what it held when the entry was made. */
  isCurrent(entry: ChunkEntry): boolean {
    return this.#segments.byNumber.get(entry.segment)?.epoch === entry.epoch;
  }

  /** `previous` is what `find` says: the caller has asked already. */
  set(name: string, entry: ChunkEntry, previous: ChunkEntry | null): void {
    this.#forget(previous);
    this.#overlay.set(name, entry);
    this.count += 1;
    this.bytes += entry.lengthBytes;
    this.#segments.addLive(entry.segment, entry.epoch, entry.lengthBytes);
  }

  /** The chunk is gone as far as this brick is concerned; durable with the next checkpoint. */
  remove(key: Buffer, name = keyName(key)): void {
    const entry = this.find(key, name);
    if (entry === null) return;
    this.#forget(entry);
    this.#overlay.set(name, null);
  }

  markDamaged(key: Buffer, entry: ChunkEntry): void {
    this.#overlay.set(keyName(key), { ...entry, damaged: true });
  }

  markWhole(key: Buffer, entry: ChunkEntry): void {
    this.#overlay.set(keyName(key), { ...entry, damaged: false });
  }

  #forget(entry: ChunkEntry | null): void {
    if (entry === null) return;
    this.count -= 1;
    this.bytes -= entry.lengthBytes;
    this.#segments.addLive(entry.segment, entry.epoch, -entry.lengthBytes);
  }

  /** What a checkpoint must write. */
  changes(into: KvChange[]): void {
    for (const [name, entry] of this.#overlay) {
      const key = chunkKvKey(Buffer.from(name, "latin1"));
      into.push({ key, value: entry === null ? null : encodeChunkEntry(entry) });
    }
  }

  /** Keys that have changed since the last checkpoint and are still there. */
  dirtyKeys(): Buffer[] {
    const keys: Buffer[] = [];
    for (const [name, entry] of this.#overlay) {
      if (entry !== null) keys.push(Buffer.from(name, "latin1"));
    }
    return keys;
  }

  checkpointed(): void {
    this.#overlay.clear();
  }
}
