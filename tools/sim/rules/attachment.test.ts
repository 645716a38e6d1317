import assert from "node:assert/strict";
import { test } from "node:test";
import { ClusterScene } from "./cluster-scene.test-support.ts";

/** Which gateway serves a volume, and what an older one may still do. docs/simulation.md names the rules. */

test("a gateway that restarts inside its lease takes a new epoch, and what it sent before is fenced", async () => {
  const scene = await ClusterScene.begin();
  const gateway = scene.otherThan(scene.shard().primary);
  await scene.write(gateway, 1, "first");
  const { primary } = scene.shard();
  assert.notEqual(primary, gateway);
  scene.hold(gateway, primary);
  scene.ask(gateway, 1, "of the old boot");
  await scene.run(20);
  scene.kill(gateway);
  const arrive = scene.cluster.world.network.takeHeld(gateway, primary);
  scene.hold(gateway, primary, false);
  await scene.start(gateway);
  await scene.write(gateway, 1, "second");
  arrive();
  await scene.run(500);
  assert.equal(await scene.read(gateway, 1), "second");
  await scene.write(gateway, 2, "third");
  assert.deepEqual(await scene.readEverywhere(2), new Set(["third"]));
});

test("an older attachment's write does not land after the takeover", async () => {
  const scene = await ClusterScene.begin({ bricks: 4 });
  const { primary } = scene.shard();
  const gateway = scene.otherThan(primary, scene.raftLeader);
  await scene.write(gateway, 1, "old");
  // It goes on sending to the shard, but nobody hears that it is alive.
  const others = scene.cluster.bricks.filter((brick) => brick !== gateway);
  for (const brick of others) scene.hold(gateway, brick);
  const late = scene.ask(gateway, 1, "late");
  await scene.run(20);
  await scene.until(() => scene.isDown(gateway));
  const next = scene.otherThan(gateway, primary);
  await scene.write(next, 1, "new");
  scene.heal();
  await scene.run(1000);
  assert.deepEqual(await scene.readEverywhere(1), new Set(["new"]));
  assert.notEqual(late.outcome, "good");
});
