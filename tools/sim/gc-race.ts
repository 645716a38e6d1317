import { type ClusterState, isReachable } from "../../brick/cluster-state.ts";
import { gcOf, isSteady, isTooOld, sweepBefore } from "../../brick/gc/epochs.ts";
import { MarkPage } from "../../brick/gc/mark-page.ts";
import { Stamps } from "../../brick/gc/stamps.ts";
import { Prng } from "../../brick/prng.ts";
import type { BrickNumber } from "../../brick/units.ts";
import { apply, emptyClusterState } from "../../control/cluster-machine.ts";
import type { Command } from "../../control/commands.ts";
import { planGc } from "../../control/gc-planner.ts";

/**
 * Garbage collection against everything that it races with, without network, disk or log: the
 * product's own epochs, stamps, marks, fence and cluster state; around them bricks that are sets of
 * chunks and shards that are tables, and messages that take any time at all. Millions of operations
 * a minute. What must hold: no brick drops a chunk that a committed or accepted map record names
 * there, and no map record commits that names a chunk that is not there.
 */

/** The rules, so that wrong ones can be tried: each must be caught. */
export interface RaceRules {
  readonly sweepBefore: typeof sweepBefore;
  readonly isTooOld: typeof isTooOld;
  /** A put of a chunk that is there protects it. */
  readonly stampsHits: boolean;
  /** A walk marks what was proposed before it and has not committed. */
  readonly marksPending: boolean;
  /** A mark that was not answered is sent again. */
  readonly marksAgain: boolean;
}

export const rightRules: RaceRules = {
  sweepBefore,
  isTooOld,
  stampsHits: true,
  marksPending: true,
  marksAgain: true,
};

export interface RaceReport {
  /** Puts, hits, map operations, commits, marks and drops. */
  readonly operations: number;
  readonly hits: number;
  readonly refusedAsStale: number;
  readonly dropped: number;
  readonly epochs: number;
  readonly restarts: number;
  readonly violation: string | null;
}

const brickCount = 4;
const shardCount = 3;
const grainsPerShard = 24;
const keyCount = 384;
const gatewayCount = 3;
const writesPerGateway = 6;
const copies = 2;
const slotsPerSegment = 128;
/** Ticks that a message takes: mostly few, at times very many. */
const delayMax = 6;
const longDelayMax = 4000;
const longDelayChance = 0.004;
const stallMax = 600;
/** Of marks; they are repeated until they are answered. */
const lossChance = 0.02;

const keys = Array.from({ length: keyCount }, (_, key) => {
  const bytes = Buffer.alloc(32, key + 1);
  bytes.writeUInt32BE(key, 28);
  return bytes;
});

interface RaceBrick {
  readonly number: BrickNumber;
  boot: number;
  /** The process runs. */
  running: boolean;
  /** The cluster state as the brick knows it. */
  state: ClusterState;
  readonly has: Uint8Array;
  stamps: Stamps;
  sweepAt: number;
  /** By key: map records, committed or accepted, that name this brick for it. */
  readonly named: Uint16Array;
}

interface Accepted {
  readonly grain: number;
  /** -1: an unmap. */
  readonly key: number;
  readonly holders: readonly BrickNumber[];
  readonly view: number;
}

interface RaceShard {
  view: number;
  primary: BrickNumber;
  readonly keys: Int16Array;
  readonly holders: (readonly BrickNumber[])[];
  readonly accepted: Set<Accepted>;
  /** Nothing commits before this tick: a backup does not answer. */
  stalledTo: number;
  walk: { epoch: number; view: number; next: number; waiting: number } | null;
  /** The epoch marked last, as the leader has heard of it. */
  marked: number;
}

export class GcRace {
  readonly #prng: Prng;
  readonly #rules: RaceRules;
  #truth: ClusterState;
  readonly #bricks: RaceBrick[];
  readonly #gateways: ClusterState[];
  readonly #shards: RaceShard[];
  #tick = 0;
  /** Events by tick, modulo the longest delay. */
  readonly #wheel: (() => void)[][];
  readonly #counts = { operations: 0, hits: 0, refusedAsStale: 0, dropped: 0, restarts: 0 };
  #violation: string | null = null;

