/**
 * Whether a call of the disk should be waited for on the spot, or left to a thread. A thread costs two
 * switches of process, more than a fast disk takes for the work itself; but while a call is waited for
 * nothing else is done. So calls block while they are quick, and the first slow one ends that for a
 * while, each time for longer.
 */
export interface BlockingPaceOptions {
  /** The mean of what calls took may be so much; */
  readonly meanMsMax: number;
  /** and no single one more than this. */
  readonly oneMsMax: number;
  /**
   * Whether the device may have been waited for since this was asked last. A call that was slow without
   * that lost its processor to others, and would have on a thread. Absent: it may always have been.
   */
  readonly mayHaveWaited?: () => boolean;
}

const pauseMsFirst = 200;
const pauseMsMax = 10_000;
/** Calls that the mean looks back on, roughly. */
const meanOver = 16;
/** So many quick calls in a row make up for one slow one. */
const forgivenAfter = 1000;

export class BlockingPace {
  readonly #options: BlockingPaceOptions;
  #meanMs = 0;
  #pauseMs = pauseMsFirst;
  #pausedUntilMs = 0;
  #quickCount = 0;

  constructor(options: BlockingPaceOptions) {
    this.#options = options;
  }

  mayBlock(nowMs: number): boolean {
    return nowMs >= this.#pausedUntilMs;
  }

  /** A call that was waited for has taken so long. */
  took(elapsedMs: number, nowMs: number): void {
    this.#meanMs += (elapsedMs - this.#meanMs) / meanOver;
    if (elapsedMs <= this.#options.oneMsMax && this.#meanMs <= this.#options.meanMsMax) {
      this.#quickCount += 1;
      if (this.#quickCount >= forgivenAfter) this.#pauseMs = pauseMsFirst;
      return;
    }
    this.#meanMs = 0;
    if (this.#options.mayHaveWaited?.() === false) return;
    this.#quickCount = 0;
    this.#pausedUntilMs = nowMs + this.#pauseMs;
    this.#pauseMs = Math.min(pauseMsMax, 2 * this.#pauseMs);
  }
}
