/** Takes a body that came in parts to pieces, without copying what lies in one part. */
export class PartsCursor {
  readonly #parts: readonly Buffer[];
  #index = 0;
  #at = 0;

  constructor(parts: readonly Buffer[], fromBytes = 0) {
    this.#parts = parts;
    this.#at = fromBytes;
  }

  /** The next bytes, as slices of the parts; null when there are fewer. */
  take(lengthBytes: number): Buffer[] | null {
    const taken: Buffer[] = [];
    for (let missing = lengthBytes; missing > 0; ) {
      const part = this.#parts[this.#index];
      if (part === undefined) return null;
      const end = Math.min(part.length, this.#at + missing);
      if (end > this.#at) {
        const whole = this.#at === 0 && end === part.length;
        taken.push(whole ? part : part.subarray(this.#at, end));
      }
      missing -= end - this.#at;
      this.#at = end;
      if (end < part.length) continue;
      this.#index += 1;
      this.#at = 0;
    }
    return taken;
  }

  get isAtEnd(): boolean {
    for (let index = this.#index; index < this.#parts.length; index += 1) {
      if (this.#parts[index]!.length > (index === this.#index ? this.#at : 0)) return false;
    }
    return true;
  }
}
