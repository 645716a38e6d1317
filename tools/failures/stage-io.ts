import { setTimeout as sleep } from "node:timers/promises";
import { grainsPerShardRun } from "../../brick/cluster-state.ts";
import { grainBytes } from "../../brick/units.ts";
import { votersWanted } from "../../control/voters.ts";
import { VerifiedLoad } from "../load/verified-load-io.ts";
import { type Machines, RealCluster, targetOf } from "../real-cluster-io.ts";
import type { CopiedBytes, Round } from "./rounds.ts";

/** A cluster of brick processes under verified load, to which a scenario does something. */

export interface StageOptions {
  bricks: number;
  /** Of the volume. */
  copies: number;
  capacity?: string;
  /** Before the bricks start: what their folders or addresses lie on. */
  machines?: Machines;
  /** After so long without a sign of life the load leaves a portal; absent: it waits. */
  silentMsMax?: number;
  areaBytes?: number;
}

const areaBytesDefault = 32 * 1024 * 1024;
/** A run of grains of one shard after the other. */
const strideBytes = grainsPerShardRun * grainBytes;
const depth = 16;
/** About 15 MB/s: what is measured is the failure, not what the processors can do. */
const commandsPerSecond = 400;
/** Before the failure, while it lasts, and after it. */
const commandsEachTime = 300;
const pulseMs = 50;
/** Nothing is measured by it: whatever hangs ends the scenario. */
const hangMsMax = 120_000;

export class Stage {
  readonly cluster: RealCluster;
  /** Those that take part; a brick that is replaced has a new number. */
  bricks: readonly number[];
  readonly #load: VerifiedLoad;
  readonly #copied: CopiedBytes = { repair: 0, rebalance: 0, settle: 0 };
  /** What was counted so far, by brick and process: a start counts from zero. */
  readonly #counted = new Map<string, number>();
  #numberNext: number;
  readonly #pulse: NodeJS.Timeout;
  #beatMs = performance.now();
  #stalledMs = 0;
  #startedMs: number | null = null;
  #rejoinMs: number | null = null;

