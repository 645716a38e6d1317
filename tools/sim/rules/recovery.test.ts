import assert from "node:assert/strict";
import { test } from "node:test";
import { MapScene } from "./map-scene.test-support.ts";

/** How a shard is led again, and who comes back to it how. docs/simulation.md names the rules. */

test("who has promised a newer view stays out of the older one, over a power cut too", async () => {
  const scene = await MapScene.begin();
  scene.slowDisk(2, 100);
  await scene.world.complete(scene.node(2).map.report(0, 2));
  scene.slowDisk(2, 1);
  await scene.restart(2);
  const write = scene.post(1, "of the older view");
  await scene.run(1000);
  assert.deepEqual(write.statuses, []);
});

test("what was reported to a recovery does not change under it", async () => {
  const scene = await MapScene.begin();
  await scene.world.complete(scene.node(2).map.report(0, 2));
  const { lastOp } = scene.replica(2).facts;
  const write = scene.post(1, "of the older view");
  await scene.run(1000);
  assert.deepEqual(write.statuses, []);
  assert.equal(scene.replica(2).facts.lastOp, lastOp);
});

/** Brick 2 is away, brick 3 a candidate that logs new writes. */
async function withCandidate(): Promise<MapScene> {
  const scene = await MapScene.begin();
  await scene.put(7, "old");
  await scene.put(8, "only here before");
  scene.crash(2);
  scene.view({ primary: 1, members: [1], candidates: [3], chain: scene.chain });
  await scene.put(7, "new");
  return scene;
}

test("a candidate that is left alone does not lead, and a shard is never empty instead", async () => {
  const scene = await withCandidate();
  scene.crash(1);
  assert.equal(await scene.mayRecover([3], true), false);
  scene.view({ primary: 3, members: [3], chain: scene.chain });
  await assert.rejects(scene.at(7), /no look-up succeeded/);
});

test("a member of an older view alone is not the shard", async () => {
  const scene = await withCandidate();
  scene.crash(1);
  await scene.start(2);
  assert.equal(await scene.mayRecover([2]), false);
  assert.equal(await scene.mayRecover([2, 3]), true);
});

test("what a member missed comes from the candidate that was there", async () => {
  const scene = await withCandidate();
  const last = scene.post(9, "answered a moment ago");
  await scene.world.runUntil(() => last.statuses.length === 1);
  scene.crash(1);
  await scene.start(2);
  await scene.recover([2, 3], false);
  const found = [await scene.at(7), await scene.at(8), await scene.at(9)];
  assert.deepEqual(found, ["new", "only here before", "answered a moment ago"]);
});

/** A power cut left brick 1 with the beginning of its last batch; brick 2 has all of its log. */
async function cutTail() {
  for (let seed = 1; seed <= 20; seed += 1) {
    const scene = await MapScene.begin([1, 2], Number.POSITIVE_INFINITY, seed);
    await scene.put(7, "whole");
    scene.slowDisk(1, 100);
    const torn = scene.post(7, "torn");
    await scene.run(10);
    await scene.restart(1, 2);
    if (scene.replica(1).facts.lossy && !scene.replica(2).facts.lossy) return { scene, torn };
  }
  assert.fail("no power cut tore the batch");
}

test("a brick that cut its tail does not count before one that did not", async () => {
  const { scene, torn } = await cutTail();
  assert.equal(await scene.mayRecover([1]), false);
  assert.equal(await scene.mayRecover([1, 2]), true);
  assert.deepEqual(torn.statuses, []);
});

test("a brick that is known to have lost records does not count, though it does not know itself", async () => {
  const scene = await MapScene.begin();
  await scene.put(7, "whole");
  await scene.restart(1, 2);
  assert.equal(await scene.mayRecover([1], false, [1]), false);
  assert.equal(await scene.mayRecover([1, 2], false, [1]), true);
  assert.equal(await scene.mayRecover([1]), true);
});

test("what was unmapped while a member was away does not come back with it", async () => {
  const scene = await withCandidate();
  await scene.put(8, null);
  await scene.start(2);
  const { chain } = scene;
  scene.view({ primary: 1, members: [1], candidates: [2, 3], transfer: true, chain });
  await scene.complete(2);
  scene.view({ primary: 2, members: [1, 2], chain: scene.chain });
  assert.deepEqual([await scene.at(7), await scene.at(8)], ["new", null]);
});

