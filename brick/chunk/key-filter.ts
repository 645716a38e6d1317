import { assert } from "../assert.ts";

/**
 * Bits for each key that it is made for; with `probes` bits set a key, some two in a thousand err. Each that
 * errs costs a look-up in the key-value store, which takes as long as all else that is done for a record.
 */
const bitsPerKey = 16;
const probes = 4;
const keysMin = 16_384;
/** Beyond some 15 million chunks it errs more often, and look-ups cost what they would without. */
export const keyFilterBytesMax = 32 * 1024 * 1024;

/**
 * Remembers which keys were added, in a few bits each: what it has not seen is not there, what it
 * thinks that it has seen may be. Keys are hashes already, so that their own bytes say which bits.
 * Takes them as strings of one character a byte, as the chunk index does.
 */
export class KeyFilter {
  readonly #bits: Uint32Array;
  readonly #mask: number;
  readonly #keysMax: number;
  #keyCount = 0;

  /** Good for `keys` keys, and for as many again. `bytesMax` is a power of two. */
  constructor(keys: number, bytesMax = keyFilterBytesMax) {
    this.#keysMax = 2 * Math.max(keys, keysMin);
    const bits = Math.min(8 * bytesMax, 2 ** Math.ceil(Math.log2(this.#keysMax * bitsPerKey)));
    this.#bits = new Uint32Array(bits / 32);
    this.#mask = bits - 1;
  }

  get memoryBytes(): number {
    return this.#bits.byteLength;
  }

  /** Holds more keys than it was made for, and errs more than it should. */
  get isWorn(): boolean {
    return this.#keyCount > this.#keysMax;
  }

  add(name: string): void {
    assert(name.length >= 4 * probes);
    this.#keyCount += 1;
    for (let probe = 0; probe < probes; probe += 1) {
      const bit = wordOf(name, probe) & this.#mask;
      this.#bits[bit >>> 5]! |= 1 << (bit & 31);
    }
  }

  mayHave(name: string): boolean {
    for (let probe = 0; probe < probes; probe += 1) {
      const bit = wordOf(name, probe) & this.#mask;
      if ((this.#bits[bit >>> 5]! & (1 << (bit & 31))) === 0) return false;
    }
    return true;
  }
}

/** Four of the key's bytes as a number. */
function wordOf(name: string, word: number): number {
  const at = 4 * word;
  return (
    name.charCodeAt(at) |
    (name.charCodeAt(at + 1) << 8) |
    (name.charCodeAt(at + 2) << 16) |
    (name.charCodeAt(at + 3) << 24)
  );
}
