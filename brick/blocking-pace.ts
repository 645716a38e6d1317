/**
 * Whether a call of the disk should be waited for on the spot, or left to a thread. A thread costs two
 * switches of process, more than a fast disk takes for the work itself; but while a call is waited for
 * nothing else is done. So calls block as long as those that were slow have not taken more than a small
 * part of the time: a fast disk that stalls now and then is waited for, one that is slow as a rule is not.
 */
export interface BlockingPaceOptions {
  /** What a thread would cost in any case: a call that takes no longer loses nothing. */
  readonly quickMs: number;
  /**
   * Whether the device may have been waited for since this was asked last. A call that was slow without
   * that lost its processor to others, and would have on a thread. Absent: it may always have been.
   */
  readonly mayHaveWaited?: () => boolean;
}

/** The part of the time that may be lost to slow calls. */
const lostShareMax = 1 / 50;
/** What may be lost at once after a quiet time: a stall of the disk. */
const allowanceMsMax = 10;
/** However long a call took, ten seconds later others may block again. */
const debtMsMax = 10_000 * lostShareMax;

export class BlockingPace {
  readonly #options: BlockingPaceOptions;
  /** Time that may be lost still; below zero nothing blocks. */
  #allowanceMs = allowanceMsMax;
  #atMs = 0;

  constructor(options: BlockingPaceOptions) {
    this.#options = options;
  }

  mayBlock(nowMs: number): boolean {
    const earnedMs = (nowMs - this.#atMs) * lostShareMax;
    this.#allowanceMs = Math.min(allowanceMsMax, this.#allowanceMs + earnedMs);
    this.#atMs = nowMs;
    return this.#allowanceMs > 0;
  }

  /** A call that was waited for has taken so long. */
  took(elapsedMs: number): void {
    const { quickMs, mayHaveWaited } = this.#options;
    if (elapsedMs <= quickMs || mayHaveWaited?.() === false) return;
    this.#allowanceMs = Math.max(-debtMsMax, this.#allowanceMs - (elapsedMs - quickMs));
  }
}