  constructor(options: StageOptions, seed: number, log: (line: string) => void) {
    const { bricks, copies, capacity, machines, silentMsMax } = options;
    this.cluster = new RealCluster({
      bricks,
      volumes: [`disk0:1TiB:${copies}`],
      ...(capacity !== undefined && { capacity }),
      ...(machines !== undefined && { machines }),
    });
    this.bricks = Array.from({ length: bricks }, (_, at) => at + 1);
    this.#numberNext = bricks + 1;
    this.#load = new VerifiedLoad({
      portals: [],
      target: targetOf("disk0"),
      areaBytes: options.areaBytes ?? areaBytesDefault,
      strideBytes,
      depth,
      commandsPerSecond,
      seed,
      log,
      ...(silentMsMax !== undefined && { silentMsMax }),
    });
    this.#pulse = setInterval(() => this.#beat(), pulseMs);
  }

  /** Whoever stops this process has most likely stopped the bricks as well. */
  #beat(): void {
    const nowMs = performance.now();
    this.#stalledMs = Math.max(this.#stalledMs, nowMs - this.#beatMs - pulseMs);
    this.#beatMs = nowMs;
  }

  /** The brick that serves the volume; the first one while none does. */
  async gateway(): Promise<number> {
    const volume = await this.cluster.ask((client) => client.volumeShow("disk0"));
    return volume.attachedBrick || 1;
  }

  /** From the next log-in on. */
  usePortals(bricks: readonly number[]): void {
    this.#load.usePortals(bricks.map((number) => this.cluster.portal(number)));
  }

  /** Waits until the load has got on. */
  async progress(commands = commandsEachTime): Promise<void> {
    if (await this.#load.progress(commands, hangMsMax)) return;
    throw new Error(`the load hangs: ${JSON.stringify(this.#load.report)}`);
  }

  async kill(...bricks: readonly number[]): Promise<void> {
    await this.#countCopied();
    for (const number of bricks) this.cluster.kill(number);
  }

  /** Counts what would be forgotten, should a brick stop. */
  async aboutToFail(): Promise<void> {
    await this.#countCopied();
  }

  /** A new brick on an empty folder, instead of one that is gone; returns its number. */
  async replaceBrick(gone: number, through: number): Promise<number> {
    const added = this.#numberNext;
    this.bricks = this.bricks.filter((number) => number !== gone);
    await this.addBrick(added, through);
    return added;
  }

  /** A further brick, of the next number. */
  async addBrick(added: number, through = 1): Promise<void> {
    this.#numberNext = added + 1;
    this.#startedMs = performance.now();
    await this.cluster.startBrick(added, through);
    await this.cluster.waitHealthy(added, hangMsMax);
    this.#rejoinMs = performance.now() - this.#startedMs;
    this.bricks = [...this.bricks, added];
  }

  /** Until the votes are as many as can be, and no brick that leads has anything left to restore. */
  async waitRepaired(): Promise<void> {
    await this.cluster.waitWhole(hangMsMax);
    await this.cluster.waitFor("repair done", hangMsMax, async () => {
      const { bricks, shards } = await this.cluster.ask((client) => client.status());
      const voters = bricks.filter((brick) => brick.voter && brick.status === "up").length;
      if (voters < votersWanted(this.bricks.length) || shards.whole < shards.total) return false;
      for (const number of this.bricks) {
        const pending = await this.cluster.metric(number, "endisk_repair_pending_shards");
        if (pending > 0) return false;
      }
      return true;
    });
  }

  /** Reads back everything that was acknowledged, between two stretches of load. */
  async verifyNow(): Promise<void> {
    await this.#load.stop();
    await this.#verify();
    this.#load.start();
  }

  /** A clean stop, as before a reboot. */
  async stopBrick(number: number): Promise<void> {
    await this.#countCopied();
    this.cluster.signal(number, "SIGTERM");
    await this.cluster.waitGone(number, hangMsMax);
  }

  async startAgain(...bricks: readonly number[]): Promise<void> {
    for (const number of bricks) await this.cluster.waitGone(number);
    await this.rejoin(bricks, () => {
      for (const number of bricks) this.cluster.startAgain(number);
    });
  }

  /** Ends the trouble of bricks, and waits until they serve. */
  async rejoin(bricks: readonly number[], end: () => void): Promise<void> {
    this.#startedMs = performance.now();
    end();
    for (const number of bricks) await this.cluster.waitHealthy(number, hangMsMax);
    this.#rejoinMs = performance.now() - this.#startedMs;
  }

  /** One failure and its end, under load that logs in at the portals of those bricks. */
  async round(portals: readonly number[], act: () => Promise<void>): Promise<Round> {
    this.usePortals(portals);
    this.#startedMs = null;
    this.#rejoinMs = null;
    this.#stalledMs = 0;
    const before = structuredClone(this.#load.report);
    const copiedBefore = { ...this.#copied };
    this.#load.start();
    await this.progress();
    this.#load.takePauseMs();
    await act();
    await this.progress();
    await this.cluster.waitWhole(hangMsMax);
    const wholeMs = this.#startedMs === null ? null : performance.now() - this.#startedMs;
    const pauseMs = this.#load.takePauseMs();
    await this.#load.stop();
    const { disconnects } = this.#load.report;
    await this.#verify();
    await this.#countCopied();
    const after = this.#load.report;
    return {
      stalledMs: this.#stalledMs,
      pauseMs,
      rejoinMs: this.#rejoinMs,
      wholeMs,
      refusals: difference(after.refusals, before.refusals),
      disconnects: disconnects - before.disconnects,
      checkedBytes: after.checkedBytes - before.checkedBytes,
      violations: after.violations.slice(before.violations.length),
      copied: difference(this.#copied, copiedBefore),
    };
  }

  /** Reads everything back, through a portal of a brick that runs. */
  async #verify(): Promise<void> {
    const running = this.bricks.filter((number) => this.cluster.isRunning(number));
    await this.#load.verify(this.cluster.portal(running.at(-1)!));
  }

  async #countCopied(): Promise<void> {
    for (const number of this.bricks) {
      if (!(await this.cluster.isHealthy(number))) continue;
      for (const name of ["repair", "rebalance", "settle"] as const) {
        const key = `${name} ${number} ${this.cluster.pid(number)}`;
        const bytes = await this.cluster.metric(number, `endisk_${name}_bytes_total`);
        this.#copied[name] += bytes - (this.#counted.get(key) ?? 0);
        this.#counted.set(key, bytes);
      }
    }
  }

  /** Whatever is going on; `end` takes away what the folders of the bricks lie on. */
  async close(end: () => Promise<void>): Promise<void> {
    clearInterval(this.#pulse);
    for (const number of this.bricks) {
      if (this.cluster.isRunning(number)) this.cluster.signal(number, "SIGCONT");
    }
    await Promise.race([this.#load.stop(), sleep(hangMsMax, undefined, { ref: false })]);
    await this.cluster.stop();
    await end();
    await this.cluster.dispose();
  }
}

function difference<Counts extends { [name: string]: number } | CopiedBytes>(
  after: Counts,
  before: Counts,
): Counts {
  const earlier = before as Record<string, number>;
  const grown = Object.entries(after as Record<string, number>)
    .map(([name, count]) => [name, count - (earlier[name] ?? 0)] as const)
    .filter(([name, count]) => count !== 0 || name in blankCopied);
  return Object.fromEntries(grown) as Counts;
}

const blankCopied: CopiedBytes = { repair: 0, rebalance: 0, settle: 0 };
