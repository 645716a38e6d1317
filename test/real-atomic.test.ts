import assert from "node:assert/strict";
import { after, before, describe, type TestContext, test } from "node:test";
import { CounterStorm } from "../tools/load/counter-storm-io.ts";
import { RealCluster, targetOf } from "../tools/real-cluster-io.ts";

/**
 * COMPARE AND WRITE by four sessions through three portals, as ESXi's locks and heartbeats use it:
 * no update is lost, and no miscompare is told while the sector is as it was read.
 */

const portalsOfSessions = [1, 2, 3, 2];
let seed = Number(process.env.SEED ?? Date.now() % 1_000_000_000);

function stormOn(context: TestContext, cluster: RealCluster, volume: string): CounterStorm {
  seed += 1;
  const storm = new CounterStorm({
    portals: portalsOfSessions.map((number) => cluster.portal(number)),
    target: targetOf(volume),
    workersPerSession: 8,
    sharedSectors: 4,
    seed,
  });
  context.after(() => storm.stop());
  return storm;
}

describe("COMPARE AND WRITE through three portals", () => {
  const volumes = ["calm", "killed"];
  const cluster = new RealCluster({
    restart: false,
    volumes: volumes.map((volume) => `${volume}:1GiB`),
  });
  before(() => cluster.start());
  after(() => cluster.dispose());

  test("a storm of updates loses none, and every miscompare has its reason", async (context) => {
    const storm = stormOn(context, cluster, "calm");
    const startedMs = performance.now();
    storm.start();
    const progressed = await storm.progress(4_000, 90_000);
    const report = await storm.stop();
    const seconds = (performance.now() - startedMs) / 1000;
    const shown = JSON.stringify({ seed, ...report });
    const answered = (report.written + report.miscompared) / seconds;
    context.diagnostic(`${Math.round(answered)} COMPARE AND WRITE a second: ${shown}`);
    assert.ok(progressed, shown);
    assert.deepEqual(await storm.violations(cluster.portal(3)), [], shown);
    assert.deepEqual(report.refusals, {}, shown);
    assert.equal(report.disconnects, 0, shown);
    // Every worker goes for the shared sectors half of the time: were they never in each other's
    // way, the test would not test.
    assert.ok(report.miscompared > 0, shown);
  });

  test("a storm goes on when the volume's gateway dies, and loses none either", async (context) => {
    const storm = stormOn(context, cluster, "killed");
    storm.start();
    assert.ok(await storm.progress(500, 60_000), JSON.stringify(storm.report));
    const { volumes: now } = await cluster.status();
    const victim = now.find((volume) => volume.name === "killed")!.attachedBrick;
    cluster.kill(victim);
    assert.ok(await storm.progress(500, 60_000), JSON.stringify(storm.report));
    cluster.startAgain(victim);
    await cluster.waitHealthy(victim);
    assert.ok(await storm.progress(500, 60_000), JSON.stringify(storm.report));
    const report = await storm.stop();
    const shown = JSON.stringify({ seed, victim, ...report });
    context.diagnostic(shown);
    const elsewhere = portalsOfSessions.find((number) => number !== victim)!;
    assert.deepEqual(await storm.violations(cluster.portal(elsewhere)), [], shown);
    assert.ok(report.disconnects > 0, shown);
  });
});
