import { chunkKey } from "../../brick/chunk/key.ts";
import { isReachable, shardOf } from "../../brick/cluster-state.ts";
import { isComplete } from "../../brick/map/replica.ts";
import { Prng } from "../../brick/prng.ts";
import { type BrickNumber, KiB, MiB, sectorBytes, sectorsPerGrain } from "../../brick/units.ts";
import { Client, type ClientCounts } from "./client.ts";
import { Convergence, type ConvergenceCounts } from "./convergence.ts";
import { Copier, type CopyArea } from "./copier.ts";
import { isNamed, shortOfCopies } from "./copies.ts";
import { type CounterCounts, Counters } from "./counters.ts";
import { type DiskCounts, DiskTrouble, damageCount } from "./disk-trouble.ts";
import { Duel, type DuelCounts } from "./duel.ts";
import { Failover } from "./failover.ts";
import { FaultAtlas } from "./fault-atlas.ts";
import {
  type DialGroup,
  drawCrashDials,
  drawMoreDials,
  type FaultDials,
  quickened,
} from "./fault-dials.ts";
import { type FaultCounts, Misfortune } from "./fault-plan.ts";
import { type GcReport, GcWatch } from "./gc-watch.ts";
import { Histories } from "./histories.ts";
import type { PartitionKind } from "./partitions.ts";
import { Resets } from "./resets.ts";
import { keepDoing, patienceMs, type Scene } from "./scene.ts";
import { SimCluster, volumeName } from "./sim-cluster.ts";
import { Turnover, type TurnoverCounts } from "./turnover.ts";

export interface SimulationOptions {
  readonly seed: number;
  readonly bricks: number;
  /** Simulated hours under faults. */
  readonly hours: number;
  readonly clients: number;
  /** Pause between a client's operations, at most. */
  readonly pauseMsMax: number;
  /**
   * Garbage is collected all the time, in epochs of this length at least; what it owes is checked,
   * and at the end the volume is deleted and its space must come back.
   */
  readonly gcEveryMs?: number;
  /** Something stored is damaged this often; absent: as drawn. */
  readonly damageEveryMs?: number;
  /**
   * Groups of dials that may be drawn besides crashes, partitions and freezes. A seed means the same
   * run only together with them.
   */
  readonly dials: readonly DialGroup[];
}

export interface SimulationReport {
  readonly hash: string;
  readonly violation: string | null;
  readonly simulatedMs: number;
  readonly counts: ClientCounts;
  readonly counters: CounterCounts;
  readonly duel: DuelCounts;
  readonly copies: number;
  readonly resets: number;
  readonly failovers: number;
  readonly faults: FaultCounts & DiskCounts & TurnoverCounts;
  readonly partitions: Readonly<Record<PartitionKind, number>>;
  readonly partitionShapes: ReadonlySet<string>;
  readonly convergence: ConvergenceCounts;
  /** Ends of a brick's process, whatever the cause. */
  readonly reboots: number;
  readonly dials: FaultDials;
  /** Chunk bytes that any brick copied because of a reboot. */
  readonly copiedBytes: number;
  readonly settleBytes: number;
  readonly transferBytes: number;
  /** Grains that were rewritten as one chunk, by bricks as they ran at the end. */
  readonly compactedGrains: number;
  /** null: garbage was collected at its usual pace, and not looked at. */
  readonly gc: GcReport | null;
}

const workingSetSectors = 48 * sectorsPerGrain;
/** Two runs of grains, of two shards. */
const volumeBytes = 128 * MiB;
/** Where reservations are fought over, apart from the volume of the clients. */
const contestedName = "disk1";
const contestedUuid = "fedcba9876543210".repeat(2);
/** Sectors of both volumes, behind what the clients work on. */
const counterFirst = 8192;
const duelFirst = 0;
const resetFirst = 1024;
const copyAreas: readonly CopyArea[] = [
  { volumeName, firstSector: 16_384, sectors: 20 * sectorsPerGrain },
  { volumeName: contestedName, firstSector: 16_384, sectors: 20 * sectorsPerGrain },
];
const failoverSector = 9216;
const counting = 3;
/** Once nothing goes wrong any more, everything has its copies within this. */
const copiesMsMax = 900_000;
/** What was begun comes to its end within this: a brick is emptied, a lost one given up. */
const endedMsMax = 600_000;
/** An answer may come this long after a brick that took part in it was lost. */
const lateAnswerMs = 2 * patienceMs;

