import { mkdir } from "node:fs/promises";
import { createRequire } from "node:module";
import { Worker } from "node:worker_threads";
import { assert } from "./assert.ts";
import { DiskError, isNoSpace, type Kv } from "./host.ts";
import { type KvReopening, reopenFailed, reopenWaits } from "./kv-reopening.ts";
import { type RocksBatches, type RocksStore, writeBatch } from "./kv-rocks.ts";
import { type KvWriter, KvWriterHere, KvWriterThread } from "./kv-writer-io.ts";
import { type MemoryParts, memoryPartsDefault } from "./memory-budget.ts";
import { KiB, MiB } from "./units.ts";

/**
 * The key-value store on RocksDB. Everything after opening is synchronous: a look-up costs a few
 * microseconds here, ten times that through a promise and a thread. RocksDB's own log stays on;
 * only batches that ask for it are synced.
 */

/** Blocks of table files kept in memory; what writes may fill before they become table files. */
export type KvMemory = Pick<MemoryParts, "kvCacheBytes" | "kvMemtableBytes" | "kvWriterThreads">;
/** A key is found absent without reading, but for one time in a hundred. */
const kvBloomBitsPerKey = 10;
const kvBlockBytes = 8 * KiB;
const kvBackgroundThreads = 2;
/** Pairs and bytes asked of one iterator call, while a range is longer. */
const kvRangeStepPairs = 1000;
const kvRangeStepBytes = 1 * MiB;
/** Opening anew replays its log, which is never longer than what is kept in memory. */
const kvReopenMsMax = 30_000;

/**
 * The part of the native binding that is used. Its own JavaScript class keeps a list of every
 * iterator and batch ever made and offers promises; the synchronous calls need neither.
 */
interface RocksBinding extends RocksBatches {
  db_init(location: string): RocksStore;
  db_get_handle(store: RocksStore): bigint;
  db_get_property(store: RocksStore, property: string): string;
  db_open(
    store: RocksStore,
    options: Record<string, unknown>,
    done: (error: Error | null) => void,
  ): void;
  db_close(store: RocksStore, done: (error: Error | null) => void): void;
  db_get_many_sync(
    store: RocksStore,
    keys: readonly Buffer[],
    options: Record<string, unknown>,
  ): (Buffer | undefined | null)[];
  iterator_init(store: RocksStore, options: Record<string, unknown>): RocksIterator;
  iterator_nextv_sync(
    iterator: RocksIterator,
    count: number,
  ): { rows: Buffer[]; finished: boolean };
  iterator_close(iterator: RocksIterator): void;
}
type RocksIterator = { readonly kind: "iterator" };

const requireHere = createRequire(import.meta.url);
const bindingPath = requireHere.resolve("@nxtedition/rocksdb/binding");
const rocks = requireHere(bindingPath) as RocksBinding;

const readOptions = { valueEncoding: "buffer" };

/** Opens, or makes, the store in the folder at this absolute path. */
export async function openRealKv(
  location: string,
  { kvCacheBytes, kvMemtableBytes, kvWriterThreads }: KvMemory = memoryPartsDefault,
): Promise<Kv> {
  await mkdir(location, { recursive: true });
  const store = rocks.db_init(location);
  const options = {
    createIfMissing: true,
    cacheSize: kvCacheBytes,
    cacheIndexAndFilterBlocks: true,
    filterPolicy: `bloomfilter:${kvBloomBitsPerKey}`,
    blockSize: kvBlockBytes,
    compaction: "level",
    memtableMemoryBudget: kvMemtableBytes,
    // Keys are hashes and numbers: little to gain, and every write would pay.
    compression: false,
    walCompression: false,
    parallelism: kvBackgroundThreads,
  };
  await failing((done) => rocks.db_open(store, options, done));
  const batch = rocks.batch_init();
  let open = true;
  /** RocksDB refuses every write after one that failed, and says why each time. */
  let writeFailed = false;
  const writer: KvWriter =
    kvWriterThreads > 0
      ? new KvWriterThread({ bindingPath, handle: rocks.db_get_handle(store) })
      : new KvWriterHere((changes) => writeBatch(rocks, store, batch, changes, true));
  const checkFree = () => {
    assert(open, "the key-value store is closed");
    assert(!writer.isWriting, "a batch is being written");
  };
  const checked = <T>(act: () => T): T => {
    assert(open, "the key-value store is closed");
    return diskFailing(act);
  };
  return {
    get: (key) => checked(() => getMany(store, [key])[0]),
    getMany: (keys) => checked(() => getMany(store, keys)),
    write: (changes, { sync }) => {
      checkFree();
      try {
        checked(() => writeBatch(rocks, store, batch, changes, sync));
      } catch (error) {
        writeFailed = true;
        throw error;
      }
    },
    writeLater: (changes, done) => {
      checkFree();
      writer.write(changes, (failure) => {
        if (failure !== null) writeFailed = true;
        done(failure === null ? null : toDiskError(failure));
      });
    },
    range: (start, end, limit) => checked(() => readRange(store, start, end, limit)),
    hasFailed: () => writeFailed || numberOf(store, "rocksdb.background-errors") > 0,
    unflushedBytes: () => numberOf(store, "rocksdb.cur-size-all-mem-tables"),
    reopen: () => {
      checkFree();
      open = false;
      reopen(store, options);
      open = true;
      writeFailed = false;
    },
    close: async () => {
      checkFree();
      open = false;
      await writer.end();
      try {
        await failing((done) => rocks.db_close(store, done));
      } catch (error) {
        // It is closed, and says once more why it took no writes.
        if (!isNoSpace(error)) throw error;
      }
    },
  };
}

