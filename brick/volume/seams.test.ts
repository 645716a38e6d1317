import assert from "node:assert/strict";
import { test } from "node:test";
import { shardOf } from "../cluster-state.ts";
import { owedBranch } from "../map/owed.ts";
import { grainBytes, KiB, MiB } from "../units.ts";
import { type Bench, bytesOf, makeBench, makeCluster } from "./gateway-bench.ts";
import { fillWith } from "./sector-model.ts";
import { VolumeTask } from "./volume.ts";

/** Where the first run of grains ends, and another shard's begins. */
const seamBytes = 64 * MiB;
const fromBytes = seamBytes - 80 * KiB;
const lengthBytes = 200 * KiB;
const sectors = lengthBytes / 512;
const noCache = { chunkCacheBytes: 0, mapCacheGrainsMax: 5, mapCacheCellsMax: 300 };

function until<T>(bench: Bench, promise: Promise<T>): Promise<T> {
  return bench.cluster.time.until(promise);
}

async function readAt(bench: Bench, offsetBytes: number, length: number): Promise<Buffer> {
  return bytesOf(await until(bench, bench.gateway.read(offsetBytes, length)));
}

function shardAt({ cluster }: Bench, offsetBytes: number): number {
  return shardOf(cluster.state, cluster.volume.family, Math.floor(offsetBytes / grainBytes));
}

/** Grains that some shard keeps for another one. */
function owedCount({ cluster }: Bench): number {
  const prefix = `${owedBranch(cluster.volume.branch)}/`;
  const kept = cluster.shards.flatMap((shard) => [...shard.grains]);
  return kept.filter(([name, held]) => name.startsWith(prefix) && held.some(Boolean)).length;
}

test("a write across two shards is one, and leaves nothing owed", async () => {
  const bench = makeBench(makeCluster(1), noCache);
  const { gateway, cluster } = bench;
  const data = fillWith(1, sectors);
  // Zeros at the beginning of the second shard's part.
  data.fill(0, 80 * KiB, 150 * KiB);
  assert.deepEqual(await until(bench, gateway.writeAtomic(fromBytes, [data])), { ok: true });
  assert.ok((await readAt(bench, fromBytes, lengthBytes)).equals(data));
  gateway.map.clear();
  assert.ok((await readAt(bench, fromBytes, lengthBytes)).equals(data));
  assert.equal(owedCount(bench), 0);
  const other = fillWith(2, sectors);
  const swap = gateway.compareAndWrite(fromBytes, [data], [other]);
  assert.deepEqual(await until(bench, swap), { ok: true });
  assert.ok((await readAt(bench, fromBytes, lengthBytes)).equals(other));
  assert.equal(gateway.ranges.heldCount, 0);
  assert.deepEqual(cluster.violations, []);
});

for (let seed = 1; seed <= 30; seed += 1) {
  test(`seed ${seed}: a gateway that dies in the middle leaves all of a write, or none`, async () => {
    const cluster = makeCluster(seed);
    const bench = makeBench(cluster, noCache);
    const before = fillWith(1, sectors);
    const after = fillWith(2, sectors);
    assert.deepEqual(await until(bench, bench.gateway.write(fromBytes, [before])), { ok: true });
    cluster.faults = { lossShare: 0.02, doubleShare: 0.02, delayMsMax: 20 };
    const swap =
      seed % 2 === 0
        ? bench.gateway.writeAtomic(fromBytes, [after])
        : bench.gateway.compareAndWrite(fromBytes, [before], [after]);
    let told = false;
    void swap.then(({ ok }) => {
      told = ok;
    });
    await cluster.time.run(seed * 7);
    const wasTold = told;
    bench.gateway.end("unavailable");
    await until(bench, swap);
    const next = makeBench(cluster, noCache, 2, 2);
    // The second shard's part alone first: it must not be seen without what came with it.
    const second = await readAt(next, seamBytes, lengthBytes - 80 * KiB);
    const whole = await readAt(next, fromBytes, lengthBytes);
    assert.ok(whole.equals(before) || whole.equals(after), "a mixture of two writes");
    assert.ok(second.equals(whole.subarray(80 * KiB)), "one part came later than the other");
    if (wasTold) assert.ok(whole.equals(after), "what was acknowledged is lost");
    assert.equal(owedCount(next), 0);
    assert.deepEqual(cluster.violations, []);
  });
}

