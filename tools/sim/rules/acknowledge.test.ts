import assert from "node:assert/strict";
import { test } from "node:test";
import { gatewayBrick } from "../../../brick/map/map-cluster.test-support.ts";
import { encodeReplicaHead } from "../../../brick/map/replica-messages.ts";
import { windowSpanMax } from "../../../brick/map/windows.ts";
import { messageType } from "../../../brick/rpc/message-types.ts";
import { MapScene } from "./map-scene.test-support.ts";

/** When a shard may answer, and what an answer stands for. docs/simulation.md names the rules. */

test("an acknowledgement waits for a candidate as for a member", async () => {
  const scene = await MapScene.begin([1, 2]);
  scene.crash(2);
  scene.view({ primary: 1, members: [1], candidates: [3], chain: scene.chain });
  await scene.put(1, "before");
  scene.cut(1, 3);
  const write = scene.post(2, "on both");
  await scene.run(1000);
  assert.deepEqual(write.statuses, []);
  scene.heal();
  await scene.run();
  assert.deepEqual(write.statuses, ["ok"]);
});

test("a primary that is alone answers once its own log has it", async () => {
  const scene = await MapScene.begin([1]);
  scene.slowDisk(1, 100);
  const write = scene.post(1, "durable");
  await scene.run(5);
  assert.deepEqual(write.statuses, []);
  await scene.run();
  assert.deepEqual(write.statuses, ["ok"]);
});

test("a lease that ends while backups are waited for ends the answer", async () => {
  const scene = await MapScene.begin([1, 2], 3000);
  scene.hold(2, 1);
  const write = scene.post(1, "late");
  await scene.run(3000);
  scene.hold(2, 1, false);
  await scene.run();
  assert.deepEqual(write.statuses, []);
});

test("an acknowledgement of an older view stands for nothing in the present one", async () => {
  const scene = await MapScene.begin([1, 2]);
  await scene.put(1, "before");
  const { view } = scene.shard;
  scene.view({ primary: 1, members: [1, 2], chain: [] });
  await scene.put(1, "in the new view");
  scene.slowDisk(2, 1000);
  const write = scene.post(2, "not on both");
  await scene.run(50);
  const { shard, facts } = scene.replica(1);
  const ackOf = (of: number) =>
    encodeReplicaHead({ kind: "ack", shard, view: of, op: facts.lastOp });
  scene.node(2).calls.tell(1, messageType.mapReplica, [ackOf(view)]);
  await scene.run(50);
  assert.deepEqual(write.statuses, []);
  scene.node(2).calls.tell(1, messageType.mapReplica, [ackOf(scene.shard.view)]);
  await scene.run(50);
  assert.deepEqual(write.statuses, ["ok"]);
});

test("a write taken over from an older view is answered when the new view has it", async () => {
  const scene = await MapScene.begin([1, 2]);
  scene.cut(1, 2);
  const first = scene.post(1, "taken over", { sequence: 1 });
  await scene.run();
  scene.crash(2);
  scene.view({ primary: 1, members: [1], candidates: [3], chain: scene.chain });
  scene.cut(1, 3);
  const again = scene.post(1, "taken over", { sequence: 1 });
  await scene.run(1000);
  assert.deepEqual([...first.statuses, ...again.statuses], []);
  scene.heal();
  await scene.run(1000);
  assert.deepEqual(again.statuses, ["ok"]);
});

test("a chunk inside a write that a narrower view took over is told to be on its bricks alone", async () => {
  const scene = await MapScene.begin([1, 2, 3]);
  scene.cut(1, 2);
  const first = scene.post(1, "taken over", { sequence: 1 });
  await scene.run();
  scene.crash(2);
  scene.view({ primary: 1, members: [1, 3], chain: scene.chain });
  const again = scene.post(1, "taken over", { sequence: 1 });
  await scene.run(1000);
  assert.deepEqual([first.statuses, again.statuses], [[], ["ok"]]);
  assert.deepEqual(again.holders, [1, 3]);
});

test("a chunk inside a write that landed in an older view is told to be where that had it", async () => {
  const scene = await MapScene.begin([1, 2]);
  await scene.put(1, "landed", { sequence: 1 });
  scene.crash(2);
  const { chain } = scene;
  scene.view({ primary: 1, members: [1], candidates: [3], transfer: true, chain });
  await scene.complete(3);
  scene.view({ primary: 1, members: [1, 3] });
  const again = scene.post(1, "landed", { sequence: 1 });
  await scene.run();
  assert.deepEqual([again.statuses, again.holders], [["ok"], [1, 2]]);
});

