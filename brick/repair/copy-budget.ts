import { assert } from "../assert.ts";
import { chunkBytesMax } from "../chunk/key.ts";
import { MiB } from "../units.ts";

/** What copies may take from the brick that they are made on. */
export interface CopyRates {
  /** Bytes a second that copies get whatever initiators ask for: no repair waits for ever. */
  readonly floorBytesPerSecond: number;
  /** Bytes a second at most, while nothing else waits for the log. */
  readonly ceilingBytesPerSecond: number;
  /** Bytes a second of those that are made for balance alone; they count as copies too. */
  readonly gentleBytesPerSecond: number;
}

export const copyRatesDefault: CopyRates = {
  floorBytesPerSecond: 8 * MiB,
  ceilingBytesPerSecond: 64 * MiB,
  gentleBytesPerSecond: 8 * MiB,
};

/** What may be taken at once after a rest. In any time t no more than burst + rate * t is copied. */
export const copyBurstBytes = 1 * MiB;
assert(copyBurstBytes >= chunkBytesMax);

/** Repair restores what was lost, balance only moves: it waits for repair and for initiators. */
export type CopyUrgency = "repair" | "balance";

class Allowance {
  readonly #bytesPerSecond: number;
  #bytes = copyBurstBytes;
  #asOfMs: number;

  constructor(bytesPerSecond: number, nowMs: number) {
    assert(bytesPerSecond > 0);
    this.#bytesPerSecond = bytesPerSecond;
    this.#asOfMs = nowMs;
  }

  /** How long until so much may be taken, in whole milliseconds; 0: now. */
  waitMs(nowMs: number, bytes: number): number {
    this.#grow(nowMs);
    return Math.max(0, Math.ceil(((bytes - this.#bytes) / this.#bytesPerSecond) * 1000));
  }

  /** Negative gives back. What is taken beyond what there is delays those that come after. */
  take(nowMs: number, bytes: number): void {
    this.#grow(nowMs);
    this.#bytes = Math.max(-copyBurstBytes, Math.min(copyBurstBytes, this.#bytes - bytes));
  }

  #grow(nowMs: number): void {
    const grown = (Math.max(0, nowMs - this.#asOfMs) / 1000) * this.#bytesPerSecond;
    this.#asOfMs = nowMs;
    this.#bytes = Math.min(copyBurstBytes, this.#bytes + grown);
  }
}

/** When a brick may make the next copy. The whole room of a chunk is taken, and the rest given back. */
export class CopyBudget {
  readonly #floor: Allowance;
  readonly #ceiling: Allowance;
  readonly #gentle: Allowance;

  constructor(rates: CopyRates, nowMs: number) {
    assert(rates.floorBytesPerSecond <= rates.ceilingBytesPerSecond);
    this.#floor = new Allowance(rates.floorBytesPerSecond, nowMs);
    this.#ceiling = new Allowance(rates.ceilingBytesPerSecond, nowMs);
    this.#gentle = new Allowance(rates.gentleBytesPerSecond, nowMs);
  }

  /** How long the next copy has to wait; 0: it may begin. */
  waitMs(nowMs: number, urgency: CopyUrgency, logIsQuiet: boolean): number {
    const ceilingMs = this.#ceiling.waitMs(nowMs, chunkBytesMax);
    const floorMs = this.#floor.waitMs(nowMs, chunkBytesMax);
    if (urgency === "repair") return logIsQuiet ? ceilingMs : Math.max(ceilingMs, floorMs);
    const gentleMs = Math.max(this.#gentle.waitMs(nowMs, chunkBytesMax), ceilingMs);
    return logIsQuiet ? gentleMs : Math.max(gentleMs, busyLookMs);
  }

  take(nowMs: number, urgency: CopyUrgency, bytes: number): void {
    this.#floor.take(nowMs, bytes);
    this.#ceiling.take(nowMs, bytes);
    if (urgency === "balance") this.#gentle.take(nowMs, bytes);
  }
}

/** A copy that waits for the log to be quiet looks again after this. */
const busyLookMs = 20;
