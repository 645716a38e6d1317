import assert from "node:assert/strict";
import { test } from "node:test";
import type { Prng } from "../prng.ts";
import { giveBack, LentMemory, lentBytesMin } from "../rpc/lent-memory.ts";
import { grainBytes, sectorBytes, sectorsPerGrain } from "../units.ts";
import { type Bench, bytesOf, makeBench, makeCluster } from "./gateway-bench.ts";
import { fillWith, SectorModel } from "./sector-model.ts";
import { VolumeTask } from "./volume.ts";

const sectorCount = 8 * sectorsPerGrain;

function randomRange(prng: Prng): { first: number; count: number } {
  const largest = prng.pick([1, 8, 8, 64, 128, 300, 1024]);
  const count = Math.min(prng.between(1, largest), sectorCount);
  const aligned = prng.chance(0.3) ? sectorsPerGrain : 1;
  const first = Math.floor(prng.between(0, sectorCount - count) / aligned) * aligned;
  return { first, count };
}

/** The runs are spread over the shards: grain 0 begins two grains before the end of a run. */
const baseBytes = (1024 - 2) * grainBytes;

async function randomCommand(bench: Bench, model: SectorModel, prng: Prng): Promise<void> {
  const { first, count } = randomRange(prng);
  const offsetBytes = baseBytes + first * sectorBytes;
  const lengthBytes = count * sectorBytes;
  const kind = prng.pick(["read", "read", "write", "write", "unmap", "zeros"]);
  if (kind === "read") {
    const read = model.beginRead(first, count);
    const result = await bench.gateway.read(offsetBytes, lengthBytes);
    if (!result.ok) assert.equal(result.fault.code, "unavailable");
    else assert.equal(model.endRead(read, Buffer.concat(result.buffers)), null);
    return;
  }
  const zero = kind !== "write";
  const { number, token } = model.beginWrite(first, count, zero);
  const task = new VolumeTask();
  const data = Buffer.from(fillWith(number, count));
  if (kind === "write" && data.length >= lentBytesMin) {
    task.memory = new LentMemory();
    task.memory.add(() => giveBack(data));
  }
  if (prng.chance(0.05)) bench.cluster.time.after(prng.between(0, 20), () => task.cancel());
  const result =
    kind === "unmap"
      ? await bench.gateway.unmap(offsetBytes, lengthBytes, { task })
      : await bench.gateway.write(offsetBytes, [data], { task });
  if (result.ok) model.endWrite(first, count, zero, token);
  else {
    assert.ok(["unavailable", "cancelled"].includes(result.fault.code), result.fault.code);
    model.failWrite(token);
  }
}

async function randomRun(
  seed: number,
  commands: number,
  disturb: boolean,
  volume = {},
): Promise<Bench> {
  const cluster = makeCluster(seed, volume);
  const prng = cluster.prng.fork();
  cluster.faults = disturb
    ? { lossShare: 0.02, doubleShare: 0.02, delayMsMax: 10 }
    : { lossShare: 0, doubleShare: 0, delayMsMax: 2 };
  const bench = makeBench(cluster, {
    chunkCacheBytes: 256 * 1024,
    mapCacheGrainsMax: 5,
    mapCacheCellsMax: 300,
    shardWindowMax: 8,
    chunkTimeoutMs: 300,
    mapTimeoutMs: 150,
  });
  const model = new SectorModel(sectorCount);
  let left = commands;
  const worker = async () => {
    while (left > 0) {
      left -= 1;
      await randomCommand(bench, model, prng);
    }
  };
  let stopped = false;
  const disturbances = async () => {
    let down = 0;
    while (disturb && !stopped) {
      await new Promise<void>((resolve) =>
        cluster.time.after(prng.between(50, 500), resolve as () => void),
      );
      if (prng.chance(0.5)) cluster.movePrimary(prng.between(0, 4));
      if (down > 0) {
        cluster.revive(down);
        down = 0;
      } else if (prng.chance(0.4)) {
        down = prng.between(2, 4);
        cluster.kill(down);
      }
    }
    if (down > 0) cluster.revive(down);
  };
  const workers = Promise.all(Array.from({ length: 12 }, worker)).finally(() => {
    stopped = true;
  });
  await cluster.time.until(Promise.all([workers, disturbances()]), 3_600_000);
  cluster.faults = { lossShare: 0, doubleShare: 0, delayMsMax: 1 };
  const read = model.beginRead(0, sectorCount);
  const whole = await cluster.time.until(bench.gateway.read(baseBytes, sectorCount * sectorBytes));
  assert.equal(model.endRead(read, bytesOf(whole)), null);
  assert.deepEqual(cluster.violations, []);
  assert.equal(bench.gateway.ranges.heldCount, 0);
  assert.equal(bench.gateway.ranges.waitingCount, 0);
  return bench;
}

