import type { GcOptions } from "./gc-options.ts";

/**
 * When a brick asks for epochs of garbage collection. What is released in one epoch may be swept
 * when the second one after it is marked: by then no shard has marked it in two whole epochs.
 */
const epochsToWait = 2;

/** So many times the usual must be released before more is asked for than what is to come. */
const comingFactor = 4;

export interface GarbageView {
  readonly nowMs: number;
  readonly gcEpoch: number;
  readonly marked: number;
  /** Whether this brick may sweep by what is marked now. */
  readonly maySweep: boolean;
  /** Mapped bytes overwritten and unmapped since the start. */
  readonly releasedBytes: number;
  readonly capacityBytes: number;
  readonly freeBytes: number;
}

export class Demand {
  readonly #options: GcOptions;
  /** Epochs are wanted up to this one; null before the first look, when nothing is known. */
  #wantedEpoch: number | null = null;
  #releasedBytes = 0;
  /** Released before epochs were asked for the last time, and not swept yet as far as is known. */
  #waitingBytes = 0;
  #askedMs = 0;
  /** Epochs up to this one are urgent, however much space there is. */
  #hurriedTo = 0;
  /** The epoch by whose marks this brick has swept last. */
  #sweptEpoch = 0;

  constructor(options: GcOptions) {
    this.#options = options;
  }

  /** Volumes were deleted: what they held is garbage from now on, and somebody waits for it. */
  deleted(gcEpoch: number): void {
    if (this.#wantedEpoch === null) return;
    this.#want(gcEpoch);
    this.#hurriedTo = this.#wantedEpoch;
  }

  swept(marked: number): void {
    this.#sweptEpoch = marked;
    this.#waitingBytes = 0;
  }

  /** What to tell the leader; undefined: nothing is worth collecting. */
  look(view: GarbageView): { wantedEpoch: number; urgent: boolean } | undefined {
    const { gcEpoch, marked, releasedBytes, nowMs, capacityBytes, freeBytes } = view;
    const released = releasedBytes - this.#releasedBytes;
    const short = freeBytes < this.#options.urgentFreeShare * capacityBytes;
    // A few times as much again before anything is swept, and the brick would be full.
    const urgent =
      short || this.#hurriedTo > gcEpoch || this.#waitingBytes + released > freeBytes / 4;
    // What was asked for is still to come: epochs without end would take the time that sweeps need.
    const share = this.#options.releasedShare * (this.#isComing() ? comingFactor : 1);
    const many = released >= share * capacityBytes;
    const pressing = urgent && (!this.#isComing() || released > share * freeBytes);
    const waited = nowMs - this.#askedMs >= this.#options.idleMs;
    // After a start nobody remembers what was released before.
    const isFirst = this.#wantedEpoch === null;
    if (isFirst || many || (released > 0 && (pressing || waited))) {
      this.#want(gcEpoch);
      this.#waitingBytes += released;
      this.#releasedBytes = releasedBytes;
      this.#askedMs = nowMs;
    }
    // Everybody else has swept, but this brick was not there for all of it.
    const missed = marked >= this.#wantedEpoch! && this.#isComing();
    if (missed && !view.maySweep) this.#want(gcEpoch);
    if (this.#wantedEpoch! <= gcEpoch) return undefined;
    return { wantedEpoch: this.#wantedEpoch!, urgent };
  }

  /** Something was asked for, and has not been swept yet. */
  #isComing(): boolean {
    return this.#sweptEpoch < (this.#wantedEpoch ?? 0);
  }

  #want(gcEpoch: number): void {
    this.#wantedEpoch = Math.max(this.#wantedEpoch ?? 0, gcEpoch + epochsToWait);
  }
}
