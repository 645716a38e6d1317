import assert from "node:assert/strict";
import { after, beforeEach, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { type LoadReport, VerifiedLoad } from "../tools/load/verified-load-io.ts";
import { RealCluster, targetOf } from "../tools/real-cluster-io.ts";

/** Processes killed with -9 while initiators write, and everything that was acknowledged is read back. */

const areaBytes = 64 * 1024 * 1024;
const pauseMsMax = 10_000;
let seed = Number(process.env.SEED ?? Date.now() % 1_000_000_000);

function loadOn(cluster: RealCluster, portals: readonly number[], area = 0): VerifiedLoad {
  seed += 1;
  return new VerifiedLoad({
    portals: portals.map((number) => cluster.portal(number)),
    target: targetOf("disk0"),
    areaBytes,
    offsetBytes: area * areaBytes,
    depth: 16,
    seed,
  });
}

function assertUnbroken(report: LoadReport): void {
  const shown = JSON.stringify({ seed, ...report }, null, 2);
  assert.deepEqual(report.violations, [], shown);
  assert.deepEqual(report.refusals, {}, shown);
  assert.equal(report.disconnects, 0, shown);
  assert.ok(report.longestPauseMs < pauseMsMax, shown);
  assert.ok(report.longestCommandMs < pauseMsMax, shown);
}

async function assertNothingCopied(cluster: RealCluster, bricks: readonly number[]): Promise<void> {
  for (const number of bricks) {
    for (const name of ["endisk_repair_bytes_total", "endisk_rebalance_bytes_total"]) {
      assert.equal(await cluster.metric(number, name), 0, `${name} of brick ${number}`);
    }
  }
}

describe("one brick dies under load", () => {
  const cluster = new RealCluster({ restart: false });
  let area = 0;
  after(() => cluster.dispose());
  beforeEach(async () => {
    area += 1;
    if (area === 1) await cluster.start();
    for (const number of [1, 2, 3]) await cluster.waitHealthy(number);
  });

  for (const victim of [2, 3]) {
    test(`kill -9 of brick ${victim}: no error at portal 1, and nothing is copied`, async () => {
      const load = loadOn(cluster, [1], area);
      load.start();
      assert.ok(await load.progress(500, 30_000), "the load makes progress");
      cluster.kill(victim);
      assert.ok(await load.progress(2_000, 60_000), "the load goes on without the brick");
      cluster.startAgain(victim);
      await cluster.waitHealthy(victim);
      assert.ok(await load.progress(500, 30_000), "the load goes on with the brick");
      const report = await load.stop();
      assertUnbroken(report);
      assert.deepEqual(await load.verify(cluster.portal(1)), []);
      await assertNothingCopied(cluster, [1, 2, 3]);
    });
  }

  test("what was written while a brick was away is on two bricks", async () => {
    const load = loadOn(cluster, [1], area);
    cluster.kill(2);
    load.start();
    assert.ok(await load.progress(1_000, 60_000), "the load makes progress without brick 2");
    assertUnbroken(await load.stop());
    cluster.startAgain(2);
    await cluster.waitHealthy(2);
    await allWhole(cluster);
    // The other holder of everything written meanwhile: without it, the copies must suffice.
    cluster.kill(3);
    assert.deepEqual(await load.verify(cluster.portal(1)), []);
    cluster.startAgain(3);
    await cluster.waitHealthy(3);
    await assertNothingCopied(cluster, [1, 2, 3]);
  });

  test("kill -9 of brick 1: log-in through another portal finds all that was acknowledged", async () => {
    const load = loadOn(cluster, [1, 2, 3], area);
    load.start();
    assert.ok(await load.progress(500, 30_000), "the load makes progress");
    load.usePortals([cluster.portal(2), cluster.portal(3)]);
    cluster.kill(1);
    assert.ok(await load.progress(500, 60_000), "the load goes on through another portal");
    const report = await load.stop();
    assert.deepEqual(report.violations, [], JSON.stringify(report));
    assert.deepEqual(await load.verify(cluster.portal(2)), []);
    cluster.startAgain(1);
    await cluster.waitHealthy(1);
    assert.deepEqual(await load.verify(cluster.portal(1)), []);
    await assertNothingCopied(cluster, [1, 2, 3]);
  });

  test("a fourth brick joins under load and takes new chunks", async () => {
    const load = loadOn(cluster, [1], area);
    load.start();
    assert.ok(await load.progress(200, 30_000), "the load makes progress");
    const before = await cluster.status();
    const startedMs = performance.now();
    await cluster.startBrick(4);
    await cluster.waitFor("brick 4 up", 15_000, async () => {
      const { bricks } = await cluster.status();
      return bricks.some((brick) => brick.number === 4 && brick.status === "up");
    });
    assert.ok(performance.now() - startedMs < 15_000);
    await cluster.waitFor("chunks on brick 4", 30_000, async () => {
      return (await cluster.metric(4, "endisk_chunk_written_bytes_total")) > 0;
    });
    const after = await cluster.status();
    const free = (status: typeof after) =>
      status.volumes.find((volume) => volume.name === "disk0")!.freeBytes;
    assert.ok(free(after) > free(before), `${free(before)} then ${free(after)}`);
    assertUnbroken(await load.stop());
    assert.deepEqual(await load.verify(cluster.portal(2)), []);
  });
});

describe("the supervisor", () => {
  const cluster = new RealCluster({ restart: true });
  after(() => cluster.dispose());

  test("reports a brick that died and starts it again", async () => {
    await cluster.start();
    const pid = cluster.pid(2);
    cluster.kill(2);
    await cluster.waitFor("brick 2 started again", 30_000, async () => {
      return cluster.lines.some((line) => /^brick 2 died \(SIGKILL\)/.test(line));
    });
    await cluster.waitFor("another process", 30_000, async () => cluster.pidNow(2) !== pid);
    await cluster.waitHealthy(2);
    assert.equal(await cluster.stop(), 0);
  });

  test("killed itself, leaves bricks that stop, and a cluster that starts again", async () => {
    await cluster.start();
    await cluster.killAll([]);
    await cluster.start();
    assert.equal(await cluster.stop(), 0);
  });
});

describe("all bricks die at once under load", () => {
  const cluster = new RealCluster({ restart: false });
  after(() => cluster.dispose());

  test("kill -9 of all three, twice, and every acknowledged write is there", async () => {
    await cluster.start();
    const load = loadOn(cluster, [1]);
    for (let round = 1; round <= 2; round += 1) {
      if (round > 1) await cluster.start();
      load.start();
      const progressed = await load.progress(1_500, 60_000);
      assert.ok(progressed, `round ${round}: ${JSON.stringify(load.report)}`);
      await cluster.killAll([1, 2, 3]);
      await sleep(200);
      await load.stop();
    }
    await cluster.start();
    assert.deepEqual(await load.verify(cluster.portal(2)), []);
    await assertNothingCopied(cluster, [1, 2, 3]);
  });
});

/** Every shard has all its complete replicas up again. */
async function allWhole(cluster: RealCluster): Promise<void> {
  await cluster.waitFor("all shards whole", 60_000, async () => {
    const { shards } = await cluster.status();
    return shards.whole === shards.total;
  });
}
