import assert from "node:assert/strict";
import { test } from "node:test";
import { type BrickNumber, grainBytes, KiB } from "../../../brick/units.ts";
import { ClusterScene } from "./cluster-scene.test-support.ts";
import { MapScene } from "./map-scene.test-support.ts";

/** File systems that others fill. docs/simulation.md names the rules. */

const longMs = 40_000;
const smallBytes = 4096;

/** From here on no file grows and none is made, and the index has no room for a batch. */
function fill(scene: ClusterScene, brick: BrickNumber): () => void {
  const { disk } = scene.cluster.world.machine(brick);
  const { capacityBytes } = disk.dials;
  disk.dials.capacityBytes = disk.usedBytes();
  return () => {
    disk.dials.capacityBytes = capacityBytes;
  };
}

const isFull = (scene: ClusterScene, brick: BrickNumber) => scene.state.bricks[brick]!.full;

/** By then a brick has made what it keeps for a start. */
const keptRoomMs = 10_000;

/** Records of other shards, until one waits for room. */
async function useUpReserve(scene: MapScene, brick: BrickNumber): Promise<void> {
  const { store } = scene.node(brick);
  while (!store.waitsForRoom) {
    store.appendMap([Buffer.alloc(64 * KiB)], null, () => {}, { claim: "reserve", order: 99 });
    await scene.run(20);
  }
}

/** Commands that were not answered GOOD. */
async function writeFor(scene: ClusterScene, portal: BrickNumber, ms: number, texts: string[]) {
  const { clock } = scene.cluster.world;
  const untilMs = clock.nowMs + ms;
  const refused: (string | null)[] = [];
  for (let count = 0; clock.nowMs < untilMs; count += 1) {
    const grain = count % texts.length;
    const text = `${count} at ${Math.floor(clock.nowMs)}`;
    const lengthBytes = count % 2 === 0 ? grainBytes : smallBytes;
    const outcome = await scene.answerTo(scene.ask(portal, grain, text, lengthBytes));
    if (outcome === "good") texts[grain] = text;
    else refused.push(outcome);
    await scene.run(20);
  }
  return refused;
}

async function checkAll(scene: ClusterScene, portal: BrickNumber, texts: readonly string[]) {
  for (const [grain, text] of texts.entries()) assert.equal(await scene.read(portal, grain), text);
}

test("a brick whose file system is full for long goes on, and takes data again by itself", async () => {
  const scene = await ClusterScene.begin({ shardCount: 8 });
  const texts = Array.from({ length: 24 }, () => "");
  const portal = scene.cluster.bricks[0]!;
  const victim = scene.otherThan(portal);
  const boot = () => scene.cluster.world.machine(victim).bootCount;
  assert.deepEqual(await writeFor(scene, portal, 3_000, texts), []);
  const before = boot();
  const makeRoom = fill(scene, victim);
  // Before anybody has looked how much is left.
  scene.node(victim).store.checkpoint();
  // In the pause in which its shards go elsewhere commands wait; none is refused.
  assert.deepEqual(await writeFor(scene, portal, longMs, texts), []);
  assert.ok(isFull(scene, victim));
  assert.ok(scene.state.shards.every(({ members }) => !members.includes(victim)));
  const node = scene.node(victim);
  assert.ok(node.control.leaseValid(node.host.clock.nowMs()));
  assert.ok(node.store.putsOffCheckpoints);
  // It reads all the while.
  await checkAll(scene, victim, texts);
  makeRoom();
  await scene.until(() => !isFull(scene, victim) && !node.store.putsOffCheckpoints);
  assert.deepEqual(await writeFor(scene, portal, 3_000, texts), []);
  await scene.until(() => scene.state.shards.some(({ members }) => members.includes(victim)));
  assert.equal(boot(), before);
  assert.equal(scene.cluster.copiedBytes, 0);
  scene.crash(...scene.cluster.bricks);
  await scene.start(...scene.cluster.bricks);
  await scene.cluster.settled();
  await checkAll(scene, portal, texts);
});

test("while every file system is full writes are refused, reads go on, and then both do again", async () => {
  const scene = await ClusterScene.begin({ shardCount: 4 });
  const texts = Array.from({ length: 8 }, () => "");
  const portal = scene.cluster.bricks[0]!;
  const boots = () =>
    scene.cluster.bricks.map((brick) => scene.cluster.world.machine(brick).bootCount);
  assert.deepEqual(await writeFor(scene, portal, 2_000, texts), []);
  const before = boots();
  const makeRoom = scene.cluster.bricks.map((brick) => fill(scene, brick));
  await scene.until(() => scene.cluster.bricks.every((brick) => isFull(scene, brick)));
  const refused = await writeFor(scene, portal, longMs, texts);
  assert.ok(refused.length > 100);
  assert.deepEqual(new Set(refused), new Set(["fault: no_space"]));
  await checkAll(scene, portal, texts);
  for (const make of makeRoom) make();
  await scene.until(() => scene.cluster.bricks.every((brick) => !isFull(scene, brick)));
  assert.deepEqual(await writeFor(scene, portal, 2_000, texts), []);
  assert.deepEqual(boots(), before);
  await checkAll(scene, portal, texts);
});

