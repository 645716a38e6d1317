import assert from "node:assert/strict";
import { test } from "node:test";
import { grainBytes } from "../../../brick/units.ts";
import { ClusterScene } from "./cluster-scene.test-support.ts";

/** Where copies are made again, and where not. docs/simulation.md names the rules. */

test("a brick that is given up while another one is emptied is walked for as well", async () => {
  const scene = await ClusterScene.begin({ bricks: 4 });
  // Neither has a part in the shard, so that no view changes.
  const { members, primary: portal } = scene.shard();
  const [emptied, lost] = scene.cluster.bricks.filter((brick) => !members.includes(brick));
  const grains = Array.from({ length: 12 }, (_, grain) => grain);
  for (const grain of grains) await scene.write(portal, grain, `chunk ${grain}`, grainBytes);
  scene.crash(lost!);
  await scene.until(() => scene.isDown(lost!));
  await scene.cluster.submit({ type: "drainBrick", number: emptied!, drain: true });
  const pending = () => scene.node(portal).repair.pendingShards().length;
  await scene.until(() => pending() > 0);
  await scene.until(() => pending() === 0);
  await scene.cluster.submit({ type: "brickFailed", number: lost! });
  const isSafe = (grain: number) =>
    scene.copiesOf(grain).filter((brick) => brick !== emptied).length >= 2;
  await scene.until(() => grains.every(isSafe));
  for (const grain of grains) assert.equal(await scene.read(portal, grain), `chunk ${grain}`);
});

test("a reboot copies no chunk, and neither does a brick that stays away", async () => {
  const scene = await ClusterScene.begin({ bricks: 4 });
  const away = scene.otherThan(scene.raftLeader);
  const portal = scene.raftLeader;
  const grains = Array.from({ length: 8 }, (_, grain) => grain);
  for (const grain of grains) await scene.write(portal, grain, `chunk ${grain}`, grainBytes);
  assert.ok(grains.some((grain) => scene.copiesOf(grain).includes(away)));
  scene.crash(away);
  await scene.until(() => scene.isDown(away));
  await scene.run(20_000);
  assert.equal(scene.cluster.copiedBytes, 0);
  await scene.start(away);
  await scene.back(away);
  await scene.run(3000);
  assert.equal(scene.cluster.copiedBytes, 0);
  for (const grain of grains) assert.equal(scene.copiesOf(grain).length, 2);
});