  constructor(seed: number, rules: RaceRules = rightRules) {
    this.#prng = new Prng(seed);
    this.#rules = rules;
    this.#truth = foundCluster();
    const state = this.#truth;
    this.#bricks = Array.from({ length: brickCount }, (_, at) => ({
      number: at + 1,
      boot: 1,
      running: true,
      state,
      has: new Uint8Array(keyCount),
      stamps: new Stamps(slotsPerSegment * 512),
      sweepAt: 0,
      named: new Uint16Array(keyCount),
    }));
    this.#gateways = Array.from({ length: gatewayCount }, () => state);
    this.#shards = Array.from({ length: shardCount }, (_, at) => ({
      view: 1,
      primary: 1 + (at % brickCount),
      keys: new Int16Array(grainsPerShard).fill(-1),
      holders: Array.from({ length: grainsPerShard }, () => []),
      accepted: new Set<Accepted>(),
      stalledTo: 0,
      walk: null,
      marked: 0,
    }));
    this.#wheel = Array.from({ length: longDelayMax + 1 }, () => []);
  }

  run(operations: number): RaceReport {
    for (let at = 0; at < gatewayCount * writesPerGateway; at += 1) this.#nextWrite(at);
    while (this.#counts.operations < operations && this.#violation === null) {
      const slot = this.#tick % this.#wheel.length;
      const events = this.#wheel[slot]!;
      this.#wheel[slot] = [];
      for (const event of events) event();
      this.#world();
      this.#tick += 1;
    }
    const epochs = this.#truth.gcEpoch;
    return { ...this.#counts, epochs, violation: this.#violation };
  }

  #later(event: () => void): void {
    const isLong = this.#prng.chance(longDelayChance);
    const delay = this.#prng.between(1, isLong ? longDelayMax : delayMax);
    this.#wheel[(this.#tick + delay) % this.#wheel.length]!.push(event);
  }

  /** What happens by itself in one tick. */
  #world(): void {
    const prng = this.#prng;
    // News of the cluster state reach everybody at some time, or much later.
    for (const brick of this.#bricks) {
      if (!brick.running || !prng.chance(0.1)) continue;
      brick.state = this.#truth;
      brick.stamps.reach(this.#truth.gcEpoch);
    }
    for (let at = 0; at < gatewayCount; at += 1) {
      if (prng.chance(0.05)) this.#gateways[at] = this.#truth;
    }
    if (prng.chance(0.001)) this.#fall(prng.pick(this.#bricks));
    if (prng.chance(0.002)) this.#partition(prng.pick(this.#bricks));
    if (prng.chance(0.2)) this.#lead();
    for (const shard of this.#shards) {
      if (prng.chance(0.001)) shard.stalledTo = this.#tick + prng.between(1, stallMax);
      this.#stepWalk(shard);
    }
    for (const brick of this.#bricks) this.#stepSweep(brick);
  }

  #command(command: Command): void {
    this.#truth = apply(this.#truth, command).state;
  }

  // Writes.

  #nextWrite(at: number): void {
    this.#later(() => this.#beginWrite(at));
  }

  #beginWrite(at: number): void {
    const prng = this.#prng;
    const shard = prng.pick(this.#shards);
    const grain = prng.between(0, grainsPerShard - 1);
    if (prng.chance(0.25)) {
      this.#sendMap(at, shard, { grain, key: -1, holders: [], gcEpoch: 0 });
      this.#nextWrite(at);
      return;
    }
    this.#store(at, shard, grain, prng.between(0, keyCount - 1));
  }

  /** The first wave: the chunk to two bricks, under the epoch that the gateway knows. */
  #store(at: number, shard: RaceShard, grain: number, key: number): void {
    const state = this.#gateways[at % gatewayCount]!;
    const { gcEpoch } = state;
    const reachable = this.#bricks.filter(({ number }) => isReachable(state.bricks[number]));
    if (reachable.length < copies) {
      this.#nextWrite(at);
      return;
    }
    const first = this.#prng.between(0, reachable.length - 1);
    const holders: BrickNumber[] = [];
    for (let one = 0; one < copies; one += 1) {
      const brick = reachable[(first + one) % reachable.length]!;
      this.#put(brick, key, gcEpoch, () => {
        holders.push(brick.number);
        if (holders.length < copies) return;
        this.#sendMap(at, shard, { grain, key, holders, gcEpoch });
      });
    }
    // A write whose bricks do not answer is given up by whoever wrote; late puts land all the same.
    this.#later(() => this.#later(() => this.#later(() => this.#nextWrite(at))));
  }

  #put(brick: RaceBrick, key: number, gcEpoch: number, stored: () => void): void {
    this.#later(() => {
      if (!brick.running) return;
      this.#counts.operations += 1;
      brick.stamps.reach(gcEpoch);
      if (brick.has[key] === 1) this.#counts.hits += 1;
      if (brick.has[key] === 0 || this.#rules.stampsHits) brick.stamps.stamp(placeOf(key));
      brick.has[key] = 1;
      this.#later(stored);
    });
  }

  /** The second wave. */
  #sendMap(
    at: number,
    shard: RaceShard,
    write: { grain: number; key: number; holders: readonly BrickNumber[]; gcEpoch: number },
  ): void {
    this.#later(() => {
      const primary = this.#bricks[shard.primary - 1]!;
      if (!this.#leads(primary, shard)) return this.#sendMap(at, shard, write);
      this.#counts.operations += 1;
      const { grain, key, holders, gcEpoch } = write;
      if (key >= 0 && this.#rules.isTooOld(gcEpoch, primary.state.gcEpoch)) {
        this.#counts.refusedAsStale += 1;
        return;
      }
      const accepted: Accepted = { grain, key, holders, view: shard.view };
      shard.accepted.add(accepted);
      this.#name(key, holders, 1);
      this.#commitLater(shard, accepted);
    });
  }

  /** In the order of acceptance within a grain, or it never commits. */
  #commitLater(shard: RaceShard, accepted: Accepted): void {
    this.#later(() => {
      if (!shard.accepted.has(accepted)) return;
      const primary = this.#bricks[shard.primary - 1]!;
      const stalled = this.#tick < shard.stalledTo;
      if (stalled || !this.#leads(primary, shard)) return this.#commitLater(shard, accepted);
      // All before it commit with it.
      for (const one of shard.accepted) {
        this.#commit(shard, one);
        if (one === accepted) return;
      }
    });
  }

  #commit(shard: RaceShard, accepted: Accepted): void {
    this.#counts.operations += 1;
    const { grain, key, holders } = accepted;
    shard.accepted.delete(accepted);
    this.#name(shard.keys[grain]!, shard.holders[grain]!, -1);
    shard.keys[grain] = key;
    shard.holders[grain] = holders;
    for (const number of holders) {
      if (this.#bricks[number - 1]!.has[key] === 1) continue;
      this.#violation ??= `tick ${this.#tick}: a record commits that names chunk ${key} at brick ${number}, which does not have it`;
    }
  }

  #name(key: number, holders: readonly BrickNumber[], by: number): void {
    if (key < 0) return;
    for (const number of holders) this.#bricks[number - 1]!.named[key]! += by;
  }

  /** Its view is in the state that the primary knows: it learns of views by that alone. */
  #leads(brick: RaceBrick, shard: RaceShard): boolean {
    return (
      brick.running &&
      shard.primary === brick.number &&
      isReachable(brick.state.bricks[brick.number])
    );
  }

  // Bricks come and go.

  #fall(brick: RaceBrick): void {
    if (!brick.running || this.#bricks.filter(({ running }) => running).length < brickCount) return;
    this.#counts.restarts += 1;
    brick.running = false;
    // Quick restarts are not seen as absences.
    if (this.#prng.chance(0.6)) {
      this.#command({ type: "brickDown", number: brick.number, boot: brick.boot });
      this.#moveShards(brick);
    }
    this.#later(() => this.#later(() => this.#restart(brick)));
  }

  #restart(brick: RaceBrick): void {
    brick.boot += 1;
    brick.running = true;
    brick.stamps = new Stamps(slotsPerSegment * 512);
    brick.stamps.reach(brick.state.gcEpoch);
    // It serves from its log before the cluster has noted its return.
    this.#later(() => {
      const { number, boot } = brick;
      this.#command({
        type: "announceBrick",
        ...facts(number, boot),
        cut: false,
        discarded: false,
      });
      for (const shard of this.#shards) if (shard.primary === number) this.#newView(shard, number);
    });
  }

  /** It is set down without being so: it hears nothing for a while, and goes on where it was. */
  #partition(brick: RaceBrick): void {
    const { number, boot } = brick;
    if (!brick.running || !isReachable(this.#truth.bricks[number])) return;
    if (Object.values(this.#truth.bricks).filter(isReachable).length < brickCount) return;
    this.#command({ type: "brickDown", number, boot });
    this.#moveShards(brick);
    this.#later(() => this.#command({ type: "brickUp", number, boot }));
  }

  #moveShards(from: RaceBrick): void {
    const others = this.#bricks.filter((one) => one !== from && one.running);
    for (const shard of this.#shards) {
      if (shard.primary === from.number) this.#newView(shard, this.#prng.pick(others).number);
    }
  }

  /** The new primary knows the state in which it was named; what was pending commits, or never. */
  #newView(shard: RaceShard, primary: BrickNumber): void {
    shard.view += 1;
    shard.primary = primary;
    shard.walk = null;
    const brick = this.#bricks[primary - 1]!;
    brick.state = this.#truth;
    brick.stamps.reach(this.#truth.gcEpoch);
    let lost = false;
    for (const accepted of shard.accepted) {
      lost ||= this.#prng.chance(0.2);
      if (!lost) continue;
      shard.accepted.delete(accepted);
      this.#name(accepted.key, accepted.holders, -1);
    }
  }

  // Garbage collection.

  #lead(): void {
    const marked = new Set<number>();
    for (const [at, shard] of this.#shards.entries()) {
      if (shard.marked === this.#truth.gcEpoch) marked.add(at);
    }
    const state = this.#truth;
    const command = planGc(state, {
      nowMs: this.#tick,
      timing: { gcEveryMs: 0, gcUrgentEveryMs: 0 },
      marked,
      garbage: [{ wantedEpoch: state.gcEpoch + 1, urgent: true }],
    });
    if (command !== null) this.#command(command);
  }

  #stepWalk(shard: RaceShard): void {
    const primary = this.#bricks[shard.primary - 1]!;
    if (!this.#leads(primary, shard)) return;
    const { gcEpoch } = primary.state;
    if (gcOf(primary.state).marked >= gcEpoch || shard.marked >= gcEpoch) return;
    if (shard.walk?.epoch !== gcEpoch || shard.walk.view !== shard.view) {
      const walk = { epoch: gcEpoch, view: shard.view, next: 0, waiting: 0 };
      shard.walk = walk;
      const page = new MarkPage();
      for (const { key, holders } of shard.accepted) {
        if (key >= 0 && this.#rules.marksPending) page.add(keys[key]!, holders, copies);
      }
      this.#mark(shard, walk, page);
      return;
    }
    const { walk } = shard;
    if (walk.waiting > 0) return;
    if (walk.next >= grainsPerShard) {
      // The report takes its time, too.
      this.#later(() => {
        if (shard.walk === walk) shard.marked = Math.max(shard.marked, walk.epoch);
      });
      walk.waiting = 1;
      return;
    }
    const page = new MarkPage();
    const end = Math.min(walk.next + 4, grainsPerShard);
    for (; walk.next < end; walk.next += 1) {
      const key = shard.keys[walk.next]!;
      if (key >= 0) page.add(keys[key]!, shard.holders[walk.next]!, copies);
    }
    this.#mark(shard, walk, page);
  }

  #mark(shard: RaceShard, walk: NonNullable<RaceShard["walk"]>, page: MarkPage): void {
    const primary = this.#bricks[shard.primary - 1]!;
    for (const [number, asked] of page.byHolder(primary.state)) {
      walk.waiting += 1;
      this.#ask(primary, shard, walk, number, asked);
    }
  }

  #ask(
    primary: RaceBrick,
    shard: RaceShard,
    walk: NonNullable<RaceShard["walk"]>,
    number: BrickNumber,
    asked: readonly Buffer[],
  ): void {
    const brick = this.#bricks[number - 1]!;
    this.#later(() => {
      if (shard.walk !== walk) return;
      if (!isSteady(primary.state, number)) {
        walk.waiting -= 1;
        return;
      }
      if (!brick.running || this.#prng.chance(lossChance)) {
        if (this.#rules.marksAgain) this.#ask(primary, shard, walk, number, asked);
        else walk.waiting -= 1;
        return;
      }
      this.#counts.operations += asked.length;
      brick.stamps.reach(walk.epoch);
      for (const one of asked) {
        const key = one.readUInt32BE(28);
        if (brick.has[key] === 1) brick.stamps.stamp(placeOf(key));
      }
      this.#later(() => {
        walk.waiting -= 1;
      });
    });
  }

  #stepSweep(brick: RaceBrick): void {
    if (!brick.running) return;
    const before = this.#rules.sweepBefore(brick.state, brick.number, brick.boot);
    if (before === null || brick.stamps.clock > gcOf(brick.state).marked + 1) return;
    for (let count = 0; count < 8; count += 1) {
      const key = brick.sweepAt;
      brick.sweepAt = (key + 1) % keyCount;
      if (brick.has[key] === 0) continue;
      const stamp = brick.stamps.epochOf(placeOf(key));
      if (stamp !== null && stamp >= before) continue;
      this.#counts.operations += 1;
      this.#counts.dropped += 1;
      brick.has[key] = 0;
      if (brick.named[key] === 0) continue;
      this.#violation ??= `tick ${this.#tick}: brick ${brick.number} drops chunk ${key}, which a record names there; epoch ${brick.state.gcEpoch}`;
    }
  }
}

