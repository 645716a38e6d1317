import assert from "node:assert/strict";
import { test } from "node:test";
import { brickOf, isReachable } from "../../brick/cluster-state.ts";
import { RepairScene } from "./repair-scene.test-support.ts";

/** Copies of everything that is mapped, each by how many bricks are named and how many have it. */
function copiesOf(scene: RepairScene): { named: number; there: number }[] {
  const nodes = [...scene.cluster.nodes.values()];
  return [...scene.extents()].map(({ key, holders }) => {
    const there = nodes.filter(({ store }) => store.has(key)).length;
    return { named: holders.length, there };
  });
}

/** Runs until there are exactly so many copies of everything, and never fewer on the way. */
async function trimmedTo(scene: RepairScene, copies: number): Promise<void> {
  const isTrimmed = () => {
    const all = copiesOf(scene);
    for (const { named, there } of all) {
      assert.ok(there >= copies && named >= copies, `${there} copies, named on ${named}`);
    }
    return all.length > 0 && all.every(({ named, there }) => named === copies && there === copies);
  };
  await scene.cluster.world.runUntil(isTrimmed, 600_000);
}

test("copies beyond what the volume asks for are named no more, and then swept", async () => {
  const scene = new RepairScene(31, { bricks: 4, gcEveryMs: 500 });
  const { cluster } = scene;
  await cluster.create();
  // Every shard has three replicas for the sake of another volume; small writes lie on all of them.
  await cluster.submit({
    type: "createVolume",
    name: "disk1",
    uuid: "fedcba9876543210".repeat(2),
    sizeBytes: cluster.options.volumeBytes,
    copies: 3,
    degradedWrites: true,
  });
  await cluster.world.runUntil(() =>
    scene.state.shards.every(({ members }) => members.length === 3),
  );
  await scene.write(1);
  assert.ok(copiesOf(scene).some(({ named, there }) => named === 3 && there === 3));
  await trimmedTo(scene, 2);
  await scene.readBack(2);
  assert.equal(cluster.copiedBytes, 0);
});

test("a brick that was given up and returns has surplus copies, which go", async () => {
  const scene = new RepairScene(32, { bricks: 4, gcEveryMs: 500 });
  await scene.begin();
  const { cluster } = scene;
  const dead = scene.nonVoter();
  await scene.crashForGood(dead);
  await cluster.submit({ type: "brickFailed", number: dead });
  await cluster.world.runUntil(() => scene.isEmptied() && scene.isInOrder(), 120_000);
  cluster.start(dead);
  await cluster.world.runUntil(
    () => cluster.nodes.has(dead) && isReachable(brickOf(scene.state, dead)),
  );
  assert.ok(copiesOf(scene).some(({ there }) => there > 2));
  await trimmedTo(scene, 2);
  await scene.readBack(dead);
});
