import { KiB, MiB } from "../units.ts";

export interface VolumeOptions {
  /** Pieces shorter than this travel inside the map update; 0 sends every chunk to its own bricks. */
  readonly inlineMaxBytes: number;
  /** An operation that has not come to its end by then is answered `unavailable`. */
  readonly operationDeadlineMs: number;
  /** Sequences from the oldest unsettled to the newest sent, per shard. */
  readonly shardWindowMax: number;
  /** Pieces of one command under way at a time. */
  readonly piecesUnderWayMax: number;
  /** A map request without an answer is sent again after this. */
  readonly mapTimeoutMs: number;
  /** A chunk request without an answer is given up after this. */
  readonly chunkTimeoutMs: number;
  /** The first guess of when a chunk request is slow enough to ask another brick too. */
  readonly hedgeMs: number;
  /** Grains fetched ahead of a sequential read in one look-up. */
  readonly lookupAheadGrains: number;
  readonly mapCacheGrainsMax: number;
  readonly mapCacheCellsMax: number;
  readonly chunkCacheBytes: number;
  /** Fetched ahead of reads, over all volumes, and not asked for yet. */
  readonly readAheadBytes: number;
}

export const volumeOptionsDefault: VolumeOptions = {
  inlineMaxBytes: 32 * KiB,
  operationDeadlineMs: 20_000,
  shardWindowMax: 512,
  piecesUnderWayMax: 64,
  mapTimeoutMs: 1000,
  chunkTimeoutMs: 3000,
  hedgeMs: 50,
  lookupAheadGrains: 64,
  mapCacheGrainsMax: 1 << 18,
  mapCacheCellsMax: 1 << 19,
  chunkCacheBytes: 64 * MiB,
  readAheadBytes: Number.POSITIVE_INFINITY,
};
