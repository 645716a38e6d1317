import assert from "node:assert/strict";
import { after, test } from "node:test";
import { VerifiedLoad } from "../tools/load/verified-load-io.ts";
import { RealCluster, targetOf } from "../tools/real-cluster-io.ts";

/** Small bricks under a small volume that is overwritten again and again. */

const MiB = 1024 * 1024;
const capacityBytes = 512 * MiB;
/** Of a brick of this capacity. */
const segmentBytes = 32 * MiB;
const areaBytes = 64 * MiB;
const bricks = [1, 2, 3];
const cluster = new RealCluster({ capacity: "512MiB", volumes: ["disk0:64MiB"] });
after(() => cluster.dispose());

const sum = async (name: string) => {
  const values = await Promise.all(bricks.map((number) => cluster.metric(number, name)));
  return values.reduce((total, value) => total + value, 0);
};

test("overwriting never fills the bricks, and a deleted volume's space comes back", async () => {
  await cluster.start();
  for (const number of bricks) await cluster.waitHealthy(number);
  const load = new VerifiedLoad({
    portals: [cluster.portal(1)],
    target: targetOf("disk0"),
    areaBytes,
    depth: 4,
    seed: Number(process.env.SEED ?? Date.now() % 1_000_000_000),
    readShare: 0.2,
    sizesBytes: [4096, 16_384, 65_536, 262_144],
  });
  load.start();
  // Nothing is collected, and every brick would be full long before.
  const wanted = 1.5 * bricks.length * capacityBytes;
  const isEnough = async () => (await sum("endisk_log_written_bytes_total")) > wanted;
  await cluster.waitFor("more than the capacity is written", 600_000, isEnough);
  const report = await load.stop();
  const shown = JSON.stringify(report, null, 2);
  assert.deepEqual(report.violations, [], shown);
  assert.deepEqual(report.refusals, {}, shown);
  assert.deepEqual(await load.verify(cluster.portal(2)), []);
  assert.ok((await sum("endisk_gc_recycled_segments_total")) > 10);

  const status = await cluster.status();
  const { usedBytes, freeBytes, reserveBytes, chunkBytes, overheadBytes } = status;
  assert.equal(usedBytes + freeBytes + reserveBytes, status.capacityBytes);
  assert.equal(chunkBytes + overheadBytes + status.reclaimableBytes, usedBytes);

  await cluster.endisk("volume", "delete", "disk0");
  const isBack = async () => {
    for (const number of bricks) {
      if ((await cluster.metric(number, "endisk_chunks")) > 0) return false;
      // The segment that is written now.
      if ((await cluster.metric(number, "endisk_used_bytes")) > segmentBytes) return false;
    }
    return true;
  };
  await cluster.waitFor("the space is back", 120_000, isBack);
  // Reclaiming copies nothing from brick to brick.
  assert.equal(await sum("endisk_repair_bytes_total"), 0);
  assert.equal(await sum("endisk_rebalance_bytes_total"), 0);
});
