import type { Prng } from "../../brick/prng.ts";
import type { BrickNumber } from "../../brick/units.ts";
import type { Convergence } from "./convergence.ts";
import { type FaultDials, never } from "./fault-dials.ts";
import { Partitions } from "./partitions.ts";
import type { SimCluster } from "./sim-cluster.ts";
import type { LinkDials } from "./sim-network.ts";

export interface FaultCounts {
  crashes: number;
  powerCuts: number;
  /** Of all kinds. */
  partitions: number;
  clogs: number;
  /** Bricks whose end of a connection was gone and missed by nobody. */
  halfOpen: number;
  freezes: number;
  wallJumps: number;
}

const superviseEveryMs = 1_000;
/** By then silence has told that a connection is dead, and another one is there. */
const halfOpenMsMax = 8_000;
/** Whether something may go wrong again is looked at this often. */
const calmMs = 500;
const wallSkewMsMax = 30 * 24 * 3_600_000;

/** Lets things go wrong until it is told to stop; then everything is put right. */
export class Misfortune {
  readonly partitions: Partitions;
  readonly #counts = { crashes: 0, powerCuts: 0, clogs: 0, halfOpen: 0, freezes: 0, wallJumps: 0 };
  readonly #cluster: SimCluster;
  readonly #prng: Prng;
  readonly #dials: FaultDials;
  readonly #convergence: Convergence;
  #stopped = false;

  constructor(cluster: SimCluster, prng: Prng, dials: FaultDials, convergence: Convergence) {
    this.#cluster = cluster;
    this.#prng = prng;
    this.#dials = dials;
    this.#convergence = convergence;
    this.partitions = new Partitions(cluster, prng.fork(), dials.partitionMsMax, () => {
      convergence.healed(prng.chance(dials.calmChance));
    });
  }

  get counts(): FaultCounts {
    const partitions = Object.values(this.partitions.counts).reduce((sum, count) => sum + count);
    return { ...this.#counts, partitions };
  }

  begin(): void {
    const dials = this.#dials;
    const { lossChance, duplicateChance, reorderChance } = dials;
    this.#setLinks({ lossChance, duplicateChance, reorderChance });
    if (dials.driftShare > 0) this.#driftClocks();
    this.#again(dials.crashEveryMs, () => this.#crashOne());
    this.#again(dials.powerCutEveryMs, () => this.#cutPower());
    this.#again(dials.partitionEveryMs, () => this.partitions.part());
    this.#again(dials.freezeEveryMs, () => this.#freeze());
    this.#again(dials.bridgeEveryMs, () => this.partitions.bridge());
    this.#again(dials.clogEveryMs, () => this.#clog());
    this.#again(dials.wallJumpEveryMs, () => this.#jumpWall());
  }

  /** No more faults: the network heals, and every brick is started. */
  end(): void {
    this.#stopped = true;
    const { network } = this.#cluster.world;
    this.partitions.end();
    network.heal();
    // What is sent through a dead connection would be missed for some seconds still.
    network.setEvery({ lossChance: 0, duplicateChance: 0, reorderChance: 0, halfOpen: false });
    this.#watchOver();
  }

  /** As a supervisor does: whatever has stopped is started. */
  #watchOver(): void {
    for (const brick of this.#cluster.bricks) this.#cluster.start(brick);
    this.#cluster.world.after(superviseEveryMs, () => this.#watchOver());
  }

  /** Of the bricks there are, and of those to come. */
  #setLinks(dials: Partial<LinkDials>): void {
    const { network } = this.#cluster.world;
    network.setAll(this.#cluster.bricks, dials);
    Object.assign(network.defaults, dials);
  }

  /** As far apart as `clockDriftPercent` allows. */
  #driftClocks(): void {
    for (const brick of this.#cluster.bricks) {
      const rate = 1 + this.#dials.driftShare * (2 * this.#prng.unit() - 1);
      this.#cluster.world.machine(brick).clock.setRate(rate);
    }
  }

  #again(everyMs: number, action: () => void): void {
    if (everyMs === never) return;
    const delayMs = everyMs * (0.2 + 1.6 * this.#prng.unit());
    this.#cluster.world.after(delayMs, () => this.#whenItMay(everyMs, action));
  }

  #whenItMay(everyMs: number, action: () => void): void {
    if (this.#stopped) return;
    if (this.#convergence.calm) {
      this.#cluster.world.after(calmMs, () => this.#whenItMay(everyMs, action));
      return;
    }
    action();
    this.#again(everyMs, action);
  }

  #crashOne(): void {
    const cluster = this.#cluster;
    const running = cluster.bricks.filter((brick) => cluster.starting.has(brick));
    const away = cluster.bricks.length - running.length;
    if (running.length === 0 || away >= this.#dials.awayMax) return;
    const brick = this.#prng.pick(running);
    this.#counts.crashes += 1;
    const { killShare } = this.#dials;
    if (killShare > 0 && this.#prng.chance(killShare)) cluster.world.machine(brick).kill();
    else this.#crash(brick);
    this.#restartLater(brick);
  }

  #cutPower(): void {
    const cluster = this.#cluster;
    this.#counts.powerCuts += 1;
    const running = cluster.bricks.filter((brick) => cluster.starting.has(brick));
    for (const brick of running) {
      this.#crash(brick);
      this.#restartLater(brick);
    }
  }

  /** Its power is cut: nobody is told that its connections are gone. */
  #crash(brick: BrickNumber): void {
    const { network } = this.#cluster.world;
    this.#cluster.crash(brick);
    const { halfOpenChance } = this.#dials;
    const peers = this.#cluster.bricks.filter((one) => one !== brick);
    const unaware = peers.filter(() => halfOpenChance > 0 && this.#prng.chance(halfOpenChance));
    if (unaware.length === 0) return;
    this.#counts.halfOpen += 1;
    for (const peer of unaware) {
      network.set(peer, brick, { halfOpen: true });
      const delayMs = this.#prng.between(100, halfOpenMsMax);
      this.#cluster.world.after(delayMs, () => network.set(peer, brick, { halfOpen: false }));
    }
  }

  #restartLater(brick: BrickNumber): void {
    const delayMs = this.#prng.between(10, this.#dials.restartMsMax);
    this.#cluster.world.after(delayMs, () => this.#cluster.start(brick));
  }

  #freeze(): void {
    const running = [...this.#cluster.nodes.keys()];
    if (running.length === 0) return;
    this.#counts.freezes += 1;
    const brick = this.#prng.pick(running);
    this.#cluster.world.machine(brick).freeze(this.#prng.between(50, this.#dials.freezeMsMax));
  }

  #clog(): void {
    const { network } = this.#cluster.world;
    const bricks = [...this.#cluster.bricks];
    const [from, to] = [this.#prng.pick(bricks), this.#prng.pick(bricks)];
    if (from === to) return;
    this.#counts.clogs += 1;
    network.set(from, to, { clogged: true });
    const delayMs = this.#prng.between(50, this.#dials.clogMsMax);
    this.#cluster.world.after(delayMs, () => network.set(from, to, { clogged: false }));
  }

  #jumpWall(): void {
    this.#counts.wallJumps += 1;
    const machine = this.#cluster.world.machine(this.#prng.pick([...this.#cluster.bricks]));
    machine.clock.wallSkewMs = this.#prng.between(-wallSkewMsMax, wallSkewMsMax);
  }
}
