import assert from "node:assert/strict";
import { test } from "node:test";
import { isSteady, isTooOld, LiveBranches, sweepBefore } from "../brick/gc/epochs.ts";
import { planGc } from "./gc-planner.ts";
import { TestCluster } from "./testing.ts";

function round(cluster: TestCluster, between: () => void = () => {}): void {
  const { gcEpoch } = cluster.state;
  cluster.ok({ type: "beginGc", expect: gcEpoch });
  between();
  cluster.ok({ type: "finishGc", epoch: gcEpoch + 1 });
}

const before = (cluster: TestCluster, brick: number, boot = 1) =>
  sweepBefore(cluster.state, brick, boot);

test("a brick sweeps once it was there for two whole epochs, and then what is older than both", () => {
  const cluster = new TestCluster(3);
  assert.equal(before(cluster, 1), null);
  round(cluster);
  assert.equal(before(cluster, 1), null);
  round(cluster);
  assert.equal(before(cluster, 1), 1);
  cluster.ok({ type: "beginGc", expect: 2 });
  // The present epoch is not marked: the one before still counts.
  assert.equal(before(cluster, 1), 1);
  cluster.ok({ type: "finishGc", epoch: 3 });
  assert.equal(before(cluster, 1), 2);
  assert.equal(before(cluster, 1, 2), null);
});

test("who was away, however shortly, or restarted, begins anew", () => {
  for (const leave of [
    (cluster: TestCluster) => {
      cluster.down(2);
      cluster.up(2);
    },
    (cluster: TestCluster) => cluster.announce(2, 2),
  ]) {
    const cluster = new TestCluster(3);
    round(cluster);
    round(cluster);
    const boot = () => cluster.state.bricks[2]!.boot;
    round(cluster, () => {
      assert.equal(isSteady(cluster.state, 2), true);
      leave(cluster);
      assert.equal(isSteady(cluster.state, 2), false);
    });
    assert.equal(before(cluster, 2, boot()), null);
    assert.equal(before(cluster, 3), 2);
    round(cluster);
    assert.equal(before(cluster, 2, boot()), null);
    round(cluster);
    assert.equal(before(cluster, 2, boot()), 4);
  }
});

test("an epoch begins only when the one before is marked, and ends once", () => {
  const cluster = new TestCluster(3);
  cluster.ok({ type: "beginGc", expect: 0 });
  assert.equal(cluster.refused({ type: "beginGc", expect: 0 }), "stale");
  assert.equal(cluster.refused({ type: "beginGc", expect: 1 }), "not_now");
  assert.equal(cluster.refused({ type: "finishGc", epoch: 2 }), "stale");
  cluster.ok({ type: "finishGc", epoch: 1 });
  assert.equal(cluster.refused({ type: "finishGc", epoch: 1 }), "no_change");
});

test("the leader begins an epoch when somebody wants it, and ends it when every shard is marked", () => {
  const cluster = new TestCluster(3, 2);
  const timing = { gcEveryMs: 1000, gcUrgentEveryMs: 10 };
  const seen = { nowMs: 0, timing, marked: new Set<number>(), garbage: [] };
  const wanted = [{ wantedEpoch: 2, urgent: false }];
  assert.equal(planGc(cluster.state, seen), null);
  const begin = { type: "beginGc", expect: 0 } as const;
  assert.deepEqual(planGc(cluster.state, { ...seen, garbage: wanted }), begin);
  cluster.ok(begin);
  assert.equal(planGc(cluster.state, { ...seen, marked: new Set([1]) }), null);
  const finish = { type: "finishGc", epoch: 1 } as const;
  assert.deepEqual(planGc(cluster.state, { ...seen, marked: new Set([0, 1]) }), finish);
  cluster.ok(finish);
  const begunMs = cluster.state.gc!.begunMs;
  const at = (nowMs: number, urgent: boolean) =>
    planGc(cluster.state, { ...seen, nowMs, garbage: [{ wantedEpoch: 2, urgent }] });
  assert.equal(at(begunMs + 999, false), null);
  assert.deepEqual(at(begunMs + 1000, false), { type: "beginGc", expect: 1 });
  assert.equal(at(begunMs + 9, true), null);
  assert.deepEqual(at(begunMs + 10, true), { type: "beginGc", expect: 1 });
  // Wanted up to the present epoch: done.
  const done = { ...seen, nowMs: begunMs + 5000, garbage: [{ wantedEpoch: 1, urgent: true }] };
  assert.equal(planGc(cluster.state, done), null);
});

test("the fence tolerates one epoch's change", () => {
  assert.equal(isTooOld(5, 5), false);
  assert.equal(isTooOld(5, 6), false);
  assert.equal(isTooOld(5, 7), true);
  assert.equal(isTooOld(8, 7), false);
});

test("a branch is dead once its volume is; one that is not known yet lives", () => {
  const cluster = new TestCluster(3);
  const branches = new LiveBranches();
  const volume = { sizeBytes: 2 ** 20, copies: 2, degradedWrites: true };
  const uuid = "1".repeat(32);
  const branch = cluster.ok({ type: "createVolume", name: "a", uuid, ...volume });
  assert.equal(branches.copiesOf(cluster.state, branch), 2);
  assert.notEqual(branches.copiesOf(cluster.state, branch + 1), null);
  cluster.ok({ type: "deleteVolume", name: "a" });
  assert.equal(branches.copiesOf(cluster.state, branch), null);
  cluster.ok({ type: "forgetVolume", uuid });
  assert.equal(branches.copiesOf(cluster.state, branch), null);
});