test("who was away for longer than tombstones stay begins with an empty table", async () => {
  const scene = await withCandidate();
  scene.shard = { ...scene.shard, transfer: true };
  scene.tell();
  await scene.complete(3);
  scene.view({ primary: 1, members: [1, 3], chain: [] });
  await scene.put(8, null);
  scene.view({ primary: 1, members: [1, 3], candidates: [2], transfer: true });
  await scene.start(2);
  await scene.complete(2);
  scene.view({ primary: 2, members: [1, 2], chain: [] });
  assert.deepEqual([await scene.at(7), await scene.at(8)], ["new", null]);
});

test("who lost a removal that it had acknowledged begins with an empty table", async () => {
  const scene = await MapScene.begin();
  await scene.put(7, "old");
  await scene.put(8, "old");
  // The disk of brick 2 says that the UNMAP is written, and it is not.
  const { disk } = scene.world.machine(2);
  disk.stray = (path) => (path.startsWith("log/") ? { atBytes: null } : null);
  await scene.put(8, null);
  disk.stray = null;
  await scene.put(7, "new");
  scene.crash(2);
  scene.view({ primary: 1, members: [1], chain: scene.chain });
  await scene.run();
  await scene.start(2);
  assert.ok(scene.replica(2).facts.lossy);
  const { chain } = scene;
  scene.view({ primary: 1, members: [1], candidates: [2], transfer: true, chain });
  await scene.complete(2);
  scene.view({ primary: 2, members: [1, 2], chain: scene.chain });
  assert.deepEqual([await scene.at(7), await scene.at(8)], ["new", null]);
});

test("a member that lacks what it had acknowledged says so until it is a candidate", async () => {
  const scene = await MapScene.begin();
  await scene.put(7, "old");
  const { disk } = scene.world.machine(2);
  disk.stray = (path) => (path.startsWith("log/") ? { atBytes: null } : null);
  await scene.put(8, "lost here");
  disk.stray = null;
  await scene.put(7, "new");
  // It is back before anybody knows of the loss: the next view takes it for complete.
  await scene.restart(2);
  scene.view({ primary: 1, members: [1, 2], chain: scene.chain });
  await scene.run();
  const damaged = () => scene.node(2).map.shardStatus()[0]?.damaged;
  assert.equal(damaged(), true);
  const { chain } = scene;
  scene.view({ primary: 1, members: [1], candidates: [2], transfer: true, chain });
  await scene.complete(2);
  assert.equal(damaged(), undefined);
  scene.view({ primary: 2, members: [1, 2], chain: scene.chain });
  assert.deepEqual([await scene.at(7), await scene.at(8)], ["new", "lost here"]);
});

test("what a view cut from a log stays cut, though only a checkpoint knows of it", async () => {
  const scene = await MapScene.begin([1, 2, 3]);
  await scene.put(7, "old");
  // Brick 2 logs a write that brick 3 never hears of, and a view cuts it before it is flushed.
  scene.slowDisk(2, 100);
  scene.cut(1, 3);
  const lost = scene.post(7, "cut");
  await scene.world.runUntil(() => scene.replica(2).undurable.size === 1);
  scene.crash(1);
  scene.view({ primary: 3, members: [2, 3], chain: scene.chain });
  await scene.world.runUntil(() => scene.replica(2).cuts.length === 1);
  scene.node(2).store.checkpoint();
  await scene.world.complete(scene.node(2).store.checkpointed());
  // The flush that was under way ends; the one that tells of the cut does not begin.
  await scene.world.runUntil(() => scene.replica(2).undurable.size === 0);
  scene.crash(2);
  scene.slowDisk(2, 1);
  // Under the op of what was cut comes an UNMAP.
  const unmap = scene.post(7, null);
  await scene.run();
  scene.view({ primary: 3, members: [3], chain: scene.chain });
  await scene.run();
  assert.equal(await scene.at(7), null);
  const { chain } = scene;
  scene.view({ primary: 3, members: [3], candidates: [2], transfer: true, chain });
  await scene.start(2);
  await scene.complete(2);
  scene.view({ primary: 2, members: [2, 3] });
  assert.equal(await scene.at(7), null);
  assert.deepEqual([lost.statuses, unmap.statuses], [[], []]);
});

test("a backup that starts anew is greeted again, though the first greeting is lost and nobody writes", async () => {
  const scene = await MapScene.begin([1, 2]);
  await scene.put(1, "before");
  await scene.run(1000);
  await scene.restart(2);
  scene.world.network.set(1, 2, { cut: true });
  await scene.run(1000);
  scene.heal();
  await scene.run(1000);
  const { role } = scene.replica(2);
  assert.ok(role.is === "backup" && role.startDurable);
});
