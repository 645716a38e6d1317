import assert from "node:assert/strict";
import { test } from "node:test";
import { grainBytes } from "../../../brick/units.ts";
import { ClusterScene } from "./cluster-scene.test-support.ts";

/** Who may act, and until when. docs/simulation.md names the rules. */

test("a deposed Raft leader renews no lease, not even its own", async () => {
  const scene = await ClusterScene.begin();
  const deposed = scene.raftLeader;
  await scene.write(deposed, 1, "old");
  scene.watchLeases();
  // Another one is elected, and it does not hear of that.
  const other = scene.otherThan(deposed);
  for (const brick of scene.cluster.bricks) {
    scene.cluster.world.network.set(brick, deposed, { cut: brick !== deposed });
  }
  await scene.handOver(other);
  scene.isolate(deposed);
  await scene.until(() => scene.isDown(deposed));
  await scene.write(other, 1, "new");
  assert.equal(await scene.answerTo(scene.askRead(deposed, 1), 500), null);
  assert.deepEqual(scene.staleLeases, []);
});

test("a lease is counted from when it was asked for", async () => {
  const scene = await ClusterScene.begin();
  const leader = scene.raftLeader;
  const cut = scene.otherThan(leader);
  scene.watchLeases();
  // Its keepalives arrive, and what is answered waits; it says no more, and hears the answers late.
  scene.hold(leader, cut);
  await scene.run(800);
  scene.cluster.world.network.set(cut, leader, { cut: true });
  await scene.run(1000);
  scene.hold(leader, cut, false);
  await scene.until(() => scene.isDown(cut));
  await scene.run(1000);
  assert.deepEqual(scene.staleLeases, []);
});

test("a new Raft leader waits one lease before it gives a brick up", async () => {
  const scene = await ClusterScene.begin({ bricks: 4 });
  const cut = scene.cluster.bricks.find((brick) => !scene.state.bricks[brick]!.voter)!;
  scene.watchLeases();
  await scene.until(() => scene.isLeased(cut, 1990));
  scene.isolate(cut);
  await scene.handOver(scene.otherThan(cut, scene.raftLeader));
  await scene.until(() => scene.isDown(cut));
  await scene.run(1000);
  assert.deepEqual(scene.staleLeases, []);
});

test("a brick whose clock runs slow is given up after its lease, not before", async () => {
  const scene = await ClusterScene.begin();
  const slow = scene.otherThan(scene.raftLeader);
  scene.watchLeases();
  scene.cluster.world.machine(slow).clock.setRate(0.953);
  await scene.until(() => scene.isLeased(slow, 1990));
  scene.isolate(slow);
  await scene.until(() => scene.isDown(slow));
  await scene.run(500);
  assert.deepEqual(scene.staleLeases, []);
});

test("a gateway that was frozen does not answer what it had under way", async () => {
  const scene = await ClusterScene.begin();
  const { primary } = scene.shard();
  const frozen = scene.otherThan(primary, scene.raftLeader);
  await scene.write(frozen, 1, "old", grainBytes);
  // Its answer is complete but for the chunk, which comes when it has thawed.
  for (const brick of scene.cluster.bricks) scene.hold(brick, frozen);
  const read = scene.askRead(frozen, 1);
  await scene.run(5);
  scene.cluster.world.machine(frozen).freeze(6000);
  scene.heal();
  await scene.until(() => scene.isDown(frozen));
  await scene.write(primary, 1, "new", grainBytes);
  await scene.run(8000);
  assert.notEqual(read.outcome, "old");
  assert.deepEqual(await scene.readEverywhere(1), new Set(["new"]));
});
