import type { Extent } from "../map/grain.ts";
import { grainBytes, sectorBytes } from "../units.ts";

/** What a look-up says of the grains from `grain` on. */
export interface LookedUp {
  readonly coveredCount: number;
  readonly grains: ReadonlyMap<number, readonly Extent[]>;
}

const noExtents: readonly Extent[] = [];

/** Alternating runs of mapped and unmapped bytes, found from front to back, a bounded number. */
export class AllocationRuns {
  readonly runs: { lengthBytes: number; mapped: boolean }[] = [];
  /** Everything before is in the runs. */
  atBytes: number;
  /** Another run would be too many. */
  full = false;
  readonly #endBytes: number;
  readonly #runsMax: number;

  constructor(offsetBytes: number, lengthBytes: number, runsMax: number) {
    this.atBytes = offsetBytes;
    this.#endBytes = offsetBytes + lengthBytes;
    this.#runsMax = runsMax;
  }

  get done(): boolean {
    return this.full || this.atBytes >= this.#endBytes;
  }

  /** Takes in an answer that begins with the grain that `atBytes` is in. */
  take(grain: number, reply: LookedUp): void {
    const replyEnd = (grain + reply.coveredCount) * grainBytes;
    if (reply.grains.size === 0) {
      this.#addTo(replyEnd, false);
      return;
    }
    for (let here = grain; here < grain + reply.coveredCount && !this.done; here += 1) {
      const grainStart = here * grainBytes;
      for (const { firstSector, sectorCount } of reply.grains.get(here) ?? noExtents) {
        this.#addTo(grainStart + firstSector * sectorBytes, false);
        this.#addTo(grainStart + (firstSector + sectorCount) * sectorBytes, true);
      }
      this.#addTo(grainStart + grainBytes, false);
    }
  }

  /** Up to `toBytes` all is mapped, or all is not. */
  #addTo(toBytes: number, mapped: boolean): void {
    const lengthBytes = Math.min(toBytes, this.#endBytes) - this.atBytes;
    if (lengthBytes <= 0 || this.full) return;
    const last = this.runs.at(-1);
    if (last?.mapped === mapped) last.lengthBytes += lengthBytes;
    else if (this.runs.length < this.#runsMax) this.runs.push({ lengthBytes, mapped });
    else {
      this.full = true;
      return;
    }
    this.atBytes += lengthBytes;
  }
}
