/**
 * What each sector may hold, by the rules that END promises: the last acknowledged write, or one
 * that was never answered; and what was once read stays until it is written again.
 */
export class SectorHistory {
  /** The number of the write known to be there; 0 for zeros, `anything` when nothing is known. */
  readonly #known: Float64Array;
  /** Unanswered writes that may have landed, newest last; few sectors have any. */
  readonly #maybe = new Map<number, number[]>();

  constructor(sectors: number, start: "zeros" | "anything" = "zeros") {
    this.#known = new Float64Array(sectors).fill(start === "zeros" ? 0 : anything);
  }

  get sectors(): number {
    return this.#known.length;
  }

  acknowledged(first: number, count: number, write: number): void {
    for (let sector = first; sector < first + count; sector += 1) {
      this.#known[sector] = write;
      this.#maybe.delete(sector);
    }
  }

  unanswered(first: number, count: number, write: number): void {
    for (let sector = first; sector < first + count; sector += 1) {
      const maybe = this.#maybe.get(sector);
      if (maybe === undefined) this.#maybe.set(sector, [write]);
      else maybe.push(write);
    }
  }

  /** null when it may be; a sentence when it may not. What was read is known from now on. */
  observed(sector: number, found: number | string): string | null {
    const known = this.#known[sector]!;
    const maybe = this.#maybe.get(sector);
    if (known === anything && typeof found === "string") return null;
    if (
      known === anything ||
      found === known ||
      (typeof found === "number" && maybe?.includes(found))
    ) {
      this.#known[sector] = found as number;
      this.#maybe.delete(sector);
      return null;
    }
    const wanted = [known, ...(maybe ?? [])].map((write) => (write === 0 ? "zeros" : write));
    return `sector ${sector} holds ${describe(found)}; it should hold write ${wanted.join(" or ")}`;
  }

  /** Sectors whose content is promised. */
  written(): number {
    let count = 0;
    for (const write of this.#known) if (write > 0) count += 1;
    return count;
  }
}

const anything = -1;

function describe(found: number | string): string {
  if (typeof found === "string") return found;
  return found === 0 ? "zeros" : `write ${found}`;
}
