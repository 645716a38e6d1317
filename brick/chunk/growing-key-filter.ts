import { KeyFilter, keyFilterBytesMax } from "./key-filter.ts";

/** With so many keys for each one that is still there, learning those anew is worth what it costs. */
const staleFactor = 3;
/** Fewer keys than this are never too many. */
const staleKeysMin = 32_768;

/**
 * A KeyFilter that grows with what is added: a full one is kept, and what comes after goes to another
 * of twice its size. To learn all keys anew for that would cost as much as the write of each chunk does.
 */
export class GrowingKeyFilter {
  readonly #bytesMax: number;
  /** The last one takes what is added. */
  readonly #layers: KeyFilter[];
  #keyCount = 0;

  constructor(keys: number, bytesMax = keyFilterBytesMax) {
    this.#bytesMax = bytesMax;
    this.#layers = [new KeyFilter(keys, bytesMax)];
  }

  get memoryBytes(): number {
    return this.#layers.reduce((sum, { memoryBytes }) => sum + memoryBytes, 0);
  }

  add(name: string): void {
    let top = this.#layers.at(-1)!;
    if (top.isWorn) {
      const leftBytes = this.#bytesMax - this.memoryBytes;
      if (leftBytes >= top.memoryBytes) {
        top = new KeyFilter(this.#keyCount, 2 ** Math.floor(Math.log2(leftBytes)));
        this.#layers.push(top);
      }
    }
    this.#keyCount += 1;
    top.add(name);
  }

  mayHave(name: string): boolean {
    return this.#layers.some((layer) => layer.mayHave(name));
  }

  /** Errs more than it should: it is full and cannot grow, or knows much that is gone by now. */
  isWorn(liveKeys: number): boolean {
    if (this.#keyCount <= staleFactor * liveKeys && !this.#layers.at(-1)!.isWorn) return false;
    return this.#keyCount > Math.max(staleKeysMin, 2 * liveKeys);
  }
}
