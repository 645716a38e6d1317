import assert from "node:assert/strict";
import { test } from "node:test";
import { ClusterScene } from "./cluster-scene.test-support.ts";

/** Who may act, and until when. docs/simulation.md names the rules. */

test("a deposed Raft leader renews no lease, not even its own", async () => {
  const scene = await ClusterScene.begin();
  const deposed = scene.raftLeader;
  await scene.write(deposed, 1, "old");
  scene.watchLeases();
  scene.isolate(deposed);
  await scene.until(() => scene.isDown(deposed));
  const other = scene.otherThan(deposed);
  await scene.write(other, 1, "new");
  assert.equal(await scene.answerTo(scene.askRead(deposed, 1), 500), null);
  assert.deepEqual(scene.staleLeases, []);
});

test("a lease is counted from when it was asked for", async () => {
  const scene = await ClusterScene.begin();
  const leader = scene.raftLeader;
  const cut = scene.otherThan(leader);
  scene.watchLeases();
  // Its keepalives arrive, and what is answered waits; then it hears all answers and says no more.
  scene.hold(leader, cut);
  await scene.run(1900);
  scene.cluster.world.network.set(cut, leader, { cut: true });
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
