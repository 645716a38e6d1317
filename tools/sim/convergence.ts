import type { SimCluster } from "./sim-cluster.ts";

/** Once a partition has healed and nothing else is wrong, the cluster is whole within this. */
export const convergeMsMax = 30_000;
const lookEveryMs = 250;

export interface ConvergenceCounts {
  /** Partitions after which the cluster was seen to be whole again. */
  converged: number;
  /** Of those the longest time that it took. */
  convergeMsLongest: number;
}

/**
 * Whether a cluster comes together again after a partition. The time counts from the heal, or from
 * the end of the last thing that was wrong besides: a brick that was not running, frozen or cut off,
 * a disk that failed or was slow, a brick that was given up, emptied or new.
 */
export class Convergence {
  readonly counts: ConvergenceCounts = { converged: 0, convergeMsLongest: 0 };
  readonly #cluster: SimCluster;
  /** Whether something is wrong that nothing here can see. */
  readonly #isDisturbed: () => boolean;
  readonly #violation: (what: string) => void;
  /** When all was well but for what the partition left; null: nothing is waited for. */
  #sinceMs: number | null = null;
  #calm = false;
  #over = false;

  constructor(cluster: SimCluster, isDisturbed: () => boolean, violation: (what: string) => void) {
    this.#cluster = cluster;
    this.#isDisturbed = isDisturbed;
    this.#violation = violation;
  }

  /** Nothing new is to go wrong until the cluster has come together. */
  get calm(): boolean {
    return this.#calm;
  }

  /** What was parted has been joined; from now on it counts, in calm or not. */
  healed(calm: boolean): void {
    this.#calm ||= calm;
    const waits = this.#sinceMs !== null;
    this.#sinceMs = this.#cluster.world.clock.nowMs;
    if (!waits) this.#look();
  }

  /** The checks at the end of a run see to the rest. */
  end(): void {
    this.#over = true;
  }

  #look(): void {
    if (this.#over || this.#sinceMs === null) return;
    const { nowMs } = this.#cluster.world.clock;
    if (this.#isWrong()) this.#sinceMs = nowMs;
    else if (this.#cluster.isWhole()) {
      this.counts.converged += 1;
      const tookMs = nowMs - this.#sinceMs;
      this.counts.convergeMsLongest = Math.max(this.counts.convergeMsLongest, tookMs);
      this.#sinceMs = null;
      this.#calm = false;
      return;
    } else if (nowMs - this.#sinceMs > convergeMsMax) {
      this.#violation(
        `not whole ${convergeMsMax} ms after a partition: ${this.#cluster.notWhole()}`,
      );
      return;
    }
    this.#cluster.world.after(lookEveryMs, () => this.#look());
  }

  #isWrong(): boolean {
    const { bricks, starting, world } = this.#cluster;
    return (
      world.network.isParted() ||
      bricks.some((brick) => !starting.has(brick) || world.machine(brick).isFrozen) ||
      this.#isDisturbed()
    );
  }
}
