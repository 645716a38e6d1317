import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeMapReply, encodeMapRehint } from "../../brick/map/map-messages.ts";
import { messageType } from "../../brick/rpc/message-types.ts";
import { RepairScene } from "./repair-scene.test-support.ts";

test("a reboot gives repair nothing to do", async () => {
  const scene = new RepairScene(1);
  await scene.begin();
  const { cluster } = scene;
  for (const brick of [2, 4]) {
    await scene.crashForGood(brick);
    await cluster.world.runFor(20_000);
    cluster.start(brick);
    await cluster.settled();
    await cluster.world.runUntil(() => scene.isEmptied());
  }
  await cluster.world.runUntil(() => scene.isInOrder());
  assert.equal(cluster.copiedBytes, 0);
  await scene.readBack(2);
});

for (const command of ["removeBrick", "brickFailed"] as const) {
  test(`after ${command} of a dead brick, everything has its copies again`, async () => {
    const scene = new RepairScene(2);
    await scene.begin();
    const { cluster } = scene;
    const dead = scene.nonVoter();
    await scene.crashForGood(dead);
    assert.ok(!scene.isInOrder());
    if (command === "brickFailed") await cluster.submit({ type: command, number: dead });
    else await cluster.submit({ type: command, number: dead, emptied: false, force: true });
    await cluster.world.runUntil(() => scene.isInOrder(), 120_000);
    await cluster.world.runUntil(() => scene.isEmptied(), 120_000);
    assert.ok(scene.counters().repairBytes > 0);
    assert.equal(scene.counters().rebalanceBytes, 0);
    const another = scene.state.shards[0]!.primary;
    await scene.crashForGood(another);
    await scene.readBack([...cluster.nodes.keys()][0]!);
  });
}

test("a drained brick is emptied, goes, and is not missed", async () => {
  const scene = new RepairScene(3);
  await scene.begin();
  const { cluster } = scene;
  const leaving = scene.nonVoter();
  await cluster.world.runUntil(() => scene.isEmptied());
  const before = scene.state.version;
  await cluster.submit({ type: "drainBrick", number: leaving, drain: true });
  const nodes = () => [...cluster.nodes.values()];
  await cluster.world.runUntil(() => nodes().every((n) => n.control.state().version > before));
  assert.ok(!scene.isEmptied(), "nothing was looked at since");
  await cluster.world.runUntil(() => scene.isEmptied() && scene.hasLeftViews(leaving), 300_000);
  assert.ok(scene.isInOrder());
  assert.ok(scene.counters().rebalanceBytes > 0);
  assert.equal(scene.counters().repairBytes, 0);
  await cluster.submit({ type: "removeBrick", number: leaving, emptied: true, force: false });
  cluster.crash(leaving);
  await scene.readBack([...cluster.nodes.keys()][0]!);
});

test("a brick whose copies nobody can take is not emptied until somebody can", async () => {
  const scene = new RepairScene(4, { bricks: 3, copies: 3 });
  await scene.begin();
  const { cluster } = scene;
  await cluster.submit({ type: "drainBrick", number: 3, drain: true });
  await cluster.world.runFor(60_000);
  assert.ok(!scene.isEmptied());
  assert.equal(cluster.copiedBytes, 0);
  await cluster.join();
  await cluster.world.runUntil(() => scene.isEmptied(), 300_000);
  assert.ok(scene.counters().rebalanceBytes > 0);
  for (const { key } of scene.extents()) {
    for (const brick of [1, 2, 4]) assert.ok(cluster.nodes.get(brick)!.store.has(key));
  }
});

test("what is written while a brick drains does not stay behind on it", async () => {
  const scene = new RepairScene(5);
  await scene.begin();
  const { cluster } = scene;
  const leaving = scene.nonVoter();
  const { control } = cluster.anyNode()!;
  const drained = control.submit({ type: "drainBrick", number: leaving, drain: true });
  // Through the leaving brick itself, whose gateway and map replicas are in the middle of it.
  await scene.write(leaving);
  assert.ok((await cluster.world.complete(drained)).ok);
  await scene.write(leaving);
  await cluster.world.runUntil(() => scene.isEmptied() && scene.isInOrder(), 300_000);
  cluster.crash(leaving);
  await scene.readBack([...cluster.nodes.keys()][0]!);
});

test("what lands on a brick after its shard was found in order is moved as well", async () => {
  const scene = new RepairScene(6);
  await scene.begin();
  const { cluster } = scene;
  const leaving = scene.nonVoter();
  const held = new Set<string>();
  for (const { key, holders } of scene.extents()) {
    if (holders.includes(leaving)) held.add(key.toString("hex"));
  }
  await cluster.submit({ type: "drainBrick", number: leaving, drain: true });
  // A change of view begins every walk anew: none may come later and find by itself what lands.
  await cluster.world.runUntil(
    () => scene.isEmptied() && scene.isInOrder() && scene.hasLeftViews(leaving),
    300_000,
  );
  // As a gateway names it that did not know of the drain yet.
  const late = [...scene.extents()].find(({ key }) => held.has(key.toString("hex")))!;
  const { branch, generation, grain, key, replica } = late;
  const { shard, view } = replica;
  const holders = [leaving];
  const { gcEpoch } = scene.state;
  const request = { shard, view: view!.view, branch, generation, grain, key, holders, gcEpoch };
  const { calls } = cluster.nodes.get(leaving)!;
  const body = encodeMapRehint(request);
  const landed = new Promise<boolean>((resolve) => {
    calls.call(replica.self, messageType.mapRehint, body, 2000, (reply) => {
      resolve(reply.ok && decodeMapReply(reply.body)?.status === "ok");
    });
  });
  assert.ok(await cluster.world.complete(landed));
  assert.ok(!scene.isEmptied() && !scene.isInOrder());
  await cluster.world.runUntil(() => scene.isEmptied(), 300_000);
  assert.ok(scene.isInOrder());
});