function numberOf(store: RocksStore, property: string): number {
  return Number(rocks.db_get_property(store, property));
}

/**
 * Closing and opening are calls that end on another thread and are answered by an event: another
 * thread of JavaScript waits for that event while this one stands still.
 */
function reopen(store: RocksStore, options: Record<string, unknown>): void {
  const state = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT));
  const workerData: KvReopening = {
    bindingPath,
    handle: rocks.db_get_handle(store),
    options,
    state,
  };
  const worker = new Worker(new URL("./kv-reopen-worker-io.ts", import.meta.url), { workerData });
  Atomics.wait(state, 0, reopenWaits, kvReopenMsMax);
  // What it has to say comes as an event, and then its end is no news.
  worker.on("error", () => {});
  const reached = Atomics.load(state, 0);
  if (reached === reopenWaits)
    throw new DiskError("EIO", "key-value store: opening takes too long");
  if (reached === reopenFailed)
    throw new DiskError("EIO", "key-value store: it cannot be reopened");
}

function getMany(store: RocksStore, keys: readonly Buffer[]): (Buffer | undefined)[] {
  if (keys.length === 0) return [];
  const values = rocks.db_get_many_sync(store, keys, readOptions);
  // null would be a read that was given up, which only a limit that we do not set can cause.
  for (const value of values) assert(value !== null);
  return values as (Buffer | undefined)[];
}

function readRange(
  store: RocksStore,
  start: Buffer,
  end: Buffer,
  limit: number,
): [Buffer, Buffer][] {
  const pairs: [Buffer, Buffer][] = [];
  if (limit <= 0 || Buffer.compare(start, end) >= 0) return pairs;
  const iterator = rocks.iterator_init(store, {
    keys: true,
    values: true,
    keyEncoding: "buffer",
    valueEncoding: "buffer",
    gte: start,
    lt: end,
    limit: Math.min(limit, 2 ** 31 - 1),
    highWaterMarkBytes: kvRangeStepBytes,
  });
  try {
    while (pairs.length < limit) {
      const count = Math.min(limit - pairs.length, kvRangeStepPairs);
      const { rows, finished } = rocks.iterator_nextv_sync(iterator, count);
      for (let at = 0; at + 1 < rows.length; at += 2) pairs.push([rows[at]!, rows[at + 1]!]);
      if (finished) break;
    }
  } finally {
    rocks.iterator_close(iterator);
  }
  return pairs;
}

function diskFailing<T>(act: () => T): T {
  try {
    return act();
  } catch (error) {
    throw toDiskError(error);
  }
}

function failing(act: (done: (error: Error | null) => void) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    act((error) => (error ? reject(toDiskError(error)) : resolve()));
  });
}

function toDiskError(error: unknown): DiskError {
  const message = error instanceof Error ? error.message : String(error);
  const isFull = /no space|quota exceeded/i.test(message);
  return new DiskError(isFull ? "ENOSPC" : "EIO", `key-value store: ${message}`);
}
