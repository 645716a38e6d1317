import { assert } from "../assert.ts";

/** What a table holds; `next` is the table's. */
export interface Keyed<T> {
  /** The chunk's key, one character a byte. */
  readonly name: string;
  next: T | null;
}

const bucketCount = 1024;

/**
 * What is under way for chunks, by key. Not a Map, for the reason that `NumberMap` gives: nothing that
 * was removed leads anywhere. Keys are hashes, so that their first bytes spread them evenly.
 */
export class KeyTable<T extends Keyed<T>> {
  size = 0;
  readonly #buckets = new Array<T | null>(bucketCount).fill(null);

  get(name: string): T | undefined {
    for (let at = this.#buckets[bucketOf(name)]!; at !== null; at = at.next!) {
      if (at.name === name) return at;
    }
    return undefined;
  }

  /** There is none of that name. */
  add(entry: T): void {
    const bucket = bucketOf(entry.name);
    entry.next = this.#buckets[bucket]!;
    this.#buckets[bucket] = entry;
    this.size += 1;
  }

  /** It is there. */
  remove(entry: T): void {
    const bucket = bucketOf(entry.name);
    let before: T | null = null;
    let at: T | null = this.#buckets[bucket]!;
    while (at !== null && at !== entry) {
      before = at;
      at = at.next;
    }
    assert(at === entry, "what is to be removed is not there");
    if (before === null) this.#buckets[bucket] = entry.next;
    else before.next = entry.next;
    entry.next = null;
    this.size -= 1;
  }

  /** Takes all out. */
  clear(): T[] {
    const all: T[] = [];
    for (const [bucket, first] of this.#buckets.entries()) {
      let at: T | null = first;
      while (at !== null) {
        const { next }: Keyed<T> = at;
        at.next = null;
        all.push(at);
        at = next;
      }
      this.#buckets[bucket] = null;
    }
    this.size = 0;
    return all;
  }
}

function bucketOf(name: string): number {
  return (name.charCodeAt(0) | (name.charCodeAt(1) << 8)) & (bucketCount - 1);
}
