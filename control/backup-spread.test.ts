import assert from "node:assert/strict";
import { test } from "node:test";
import {
  grownModel,
  heldBy,
  membersOf,
  moved,
  offer,
  rest,
  span,
  stand,
} from "./backup-spread.test-support.ts";
import { emptyModel, type Model, transferAfterMs, writeAll } from "./planner-model.test-support.ts";

test("volumes made on two bricks are backed up evenly once there are eight, one after the other", () => {
  const cluster = grownModel(8, 16);
  for (let at = 0; at < 16; at += 1) cluster.attach(`v${at}`, (at % 8) + 1);
  stand(cluster);
  cluster.settle();
  const primaries = cluster.state.shards.map(({ primary }) => primary);
  const least = Math.min(...heldBy(cluster));
  const moves = rest(cluster, 16);
  assert.ok(moves > 4, `${moves} moves from ${least}`);
  assert.deepEqual(new Set(heldBy(cluster)), new Set([4 * span]));
  assert.deepEqual(
    cluster.state.shards.map(({ primary }) => primary),
    primaries,
    "gateways lead as before",
  );
  for (let at = 0; at < 16; at += 1) {
    const members = cluster.shardsOf(`v${at}`).map((shard) => shard.members.join());
    assert.equal(new Set(members).size, 1, "one backup for all shards of a volume");
  }
  cluster.assertWhole();
});

test("a gateway that serves all keeps its replicas; their backups are shared by the others", () => {
  const cluster = grownModel(5, 8);
  for (let at = 0; at < 8; at += 1) cluster.attach(`v${at}`, 1);
  stand(cluster);
  cluster.settle();
  rest(cluster, 8);
  const [first, ...others] = heldBy(cluster);
  assert.equal(first, 8 * span);
  assert.deepEqual(new Set(others), new Set([2 * span]));
});

test("what would leave two bricks as uneven as before, the other way round, does not move", () => {
  const cluster = emptyModel(3, 3 * span, span);
  cluster.setFull(2, true);
  for (let at = 0; at < 3; at += 1) cluster.attach(`v${at}`, 1);
  cluster.settle();
  writeAll(cluster);
  cluster.setFull(2, false);
  stand(cluster);
  cluster.settle();
  assert.deepEqual(heldBy(cluster), [3 * span, 0, 3 * span]);
  assert.equal(rest(cluster, 3), 1);
  assert.deepEqual(heldBy(cluster), [3 * span, span, 2 * span]);
});

test("by what bricks offer", () => {
  const cluster = grownModel(4, 12);
  offer(cluster, [1, 1, 1, 3], ["", "", "", ""]);
  for (let at = 0; at < 12; at += 1) cluster.attach(`v${at}`, 1);
  stand(cluster);
  cluster.settle();
  rest(cluster, 12);
  const [, two, three, four] = heldBy(cluster);
  assert.ok(four! >= 6 * span && two! + three! <= 6 * span, `${[two, three, four]}`);
});

test("a backup moves to another failure domain than the gateway's, or not at all", () => {
  const cluster = grownModel(5, 8);
  offer(cluster, [1, 1, 1, 1, 1], ["a", "", "a", "a", ""]);
  for (let at = 0; at < 8; at += 1) cluster.attach(`v${at}`, 1);
  stand(cluster);
  cluster.settle();
  rest(cluster, 8);
  assert.deepEqual(heldBy(cluster), [8 * span, 4 * span, 0, 0, 4 * span]);
});

test("bricks that are full, or fuller than others, take no backups", () => {
  const cluster = grownModel(4, 8);
  for (let at = 0; at < 8; at += 1) cluster.attach(`v${at}`, 1);
  stand(cluster);
  cluster.settle();
  cluster.setFull(3, true);
  cluster.fill(4, 0.3);
  const before = membersOf(cluster);
  assert.equal(rest(cluster, 1), 0);
  assert.deepEqual(membersOf(cluster), before);
  cluster.fill(4, 0);
  assert.equal(rest(cluster, 8), 4);
});

