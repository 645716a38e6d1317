import { assert } from "../../brick/assert.ts";
import { DiskError, type Kv, type KvChange } from "../../brick/host.ts";
import { decodeBatch, encodeBatch } from "../../brick/kv-batch.ts";
import type { Prng } from "../../brick/prng.ts";
import type { Guard } from "./sim-clock.ts";

/** Batches that a crash may take back; an older one counts as written, as after a memtable flush. */
const unsyncedBatchesMax = 4096;
const leafKeysMax = 256;

/** Chance that a batch fails to be written, or a read, settable at any time. */
export interface KvDials {
  kvErrorChance: number;
  kvReadErrorChance?: number;
}

/**
 * What one key-value store holds, across boots. Keys are kept as strings of one character a byte:
 * they hash fast and compare as the bytes do.
 */
export class SimKvStore {
  readonly #values = new Map<string, Buffer>();
  /** Sorted leaves of sorted keys; never an empty leaf. */
  #leaves: string[][] = [];
  /** How to take back each batch that is not durable yet, oldest first. */
  #undo: [string, Buffer | undefined][][] = [];
  readonly #rotten = new Set<string>();
  /** A batch for which there was no space: all of it is there when it is opened anew, or nothing. */
  #doubtful: readonly KvChange[] | null = null;

  get(key: string): Buffer | undefined {
    this.#checkSound(key);
    return this.#values.get(key);
  }

  /** Some pair cannot be read any more, until it is written anew: its checksum is wrong. */
  rot(prng: Prng): boolean {
    const leaf = this.#leaves.length === 0 ? undefined : prng.pick(this.#leaves);
    if (leaf === undefined) return false;
    this.rotKey(prng.pick(leaf));
    return true;
  }

  rotKey(key: string): void {
    this.#rotten.add(key);
  }

  get isRotten(): boolean {
    return this.#rotten.size > 0;
  }

  #checkSound(key: string): void {
    if (this.#rotten.has(key)) throw new DiskError("EIO", "a block of the index has rotted");
  }

  /** A batch found no space, or only just. */
  doubt(batch: readonly KvChange[]): void {
    this.#doubtful = [...decodeBatch(encodeBatch(batch))];
  }