test("what is owed is not put over what is written later", async () => {
  const cluster = makeCluster(3);
  const bench = makeBench(cluster, noCache);
  // The second shard is away: the write lands at the first one, and goes no further.
  const second = shardAt(bench, seamBytes);
  const { primary } = cluster.state.shards[second]!;
  cluster.setShard(second, { primary: 4 });
  cluster.brick(4).frozen = true;
  const old = fillWith(1, sectors);
  const task = new VolumeTask();
  const write = bench.gateway.writeAtomic(fromBytes, [old], { task });
  await cluster.time.run(2000);
  assert.equal(owedCount(bench), 2, "grains of the second shard");
  // Too late to cancel: half of it is there.
  task.cancel();
  bench.gateway.end("unavailable");
  await until(bench, write);
  cluster.setShard(second, { primary });
  const next = makeBench(cluster, noCache, 2, 2);
  const young = fillWith(2, 16);
  assert.deepEqual(await until(next, next.gateway.write(seamBytes, [young])), { ok: true });
  const found = await readAt(next, fromBytes, lengthBytes);
  young.copy(old, 80 * KiB);
  assert.ok(found.equals(old));
  assert.equal(owedCount(next), 0);
});

/** The write is at the first shard, and the second one, which it is owed to, is away; how to bring that back. */
async function writeHalf(bench: Bench): Promise<() => void> {
  const { cluster, gateway } = bench;
  const second = shardAt(bench, seamBytes);
  const { primary } = cluster.state.shards[second]!;
  cluster.setShard(second, { primary: 4 });
  cluster.brick(4).frozen = true;
  void gateway.writeAtomic(fromBytes, [fillWith(1, sectors)]);
  await cluster.time.run(2000);
  assert.equal(owedCount(bench), 2, "grains of the second shard");
  return () => cluster.setShard(second, { primary });
}

const firstBytes = seamBytes - fromBytes;
const restBytes = lengthBytes - firstBytes;

test("what is owed is mapped, as a read would find it", async () => {
  const cluster = makeCluster(5);
  const bench = makeBench(cluster, noCache);
  const bringBack = await writeHalf(bench);
  bench.gateway.end("unavailable");
  bringBack();
  const next = makeBench(cluster, noCache, 2, 2);
  const found = await until(next, next.gateway.allocation(seamBytes, 1024 * KiB, 8));
  assert.deepEqual(found, {
    ok: true,
    runs: [
      { lengthBytes: restBytes, mapped: true },
      { lengthBytes: 1024 * KiB - restBytes, mapped: false },
    ],
  });
  assert.equal(owedCount(next), 0);
});

test("a write that lands as one is mapped whole or not at all", async () => {
  const bench = makeBench(makeCluster(6), noCache);
  const bringBack = await writeHalf(bench);
  let ended = false;
  const asked = bench.gateway.allocation(fromBytes, lengthBytes, 8).finally(() => {
    ended = true;
  });
  await bench.cluster.time.run(1000);
  assert.equal(ended, false, "half of the write is there");
  bringBack();
  const found = await until(bench, asked);
  assert.deepEqual(found, { ok: true, runs: [{ lengthBytes, mapped: true }] });
});

test("who asks what is mapped is answered when the shard stays away, and when the gateway ends", async () => {
  const cluster = makeCluster(7);
  const bench = makeBench(cluster, noCache);
  await writeHalf(bench);
  bench.gateway.end("unavailable");
  const next = makeBench(cluster, noCache, 2, 2);
  const late = await until(next, next.gateway.allocation(seamBytes, lengthBytes, 8));
  assert.ok(!late.ok && late.fault.code === "unavailable");
  const startMs = cluster.time.nowMs;
  const asked = next.gateway.allocation(seamBytes, lengthBytes, 8);
  await cluster.time.run(100);
  next.gateway.end("deleted");
  assert.deepEqual(await until(next, asked), { ok: false, fault: { code: "deleted" } });
  assert.ok(cluster.time.nowMs - startMs < 1000);
});

test("a cancel after the first shard has it means that it lands", async () => {
  const cluster = makeCluster(4);
  const bench = makeBench(cluster, noCache);
  const second = shardAt(bench, seamBytes);
  const { primary } = cluster.state.shards[second]!;
  cluster.setShard(second, { primary: 4 });
  cluster.brick(4).frozen = true;
  const data = fillWith(1, sectors);
  const task = new VolumeTask();
  const write = bench.gateway.writeAtomic(fromBytes, [data], { task });
  await cluster.time.run(2000);
  assert.equal(owedCount(bench), 2, "grains of the second shard");
  task.cancel();
  await cluster.time.run(100);
  assert.equal(bench.gateway.ranges.heldCount, 1, "it is not settled yet");
  // What is behind it has no room at first.
  cluster.noSpaceOnWrite = true;
  cluster.setShard(second, { primary });
  await cluster.time.run(500);
  assert.equal(bench.gateway.ranges.heldCount, 1, "it is not settled yet");
  cluster.noSpaceOnWrite = false;
  assert.deepEqual(await until(bench, write), { ok: true });
  assert.ok((await readAt(bench, fromBytes, lengthBytes)).equals(data));
  assert.equal(owedCount(bench), 0);
  assert.equal(bench.gateway.ranges.heldCount, 0);
});