function placeOf(key: number) {
  const segment = 1 + Math.floor(key / slotsPerSegment);
  return { segment, epoch: 1, offsetBytes: (key % slotsPerSegment) * 512 };
}

function facts(number: BrickNumber, boot: number) {
  const id = String(number).padStart(32, "0");
  const addresses = { peerAddress: "", portalAddress: "", apiAddress: "", domain: "" };
  return { number, uuid: id, boot, incarnation: `${boot}`, capacityBytes: 2 ** 30, ...addresses };
}

function foundCluster(): ClusterState {
  let state = emptyClusterState;
  const run = (command: Command) => {
    const applied = apply(state, command);
    if (!applied.result.ok) throw new Error(applied.result.fault.message);
    state = applied.state;
  };
  const { number: _, ...first } = facts(1, 1);
  run({ type: "initCluster", clusterId: "0".repeat(32), shardCount, ...first });
  for (let number = 2; number <= brickCount; number += 1) {
    const { boot: _boot, incarnation: _incarnation, ...brick } = facts(number, 1);
    const token = { id: `${number}`, hash: String(number).padStart(64, "0") };
    run({ type: "addJoinToken", ...token, lifeMs: 1000 });
    run({ type: "joinBrick", tokenId: token.id, tokenHash: token.hash, ...brick });
    run({ type: "announceBrick", ...facts(number, 1), cut: false, discarded: false });
  }
  return state;
}
