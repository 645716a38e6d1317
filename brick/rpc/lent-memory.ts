import { assert } from "../assert.ts";

/**
 * Memory that large data were received into or read into, given back by hand. V8 counts received buffers
 * as its own and walks the whole heap for every few dozen MiB of them; what is given back at once it never
 * has to look for.
 *
 * Giving back detaches: every view of the memory is empty from then on. Who still holds one reads no
 * byte of whatever comes next, but nothing, and every length that was worked out before is wrong. And
 * what is never given back is garbage like any other.
 */

/** Shorter data are received beside others, in memory that is not given back. */
export const lentBytesMin = 64 * 1024;

/** Frees the memory of a buffer that is alone in it. No call of the kernel may be using it. */
export function giveBack(bytes: Buffer): void {
  const memory = bytes.buffer as ArrayBuffer;
  assert(bytes.length > 0 && bytes.length === memory.byteLength, "only whole memory is given back");
  memory.transfer(0);
}

/** Memory that is given back together, when the last of those who hold it has released it. */
export class LentMemory {
  readonly #returns: (() => void)[] = [];
  #holders = 1;

  /** What gives some of it back. */
  add(giveBack: () => void): void {
    assert(this.#holders > 0, "the memory has been given back");
    this.#returns.push(giveBack);
  }

  hold(): void {
    assert(this.#holders > 0, "the memory has been given back");
    this.#holders += 1;
  }

  /** Once for each hold, and once for whoever made it. */
  release(): void {
    assert(this.#holders > 0, "the memory has been given back");
    this.#holders -= 1;
    if (this.#holders > 0) return;
    for (const giveBack of this.#returns) giveBack();
    this.#returns.length = 0;
  }
}
