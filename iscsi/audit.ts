import { auditBurst, auditLinesPerSecond } from "./limits.ts";

/**
 * Lines about refused logins: one each, until there are so many that they would fill the log; then
 * some, which say how many were left out.
 */
export class Audit {
  readonly #write: (line: string) => void;
  #allowance = auditBurst;
  #lastMs = 0;
  #omitted = 0;

  constructor(write: (line: string) => void) {
    this.#write = write;
  }

  line(text: string, nowMs: number): void {
    const earned = ((nowMs - this.#lastMs) * auditLinesPerSecond) / 1000;
    this.#allowance = Math.min(auditBurst, this.#allowance + earned);
    this.#lastMs = nowMs;
    if (this.#allowance < 1) {
      this.#omitted += 1;
      return;
    }
    this.#allowance -= 1;
    const omitted = this.#omitted > 0 ? ` (${this.#omitted} more lines were left out)` : "";
    this.#omitted = 0;
    this.#write(text + omitted);
  }
}