test("a write that only its dead primary had is taken back there, and what took its place stays", async () => {
  const scene = await MapScene.begin([1, 2]);
  await scene.put(7, "old");
  scene.cut(1, 2);
  const lost = scene.post(7, "reverted");
  await scene.run();
  scene.crash(1);
  scene.heal();
  scene.view({ primary: 2, members: [2], candidates: [3], chain: scene.chain });
  await scene.put(7, "kept");
  await scene.start(1);
  const { chain } = scene;
  scene.view({ primary: 2, members: [2], candidates: [1, 3], transfer: true, chain });
  await scene.complete(1);
  scene.view({ primary: 1, members: [1, 2] });
  assert.equal(await scene.at(7), "kept");
  assert.deepEqual(lost.statuses, []);
});

test("a sequence below the low-water mark is refused, and changes nothing", async () => {
  const scene = await MapScene.begin();
  await scene.put(7, "first", { sequence: 1 });
  await scene.put(7, "second", { sequence: 2, lowWater: 2 });
  const again = scene.post(7, "first", { sequence: 1 });
  await scene.run();
  assert.deepEqual(again.statuses, ["refused"]);
  assert.equal(await scene.at(7), "second");
});

test("an UNMAP sent again after a change of view has landed once", async () => {
  const scene = await MapScene.begin();
  await scene.put(7, "first");
  scene.hold(1, gatewayBrick);
  const unmap = scene.post(7, null, { sequence: 2 });
  await scene.run();
  scene.crash(1);
  scene.view({ primary: 2, members: [2], chain: scene.chain });
  await scene.put(7, null, { sequence: 2 });
  await scene.put(7, "second", { sequence: 3 });
  const again = scene.post(7, null, { sequence: 2 });
  await scene.run();
  assert.deepEqual([unmap.statuses, again.statuses], [[], ["ok"]]);
  assert.equal(await scene.at(7), "second");
});

test("a candidate that comes to lead knows what was carried out before it joined", async () => {
  const scene = await MapScene.begin();
  await scene.put(7, "first", { sequence: 1 });
  await scene.put(7, "second", { sequence: 2 });
  scene.crash(2);
  const { chain } = scene;
  scene.view({ primary: 1, members: [1], candidates: [3], transfer: true, chain });
  await scene.complete(3);
  scene.view({ primary: 3, members: [1, 3] });
  await scene.put(7, "first", { sequence: 1 });
  assert.equal(await scene.at(7), "second");
});

test("what was carried out is known after power cuts of all", async () => {
  const scene = await MapScene.begin();
  await scene.put(7, "first", { sequence: 1 });
  await scene.put(7, "second", { sequence: 2 });
  for (const primary of [2, 1]) {
    await scene.restart(1, 2);
    scene.view({ primary, members: [1, 2] });
    await scene.run();
  }
  await scene.put(7, "first", { sequence: 1 });
  assert.equal(await scene.at(7), "second");
});

test("a fence is answered once every replica has logged it", async () => {
  const scene = await MapScene.begin();
  scene.cut(1, 2);
  const fence = scene.postFence(2);
  await scene.run();
  assert.deepEqual(fence.statuses, []);
  scene.heal();
  await scene.run();
  scene.crash(1);
  scene.view({ primary: 2, members: [2], chain: scene.chain });
  const old = scene.post(7, "of an attachment that has ended");
  await scene.run();
  assert.deepEqual([fence.statuses, old.statuses], [["ok"], ["fenced"]]);
});

test("a cancel is answered once every replica has logged it", async () => {
  const scene = await MapScene.begin();
  scene.cut(1, 2);
  const cancel = scene.postCancel(1);
  await scene.run();
  assert.deepEqual(cancel.statuses, []);
  scene.heal();
  await scene.run();
  scene.crash(1);
  scene.view({ primary: 2, members: [2], chain: scene.chain });
  const late = scene.post(7, "cancelled", { sequence: 1 });
  await scene.run();
  assert.deepEqual([cancel.statuses, late.statuses], [["cancelled"], ["cancelled"]]);
});

test("a sequence too far ahead of the low-water mark is refused", async () => {
  const scene = await MapScene.begin();
  const last = scene.post(7, "just inside", { sequence: windowSpanMax });
  const beyond = scene.post(8, "beyond", { sequence: windowSpanMax + 1 });
  await scene.run();
  assert.deepEqual([last.statuses, beyond.statuses], [["ok"], ["refused"]]);
});

test("a new primary shows nothing before what was answered under the old one", async () => {
  const scene = await MapScene.begin();
  await scene.put(7, "old");
  const write = scene.post(7, "answered a moment ago");
  await scene.world.runUntil(() => write.statuses.length === 1);
  scene.crash(1);
  scene.cut(2, 3);
  scene.view({ primary: 2, members: [2], candidates: [3], chain: scene.chain });
  await scene.run(1000);
  assert.equal(await scene.peek(7), "not_now");
  scene.heal();
  await scene.run(1000);
  assert.equal(await scene.at(7), "answered a moment ago");
});
