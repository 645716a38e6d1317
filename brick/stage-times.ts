import { LatencyHistogram } from "./latency-histogram.ts";

/**
 * Where the time of a command goes: one histogram for each step that it takes, so that a slow disk, a
 * slow network and a slow gateway are told apart. docs/operations.md says where each begins and ends.
 */

/** Of what is frequent, one in so many is timed. */
export const stageSampling = 8;

/** Upper bounds of the buckets, in milliseconds: 1 us to 5 s. */
export const stageBoundsMs: readonly number[] = [
  0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000,
  2000, 5000,
];

/** In the order in which a command meets them: operation and step, as the metric's labels name them. */
export const stageTable = [
  ["write", "receive"],
  ["write", "wait"],
  ["write", "hash"],
  ["write", "store"],
  ["write", "map"],
  ["write", "queue"],
  ["write", "flush"],
  ["write", "commit"],
  ["write", "answer"],
  ["read", "receive"],
  ["read", "wait"],
  ["read", "map"],
  ["read", "fetch"],
  ["read", "verify"],
  ["read", "answer"],
] as const;

/** Rows of the table. */
export const stage = {
  writeReceive: 0,
  writeWait: 1,
  writeHash: 2,
  writeStore: 3,
  writeMap: 4,
  writeQueue: 5,
  writeFlush: 6,
  writeCommit: 7,
  writeAnswer: 8,
  readReceive: 9,
  readWait: 10,
  readMap: 11,
  readFetch: 12,
  readVerify: 13,
  readAnswer: 14,
} as const;
export type Stage = (typeof stage)[keyof typeof stage];

/** No moment of a clock: what is not timed. */
const notTimed = 0;

/** One brick's. A step costs an addition, and one in `stageSampling` two looks at the clock. */
export class StageTimes {
  /** By row of the table. */
  readonly histograms: readonly LatencyHistogram[] = stageTable.map(
    () => new LatencyHistogram(stageBoundsMs),
  );
  /** Apart for each stage: else commands of a fixed pattern would have the same one timed always. */
  readonly #turns = new Uint8Array(stageTable.length);
  readonly #clock: { nowMs(): number };

  constructor(clock: { nowMs(): number }) {
    this.#clock = clock;
  }

  /** The beginning of a step, for `took`. */
  since(which: Stage): number {
    return this.#isDue(which) ? this.#clock.nowMs() : notTimed;
  }

  /** The same, of a step that began at a moment which is known. */
  sample(which: Stage, sinceMs: number): number {
    return this.#isDue(which) ? sinceMs : notTimed;
  }

  /** The step is over. */
  took(which: Stage, sinceMs: number): void {
    if (sinceMs === notTimed) return;
    this.histograms[which]!.observe(this.#clock.nowMs() - sinceMs);
  }

  #isDue(which: Stage): boolean {
    const turn = (this.#turns[which]! + 1) % stageSampling;
    this.#turns[which] = turn;
    return turn === 0;
  }
}
