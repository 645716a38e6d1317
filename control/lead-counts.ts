import type { BrickNumber } from "../brick/units.ts";

/** How many shards each brick leads, kept up to date while planning. */
export class LeadCounts {
  readonly #counts = new Map<BrickNumber, number>();

  constructor(primaries: Iterable<BrickNumber>) {
    for (const one of primaries) this.#add(one, 1);
  }

  of(brick: BrickNumber): number {
    return this.#counts.get(brick) ?? 0;
  }

  move(from: BrickNumber, to: BrickNumber): void {
    this.#add(from, -1);
    this.#add(to, 1);
  }

  /** Of these bricks the first that leads the fewest; null: there are none. */
  least(bricks: readonly BrickNumber[]): BrickNumber | null {
    let best: BrickNumber | null = null;
    for (const one of bricks) {
      if (best === null || this.of(one) < this.of(best)) best = one;
    }
    return best;
  }

  #add(brick: BrickNumber, more: number): void {
    this.#counts.set(brick, this.of(brick) + more);
  }
}