/** What keeps a cluster from being calm, and how it ends. */
const disturbances: { [name: string]: (cluster: Model) => () => void } = {
  "a brick that is down": (cluster) => {
    cluster.down(5);
    return () => cluster.up(5);
  },
  "a brick that drains": (cluster) => {
    cluster.ok({ type: "drainBrick", number: 5, drain: true });
    return () => cluster.ok({ type: "drainBrick", number: 5, drain: false });
  },
  "repair that is under way": (cluster) => {
    const repairing = (repairPending: number) => {
      const { capacityBytes, usedBytes, full } = cluster.state.bricks[5]!;
      const health = { corruptChunks: 0, repairPending };
      cluster.ok({ type: "brickSpace", number: 5, capacityBytes, usedBytes, full, health });
    };
    repairing(3);
    return () => repairing(0);
  },
  "a brick that has just restarted": (cluster) => {
    cluster.announce(5, 2);
    return () => cluster.announce(5, 3);
  },
};

test("backups move once the cluster has been calm for long: whatever disturbs it begins the time anew", () => {
  for (const [name, disturb] of Object.entries(disturbances)) {
    const cluster = grownModel(5, 8);
    const before = membersOf(cluster);
    const pass = (ms: number) => {
      cluster.nowMs += ms;
      cluster.settle();
    };
    pass(transferAfterMs - 1);
    const end = disturb(cluster);
    cluster.settle();
    pass(transferAfterMs - 1);
    end();
    cluster.settle();
    pass(transferAfterMs - 1);
    assert.deepEqual(moved(cluster, before), [], name);
    pass(1);
    assert.equal(moved(cluster, before).length, span, name);
  }
});

test("a backup leaves when the other is complete, and writes are on both until then", () => {
  const cluster = grownModel(5, 8);
  const before = membersOf(cluster);
  cluster.nowMs += transferAfterMs;
  cluster.plan();
  const begun = cluster.state.shards.filter(({ candidates }) => candidates.length > 0);
  assert.equal(begun.length, span);
  assert.equal(new Set(begun.map(({ candidates }) => candidates.join())).size, 1);
  assert.deepEqual(moved(cluster, before), []);
  for (let round = 0; round < 5; round += 1) {
    writeAll(cluster);
    cluster.plan();
    assert.deepEqual(moved(cluster, before), [], "not complete yet");
  }
  cluster.settle();
  assert.equal(moved(cluster, before).length, span);
  cluster.assertWhole();
});

test("a reboot in the middle of a move ends it, begins no other, and it is made up for later", () => {
  for (let lost = 1; lost <= 5; lost += 1) {
    const cluster = grownModel(5, 8);
    const before = membersOf(cluster);
    cluster.nowMs += transferAfterMs;
    cluster.plan();
    const to = cluster.state.shards.flatMap(({ candidates }) => candidates)[0]!;
    // One of the four has been moved already.
    const first = cluster.state.shards.findIndex(({ candidates }) => candidates.length > 0);
    for (const op of cluster.holds(first, cluster.state.shards[first]!.primary)) {
      cluster.holds(first, to).add(op);
    }
    cluster.plan();
    cluster.plan();
    assert.deepEqual(moved(cluster, before), [first]);
    cluster.down(lost);
    writeAll(cluster);
    cluster.plan();
    writeAll(cluster);
    cluster.announce(lost, 2);
    cluster.settle();
    assert.ok(
      moved(cluster, before).every((at) => Math.floor(at / span) === Math.floor(first / span)),
    );
    rest(cluster, 16);
    for (let at = 0; at < 8; at += 1) {
      const members = cluster.shardsOf(`v${at}`).map((shard) => shard.members.join());
      assert.equal(new Set(members).size, 1, "one backup for all shards of a volume");
    }
    cluster.assertWhole();
  }
});

test("reboots move nothing, also when backups take over for good", () => {
  const cluster = grownModel(8, 16);
  for (let at = 0; at < 16; at += 1) cluster.attach(`v${at}`, (at % 8) + 1);
  stand(cluster);
  cluster.settle();
  rest(cluster, 16);
  const before = membersOf(cluster);
  for (let number = 1; number <= 8; number += 1) {
    cluster.down(number);
    cluster.plan();
    for (let at = 0; at < 16; at += 1) {
      const { primary, members } = cluster.shardsOf(`v${at}`)[0]!;
      const held = Object.values(cluster.state.attachments)[at]!;
      if (held.brick === number) cluster.attach(`v${at}`, members.find((one) => one !== number)!);
      assert.notEqual(primary, number);
    }
    writeAll(cluster);
    cluster.announce(number, 2);
    cluster.settle();
    assert.equal(rest(cluster, 0), 0);
    assert.deepEqual(membersOf(cluster), before);
  }
  cluster.assertWhole();
});
