import { Prng } from "../../brick/prng.ts";
import { GiB, grainBytes, KiB } from "../../brick/units.ts";
import type { Volume } from "../../brick/volume/volume.ts";
import { SimCluster } from "../sim/sim-cluster.ts";

/** How much a cluster of modelled bricks carries: the product's own code on simulated machines. */

/** Each brick: a disk with a flush, a link of 10 Gbit/s, and a processor that takes messages one by one. */
export const brickModel = {
  disk: {
    readMs: [0.08, 0.12],
    writeMs: [0.01, 0.02],
    syncMs: [0.4, 0.6],
    bytesPerSecond: 500e6,
  },
  link: { latencyMs: [0.03, 0.05], bytesPerSecond: 1250e6 },
  handlingMs: 0.015,
} as const;

export interface ScalingJob {
  readonly name: string;
  readonly kind: "read" | "write";
  readonly blockBytes: number;
}

export const scalingJobs: readonly ScalingJob[] = [
  { name: "4 KiB random write", kind: "write", blockBytes: 4 * KiB },
  { name: "4 KiB random read", kind: "read", blockBytes: 4 * KiB },
  { name: "64 KiB random write", kind: "write", blockBytes: 64 * KiB },
  { name: "64 KiB random read", kind: "read", blockBytes: 64 * KiB },
];

export interface ScalingPlan {
  readonly seed: number;
  readonly bricks: number;
  readonly shardCount: number;
  readonly shardSpan: number;
  readonly volumesPerBrick: number;
  /** The volumes were made and written while the cluster had so many bricks; absent: all of them. */
  readonly madeOn?: number;
  /** What is measured is the cluster once backups have been evened out. */
  readonly evened?: boolean;
  readonly depth: number;
  readonly warmUpMs: number;
  readonly measureMs: number;
  readonly jobs: readonly ScalingJob[];
}

export interface ScalingResult {
  readonly bricks: number;
  readonly job: string;
  readonly operationsPerSecond: number;
}

/** Of the volume, by jobs of one kind: reads find what the writes before them have left. */
const spanBytes = 64 * GiB;

const growMs = 5_000;
/** A few leads a second go to another brick, and map records follow a gateway that has stood so long. */
const spreadMs = 90_000;
/** In this time the next backups would have moved, if there were any to be moved. */
const restMs = 180_000;
const restsMax = 100;

export async function measureScaling(plan: ScalingPlan): Promise<ScalingResult[]> {
  const { seed, bricks, shardCount, shardSpan, volumesPerBrick, madeOn = bricks } = plan;
  const cluster = new SimCluster({
    seed,
    bricks: madeOn,
    shardCount,
    shardSpan,
    volumeBytes: spanBytes,
    copies: Math.min(2, madeOn),
    disk: brickModel.disk,
    // Reads are to go to the bricks that hold the chunks.
    memory: { chunkCacheBytes: 4 * KiB },
  });
  Object.assign(cluster.world.network.defaults, brickModel.link);
  await cluster.create();
  // Bricks that join one after the other have their share of the shards before there are volumes.
  await cluster.world.runFor(growMs);
  await cluster.settled();
  const names = await makeVolumes(cluster, bricks * volumesPerBrick, madeOn);
  for (let brick = madeOn + 1; brick <= bricks; brick += 1) await cluster.join();
  await cluster.settled();
  await serveEvenly(cluster, names, bricks);
  // Every shard has its replicas, and bricks that joined late have their share of the leads.
  await cluster.settled();
  await cluster.world.runFor(spreadMs);
  if (plan.evened) await untilEvened(cluster);
  cluster.world.network.handlingMs = brickModel.handlingMs;
  const prng = new Prng(seed);
  const clients = names.flatMap((name, at) =>
    Array.from({ length: plan.depth }, () => {
      return { name, brick: (at % bricks) + 1, prng: prng.fork(), written: [] as number[] };
    }),
  );
  const results: ScalingResult[] = [];
  for (const job of plan.jobs) results.push(await runJob(cluster, plan, job, clients));
  return results;
}

