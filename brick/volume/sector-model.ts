import { sectorBytes } from "../units.ts";

/**
 * For tests: what each sector may read as, while commands overlap and some end with unknown fate.
 * Every write has a number, which fills its sectors; 0 is zeros.
 */
export class SectorModel {
  readonly #possible: Set<number>[];
  readonly #reads = new Set<{ first: number; allowed: Set<number>[] }>();
  /** Writes that have begun and not been answered ok; the failed ones with the time of that. */
  readonly #open = new Map<number, { startTick: number; failedTick: number }>();
  #tick = 0;
  #numberNext = 1;

  constructor(sectorCount: number) {
    this.#possible = Array.from({ length: sectorCount }, () => new Set([0]));
  }

  beginWrite(first: number, count: number, zero: boolean): { number: number; token: number } {
    const token = this.#numberNext;
    this.#numberNext += 1;
    this.#open.set(token, { startTick: (this.#tick += 1), failedTick: 0 });
    for (let at = first; at < first + count; at += 1) this.#allow(at, zero ? -token : token);
    return { number: zero ? 0 : token, token };
  }

  endWrite(first: number, count: number, zero: boolean, token: number): void {
    const { startTick } = this.#open.get(token)!;
    this.#open.delete(token);
    for (let at = first; at < first + count; at += 1) {
      for (const value of this.#possible[at]!) {
        const other = this.#open.get(Math.abs(value));
        // What is still under way, or failed after this one began, may come after it.
        if (other !== undefined && (other.failedTick === 0 || other.failedTick > startTick))
          continue;
        this.#possible[at]!.delete(value);
      }
      this.#possible[at]!.add(zero ? -token : token);
    }
  }

  failWrite(token: number): void {
    this.#open.get(token)!.failedTick = this.#tick += 1;
  }

  /** It can never land. */
  neverLands(first: number, count: number, zero: boolean, token: number): void {
    this.#open.delete(token);
    for (let at = first; at < first + count; at += 1) {
      this.#possible[at]!.delete(zero ? -token : token);
    }
  }

  beginRead(first: number, count: number): { first: number; allowed: Set<number>[] } {
    const allowed = this.#possible.slice(first, first + count).map((set) => new Set(set));
    const read = { first, allowed };
    this.#reads.add(read);
    return read;
  }

  /** null, or what is wrong. */
  endRead(read: { first: number; allowed: Set<number>[] }, bytes: Buffer): string | null {
    this.#reads.delete(read);
    if (bytes.length !== read.allowed.length * sectorBytes) return `${bytes.length} bytes`;
    for (const [index, allowed] of read.allowed.entries()) {
      const sector = bytes.subarray(index * sectorBytes, (index + 1) * sectorBytes);
      const value = sector.readUInt32BE(0);
      for (let at = 4; at < sectorBytes; at += 4) {
        if (sector.readUInt32BE(at) !== value) return `sector ${read.first + index} is mixed`;
      }
      const fits = [...allowed].some((one) => (one <= 0 ? value === 0 : value === one));
      if (!fits) {
        return `sector ${read.first + index} reads ${value}, not one of ${[...allowed].join(" ")}`;
      }
    }
    return null;
  }

  #allow(at: number, value: number): void {
    this.#possible[at]!.add(value);
    for (const { first, allowed } of this.#reads) allowed[at - first]?.add(value);
  }
}

/** The bytes of a write: its number, over and over. */
export function fillWith(number: number, sectorCount: number): Buffer {
  const bytes = Buffer.alloc(sectorCount * sectorBytes);
  for (let at = 0; at < bytes.length; at += 4) bytes.writeUInt32BE(number, at);
  return bytes;
}
