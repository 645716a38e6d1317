import type { ChunkIndex } from "../chunk/chunk-index.ts";
import { chunkBytesMax } from "../chunk/key.ts";
import { recordHeaderBytes } from "../log/batch-format.ts";
import { type Segments, segmentBytesDefault } from "../log/segments.ts";
import { MiB } from "../units.ts";

/**
 * One brick's space. It adds up:
 *
 *     capacity = used + free + reserve,    used = stored + overhead + reclaimable
 */
export interface StoreSpace {
  capacityBytes: number;
  /** Segments in use. */
  usedBytes: number;
  /** What ordinary records may still take. */
  freeBytes: number;
  /** Set aside: for compaction, for what must always be logged, and what rounding leaves. */
  reserveBytes: number;
  /** Chunks that the index finds, each once: some may be garbage that no sweep has met yet. */
  chunkCount: number;
  chunkBytes: number;
  /** Headers of their records. */
  overheadBytes: number;
  /** The rest of what is used: dropped chunks, map records, padding. Compaction gives it back. */
  reclaimableBytes: number;
  /** No room for another chunk of the largest size, or hardly. */
  full: boolean;
  dedupHits: number;
  dedupBytes: number;
}

export function spaceOf(
  capacityBytes: number,
  segments: Segments,
  index: ChunkIndex,
  { dedupHits, dedupBytes }: { dedupHits: number; dedupBytes: number },
): StoreSpace {
  const usedBytes = segments.usedBytes();
  const freeBytes = segments.freeBytes();
  const { count: chunkCount, bytes: chunkBytes } = index;
  const overheadBytes = chunkCount * recordHeaderBytes;
  return {
    capacityBytes,
    usedBytes,
    freeBytes,
    reserveBytes: capacityBytes - usedBytes - freeBytes,
    chunkCount,
    chunkBytes,
    overheadBytes,
    reclaimableBytes: usedBytes - chunkBytes - overheadBytes,
    full: freeBytes < 2 * chunkBytesMax,
    dedupHits,
    dedupBytes,
  };
}

/** The same while nothing can be taken, whatever the log has room for. */
export function withoutFree(space: StoreSpace): StoreSpace {
  const { freeBytes, reserveBytes } = space;
  return { ...space, freeBytes: 0, reserveBytes: reserveBytes + freeBytes, full: true };
}

/** Small bricks get small segments, so that the reserve of one stays a small part. */
export function segmentBytesFor(capacityBytes: number): number {
  let segmentBytes = segmentBytesDefault;
  while (segmentBytes > 4 * MiB && capacityBytes < 16 * segmentBytes) segmentBytes /= 2;
  return segmentBytes;
}
