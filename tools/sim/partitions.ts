import type { Prng } from "../../brick/prng.ts";
import type { BrickNumber } from "../../brick/units.ts";
import { type SimCluster, volumeName } from "./sim-cluster.ts";

/**
 * What parts a cluster: `split`, a minority does not hear the majority, nor the other way; `oneWay`,
 * what some send does not arrive at the others; `pair`, two bricks do not hear each other;
 * `gateway`, the brick that serves the volume hears its initiators only; `flapping`, a split that
 * comes and goes; `bridge`, two halves meet in one brick.
 */
export const partitionKinds = ["split", "oneWay", "pair", "gateway", "flapping", "bridge"] as const;
export type PartitionKind = (typeof partitionKinds)[number];

/** A direction in which nothing arrives. */
type Cut = readonly [from: BrickNumber, to: BrickNumber];

const flapMs = [50, 2_000] as const;

/** Parts the network of a cluster, and joins it again. */
export class Partitions {
  readonly counts: Record<PartitionKind, number> = {
    split: 0,
    oneWay: 0,
    pair: 0,
    gateway: 0,
    flapping: 0,
    bridge: 0,
  };
  /** Who did not hear whom, of how many: two partitions with the same text are the same. */
  readonly shapes = new Set<string>();
  readonly #cluster: SimCluster;
  readonly #prng: Prng;
  readonly #msMax: number;
  /** Told when all has been joined again. */
  readonly #onHealed: () => void;
  #over = false;

  constructor(cluster: SimCluster, prng: Prng, msMax: number, onHealed: () => void) {
    this.#cluster = cluster;
    this.#prng = prng;
    this.#msMax = msMax;
    this.#onHealed = onHealed;
  }

  /** Nothing is parted any more. */
  end(): void {
    this.#over = true;
    if (this.#cluster.world.network.isParted()) this.#heal();
  }

  /** Some partition, but for a bridge. */
  part(): void {
    const shape = this.#prng.unit();
    const bricks = [...this.#cluster.bricks];
    if (bricks.length < 2) return;
    if (shape < 0.3) this.#begin("split", this.#split(bricks));
    else if (shape < 0.5) this.#begin("oneWay", this.#oneWay(bricks));
    else if (shape < 0.6) this.#begin("pair", bothWays(...this.#pair(bricks)));
    else if (shape < 0.8) this.#begin("gateway", this.#gateway(bricks));
    else this.#begin("flapping", this.#split(bricks));
  }

  /** Two halves that do not hear each other; one brick hears both. */
  bridge(): void {
    const bricks = [...this.#cluster.bricks];
    if (bricks.length < 3) return;
    const middle = this.#prng.pick(bricks);
    const others = this.#shuffled(bricks.filter((brick) => brick !== middle));
    const half = this.#prng.between(1, others.length - 1);
    this.#begin("bridge", bothWays(others.slice(0, half), others.slice(half)));
  }

  #begin(kind: PartitionKind, cuts: readonly Cut[]): void {
    this.counts[kind] += 1;
    const size = this.#cluster.bricks.length;
    const text = cuts.map(([from, to]) => `${from}>${to}`).sort();
    this.shapes.add(`${kind} of ${size}: ${text.join(" ")}`);
    const { world } = this.#cluster;
    const endMs = world.clock.nowMs + this.#prng.between(100, this.#msMax);
    if (kind === "flapping") {
      this.#flap(cuts, endMs, true);
      return;
    }
    this.#set(cuts, true);
    world.after(endMs - world.clock.nowMs, () => this.#heal());
  }

  #flap(cuts: readonly Cut[], endMs: number, cut: boolean): void {
    const { world } = this.#cluster;
    if (this.#over) return;
    if (world.clock.nowMs >= endMs) {
      this.#heal();
      return;
    }
    this.#set(cuts, cut);
    world.after(this.#prng.between(...flapMs), () => this.#flap(cuts, endMs, !cut));
  }

  /** Also what others have parted. */
  #heal(): void {
    this.#cluster.world.network.heal();
    this.#onHealed();
  }

  #set(cuts: readonly Cut[], cut: boolean): void {
    const { network } = this.#cluster.world;
    for (const [from, to] of cuts) network.set(from, to, { cut });
  }

  #split(bricks: readonly BrickNumber[]): Cut[] {
    const shuffled = this.#shuffled(bricks);
    const few = this.#prng.between(1, Math.floor(bricks.length / 2));
    return bothWays(shuffled.slice(0, few), shuffled.slice(few));
  }

  #oneWay(bricks: readonly BrickNumber[]): Cut[] {
    const shuffled = this.#shuffled(bricks);
    const senders = this.#prng.between(1, bricks.length - 1);
    return oneWay(shuffled.slice(0, senders), shuffled.slice(senders));
  }

  #pair(bricks: readonly BrickNumber[]): [BrickNumber[], BrickNumber[]] {
    const [one, other] = this.#shuffled(bricks);
    return [[one!], [other!]];
  }

  #gateway(bricks: readonly BrickNumber[]): Cut[] {
    const gateway = this.#cluster.volumeHolder(volumeName) ?? this.#prng.pick(bricks);
    return bothWays(
      [gateway],
      bricks.filter((brick) => brick !== gateway),
    );
  }

  #shuffled(bricks: readonly BrickNumber[]): BrickNumber[] {
    const left = [...bricks];
    return bricks.map(() => left.splice(this.#prng.between(0, left.length - 1), 1)[0]!);
  }
}

function oneWay(senders: readonly BrickNumber[], others: readonly BrickNumber[]): Cut[] {
  return senders.flatMap((from) => others.map((to): Cut => [from, to]));
}

function bothWays(some: readonly BrickNumber[], others: readonly BrickNumber[]): Cut[] {
  return [...oneWay(some, others), ...oneWay(others, some)];
}