/** One run: faults for a while, then none, then everything must be whole and as acknowledged. */
export async function simulate(
  options: SimulationOptions,
  onLog: ((line: string) => void) | null = null,
): Promise<SimulationReport> {
  const run = new Run(options, onLog);
  return run.report(await run.go());
}

/** In a part of the seeds, by a draw of its own: the others stay what they were. */
const encryptedShare = 0.25;

function isEncrypted(seed: number): boolean {
  return new Prng(seed + 0.125 * 2 ** 32).chance(encryptedShare);
}

/** After this a read at the end is tried again. */
const retryMs = 500;

/** The same for grains that are rewritten as soon as they are in a few chunks. */
const compactingShare = 0.5;
const compactionOptions = {
  chunksMin: 2,
  wasteSectorsMin: 8,
  idleMs: 0,
  walkEveryMs: 300,
  // A few grains a second: others are to have their turn.
  bytesPerSecond: 256 * KiB,
  busyBytesPerSecond: 256 * KiB,
};

function isCompacting(seed: number): boolean {
  return new Prng(seed + 0.375 * 2 ** 32).chance(compactingShare);
}

/** The same for volumes with shards of their own, which follow their gateways. */
const homesShare = 0.6;

function hasHomes(seed: number): boolean {
  return new Prng(seed + 0.625 * 2 ** 32).chance(homesShare);
}

class Run {
  readonly #options: SimulationOptions;
  readonly #cluster: SimCluster;
  readonly #prng: Prng;
  readonly #histories = new Histories();
  readonly #clients: Client[] = [];
  readonly #dials: FaultDials;
  readonly #convergence: Convergence;
  readonly #misfortune: Misfortune;
  readonly #scene: Scene;
  readonly #counters: Counters;
  readonly #copier: Copier;
  readonly #duel: Duel;
  readonly #resets: Resets;
  readonly #failover: Failover;
  readonly #turnover: Turnover;
  readonly #disks: DiskTrouble;
  readonly #morePrng: Prng;
  readonly #sceneFaults: ClientCounts["faults"] = {};
  readonly #gc: GcWatch | null;
  #violation: string | null = null;
  #working = true;
  #active = 0;