test("random commands on quiet bricks read what was written", async () => {
  for (const seed of [1, 2, 3]) {
    const { stats } = await randomRun(seed, 300, false);
    assert.ok(stats.piecesInline > 0 && stats.piecesStored > 0 && stats.piecesZero > 0);
  }
});

const encrypted = { keyDomain: 7, keyCheck: "0".repeat(32) };

test("random commands on an encrypted volume read what was written", async () => {
  for (const seed of [11, 12, 13]) {
    const { stats } = await randomRun(seed, 300, false, encrypted);
    assert.ok(stats.piecesInline > 0 && stats.piecesStored > 0 && stats.piecesZero > 0);
  }
  for (const seed of [14, 15]) await randomRun(seed, 500, true, encrypted);
});

for (const seed of [1, 2, 3, 4, 5, 6, Number(process.env.SEED ?? 7)]) {
  test(`random commands among losses, deaths and moves, seed ${seed}`, async () => {
    await randomRun(seed, 800, true);
  });
}

test("a write gives its memory back once it has settled, and not before", async () => {
  const bench = makeBench(makeCluster(23));
  const data = Buffer.allocUnsafeSlow(4 * grainBytes);
  for (let at = 0; at < data.length; at += grainBytes) data.fill(at / grainBytes + 1, at);
  const sent = Buffer.from(data);
  const task = new VolumeTask();
  const memory = new LentMemory();
  task.memory = memory;
  memory.add(() => giveBack(data));
  const writing = bench.gateway.write(0, [data], { task });
  assert.equal(data.length, sent.length);
  const result = await bench.cluster.time.until(writing);
  assert.ok(result.ok);
  assert.equal(data.length, 0);
  const found = await bench.cluster.time.until(bench.gateway.read(0, sent.length));
  assert.ok(bytesOf(found).equals(sent));
});

test("a read in sequence finds what comes next here, and what was written meanwhile is new", async () => {
  const bench = makeBench(makeCluster(29), { chunkCacheBytes: 0 });
  const { gateway, cluster } = bench;
  const grains = 32;
  const content = (version: number, grain: number) =>
    fillWith(version * 100 + grain, sectorsPerGrain);
  const write = async (grain: number, version: number) => {
    const writing = gateway.write(grain * grainBytes, [content(version, grain)], {});
    assert.ok((await cluster.time.until(writing)).ok);
  };
  const read = async (grain: number) => {
    const reading = gateway.read(grain * grainBytes, grainBytes);
    return bytesOf(await cluster.time.until(reading));
  };
  for (let grain = 0; grain < grains; grain += 1) await write(grain, 1);
  const gets = () => [...cluster.bricks.values()].reduce((sum, brick) => sum + brick.gets, 0);
  for (let grain = 0; grain < 4; grain += 1)
    assert.ok((await read(grain)).equals(content(1, grain)));
  await cluster.time.run(100);
  const before = gets();
  const reading = gateway.read(4 * grainBytes, grainBytes);
  const found = bytesOf(await reading);
  assert.ok(found.equals(content(1, 4)), "without a message of its own");
  assert.ok(before > 4, "more has been fetched than was read");
  await write(5, 2);
  assert.ok((await read(5)).equals(content(2, 5)));
});