/** Attached, their shards fenced: what a volume does once is not what is measured. */
async function makeVolumes(cluster: SimCluster, count: number, bricks: number): Promise<string[]> {
  const names = Array.from({ length: count }, (_, at) => `scaling${at + 1}`);
  for (const [at, name] of names.entries()) {
    await cluster.addVolume(name, (at + 1).toString(16).padStart(32, "f"));
  }
  const volumes = () => names.map((name, at) => cluster.volumeAt((at % bricks) + 1, name));
  await cluster.world.runUntil(() => !volumes().includes(undefined));
  const first = volumes().map((volume, at) => volume!.write(0, [Buffer.alloc(4 * KiB, at + 1)]));
  await cluster.world.complete(Promise.all(first));
  return names;
}

async function serveEvenly(cluster: SimCluster, names: string[], bricks: number): Promise<void> {
  const volumes = () => names.map((name, at) => cluster.volumeAt((at % bricks) + 1, name));
  await cluster.world.runUntil(() => !volumes().includes(undefined));
  const moves = volumes().map((volume, at) => volume!.moveTo((at % bricks) + 1));
  const moved = await cluster.world.complete(Promise.all(moves));
  if (moved.some(({ ok }) => !ok)) throw new Error("a volume is not served where it should be");
}

/** Until no shard has got a new view for so long that nothing can be left to do. */
async function untilEvened(cluster: SimCluster): Promise<void> {
  const views = () =>
    cluster
      .anyNode()!
      .control.state()
      .shards.map(({ view }) => view);
  for (let rests = 0; rests < restsMax; rests += 1) {
    const before = views().join();
    await cluster.world.runFor(restMs);
    if (views().join() === before) return;
  }
  throw new Error("backups never come to rest");
}

interface Client {
  readonly name: string;
  readonly brick: number;
  readonly prng: Prng;
  /** Where the last writes of this size went. */
  written: number[];
}

async function runJob(
  cluster: SimCluster,
  { bricks, warmUpMs, measureMs }: ScalingPlan,
  job: ScalingJob,
  clients: readonly Client[],
): Promise<ScalingResult> {
  const { clock } = cluster.world;
  const fromMs = clock.nowMs + warmUpMs;
  const untilMs = fromMs + measureMs;
  let count = 0;
  const work = async (client: Client): Promise<void> => {
    const volume = cluster.volumeAt(client.brick, client.name);
    if (volume === undefined) throw new Error(`${client.name} is not there`);
    if (job.kind === "write") client.written = [];
    while (clock.nowMs < untilMs) {
      await cluster.world.network.handle(client.brick);
      await operate(volume, job, client);
      if (clock.nowMs >= fromMs && clock.nowMs < untilMs) count += 1;
    }
  };
  await cluster.world.complete(
    Promise.all(clients.map(work)),
    10 * (warmUpMs + measureMs) + 60_000,
  );
  return { bricks, job: job.name, operationsPerSecond: (count * 1000) / measureMs };
}

async function operate(volume: Volume, job: ScalingJob, client: Client): Promise<void> {
  const { prng, written } = client;
  const { kind, blockBytes } = job;
  if (kind === "read") {
    const result = await volume.read(prng.pick(written), blockBytes);
    if (!result.ok) throw new Error(`read: ${result.fault.code}`);
    return;
  }
  const offsetBytes = prng.between(0, spanBytes / grainBytes - 1) * grainBytes;
  const bytes = Buffer.alloc(blockBytes);
  // No two alike: nothing is deduplicated.
  for (let at = 0; at < blockBytes; at += 512) bytes.writeUInt32LE(prng.between(0, 2 ** 31), at);
  const result = await volume.write(offsetBytes, [bytes]);
  if (!result.ok) throw new Error(`write: ${result.fault.code}`);
  written.push(offsetBytes);
}

/** Throughput for each brick, of what a brick of the smallest cluster that holds two copies has. */
export function linearityOf(result: ScalingResult, all: readonly ScalingResult[]): number | null {
  const base = all.find(({ bricks, job }) => bricks === 2 && job === result.job);
  if (base === undefined) return null;
  return result.operationsPerSecond / result.bricks / (base.operationsPerSecond / base.bricks);
}
