import { GiB, KiB, MiB } from "./units.ts";

/**
 * What one brick's process may take, divided among everything that takes much: one number, from which all
 * bounds follow. Pure; tools/brick-process.ts hands the parts to who they are for.
 */

/** Program text, V8's heap of what is always there, threads, tables that do not grow: not to be divided. */
export const memoryBaseBytes = 144 * MiB;
export const memoryBytesMin = 192 * MiB;
export const memoryBytesMax = 1024 * GiB;

export interface MemoryParts {
  /** Of RocksDB: blocks of tables, and what is written and not yet in tables. */
  readonly kvCacheBytes: number;
  readonly kvMemtableBytes: number;
  /** Threads that write large batches to it; without one the brick stands still meanwhile. */
  readonly kvWriterThreads: 0 | 1;
  /** Chunks that this brick's gateways have read; outlines that it has made for others. */
  readonly chunkCacheBytes: number;
  readonly outlineCacheBytes: number;
  /** Fetched ahead of reads, over all volumes attached here, and not asked for yet. */
  readonly readAheadBytes: number;
  /** Of each volume that is attached here: grains, and extents of them. */
  readonly mapCacheGrainsMax: number;
  readonly mapCacheCellsMax: number;
  /** Records of the replicas here. */
  readonly mapTableBytes: number;
  readonly keyFilterBytes: number;
  readonly placeCacheSlots: number;
  /** Which chunk was protected when, for the whole capacity. */
  readonly stampBytes: number;
  /** What may wait for one peer, and for the log, before it is refused. */
  readonly sendQueueBytes: number;
  readonly logQueueBytes: number;
}

/** Without a budget. */
export const memoryPartsDefault: MemoryParts = {
  kvCacheBytes: 64 * MiB,
  kvMemtableBytes: 64 * MiB,
  kvWriterThreads: 1,
  chunkCacheBytes: 64 * MiB,
  outlineCacheBytes: 24 * MiB,
  // Of each volume `aheadBytesMax`.
  readAheadBytes: Number.POSITIVE_INFINITY,
  mapCacheGrainsMax: 2 ** 18,
  mapCacheCellsMax: 2 ** 19,
  mapTableBytes: 32 * MiB,
  keyFilterBytes: 32 * MiB,
  placeCacheSlots: 2 ** 16,
  stampBytes: Number.POSITIVE_INFINITY,
  sendQueueBytes: 64 * MiB,
  logQueueBytes: 256 * MiB,
};

/** A thread takes some 25 MiB. */
const writerThreadMemoryBytesMin = 512 * MiB;

/** Shares of what is left above the base; the rest of it is for what is under way, uncollected and torn. */
const shares = {
  kvCache: 1 / 8,
  kvMemtable: 1 / 8,
  chunkCache: 1 / 16,
  outlineCache: 1 / 32,
  // Of the smallest budget 768 KiB: three streams, each two reads of 128 KiB ahead.
  readAhead: 1 / 64,
  mapCache: 1 / 16,
  mapTable: 1 / 32,
  keyFilter: 1 / 32,
  placeCache: 1 / 64,
  // Of 256 MiB: the stamps of a brick of 512 GiB, in slots of 4 KiB.
  stamps: 19 / 64,
} as const;
/** Bytes of a place, of a cell of the map cache, and of a grain (in a table that is half full). */
const placeBytes = 48;
const cellBytes = 64;
const grainBytes = 2 * 13;
/** The least that takes the largest record, message, or grain. */
const queueBytesMin = 8 * MiB;
const cellsMin = 1024;

/** null: what it would take without a budget. Refused when too small: see `memoryBytesMin`. */
export function memoryParts(memoryBytes: number | null): MemoryParts {
  if (memoryBytes === null) return memoryPartsDefault;
  const restBytes = memoryBytes - memoryBaseBytes;
  const most = memoryPartsDefault;
  const share = (part: number, bytesMax: number) =>
    Math.min(bytesMax, Math.floor((restBytes * part) / KiB) * KiB);
  const mapBytes = restBytes * shares.mapCache;
  // Two extents a grain, as without a budget.
  const grains = Math.floor(mapBytes / (grainBytes + 2 * cellBytes));
  const slots = (restBytes * shares.placeCache) / placeBytes;
  return {
    kvCacheBytes: share(shares.kvCache, most.kvCacheBytes),
    kvMemtableBytes: share(shares.kvMemtable, most.kvMemtableBytes),
    kvWriterThreads: memoryBytes < writerThreadMemoryBytesMin ? 0 : 1,
    chunkCacheBytes: share(shares.chunkCache, most.chunkCacheBytes),
    outlineCacheBytes: share(shares.outlineCache, most.outlineCacheBytes),
    readAheadBytes: share(shares.readAhead, most.readAheadBytes),
    mapCacheGrainsMax: Math.min(most.mapCacheGrainsMax, grains),
    mapCacheCellsMax: Math.max(cellsMin, Math.min(most.mapCacheCellsMax, 2 * grains)),
    mapTableBytes: share(shares.mapTable, most.mapTableBytes),
    keyFilterBytes: powerOfTwo(share(shares.keyFilter, most.keyFilterBytes)),
    placeCacheSlots: powerOfTwo(Math.min(slots, most.placeCacheSlots)),
    stampBytes: share(shares.stamps, most.stampBytes),
    sendQueueBytes: Math.max(queueBytesMin, share(1 / 8, most.sendQueueBytes)),
    logQueueBytes: Math.max(queueBytesMin, share(1 / 4, most.logQueueBytes)),
  };
}

function powerOfTwo(atMost: number): number {
  return 2 ** Math.floor(Math.log2(atMost));
}

/** What the process is started with: V8's bounds are fixed when it begins. */
export interface MemoryRuntime {
  readonly nodeFlags: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
}

/** Of a semi-space, of which V8 takes three; without a bound it takes 16 MiB. */
const semiSpaceMiBMax = 16;

/**
 * The heap's limit is far above what it holds, a quarter of it: V8 ends the process at it. What keeps the
 * heap small is that it is collected sooner.
 */
export function memoryRuntime(memoryBytes: number): MemoryRuntime {
  const mib = Math.floor(memoryBytes / MiB);
  const semiSpaceMiB = Math.min(semiSpaceMiBMax, powerOfTwo(Math.max(1, mib / 64)));
  const trimBytes = Math.min(256 * MiB, Math.floor((memoryBytes - memoryBaseBytes) / 8));
  return {
    nodeFlags: [
      `--max-old-space-size=${Math.max(128, Math.floor(mib / 2))}`,
      `--max-semi-space-size=${semiSpaceMiB}`,
    ],
    environment: {
      MALLOC_TRIM_THRESHOLD_: String(trimBytes),
      MALLOC_ARENA_MAX: "2",
    },
  };
}

/** Heap in use may grow by so many percent between two collections: as much again without a budget. */
export function heapGrowthPercent(memoryBytes: number | null): number {
  if (memoryBytes === null) return 100;
  return Math.max(20, Math.min(100, Math.floor((memoryBytes - memoryBaseBytes) / (4 * MiB))));
}
