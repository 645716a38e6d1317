import assert from "node:assert/strict";
import { test } from "node:test";
import { type ShardRecord, shardsOfFamily } from "../../brick/cluster-state.ts";
import type { BrickNumber } from "../../brick/units.ts";
import { ClusterScene } from "./rules/cluster-scene.test-support.ts";
import { volumeName } from "./sim-cluster.ts";

/** Volumes whose shards follow their gateways (control/shard-homes.ts). */

const runGrains = 1024;
const transferMs = 60_000;

function shardsOf(scene: ClusterScene): ShardRecord[] {
  const { family } = scene.state.volumes[volumeName]!;
  return shardsOfFamily(scene.state, family).map((shard) => scene.state.shards[shard]!);
}

function isLedBy(scene: ClusterScene, brick: BrickNumber): boolean {
  return shardsOf(scene).every(
    ({ primary, candidates, members }) =>
      primary === brick && candidates.length === 0 && members.length === 2,
  );
}

/** The bricks that keep the volume's shards. */
function keepers(scene: ClusterScene): BrickNumber[] {
  return [...new Set(shardsOf(scene).flatMap(({ members }) => members))];
}

async function writeAll(scene: ClusterScene, through: BrickNumber, text: string): Promise<void> {
  for (let run = 0; run < 4; run += 1)
    await scene.write(through, run * runGrains, `${text} ${run}`);
}

async function readAll(scene: ClusterScene, through: BrickNumber): Promise<string[]> {
  const found: string[] = [];
  for (let run = 0; run < 4; run += 1) found.push(await scene.read(through, run * runGrains));
  return found;
}

function texts(text: string): string[] {
  return [0, 1, 2, 3].map((run) => `${text} ${run}`);
}

test("a new volume's shards come to its gateway, and small writes stay on two bricks", async () => {
  const scene = await ClusterScene.begin({ bricks: 4, shardCount: 8, shardSpan: 2 });
  await scene.read(4, 0);
  await scene.until(() => isLedBy(scene, 4));
  await writeAll(scene, 4, "first");
  assert.equal(scene.transferBytes, 0);
  const kept = keepers(scene);
  assert.equal(kept.length, 2);
  for (let run = 0; run < 4; run += 1) {
    assert.deepEqual(scene.copiesOf(run * runGrains).sort(), [...kept].sort());
  }
  // Every shard of the volume is used, and no other.
  assert.equal(shardsOf(scene).length, 2);
});

test("a gateway's reboot moves no map record and copies no chunk, whoever serves meanwhile", async () => {
  const scene = await ClusterScene.begin({ bricks: 4, shardCount: 8, shardSpan: 2 });
  await scene.read(2, 0);
  await scene.until(() => isLedBy(scene, 2));
  await writeAll(scene, 2, "before");
  // Who plans is told at intervals that the shards are empty no more.
  await scene.run(1000);
  const kept = keepers(scene);
  const heir = scene.otherThan(...kept);
  scene.crash(2);
  await scene.until(() => scene.isDown(2));
  assert.deepEqual(await readAll(scene, heir), texts("before"));
  await scene.run(transferMs / 4);
  await scene.start(2);
  await scene.back(2);
  assert.deepEqual(await readAll(scene, heir), texts("before"));
  assert.deepEqual(keepers(scene).sort(), [...kept].sort());
  assert.equal(scene.transferBytes, 0);
  assert.equal(scene.cluster.copiedBytes, 0);
  // It serves the volume for long: then the map comes to it, and still no chunk does.
  await scene.until(() => isLedBy(scene, heir), 3 * transferMs);
  assert.deepEqual(await readAll(scene, heir), texts("before"));
  await writeAll(scene, heir, "after");
  assert.deepEqual(await readAll(scene, heir), texts("after"));
  assert.equal(scene.cluster.copiedBytes, 0);
});

test("a cluster made by an older build keeps its volumes on all shards", async () => {
  const old = { oldest: 1, newest: 2 };
  const scene = await ClusterScene.begin({
    bricks: 3,
    shardCount: 8,
    shardSpan: 2,
    levelsOf: () => old,
  });
  assert.equal(scene.state.shardSpan, undefined);
  assert.equal(shardsOf(scene).length, 8);
  assert.ok((scene.state.level ?? 1) <= old.newest);
});
