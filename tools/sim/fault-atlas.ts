import type { Prng } from "../../brick/prng.ts";
import type { BrickNumber } from "../../brick/units.ts";
import { shortOfCopies } from "./copies.ts";
import type { SimCluster } from "./sim-cluster.ts";

/**
 * Which copies may be taken away, so that a readable one of everything alive is always left: damage
 * falls on one brick at a time, and only while every other copy is there. Chunks, complete replicas
 * of shards and Raft's log alike then have their other holders, which may be away and come back, but
 * are neither damaged nor lost.
 */
export class FaultAtlas {
  readonly #cluster: SimCluster;
  /** It may hold something damaged that was not found and replaced yet. */
  #damaged: BrickNumber | null = null;
  /** It may turn out to be lost. */
  #inDoubt: BrickNumber | null = null;

  constructor(cluster: SimCluster) {
    this.#cluster = cluster;
  }

  /** A brick that may be damaged now. */
  mayDamage(prng: Prng): BrickNumber | null {
    const { bricks } = this.#cluster;
    if (bricks.length < 3 || !this.#isInOrder()) return null;
    this.#forgetGone();
    this.#damaged ??= prng.pick(bricks);
    return this.#damaged;
  }

  /** A brick that may go for good now. */
  mayLose(prng: Prng): BrickNumber | null {
    if (this.#inDoubt !== null || !this.#isInOrder()) return null;
    this.#forgetGone();
    if (this.#damaged === null) return prng.pick(this.#cluster.bricks);
    const brick = this.#damaged;
    this.#damaged = null;
    return brick;
  }

  /** Until it is released no brick may go but this one, which may not start any more. */
  doubt(brick: BrickNumber): void {
    this.#inDoubt = brick;
  }

  release(): void {
    this.#inDoubt = null;
  }

  /** It may have been damaged once more while it was emptied, and be gone since. */
  #forgetGone(): void {
    if (this.#damaged !== null && this.#cluster.gone.has(this.#damaged)) this.#damaged = null;
  }

  #isInOrder(): boolean {
    return this.#cluster.isWhole() && shortOfCopies(this.#cluster) === null;
  }
}
