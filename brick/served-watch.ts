import type { Clock } from "./host.ts";

/** When this brick's gateways last did something for initiators, as seen by whoever looks now and then. */
export class ServedWatch {
  readonly #clock: Clock;
  readonly #servedBytes: () => number;
  #bytes = 0;
  #atMs = Number.NEGATIVE_INFINITY;

  /** `servedBytes`: read and written for initiators; it only grows. */
  constructor(clock: Clock, servedBytes: () => number) {
    this.#clock = clock;
    this.#servedBytes = servedBytes;
  }

  /** Since the look before, at the earliest. */
  look(): number {
    const bytes = this.#servedBytes();
    if (bytes !== this.#bytes) {
      this.#bytes = bytes;
      this.#atMs = this.#clock.nowMs();
    }
    return this.#atMs;
  }
}
