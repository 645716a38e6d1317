import assert from "node:assert/strict";
import { test } from "node:test";
import { isReachable } from "../../brick/cluster-state.ts";
import { type BrickNumber, grainBytes, MiB } from "../../brick/units.ts";
import { SimCluster } from "./sim-cluster.ts";

/** Three bricks, of which one is lost for good with its vote and its data, whichever it is. */

const offsets = Array.from({ length: 16 }, (_, index) => index * 200 * grainBytes);

async function readBack(cluster: SimCluster, through: BrickNumber): Promise<void> {
  for (const [index, offset] of offsets.entries()) {
    const read = cluster.volumeAt(through)!.read(offset, grainBytes);
    const result = await cluster.world.complete(read, 120_000);
    assert.ok(result.ok, `${offset}: ${JSON.stringify(result)}`);
    assert.ok(Buffer.concat(result.buffers).every((byte) => byte === index + 1));
  }
}

for (const lost of [1, 2, 3]) {
  test(`brick ${lost} of three is given up while its vote still counts, and replaced`, async () => {
    const cluster = new SimCluster({
      seed: 40 + lost,
      bricks: 3,
      shardCount: 4,
      volumeBytes: 256 * MiB,
      copies: 2,
    });
    await cluster.create();
    const state = () => cluster.anyNode()!.control.state();
    await cluster.world.runUntil(() => Object.values(state().bricks).every((one) => one.voter));
    const [through, other] = [1, 2, 3].filter((number) => number !== lost) as [number, number];
    for (const [index, offset] of offsets.entries()) {
      const data = Buffer.alloc(grainBytes, index + 1);
      const written = cluster.volumeAt(through)!.write(offset, [data]);
      assert.deepEqual(await cluster.world.complete(written), { ok: true });
    }
    cluster.dismiss(lost);
    await cluster.world.runUntil(() => !isReachable(state().bricks[lost]));
    await cluster.submit({ type: "removeBrick", number: lost, emptied: false, force: true });
    await cluster.world.runUntil(() => !state().bricks[lost]!.voter, 120_000);
    const fresh = await cluster.join();
    const votes = () => Object.values(state().bricks).filter((one) => one.voter).length;
    await cluster.world.runUntil(() => votes() === 3, 300_000);
    await cluster.world.runUntil(() => cluster.isWhole(), 300_000);
    const nodes = () => [...cluster.nodes.values()];
    const isInOrder = () => nodes().every((node) => node.repair.pendingShards().length === 0);
    await cluster.world.runUntil(isInOrder, 300_000);
    // The second holder of everything that the lost brick had, and one of the three votes.
    cluster.crash(other);
    await readBack(cluster, through);
    await readBack(cluster, fresh);
  });
}