test("a brick starts in a full file system, time after time, and is what it was before", async () => {
  const scene = await ClusterScene.begin({ shardCount: 8 });
  const texts = Array.from({ length: 8 }, () => "");
  const portal = scene.cluster.bricks[0]!;
  const victim = scene.otherThan(portal);
  assert.deepEqual(await writeFor(scene, portal, keptRoomMs, texts), []);
  const makeRoom = fill(scene, victim);
  await scene.until(() => isFull(scene, victim));
  for (let start = 0; start < 3; start += 1) {
    assert.deepEqual(await writeFor(scene, portal, 1_000, texts), []);
    scene.crash(victim);
    // Others take what the end of the process has set free.
    fill(scene, victim);
    // Power cuts in the middle of starts.
    for (const cutMs of [3, 10, 30]) {
      scene.cluster.start(victim);
      await scene.run(cutMs);
      scene.cluster.crash(victim);
    }
    await scene.start(victim);
    const { store, control, host } = scene.node(victim);
    assert.ok(store.isFileSystemFull);
    await scene.until(() => control.leaseValid(host.clock.nowMs()));
    await checkAll(scene, victim, texts);
    await scene.run(3_000);
  }
  makeRoom();
  await scene.until(() => !isFull(scene, victim));
  await scene.until(() => scene.state.shards.some(({ members }) => members.includes(victim)));
  assert.deepEqual(await writeFor(scene, portal, 3_000, texts), []);
  assert.equal(scene.cluster.copiedBytes, 0);
  await scene.cluster.settled();
  await checkAll(scene, portal, texts);
});

test("who has used up the reserve of its log promises a view still, and leads with what it holds", async () => {
  const scene = await MapScene.begin();
  await scene.put(7, "old");
  const { disk } = scene.world.machine(2);
  const { capacityBytes } = disk.dials;
  disk.dials.capacityBytes = disk.usedBytes();
  const { store } = scene.node(2);
  const posts: { grain: number; post: ReturnType<MapScene["post"]> }[] = [];
  for (let grain = 10; !store.waitsForRoom; grain += 1) {
    posts.push({ grain, post: scene.post(grain, `of grain ${grain}`) });
    await scene.run(20);
  }
  // What the index would have to write has no room either.
  store.checkpoint();
  await scene.run(100);
  assert.equal(store.putsOffCheckpoints, true);
  scene.post(7, "nobody was told of it");
  await scene.run(1_000);
  scene.crash(1);
  await scene.recover([2], false);
  const told = posts.filter(({ post }) => post.statuses.includes("ok"));
  assert.ok(told.length > 100);
  const check = async () => {
    for (const { grain } of told) assert.equal(await scene.at(grain), `of grain ${grain}`);
    assert.equal(await scene.at(7), "old");
  };
  await check();
  const promised = scene.shard.view;
  disk.dials.capacityBytes = capacityBytes;
  await scene.restart(2);
  assert.ok(scene.replica(2).facts.promised >= promised);
  assert.equal(await scene.mayRecover([2]), true);
  await scene.recover([2], false);
  await check();
});

test("what a full brick had no room to accept counts as never accepted, and ends nobody's log", async () => {
  const scene = await MapScene.begin([1, 3]);
  await scene.put(7, "old");
  await scene.put(8, "acknowledged");
  // Only the memory of its primary knew that the last write had landed.
  scene.crash(3);
  await scene.restart(1);
  const { disk } = scene.world.machine(2);
  const { capacityBytes } = disk.dials;
  disk.dials.capacityBytes = disk.usedBytes();
  await useUpReserve(scene, 2);
  const whole = scene.shard;
  scene.slowDisk(1, 10_000);
  scene.view({ primary: 1, members: [1], candidates: [2], chain: [whole] });
  await scene.world.runUntil(() => scene.replica(2).facts.accepted === scene.shard.view);
  assert.ok(scene.replica(2).acceptedDurable < scene.shard.view);
  assert.ok(scene.replica(1).acceptedDurable < scene.shard.view);
  scene.crash(1);
  scene.slowDisk(1, 1);
  await scene.start(1);
  await scene.recover([2, 1], false);
  disk.dials.capacityBytes = capacityBytes;
  assert.equal(await scene.at(8), "acknowledged");
  assert.equal(await scene.at(7), "old");
});

test("of those who could gather what a recovery needs, one that has room for it does", async () => {
  const scene = await MapScene.begin([2, 1]);
  await scene.put(7, "old");
  scene.hold(2, 1);
  scene.post(8, "on one brick");
  await scene.run();
  // Nothing that it gathers could brick 1 make durable, though it holds as much as any other.
  const { disk } = scene.world.machine(1);
  disk.dials.capacityBytes = disk.usedBytes();
  scene.node(1).store.checkpoint();
  await scene.run(100);
  assert.ok(scene.node(1).store.putsOffCheckpoints);
  await scene.restart(2);
  scene.heal();
  assert.equal(await scene.recover([1, 2], false), 2);
  assert.equal(await scene.at(8), "on one brick");
  assert.equal(await scene.at(7), "old");
});
