/** The pace is taken over about this time. */
const spanMs = 10_000;

/** How fast something goes on: bytes a second, over the last seconds. */
export class Pace {
  #sinceMs: number | null = null;
  #asOfMs = 0;
  /** Bytes of the last `spanMs`, those of long ago counting less. */
  #bytes = 0;

  add(nowMs: number, bytes: number): void {
    this.#fade(nowMs);
    this.#sinceMs ??= nowMs;
    this.#bytes += bytes;
  }

  /** 0: nothing has been added lately. */
  bytesPerSecond(nowMs: number): number {
    this.#fade(nowMs);
    if (this.#sinceMs === null) return 0;
    // Soon after the beginning less time has passed than the span.
    const measuredMs = spanMs * (1 - Math.exp(-Math.max(1, nowMs - this.#sinceMs) / spanMs));
    return (this.#bytes / measuredMs) * 1000;
  }

  #fade(nowMs: number): void {
    const passedMs = Math.max(0, nowMs - this.#asOfMs);
    this.#asOfMs = nowMs;
    this.#bytes *= Math.exp(-passedMs / spanMs);
    if (this.#bytes < 1) this.#sinceMs = null;
  }
}
