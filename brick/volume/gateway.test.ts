import assert from "node:assert/strict";
import { test } from "node:test";
import type { Prng } from "../prng.ts";
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
  if (prng.chance(0.05)) bench.cluster.time.after(prng.between(0, 20), () => task.cancel());
  const result =
    kind === "unmap"
      ? await bench.gateway.unmap(offsetBytes, lengthBytes, { task })
      : await bench.gateway.write(offsetBytes, [fillWith(number, count)], { task });
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
