import type { Prng } from "../../brick/prng.ts";
import type { BrickNumber } from "../../brick/units.ts";
import type { SimCluster } from "./sim-cluster.ts";

/** How unlucky a run is: each dial is drawn once per seed, so that runs differ in kind (swarm). */
export interface FaultDials {
  readonly crashEveryMs: number;
  readonly restartMsMax: number;
  readonly powerCutEveryMs: number;
  readonly partitionEveryMs: number;
  readonly partitionMsMax: number;
  readonly freezeEveryMs: number;
  readonly freezeMsMax: number;
  readonly lossChance: number;
  readonly duplicateChance: number;
  readonly reorderChance: number;
  /** Bricks away at the same time at most, besides whole-cluster power cuts. */
  readonly awayMax: number;
}

const never = Number.POSITIVE_INFINITY;

export function drawDials(prng: Prng, bricks: number): FaultDials {
  const maybe = (chance: number, value: () => number) => (prng.chance(chance) ? value() : never);
  return {
    crashEveryMs: maybe(0.9, () => prng.between(5_000, 120_000)),
    restartMsMax: prng.pick([500, 5_000, 60_000]),
    powerCutEveryMs: maybe(0.5, () => prng.between(30_000, 600_000)),
    partitionEveryMs: maybe(0.6, () => prng.between(10_000, 120_000)),
    partitionMsMax: prng.pick([500, 5_000, 30_000]),
    freezeEveryMs: maybe(0.4, () => prng.between(20_000, 120_000)),
    freezeMsMax: prng.pick([100, 1_500, 10_000]),
    lossChance: prng.pick([0, 0, 0.001, 0.02]),
    duplicateChance: prng.pick([0, 0, 0.001, 0.02]),
    reorderChance: prng.pick([0, 0, 0.01, 0.1]),
    awayMax: prng.chance(0.7) ? 1 : Math.max(1, Math.floor((bricks - 1) / 2)),
  };
}

export interface FaultCounts {
  crashes: number;
  powerCuts: number;
  partitions: number;
  freezes: number;
}

/** Lets things go wrong until it is told to stop; then everything is put right. */
export class Misfortune {
  readonly counts: FaultCounts = { crashes: 0, powerCuts: 0, partitions: 0, freezes: 0 };
  readonly #cluster: SimCluster;
  readonly #prng: Prng;
  readonly #dials: FaultDials;
  #stopped = false;

  constructor(cluster: SimCluster, prng: Prng, dials: FaultDials) {
    this.#cluster = cluster;
    this.#prng = prng;
    this.#dials = dials;
  }

  begin(): void {
    const dials = this.#dials;
    const { lossChance, duplicateChance, reorderChance } = dials;
    const { network } = this.#cluster.world;
    network.setAll(this.#cluster.bricks, { lossChance, duplicateChance, reorderChance });
    this.#again(dials.crashEveryMs, () => this.#crashOne());
    this.#again(dials.powerCutEveryMs, () => this.#cutPower());
    this.#again(dials.partitionEveryMs, () => this.#partition());
    this.#again(dials.freezeEveryMs, () => this.#freeze());
  }

  /** No more faults: the network heals, and every brick is started. */
  end(): void {
    this.#stopped = true;
    const { network } = this.#cluster.world;
    network.heal();
    network.setAll(this.#cluster.bricks, { lossChance: 0, duplicateChance: 0, reorderChance: 0 });
    for (const brick of this.#cluster.bricks) this.#cluster.start(brick);
  }

  #again(everyMs: number, action: () => void): void {
    if (everyMs === never) return;
    const delayMs = everyMs * (0.2 + 1.6 * this.#prng.unit());
    this.#cluster.world.after(delayMs, () => {
      if (this.#stopped) return;
      action();
      this.#again(everyMs, action);
    });
  }

  #crashOne(): void {
    const cluster = this.#cluster;
    const running = cluster.bricks.filter((brick) => cluster.starting.has(brick));
    const away = cluster.bricks.length - running.length;
    if (running.length === 0 || away >= this.#dials.awayMax) return;
    const brick = this.#prng.pick(running);
    this.counts.crashes += 1;
    cluster.crash(brick);
    this.#restartLater(brick);
  }

  #cutPower(): void {
    const cluster = this.#cluster;
    this.counts.powerCuts += 1;
    const running = cluster.bricks.filter((brick) => cluster.starting.has(brick));
    for (const brick of running) {
      cluster.crash(brick);
      this.#restartLater(brick);
    }
  }

  #restartLater(brick: BrickNumber): void {
    const delayMs = this.#prng.between(10, this.#dials.restartMsMax);
    this.#cluster.world.after(delayMs, () => this.#cluster.start(brick));
  }

  #partition(): void {
    const { network } = this.#cluster.world;
    const bricks = [...this.#cluster.bricks];
    this.counts.partitions += 1;
    const shape = this.#prng.unit();
    if (shape < 0.4) {
      const one = this.#prng.pick(bricks);
      const others = bricks.filter((brick) => brick !== one);
      network.partition([one], others);
    } else if (shape < 0.7) {
      // One way only: what it sends arrives nowhere, or nothing reaches it.
      const one = this.#prng.pick(bricks);
      const deaf = this.#prng.chance(0.5);
      for (const other of bricks) {
        if (other !== one) network.set(deaf ? other : one, deaf ? one : other, { cut: true });
      }
    } else {
      const [one, other] = [this.#prng.pick(bricks), this.#prng.pick(bricks)];
      network.set(one, other, { cut: true });
      network.set(other, one, { cut: true });
    }
    this.#cluster.world.after(this.#prng.between(100, this.#dials.partitionMsMax), () => {
      network.heal();
    });
  }

  #freeze(): void {
    const running = [...this.#cluster.nodes.keys()];
    if (running.length === 0) return;
    this.counts.freezes += 1;
    const brick = this.#prng.pick(running);
    this.#cluster.world.machine(brick).freeze(this.#prng.between(50, this.#dials.freezeMsMax));
  }
}
