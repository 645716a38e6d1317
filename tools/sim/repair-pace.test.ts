import assert from "node:assert/strict";
import { test } from "node:test";
import { chunkBytesMax } from "../../brick/chunk/key.ts";
import { brickOf, isReachable } from "../../brick/cluster-state.ts";
import { Prng } from "../../brick/prng.ts";
import { copyBurstBytes } from "../../brick/repair/copy-budget.ts";
import { decodeChunkCopy } from "../../brick/repair/copy-messages.ts";
import { copiesUnderWayMax } from "../../brick/repair/repair-io.ts";
import { messageType } from "../../brick/rpc/message-types.ts";
import { type BrickNumber, grainBytes, KiB, MiB } from "../../brick/units.ts";
import { RepairScene } from "./repair-scene.test-support.ts";

/** A disk, and a link of each pair of bricks, as they might be. */
const hardwareBytesPerSecond = 120 * MiB;

function modelHardware({ cluster }: RepairScene): void {
  const { world } = cluster;
  const bricks = [...cluster.nodes.keys()];
  world.network.setAll(bricks, { bytesPerSecond: hardwareBytesPerSecond });
  for (const brick of bricks) {
    world.machine(brick).disk.dials.bytesPerSecond = hardwareBytesPerSecond;
  }
}

/** How long each write took, of some that write and rest for as long as is asked. */
async function writeLatencies(
  scene: RepairScene,
  through: BrickNumber,
  until: () => boolean,
): Promise<number[]> {
  const { world } = scene.cluster;
  const prng = new Prng(9);
  const tookMs: number[] = [];
  const writer = async (offsetBytes: number) => {
    while (!until()) {
      const beganMs = world.clock.nowMs;
      const data = prng.fill(Buffer.alloc(prng.pick([4 * KiB, 16 * KiB, 64 * KiB])));
      const done = await scene.cluster.volumeAt(through)!.write(offsetBytes, [data]);
      assert.deepEqual(done, { ok: true });
      tookMs.push(world.clock.nowMs - beganMs);
      await new Promise<void>((resolve) => world.after(prng.unit() * 4, resolve));
    }
  };
  // Behind all that the scene has written: the last grain of each piece's stretch.
  const writers = Array.from({ length: 8 }, (_, at) => writer((at * 80 + 79) * grainBytes));
  await world.complete(Promise.all(writers), 600_000);
  return tookMs;
}

function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length * share)]!;
}

async function lose(scene: RepairScene, brick: BrickNumber): Promise<void> {
  await scene.crashForGood(brick);
  await scene.cluster.submit({ type: "brickFailed", number: brick });
}

test("while a lost brick's copies are made, writes take no more than twice as long", async () => {
  const scene = new RepairScene(21, { bricks: 4 });
  await scene.begin();
  await scene.fill(1, 1600);
  modelHardware(scene);
  const { cluster } = scene;
  const dead = scene.nonVoter();
  await scene.crashForGood(dead);
  // Views have settled, and nothing of it is repair.
  await cluster.world.runFor(90_000);
  const endMs = cluster.world.clock.nowMs + 5000;
  const before = await writeLatencies(scene, 1, () => cluster.world.clock.nowMs >= endMs);
  assert.equal(cluster.copiedBytes, 0);
  await cluster.submit({ type: "brickFailed", number: dead });
  const during = await writeLatencies(scene, 1, () => scene.isEmptied());
  const { repairBytes } = scene.counters();
  assert.ok(repairBytes > 20 * MiB, `${repairBytes} bytes`);
  assert.ok(before.length > 1000 && during.length > 200, `${before.length}, ${during.length}`);
  const [p99Before, p99During] = [percentile(before, 0.99), percentile(during, 0.99)];
  assert.ok(p99During <= 2 * p99Before, `p99 ${p99Before} ms before, ${p99During} ms during`);
});

test("no brick takes more copies in any time than its budget says", async () => {
  const copyRates = { floorBytesPerSecond: 1 * MiB, ceilingBytesPerSecond: 2 * MiB };
  const scene = new RepairScene(22, { bricks: 4, copyRates });
  await scene.begin();
  await scene.fill(1, 400);
  const { cluster } = scene;
  await lose(scene, scene.nonVoter());
  const seen = new Map<BrickNumber, { atMs: number; bytes: number }[]>();
  while (!scene.isEmptied()) {
    for (const { number, store } of cluster.nodes.values()) {
      const looks = seen.get(number) ?? [];
      looks.push({ atMs: cluster.world.clock.nowMs, bytes: store.counters.chunkBytesWritten });
      seen.set(number, looks);
    }
    await cluster.world.runFor(20);
  }
  let most = 0;
  for (const looks of seen.values()) {
    for (const [from, first] of looks.entries()) {
      for (const last of looks.slice(from + 1)) {
        const seconds = (last.atMs - first.atMs) / 1000;
        const budget = copyBurstBytes + copyRates.ceilingBytesPerSecond * seconds;
        assert.ok(last.bytes - first.bytes <= budget + chunkBytesMax);
        most = Math.max(most, last.bytes - first.bytes);
      }
    }
  }
  assert.ok(most > 3 * MiB, `${most} bytes at most`);
  await scene.readBack(1);
});

