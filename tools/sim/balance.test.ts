import assert from "node:assert/strict";
import { test } from "node:test";
import { brickOf, isReachable, type RebalanceMode } from "../../brick/cluster-state.ts";
import { decodeChunkCopy } from "../../brick/repair/copy-messages.ts";
import { domainCount } from "../../brick/repair/spread.ts";
import { messageType } from "../../brick/rpc/message-types.ts";
import { type BrickNumber, MiB } from "../../brick/units.ts";
import { RepairScene } from "./repair-scene.test-support.ts";
import type { SimClusterOptions } from "./sim-cluster.ts";

/** Three small bricks, filled to more than the share that is let be; balance in that mode. */
async function filledScene(
  seed: number,
  mode: RebalanceMode,
  options: Partial<SimClusterOptions> = {},
): Promise<RepairScene> {
  const scene = new RepairScene(seed, { bricks: 3, gcEveryMs: 500, ...options });
  await scene.begin();
  if (mode !== "idle") await scene.cluster.submit({ type: "setRebalance", mode });
  await scene.fill(1, 800);
  const used = () => Object.values(scene.state.bricks).every((one) => one.usedBytes > 24 * MiB);
  await scene.cluster.world.runUntil(used);
  return scene;
}

function sharesOf(scene: RepairScene): Map<BrickNumber, number> {
  const bytes = new Map<BrickNumber, number>();
  for (const { holders, chunkSectors } of scene.extents()) {
    for (const one of holders) bytes.set(one, (bytes.get(one) ?? 0) + chunkSectors * 512);
  }
  return bytes;
}

/** Runs until nobody grows any more. */
async function grown(scene: RepairScene): Promise<void> {
  const isOver = () => Object.values(scene.state.bricks).every((brick) => !brick.growing);
  await scene.cluster.world.runUntil(isOver, 3_600_000);
}

test("a brick that is added gets its share, each chunk moves once, and then nothing does", async () => {
  const scene = await filledScene(41, "idle");
  const { cluster } = scene;
  const moved = new Map<string, number>();
  cluster.world.network.filter = (_from, _to, { type, reply, body }) => {
    if (type !== messageType.chunkCopy || reply) return true;
    const { key, urgency } = decodeChunkCopy(Buffer.concat(body as Buffer[]))!;
    assert.equal(urgency, "balance");
    const name = key.toString("hex");
    moved.set(name, (moved.get(name) ?? 0) + 1);
    return true;
  };
  const added = await cluster.join();
  assert.equal(brickOf(scene.state, added)!.growing, true);
  await grown(scene);
  await cluster.world.runFor(60_000);
  const { repairBytes, rebalanceBytes } = scene.counters();
  assert.equal(repairBytes, 0);
  assert.ok(rebalanceBytes > 10 * MiB, `${rebalanceBytes} bytes moved`);
  for (const [name, times] of moved) assert.equal(times, 1, `${name} was moved ${times} times`);
  const shares = sharesOf(scene);
  const all = [...shares.values()].reduce((sum, one) => sum + one, 0);
  assert.ok(shares.get(added)! > all / 4 - 0.1 * all, `${shares.get(added)} of ${all} bytes`);
  // What moved away is gone where it was.
  const there = (key: Buffer) => [...cluster.nodes.values()].filter(({ store }) => store.has(key));
  const isSwept = () => [...scene.extents()].every(({ key }) => there(key).length === 2);
  await cluster.world.runUntil(isSwept, 600_000);
  const before = cluster.copiedBytes;
  for (const brick of [added, 1, 2]) {
    await scene.crashForGood(brick);
    cluster.start(brick);
    await cluster.settled();
  }
  await cluster.world.runFor(60_000);
  assert.equal(cluster.copiedBytes, before, "reboots move nothing");
  await scene.readBack(added);
});

test("nothing moves while initiators are busy unless it may, nor when it is off", async () => {
  for (const mode of ["idle", "off", "on"] as const) {
    const scene = await filledScene(42, mode);
    const { cluster } = scene;
    await cluster.join();
    const endMs = cluster.world.clock.nowMs + 20_000;
    while (cluster.world.clock.nowMs < endMs) {
      await scene.write(1);
      await cluster.world.runFor(5000);
    }
    const whileBusy = cluster.copiedBytes;
    if (mode === "on") assert.ok(whileBusy > 0);
    else assert.equal(whileBusy, 0);
    await cluster.world.runFor(30_000);
    if (mode === "off") assert.equal(cluster.copiedBytes, 0);
    else assert.ok(cluster.copiedBytes > 0);
  }
});

test("what moves keeps to its failure domains", async () => {
  const scene = await filledScene(43, "idle", { domains: ["a", "b", "c", "a"] });
  const added = await scene.cluster.join();
  await grown(scene);
  for (const { holders } of scene.extents()) {
    assert.ok(domainCount(scene.state, holders) >= 2, `all of ${holders} fail together`);
  }
  assert.ok((sharesOf(scene).get(added) ?? 0) > 0);
});

test("a spare is empty until a brick is given up, and then has what that one had", async () => {
  const scene = await filledScene(44, "idle");
  const { cluster } = scene;
  const spare = await cluster.join({ spare: true });
  await cluster.world.runUntil(() => cluster.volumeAt(spare) !== undefined);
  await scene.write(spare);
  await cluster.world.runFor(30_000);
  assert.equal(cluster.copiedBytes, 0);
  assert.equal(sharesOf(scene).get(spare), undefined);
  assert.ok(scene.state.shards.every(({ members }) => !members.includes(spare)));
  const lost = 3;
  await scene.crashForGood(lost);
  await cluster.world.runFor(60_000);
  assert.equal(cluster.copiedBytes, 0, "it is only away");
  await cluster.submit({ type: "brickFailed", number: lost });
  await cluster.world.runUntil(() => scene.isEmptied() && scene.isInOrder(), 600_000);
  assert.ok(isReachable(brickOf(scene.state, spare)) && !brickOf(scene.state, spare)!.spare);
  assert.ok(sharesOf(scene).get(spare)! > 0);
  cluster.crash(1);
  await scene.readBack(spare);
});
