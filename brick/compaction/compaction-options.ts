import { MiB } from "../units.ts";

/** What makes a grain worth being rewritten, and what that may cost. */
export interface CompactionOptions {
  /** A grain in so many chunks is rewritten as one. */
  readonly chunksMin: number;
  /** So is one whose chunks are kept for this many sectors that nothing reads any more. */
  readonly wasteSectorsMin: number;
  /** A shard is idle when no gateway has changed it for so long. */
  readonly idleMs: number;
  /** After a walk through a shard the next one begins not before this. */
  readonly walkEveryMs: number;
  /** Bytes of grains that one brick rewrites in a second, at most; */
  readonly bytesPerSecond: number;
  /** the same while its gateway serves initiators. */
  readonly busyBytesPerSecond: number;
}

/**
 * By `tools/bench/grain-reads.ts` a chunk more costs a read of 64 KiB some 25 us, one chunk alone 300: eight
 * chunks make it dearer by half, and their record seven times as long. A rewrite costs about what two
 * or three reads do, so that it pays after a few reads, and below eight chunks not soon.
 */
export const compactionOptionsDefault: CompactionOptions = {
  chunksMin: 8,
  wasteSectorsMin: 64,
  idleMs: 30_000,
  walkEveryMs: 600_000,
  bytesPerSecond: 8 * MiB,
  busyBytesPerSecond: 1 * MiB,
};
