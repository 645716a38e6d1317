import type { BrickNumber } from "../units.ts";

const hedgeMsMin = 20;
const hedgeMsMax = 1000;
const writeHedgeMsMin = 300;
/** A brick that let a request run out of time is asked last for this long. */
const slowForMs = 2000;

interface Health {
  /** Mean and mean deviation of answer times, as TCP keeps them (RFC 6298). */
  meanMs: number;
  deviationMs: number;
  slowUntilMs: number;
}

/** How fast the bricks answered lately: when to ask a second one, and whom to ask last. */
export class BrickHealth {
  readonly #bricks = new Map<BrickNumber, Health>();
  readonly #hedgeMsFirst: number;

  constructor(hedgeMsFirst: number) {
    this.#hedgeMsFirst = hedgeMsFirst;
  }

  answered(brick: BrickNumber, elapsedMs: number): void {
    const health = this.#bricks.get(brick);
    if (health === undefined) {
      this.#add(brick, elapsedMs, 0);
      return;
    }
    health.deviationMs += (Math.abs(elapsedMs - health.meanMs) - health.deviationMs) / 4;
    health.meanMs += (elapsedMs - health.meanMs) / 8;
    health.slowUntilMs = 0;
  }

  timedOut(brick: BrickNumber, nowMs: number): void {
    const health = this.#bricks.get(brick);
    if (health === undefined) this.#add(brick, this.#hedgeMsFirst, nowMs + slowForMs);
    else health.slowUntilMs = nowMs + slowForMs;
  }

  isSlow(brick: BrickNumber, nowMs: number): boolean {
    return (this.#bricks.get(brick)?.slowUntilMs ?? 0) > nowMs;
  }

  /** How long to wait for this brick before another is asked as well. */
  hedgeAfterMs(brick: BrickNumber): number {
    const health = this.#bricks.get(brick);
    if (health === undefined) return this.#hedgeMsFirst;
    const unusualMs = health.meanMs + 4 * health.deviationMs;
    return Math.min(hedgeMsMax, Math.max(hedgeMsMin, unusualMs, this.#hedgeMsFirst / 4));
  }

  /**
   * The same for a write. A copy too many costs its space for good, and under load a flush takes its
   * time: only a brick that seems to hang is passed over.
   */
  writeHedgeAfterMs(brick: BrickNumber): number {
    return Math.max(writeHedgeMsMin, 4 * this.hedgeAfterMs(brick));
  }

  /** Only bricks of the cluster are kept. */
  retain(exists: (brick: BrickNumber) => boolean): void {
    for (const brick of this.#bricks.keys()) if (!exists(brick)) this.#bricks.delete(brick);
  }

  #add(brick: BrickNumber, meanMs: number, slowUntilMs: number): void {
    this.#bricks.set(brick, { meanMs, deviationMs: meanMs / 2, slowUntilMs });
  }
}