  constructor(options: SimulationOptions, onLog: ((line: string) => void) | null) {
    const { seed, bricks } = options;
    this.#options = options;
    this.#prng = new Prng(seed + 0.5 * 2 ** 32);
    const copies = bricks > 3 && this.#prng.chance(0.2) ? 3 : 2;
    this.#cluster = new SimCluster({
      seed,
      bricks,
      shardCount: 8,
      ...(hasHomes(seed) && { shardSpan: 2 }),
      volumeBytes,
      copies,
      encrypt: isEncrypted(seed),
      ...(isCompacting(seed) && { compactionOptions }),
      ...(options.gcEveryMs !== undefined && { gcEveryMs: options.gcEveryMs }),
    });
    const { world } = this.#cluster;
    if (onLog !== null) {
      world.onLog = (brick, line) =>
        onLog(`[${world.clock.nowMs.toFixed(1)}] brick ${brick}: ${line}`);
    }
    const violated = (what: string) => {
      this.#violation ??= what;
    };
    const watched = options.gcEveryMs !== undefined;
    this.#gc = watched ? new GcWatch(this.#cluster, this.#prng.fork(), violated) : null;
    // Apart from what was drawn before there were more dials: that stays as it was, seed by seed.
    this.#morePrng = new Prng(seed + 0.25 * 2 ** 32);
    const drawn = {
      ...drawCrashDials(this.#prng, bricks),
      ...drawMoreDials(this.#morePrng, new Set(options.dials)),
      ...(options.damageEveryMs !== undefined && { damageEveryMs: options.damageEveryMs }),
    };
    this.#dials = quickened(drawn, options.hours * 3_600_000);
    const isDisturbed = () => this.#turnover.isUnderWay || this.#disks.isUnderWay;
    this.#convergence = new Convergence(this.#cluster, isDisturbed, violated);
    const faults = this.#prng.fork();
    this.#misfortune = new Misfortune(this.#cluster, faults, this.#dials, this.#convergence);
    const scene = this.#makeScene();
    this.#scene = scene;
    this.#counters = new Counters(scene, volumeName, counterFirst);
    const source = { volumeName, sectors: workingSetSectors };
    this.#copier = new Copier(scene, this.#histories, source, copyAreas);
    this.#duel = new Duel(scene, contestedName, duelFirst);
    this.#resets = new Resets(scene, contestedName, resetFirst);
    this.#failover = new Failover(scene, volumeName, failoverSector);
    const atlas = new FaultAtlas(this.#cluster);
    this.#turnover = new Turnover(scene, this.#dials, atlas, volumeName);
    this.#disks = new DiskTrouble(scene, this.#dials, atlas, (prng, brick) =>
      this.#turnover.giveUp(prng, brick),
    );
  }

  #makeScene(): Scene {
    return {
      cluster: this.#cluster,
      working: () => this.#working && this.#violation === null,
      calm: () => this.#convergence.calm,
      violation: (what) => {
        this.#violation ??= what;
      },
      fault: ({ code }) => {
        this.#sceneFaults[code] = (this.#sceneFaults[code] ?? 0) + 1;
      },
    };
  }

  /** null: nothing was violated. */
  async go(): Promise<string | null> {
    const { world } = this.#cluster;
    try {
      await this.#cluster.create();
      await this.#cluster.addVolume(contestedName, contestedUuid);
      this.#startScene();
      for (let at = 0; at < this.#options.clients; at += 1) this.#startClient();
      this.#gc?.begin();
      this.#misfortune.begin();
      this.#startTrouble();
      const endMs = world.clock.nowMs + this.#options.hours * 3_600_000;
      await world.runUntil(() => this.#violation !== null || world.clock.nowMs >= endMs, 2 ** 40);
      if (this.#violation !== null) return this.#violation;
      // No more faults: everything has to come to rest, and to be there.
      this.#misfortune.end();
      this.#working = false;
      await this.#cluster.settled();
      await world.runUntil(() => this.#active === 0, endedMsMax);
      this.#convergence.end();
      await this.#cluster.settled();
      await this.#copiesMade();
      await this.#readEverything();
      const volume = this.#cluster.volumeAt(this.#cluster.bricks[0]!)!;
      await world.complete(this.#counters.checkAll(volume), 2 * patienceMs);
      const found =
        this.#violation ??
        this.#turnover.check() ??
        this.#checkReplicas() ??
        this.#checkCopied() ??
        this.#checkHistories();
      if (found !== null || this.#gc === null) return found;
      await this.#gc.end();
      return this.#violation;
    } catch (error) {
      const found = error instanceof Error ? (error.stack ?? error.message) : error;
      return `${found}; ${this.#cluster.notWhole() ?? "all is whole"}`;
    }
  }

  report(violation: string | null): SimulationReport {
    const { world, nodes } = this.#cluster;
    const counts: ClientCounts = { reads: 0, writes: 0, unmaps: 0, faults: {} };
    for (const [code, count] of Object.entries(this.#sceneFaults)) {
      counts.faults[code as keyof ClientCounts["faults"]] = count;
    }
    for (const client of this.#clients) {
      counts.reads += client.counts.reads;
      counts.writes += client.counts.writes;
      counts.unmaps += client.counts.unmaps;
      for (const [code, count] of Object.entries(client.counts.faults)) {
        const name = code as keyof ClientCounts["faults"];
        counts.faults[name] = (counts.faults[name] ?? 0) + count;
      }
    }
    let settleBytes = 0;
    let transferBytes = 0;
    let compactedGrains = 0;
    for (const { map, compaction } of nodes.values()) {
      compactedGrains += compaction.counters.grains;
      settleBytes += map.counters.settleBytes;
      transferBytes += map.counters.transferBytes;
    }
    return {
      hash: world.traceHash,
      violation,
      simulatedMs: world.clock.nowMs,
      counts,
      counters: this.#counters.counts,
      duel: this.#duel.counts,
      copies: this.#copier.copies,
      resets: this.#resets.resets,
      failovers: this.#failover.failovers,
      faults: {
        ...this.#misfortune.counts,
        ...this.#disks.counts,
        ...this.#turnover.counts,
      },
      partitions: this.#misfortune.partitions.counts,
      partitionShapes: this.#misfortune.partitions.shapes,
      convergence: this.#convergence.counts,
      reboots: world.crashes.length,
      dials: this.#dials,
      copiedBytes: this.#cluster.copiedBytes,
      settleBytes,
      transferBytes,
      compactedGrains,
      gc: this.#gc?.report() ?? null,
    };
  }

  /** Those who do more than read and write. */
  #startScene(): void {
    const acts: ((prng: Prng) => Promise<void>)[] = [
      ...Array.from({ length: counting }, () => (prng: Prng) => this.#counters.act(prng)),
      (prng) => this.#copier.act(prng),
      (prng) => this.#duel.contend(prng, 0),
      (prng) => this.#duel.contend(prng, 1),
      (prng) => this.#duel.intrude(prng),
      (prng) => this.#resets.act(prng),
      (prng) => this.#failover.act(prng),
    ];
    for (const act of acts) {
      const prng = this.#prng.fork();
      this.#active += 1;
      keepDoing(this.#scene, prng, 2 * this.#options.pauseMsMax, () => act(prng)).then(
        () => {
          this.#active -= 1;
        },
        (error) => {
          this.#violation ??= `an initiator threw: ${error?.stack ?? error}`;
        },
      );
    }
  }

  /** What goes wrong beside crashes, partitions and freezes; it ends what it has begun. */
  #startTrouble(): void {
    const running = [
      ...this.#turnover.run(this.#morePrng.fork()),
      ...this.#disks.run(this.#morePrng.fork()),
    ];
    for (const trouble of running) {
      this.#active += 1;
      trouble.then(
        () => {
          this.#active -= 1;
        },
        (error) => {
          this.#violation ??= `trouble threw: ${error?.stack ?? error}`;
        },
      );
    }
  }

  #startClient(): void {
    const client = new Client(this.#prng.fork(), this.#histories, {
      sectors: workingSetSectors,
      pauseMsMax: this.#options.pauseMsMax,
      onAcknowledged: (firstSector, data) => this.#checkDurable(firstSector, data),
      onViolation: (what) => {
        this.#violation ??= what;
      },
    });
    this.#clients.push(client);
    this.#next(client, this.#prng.fork());
  }

  /** One operation after the other, each at some portal; never more than one under way. */
  #next(client: Client, prng: Prng): void {
    const { world, nodes } = this.#cluster;
    world.after(prng.unit() * this.#options.pauseMsMax, () => {
      if (!this.#working || this.#violation !== null) return;
      const running = [...nodes.keys()];
      // Mostly one portal, as an initiator does; now and then another.
      const brick = running.length === 0 ? 0 : prng.chance(0.8) ? running[0]! : prng.pick(running);
      const volume = this.#cluster.volumeAt(brick);
      if (volume === undefined) {
        this.#next(client, prng);
        return;
      }
      this.#active += 1;
      let over = false;
      const finish = () => {
        if (over) return;
        over = true;
        this.#active -= 1;
        this.#next(client, prng);
      };
      // A brick that dies answers no more; nor does one that hangs, in the eyes of its client.
      const boot = world.machine(brick).bootCount;
      const watch = () => {
        if (over) return;
        const gone = !world.machine(brick).running || world.machine(brick).bootCount !== boot;
        if (gone) finish();
        else world.after(100, watch);
      };
      world.after(100, watch);
      world.after(patienceMs, finish);
      client.operate(volume).then(finish, (error) => {
        if (!over) this.#violation ??= `an operation threw: ${error?.stack ?? error}`;
        finish();
      });
    });
  }

  /** Invariant 2: at this instant every chunk of the write is durable on `copies` bricks. */
  #checkDurable(firstSector: number, data: Buffer | null): void {
    if (data === null) return;
    const { nodes, options, bricks, gone, world } = this.#cluster;
    const state = this.#cluster.anyNode()!.control.state();
    const sectors = data.length / sectorBytes;
    for (let at = 0; at < sectors; ) {
      const sector = firstSector + at;
      const count = Math.min(sectors - at, sectorsPerGrain - (sector % sectorsPerGrain));
      const written = data.subarray(at * sectorBytes, (at + count) * sectorBytes);
      const key = chunkKey(this.#cluster.storedOf(sector, written));
      let holders = 0;
      let unknown = 0;
      for (const sinceMs of gone.values()) {
        if (world.clock.nowMs - sinceMs < lateAnswerMs) unknown += 1;
      }
      for (const brick of bricks) {
        const node = nodes.get(brick);
        if (node?.store.has(key)) holders += 1;
        // What a stopped brick holds cannot be asked, and what a disk says it has written, and has
        // not, or not any more, cannot be laid to the brick.
        else if (node === undefined || this.#disks.isHarmed(brick)) unknown += 1;
      }
      // Fewer only when committed cluster state says that fewer bricks are up.
      const reachable = Object.values(state.bricks).filter((brick) => isReachable(brick)).length;
      const wanted = Math.min(options.copies, Math.max(1, reachable));
      // An answer that came late may be of data that was overwritten, and collected, since.
      if (holders + unknown < wanted && isNamed(this.#cluster, key)) {
        const where = JSON.stringify(
          state.shards[shardOf(state, 1, Math.floor(sector / sectorsPerGrain))],
        );
        this.#violation ??= `sector ${sector}: acknowledged with ${holders} durable copies of ${wanted}; ${where}`;
      }
      at += count;
    }
  }

  async #readEverything(): Promise<void> {
    const { world, bricks } = this.#cluster;
    const reader = this.#clients[0]!;
    for (const brick of bricks) {
      await world.runUntil(() => this.#cluster.volumeAt(brick) !== undefined);
      for (let sector = 0; sector < workingSetSectors; sector += sectorsPerGrain) {
        const ok = await this.#readAtLast(reader, brick, sector);
        if (!ok) {
          this.#violation ??= `sector ${sector} cannot be read at the end, through brick ${brick}`;
        }
      }
    }
  }

  /** An answer that asks to come again is one: that a brick was away may be noted only now. */
  async #readAtLast(reader: Client, brick: BrickNumber, sector: number): Promise<boolean> {
    const { world } = this.#cluster;
    const endMs = world.clock.nowMs + 2 * patienceMs;
    for (;;) {
      const volume = this.#cluster.volumeAt(brick);
      if (volume !== undefined) {
        const read = reader.read(volume, sector, sectorsPerGrain);
        if (await world.complete(read, 2 * patienceMs)) return true;
      }
      if (world.clock.nowMs >= endMs) return false;
      await world.runFor(retryMs);
    }
  }

  /** Everything has as many copies as it should, in bounded time. */
  async #copiesMade(): Promise<void> {
    const { world } = this.#cluster;
    const endMs = world.clock.nowMs + copiesMsMax;
    for (;;) {
      const short = shortOfCopies(this.#cluster);
      if (short === null) return;
      if (world.clock.nowMs >= endMs) {
        this.#violation ??= `too few copies at the end: ${short}`;
        return;
      }
      await world.runFor(1000);
    }
  }

  /** Complete replicas of a shard agree, once nothing is under way. */
  #checkReplicas(): string | null {
    const { nodes } = this.#cluster;
    const seen = new Map<string, { brick: BrickNumber; bytes: string }>();
    for (const node of nodes.values()) {
      for (const replica of node.map.replicas()) {
        if (replica.view === null || !isComplete(replica)) continue;
        const { shard, facts } = replica;
        const { entries } = node.map.table.scan("base", shard, facts.incarnation, null, 100_000);
        const image = entries
          .filter(({ value }) => value.extents.length > 0)
          .map(({ branch, grain, bytes }) => `${branch}/${grain}:${bytes.toString("hex")}`);
        const name = `${shard}@${facts.commitOp}`;
        const text = image.join("\n");
        const other = seen.get(name);
        if (other === undefined) seen.set(name, { brick: node.number, bytes: text });
        else if (other.bytes !== text) {
          return `shard ${shard}: bricks ${other.brick} and ${node.number} differ at op ${facts.commitOp}`;
        }
      }
    }
    return null;
  }

  /** Invariant 6: a brick that left and came back causes no chunk to be copied. */
  #checkCopied(): string | null {
    const { copiedBytes, everShort } = this.#cluster;
    const { lost, drained } = this.#turnover.counts;
    if (lost + drained + damageCount(this.#disks.counts) > 0) return null;
    // Writes made with fewer copies, while fewer bricks were up, are rightly copied afterwards.
    return copiedBytes > 0 && !everShort ? `${copiedBytes} chunk bytes were copied` : null;
  }

  #checkHistories(): string | null {
    const found = this.#histories.check();
    if (found === null) return null;
    const { sector, anomaly } = found;
    return `sector ${sector}: ${JSON.stringify(anomaly)}\n${this.#histories.describe(sector)}`;
  }
}
