import { assert } from "./assert.ts";

/** Upper bounds of a command's buckets, in milliseconds; the last bucket has none. */
export const latencyBoundsMs: readonly number[] = [
  0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 30_000,
];

/** How long things took: counts in fixed buckets, cheap enough for every command. */
export class LatencyHistogram {
  /** One more than there are bounds. Not cumulative. */
  readonly counts: Float64Array;
  sumMs = 0;
  readonly boundsMs: readonly number[];

  constructor(boundsMs: readonly number[] = latencyBoundsMs) {
    this.boundsMs = boundsMs;
    this.counts = new Float64Array(boundsMs.length + 1);
  }

  observe(elapsedMs: number): void {
    assert(elapsedMs >= 0, "time does not go backwards");
    const { boundsMs } = this;
    let bucket = 0;
    while (bucket < boundsMs.length && elapsedMs > boundsMs[bucket]!) bucket += 1;
    this.counts[bucket]! += 1;
    this.sumMs += elapsedMs;
  }
}
