import assert from "node:assert/strict";
import { test } from "node:test";
import type { BrickRecord } from "../brick/cluster-state.ts";
import { writePlacement } from "../brick/volume/placement.ts";
import type { Command } from "./commands.ts";
import { grownBricks } from "./growth.ts";
import { replicasNow } from "./shard-commands.ts";
import { announcement, facts, TestCluster } from "./testing.ts";

/** Another brick, up. */
function join(cluster: TestCluster, { spare = false, domain = "" } = {}): number {
  const number = cluster.state.brickNumberNext;
  const id = `token-${number}`;
  const tokenHash = "a".repeat(64);
  cluster.ok({ type: "addJoinToken", id, hash: tokenHash, lifeMs: 60_000 });
  const brick = { ...facts(number, 0), domain, spare };
  cluster.ok({ type: "joinBrick", tokenId: id, tokenHash, ...brick });
  cluster.ok({ ...announcement(number, 1), domain } as Command);
  return number;
}

/** As many bricks as are used by so much of their capacity. */
function clusterUsed(bricks: number, usedShare: number): TestCluster {
  const cluster = new TestCluster(bricks, 4);
  for (const { number, capacityBytes } of Object.values(cluster.state.bricks)) {
    if (usedShare > 0) space(cluster, number, usedShare * capacityBytes);
  }
  return cluster;
}

function space(cluster: TestCluster, number: number, usedBytes: number, full = false): void {
  const { capacityBytes } = cluster.state.bricks[number]!;
  cluster.ok({ type: "brickSpace", number, capacityBytes, usedBytes, full });
}

function brick(cluster: TestCluster, number: number): BrickRecord {
  return cluster.state.bricks[number]!;
}

test("a brick that joins bricks with data grows until it has its share", () => {
  const cluster = clusterUsed(3, 0.5);
  const number = join(cluster);
  assert.equal(brick(cluster, number).growing, true);
  assert.deepEqual(grownBricks(cluster.state), []);
  space(cluster, number, 0.44 * brick(cluster, number).capacityBytes);
  assert.deepEqual(grownBricks(cluster.state), []);
  space(cluster, number, 0.46 * brick(cluster, number).capacityBytes);
  assert.deepEqual(
    grownBricks(cluster.state).map((one) => one.number),
    [number],
  );
  cluster.ok({ type: "brickGrown", number });
  assert.equal(brick(cluster, number).growing, undefined);
});

test("one that joins empty bricks, or is merely away while they fill, never grows", () => {
  const cluster = clusterUsed(3, 0);
  const number = join(cluster);
  assert.equal(brick(cluster, number).growing, undefined);
  cluster.ok({ type: "brickDown", number, boot: brick(cluster, number).boot });
  for (const other of [1, 2, 3]) space(cluster, other, 0.9 * brick(cluster, other).capacityBytes);
  cluster.ok({ type: "brickUp", number, boot: brick(cluster, number).boot });
  assert.equal(brick(cluster, number).growing, undefined);
});

test("a spare takes no chunk and no replica until a brick is lost, and then that one's place", () => {
  for (const how of ["failed", "removed"] as const) {
    const cluster = clusterUsed(3, 0.5);
    const wanted = replicasNow(cluster.state);
    const spare = join(cluster, { spare: true });
    assert.equal(brick(cluster, spare).spare, true);
    assert.equal(replicasNow(cluster.state), wanted);
    assert.ok(!writePlacement(cluster.state).order(Buffer.alloc(32)).includes(spare));
    cluster.ok({ type: "brickDown", number: 3, boot: brick(cluster, 3).boot });
    assert.equal(brick(cluster, spare).spare, true);
    if (how === "failed") cluster.ok({ type: "brickFailed", number: 3 });
    else cluster.ok({ type: "removeBrick", number: 3, emptied: false, force: true });
    assert.equal(brick(cluster, spare).spare, undefined);
    assert.equal(brick(cluster, spare).growing, true);
    assert.ok(writePlacement(cluster.state).order(Buffer.alloc(32)).includes(spare));
  }
});

test("of several spares one is used: in the lost one's failure domain if there is one", () => {
  const cluster = clusterUsed(2, 0.5);
  const lost = join(cluster, { domain: "b" });
  const spares = [
    join(cluster, { spare: true, domain: "a" }),
    join(cluster, { spare: true, domain: "b" }),
    join(cluster, { spare: true, domain: "b" }),
  ];
  cluster.ok({ type: "brickDown", number: lost, boot: brick(cluster, lost).boot });
  cluster.ok({ type: "brickFailed", number: lost });
  const left = spares.filter((one) => brick(cluster, one).spare === true);
  assert.deepEqual(left, [spares[0], spares[2]]);
  // Giving it up for good after that is no second loss.
  cluster.ok({ type: "removeBrick", number: lost, emptied: false, force: true });
  assert.equal(brick(cluster, spares[0]!).spare, true);
  // Nor is the loss of a spare.
  cluster.ok({ type: "brickDown", number: spares[0]!, boot: brick(cluster, spares[0]!).boot });
  cluster.ok({ type: "brickFailed", number: spares[0]! });
  assert.equal(brick(cluster, spares[2]!).spare, true);
});

test("a spare may be used by hand, and rebalancing be told when", () => {
  const cluster = clusterUsed(3, 0.5);
  const spare = join(cluster, { spare: true });
  cluster.ok({ type: "useSpare", number: spare });
  assert.equal(brick(cluster, spare).growing, true);
  assert.equal(cluster.refused({ type: "useSpare", number: spare }), "no_change");
  assert.equal(cluster.refused({ type: "setRebalance", mode: "idle" }), "no_change");
  cluster.ok({ type: "setRebalance", mode: "off" });
  assert.equal(cluster.state.rebalance, "off");
});