  /** What a boot finds; nothing more is lost of what it finds. */
  settle(prng: Prng): void {
    if (this.#doubtful !== null && prng.chance(0.5)) this.apply(this.#doubtful, true);
    this.#doubtful = null;
  }

  /** One of its own that holds the same, durably. */
  copy(): SimKvStore {
    const copy = new SimKvStore();
    for (const [key, value] of this.#values) copy.#set(key, value);
    return copy;
  }

  get keyCount(): number {
    return this.#values.size;
  }

  apply(batch: readonly KvChange[], sync: boolean): void {
    const undo: [string, Buffer | undefined][] = [];
    for (const { key, value } of batch) {
      const name = key.toString("latin1");
      undo.push([name, this.#values.get(name)]);
      this.#set(name, value === null ? undefined : Buffer.from(value));
    }
    if (sync) this.#undo = [];
    else this.#undo.push(undo);
    if (this.#undo.length > unsyncedBatchesMax) this.#undo.splice(0, unsyncedBatchesMax / 2);
  }

  range(start: string, end: string, limit: number): [Buffer, Buffer][] {
    const found: [Buffer, Buffer][] = [];
    for (let leafAt = this.#leafOf(start); leafAt < this.#leaves.length; leafAt += 1) {
      const leaf = this.#leaves[leafAt]!;
      for (let at = lowerBound(leaf, start); at < leaf.length; at += 1) {
        const key = leaf[at]!;
        if (key >= end || found.length >= limit) return found;
        this.#checkSound(key);
        found.push([Buffer.from(key, "latin1"), Buffer.from(this.#values.get(key)!)]);
      }
    }
    return found;
  }

  /** A power cut: some of the newest batches that were not synced are gone, whole. */
  crash(prng: Prng): void {
    const kept = prng.chance(0.3) ? 0 : prng.between(0, this.#undo.length);
    for (const batch of this.#undo.splice(kept).reverse()) {
      for (const [key, before] of batch.reverse()) this.#set(key, before);
    }
    this.#undo = [];
  }

  #set(key: string, value: Buffer | undefined): void {
    this.#rotten.delete(key);
    const known = this.#values.has(key);
    if (value !== undefined) {
      this.#values.set(key, value);
      if (!known) this.#insertKey(key);
    } else if (known) {
      this.#values.delete(key);
      this.#removeKey(key);
    }
  }

  /** The last leaf that begins at or before the key; 0 when none does. */
  #leafOf(key: string): number {
    let low = 0;
    let high = this.#leaves.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#leaves[middle]![0]! <= key) low = middle + 1;
      else high = middle;
    }
    return low > 0 ? low - 1 : 0;
  }

  #insertKey(key: string): void {
    const leafAt = this.#leafOf(key);
    const leaf = this.#leaves[leafAt];
    if (leaf === undefined) {
      this.#leaves.push([key]);
      return;
    }
    leaf.splice(lowerBound(leaf, key), 0, key);
    if (leaf.length > leafKeysMax) {
      // Keys often arrive in order: leave the left leaf full then.
      const ascending = leafAt === this.#leaves.length - 1 && leaf[leaf.length - 1] === key;
      this.#leaves.splice(leafAt + 1, 0, leaf.splice(ascending ? leafKeysMax : leafKeysMax / 2));
    }
  }

  #removeKey(key: string): void {
    const leafAt = this.#leafOf(key);
    const leaf = this.#leaves[leafAt]!;
    const at = lowerBound(leaf, key);
    assert(leaf[at] === key);
    leaf.splice(at, 1);
    if (leaf.length === 0) this.#leaves.splice(leafAt, 1);
  }
}

/** What one boot has of its machine. */
export interface KvMachine {
  readonly dials: KvDials;
  readonly prng: Prng;
  /** Throws when that boot is dead. */
  readonly guard: Guard;
  readonly hasRoom: () => boolean;
  /** Runs it after as long as a synced batch takes; never, when that boot is dead by then. */
  readonly later: (action: () => void) => void;
}

/** The store as one boot sees it. */
export function openSimKv(
  store: SimKvStore,
  { dials, prng, guard, hasRoom, later }: KvMachine,
): Kv {
  let open = true;
  let failed = false;
  let writing = false;
  const checkRoom = () => {
    if (!hasRoom()) throw new DiskError("ENOSPC", "no space for the simulated key-value store");
  };
  checkRoom();
  store.settle(prng);
  const check = (change?: string) => {
    guard(change);
    assert(open, "the key-value store is closed");
  };
  const checkRead = () => {
    check();
    const chance = dials.kvReadErrorChance ?? 0;
    if (chance > 0 && prng.chance(chance)) {
      throw new DiskError("EIO", "the simulated key-value store failed to read");
    }
  };
  const write = (batch: readonly KvChange[], sync: boolean) => {
    if (dials.kvErrorChance > 0 && prng.chance(dials.kvErrorChance)) {
      throw new DiskError("EIO", "the simulated key-value store failed to write");
    }
    if (failed) throw new DiskError("ENOSPC", "no space was left for an earlier batch");
    failed = !hasRoom();
    if (failed) store.doubt(batch);
    checkRoom();
    store.apply(batch, sync);
  };
  const copy = (value: Buffer | undefined) =>
    value === undefined ? undefined : Buffer.from(value);
  return {
    get: (key) => {
      checkRead();
      return copy(store.get(key.toString("latin1")));
    },
    getMany: (keys) => {
      checkRead();
      return keys.map((key) => copy(store.get(key.toString("latin1"))));
    },
    write: (batch, { sync }) => {
      check(sync ? "synced batch" : "batch");
      assert(!writing, "a batch is being written");
      write(batch, sync);
    },
    writeLater: (batch, done) => {
      check("synced batch");
      assert(!writing, "a batch is being written");
      writing = true;
      const copies = [...decodeBatch(encodeBatch(batch))];
      // It is there a while before that is known.
      later(() => {
        let failure: Error | null = null;
        try {
          write(copies, true);
        } catch (error) {
          if (!(error instanceof DiskError)) throw error;
          failure = error;
        }
        later(() => {
          writing = false;
          done(failure);
        });
      });
    },
    hasFailed: () => failed,
    unflushedBytes: () => 0,
    reopen: () => {
      check();
      assert(!writing, "a batch is being written");
      checkRoom();
      store.settle(prng);
      failed = false;
    },
    range: (start, end, limit) => {
      checkRead();
      return store.range(start.toString("latin1"), end.toString("latin1"), limit);
    },
    close: async () => {
      check();
      assert(!writing, "a batch is being written");
      open = false;
    },
  };
}

function lowerBound(keys: readonly string[], key: string): number {
  let low = 0;
  let high = keys.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (keys[middle]! < key) low = middle + 1;
    else high = middle;
  }
  return low;
}