test("what has one copy left is copied before what has two", async () => {
  const scene = new RepairScene(23, { bricks: 7, copies: 3 });
  await scene.begin();
  await scene.fill(1, 200);
  const { cluster } = scene;
  const [first, second] = Object.values(scene.state.bricks).filter(({ voter }) => !voter);
  const lost = [first!.number, second!.number];
  const left = new Map<string, number>();
  for (const { key, holders } of scene.extents()) {
    const living = holders.filter((brick) => !lost.includes(brick)).length;
    left.set(key.toString("hex"), living);
  }
  for (const brick of lost) await scene.crashForGood(brick);
  await cluster.world.runFor(90_000);
  const asked = new Map<BrickNumber, number[]>();
  cluster.world.network.filter = (from, _to, { type, reply, body }) => {
    if (type === messageType.chunkCopy && !reply) {
      const living = left.get(
        decodeChunkCopy(Buffer.concat(body as Buffer[]))!.key.toString("hex"),
      );
      asked.set(from, [...(asked.get(from) ?? []), living!]);
    }
    return true;
  };
  // As one: a leader that gives up both bricks says so in one breath.
  const { control } = cluster.anyNode()!;
  const given = lost.map((number) => control.submit({ type: "brickFailed", number }));
  await cluster.world.complete(Promise.all(given));
  await cluster.world.runUntil(() => scene.isEmptied() && scene.isInOrder(), 300_000);
  let both = 0;
  for (const order of asked.values()) {
    const firstWithTwo = order.indexOf(2);
    const lastWithOne = order.lastIndexOf(1);
    if (firstWithTwo < 0 || lastWithOne < 0) continue;
    both += 1;
    // The state in which only one of them had failed was known for an instant.
    assert.ok(
      firstWithTwo > lastWithOne ||
        order.slice(firstWithTwo).filter((n) => n === 1).length <= copiesUnderWayMax,
      String(order),
    );
  }
  assert.ok(both > 1, "no primary had both kinds");
});

test("whoever dies meanwhile, nothing is copied twice", async () => {
  const copyRates = { floorBytesPerSecond: 1 * MiB, ceilingBytesPerSecond: 2 * MiB };
  const scene = new RepairScene(24, { bricks: 6, copyRates });
  await scene.begin();
  await scene.fill(1, 400);
  const { cluster } = scene;
  const dead = scene.nonVoter();
  let missingBytes = 0;
  for (const { key, holders, chunkSectors } of scene.extents()) {
    assert.ok(key.length > 0);
    if (holders.includes(dead)) missingBytes += chunkSectors * 512;
  }
  await lose(scene, dead);
  await cluster.world.runUntil(() => cluster.copiedBytes > missingBytes / 8, 120_000);
  // The brick that leads most, which has the most copies to make; then the leader of all.
  const leads = (brick: BrickNumber) =>
    scene.state.shards.filter(({ primary }) => primary === brick).length;
  const busiest = [...cluster.nodes.keys()].sort((a, b) => leads(b) - leads(a))[0]!;
  const leader = cluster.anyNode()!.control.leader();
  for (const brick of new Set([busiest, leader])) {
    assert.ok(!scene.isEmptied());
    cluster.crash(brick);
    await cluster.world.runUntil(() => !isReachable(brickOf(scene.state, brick)));
    cluster.start(brick);
    await cluster.world.runUntil(
      () => cluster.nodes.has(brick) && isReachable(brickOf(scene.state, brick)),
    );
  }
  await cluster.world.runUntil(() => scene.isEmptied() && scene.isInOrder(), 300_000);
  // What was on its way when a brick died may have been copied once more.
  const onTheWay = 2 * 2 * copiesUnderWayMax * chunkBytesMax;
  const most = missingBytes + onTheWay;
  assert.ok(cluster.copiedBytes <= most, `${cluster.copiedBytes} bytes copied; ${most} at most`);
  await scene.readBack(busiest);
});
