import type { StageTimes } from "../stage-times.ts";

/** Plain counters of one brick's volume I/O; they only grow. */
export class VolumeStats {
  readonly stages: StageTimes;
  reads = 0;
  readBytes = 0;
  writes = 0;
  writeBytes = 0;
  unmaps = 0;
  unmapBytes = 0;
  copies = 0;
  copyBytes = 0;
  /** Commands that ended with a fault. */
  faults = 0;
  /** Pieces committed with fewer copies than the volume asks for. */
  degradedWrites = 0;
  /** Pieces whose bytes travelled inside the map update, and those stored first. */
  piecesInline = 0;
  piecesStored = 0;
  piecesZero = 0;
  /** Pieces of copies: no bytes went anywhere. */
  piecesReferenced = 0;
  /** Grains of atomic writes of several grains. */
  piecesGrouped = 0;
  /** Chunk copies that were there already. */
  deduplicatedCopies = 0;
  deduplicatedBytes = 0;
  readHedges = 0;
  writeHedges = 0;
  /** A brick named in an extent did not have the chunk, or had it damaged. */
  missingNotes = 0;
  damagedNotes = 0;
  mapResends = 0;
  lookups = 0;
  forwarded = 0;
  /** Asked for ahead of reads; of these, what reads took, and what was given up or not found. The rest waits. */
  aheadBytes = 0;
  aheadUsedBytes = 0;
  aheadDroppedBytes = 0;

  constructor(stages: StageTimes) {
    this.stages = stages;
  }
}

/** Called with what was observed; must be cheap and must not throw. */
export interface VolumeHooks {
  /** A command has ended after this long. */
  latency(kind: "read" | "write" | "unmap" | "copy", elapsedMs: number): void;
  /** A chunk lacks a good copy on this brick: something for repair. */
  repairNote(key: Buffer, brick: number, what: "missing" | "damaged"): void;
}
