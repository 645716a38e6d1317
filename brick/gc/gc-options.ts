import { MiB } from "../units.ts";

export interface GcOptions {
  /** Epochs are asked for when this share of the capacity has been overwritten or unmapped, */
  readonly releasedShare: number;
  /** or anything at all, and as much time has passed since they were asked for. */
  readonly idleMs: number;
  /** With a smaller share of the capacity free, garbage is urgent, and compaction works harder. */
  readonly urgentFreeShare: number;
  /** Bytes of segments that compaction reads in a second, at most. */
  readonly compactionBytesPerSecond: number;
  /** The same while the brick is short of space. */
  readonly compactionUrgentBytesPerSecond: number;
  /** Map records looked at, and chunks of the index, before others get their turn. */
  readonly markPageRecords: number;
  readonly sweepStepChunks: number;
  readonly pauseMs: number;
}

export const gcOptionsDefault: GcOptions = {
  releasedShare: 1 / 64,
  idleMs: 3_600_000,
  urgentFreeShare: 1 / 4,
  compactionBytesPerSecond: 32 * MiB,
  compactionUrgentBytesPerSecond: 256 * MiB,
  markPageRecords: 256,
  sweepStepChunks: 1024,
  pauseMs: 2,
};
