import { MiB } from "../units.ts";

export interface HealOptions {
  /** Damaged chunks that wait to be written anew; of more than that the next walk of the scrub tells. */
  readonly queueKeysMax: number;
  /** Bytes that this brick fetches in a second to replace damaged ones, at most. */
  readonly healBytesPerSecond: number;
  /** A chunk that bricks now away may have is asked for again after this. */
  readonly healRetryMs: number;
  /** All that is stored is verified once in this time, */
  readonly scrubPeriodMs: number;
  /** but not slower than so many bytes a second, */
  readonly scrubBytesPerSecondMin: number;
  /** nor faster: a brick that stores more takes longer. */
  readonly scrubBytesPerSecondMax: number;
}

export const healOptionsDefault: HealOptions = {
  queueKeysMax: 4096,
  healBytesPerSecond: 16 * MiB,
  healRetryMs: 10_000,
  scrubPeriodMs: 7 * 24 * 3_600_000,
  scrubBytesPerSecondMin: 1 * MiB,
  scrubBytesPerSecondMax: 16 * MiB,
};

/** How fast the scrub walks so much of a log. */
export function scrubBytesPerSecond(usedBytes: number, options: HealOptions): number {
  const { scrubPeriodMs, scrubBytesPerSecondMin, scrubBytesPerSecondMax } = options;
  const wanted = usedBytes / (scrubPeriodMs / 1000);
  return Math.min(scrubBytesPerSecondMax, Math.max(scrubBytesPerSecondMin, Math.ceil(wanted)));
}
