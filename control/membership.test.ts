import assert from "node:assert/strict";
import { test } from "node:test";
import type { Keepalive, ShardStatus } from "./keepalive.ts";
import { noLease, reachVersion, takeGrant } from "./lease.ts";
import {
  arrivalCommand,
  beginBook,
  damageCommands,
  defaultTiming,
  grant,
  hear,
  heardBricks,
  type LeaderBook,
  landed,
  mayGrant,
  membershipCommands,
  shardReports,
} from "./membership.ts";
import { raftLimits } from "./raft/raft-limits.ts";
import { facts, TestCluster } from "./testing.ts";
import { planViews } from "./view-planner.ts";
import { planVoters, type RaftMembers, voterCommands, votersWanted } from "./voters.ts";

/** A leader that is itself no brick of the state. */
const nobody = { brick: 99, boot: 1 };
const day = defaultTiming.permanentAfterMs;

function keepalive(number: number, boot: number, shards: ShardStatus[] = []): Keepalive {
  const base = {
    clusterId: "",
    sentMs: 0,
    usedBytes: 0,
    full: false,
    cut: false,
    discarded: false,
  };
  return { ...base, ...facts(number, boot), shards };
}

function check(book: LeaderBook, cluster: TestCluster, nowMs: number, clusterNowMs = 1) {
  return membershipCommands(book, cluster.state, clusterNowMs, nowMs);
}

/** Looks every 100 ms, as the leader does, with brick 1 heard all along. */
function lookUntil(book: LeaderBook, cluster: TestCluster, fromMs: number, untilMs: number) {
  for (let nowMs = fromMs; nowMs < untilMs; nowMs += 100) {
    hear(book, 1, keepalive(1, 1), nowMs);
    assert.deepEqual(check(book, cluster, nowMs), [], `at ${nowMs}`);
  }
  hear(book, 1, keepalive(1, 1), untilMs);
  return check(book, cluster, untilMs);
}

test("a brick is down in the round in which its last lease has surely ended, not before", () => {
  const cluster = new TestCluster(2);
  const book = beginBook(defaultTiming, 0, nobody);
  hear(book, 2, keepalive(2, 1), 500);
  grant(book, 2, 500);
  const down = [{ type: "brickDown", number: 2, boot: 1 }];
  assert.deepEqual(lookUntil(book, cluster, 0, 2600), down);
  assert.deepEqual(check(book, cluster, 2650), [], "asked for once");
  landed(book, 2);
  hear(book, 1, keepalive(1, 1), 2700);
  assert.deepEqual(check(book, cluster, 2700), down);
});

test("the exact millisecond: lease plus drift margin after the grant", () => {
  for (const [nowMs, count] of [
    [2599, 0],
    [2600, 1],
  ] as const) {
    const cluster = new TestCluster(2);
    const book = beginBook(defaultTiming, 0, nobody);
    hear(book, 2, keepalive(2, 1), 500);
    grant(book, 2, 500);
    lookUntil(book, cluster, 0, 2500);
    assert.equal(check(book, cluster, nowMs).length, count, `at ${nowMs}`);
  }
});

test("a keepalive right before the end keeps the brick up", () => {
  const cluster = new TestCluster(2);
  const book = beginBook(defaultTiming, 0, nobody);
  hear(book, 2, keepalive(2, 1), 500);
  grant(book, 2, 500);
  lookUntil(book, cluster, 0, 2500);
  hear(book, 2, keepalive(2, 1), 2599);
  assert.deepEqual(lookUntil(book, cluster, 2600, 3700), []);
});

test("a new leader waits one lease, for it does not know what the old one granted", () => {
  const cluster = new TestCluster(2);
  const book = beginBook(defaultTiming, 10_000, nobody);
  assert.equal(lookUntil(book, cluster, 10_000, 12_100).length, 1);
});

test("a leader that slept gives everyone a full count anew", () => {
  const cluster = new TestCluster(2);
  const book = beginBook(defaultTiming, 0, nobody);
  hear(book, 2, keepalive(2, 1), 400);
  grant(book, 2, 400);
  check(book, cluster, 500);
  assert.deepEqual(check(book, cluster, 90_000), []);
  assert.deepEqual(lookUntil(book, cluster, 90_100, 91_100), []);
  assert.equal(lookUntil(book, cluster, 91_200, 91_200).length, 1);
});

test("nothing is granted to a brick that falls, is down, or speaks under another boot", () => {
  const cluster = new TestCluster(2);
  const book = beginBook(defaultTiming, 0, nobody);
  assert.equal(mayGrant(book, cluster.state, 2, 1), true);
  assert.equal(mayGrant(book, cluster.state, 2, 2), false);
  assert.equal(lookUntil(book, cluster, 0, 2100).length, 1);
  hear(book, 2, keepalive(2, 1), 2101);
  assert.equal(mayGrant(book, cluster.state, 2, 1), false);
  cluster.down(2);
  landed(book, 2);
  assert.equal(mayGrant(book, cluster.state, 2, 1), false);
  assert.deepEqual(arrivalCommand(book, cluster.state, 2, keepalive(2, 1)), {
    type: "brickUp",
    number: 2,
    boot: 1,
  });
  cluster.up(2);
  assert.equal(mayGrant(book, cluster.state, 2, 1), true);
});

test("a keepalive of an older boot is void", () => {
  const cluster = new TestCluster(2);
  const book = beginBook(defaultTiming, 0, nobody);
  assert.equal(hear(book, 2, keepalive(2, 3), 10), true);
  assert.equal(hear(book, 2, keepalive(2, 2), 20), false);
  assert.equal(arrivalCommand(book, cluster.state, 2, keepalive(2, 3))?.type, "announceBrick");
  assert.deepEqual([...heardBricks(book, cluster.state, 20)], [], "boot 3 is not yet known");
  cluster.announce(2, 3);
  assert.deepEqual([...heardBricks(book, cluster.state, 20)], [2]);
});

test("a brick back before permanentAfter is up; after it, it must drop its replicas first", () => {
  const cluster = new TestCluster(2);
  cluster.down(2);
  const since = cluster.state.bricks[2]!.downSinceMs;
  const book = beginBook(defaultTiming, 0, nobody);
  hear(book, 1, keepalive(1, 1), 0);
  assert.deepEqual(check(book, cluster, 0, since + day - 1), []);
  const failed = check(book, cluster, 0, since + day);
  assert.deepEqual(failed, [{ type: "brickFailed", number: 2 }]);
  hear(book, 2, keepalive(2, 1), 0);
  assert.deepEqual(check(book, cluster, 0, since + day), [], "it is just coming back");
  cluster.ok(failed[0]!);
  assert.equal(
    cluster.refused(arrivalCommand(book, cluster.state, 2, keepalive(2, 2))!),
    "given_up",
  );
  const discarded = { ...keepalive(2, 2), discarded: true };
  cluster.ok(arrivalCommand(book, cluster.state, 2, discarded)!);
  assert.equal(cluster.state.bricks[2]!.status, "up");
});

test("space is noted in coarse steps, and fullness at once", () => {
  const cluster = new TestCluster(2);
  const book = beginBook(defaultTiming, 0, nobody);
  const step = 2 ** 30 / 64;
  const look = (usedBytes: number, full: boolean) => {
    hear(book, 2, { ...keepalive(2, 1), usedBytes, full }, 10);
    return check(book, cluster, 10);
  };
  assert.deepEqual(look(step - 1, false), []);
  const [noted] = look(step + 5, false);
  assert.deepEqual(noted, {
    type: "brickSpace",
    number: 2,
    capacityBytes: 2 ** 30,
    usedBytes: step,
    full: false,
  });
  cluster.ok(noted!);
  assert.deepEqual(look(step + 5, false), []);
  assert.equal(look(step + 5, true).length, 1);
});

test("reports count only for the present view, from those who may make them", () => {
  const cluster = new TestCluster(2, 1);
  const book = beginBook(defaultTiming, 0, nobody);
  cluster.ok({
    type: "changeView",
    shard: 0,
    expect: 1,
    primary: 1,
    members: [1],
    candidates: [2],
    transfer: true,
    completed: [],
    released: false,
    recovery: false,
  });
  hear(book, 2, keepalive(2, 1, [{ shard: 0, view: 1, complete: true }]), 0);
  assert.deepEqual(shardReports(book, cluster.state).get(0), undefined);
  hear(book, 2, keepalive(2, 1, [{ shard: 0, view: 2, complete: true, released: true }]), 0);
  hear(book, 1, keepalive(1, 1, [{ shard: 0, view: 2, complete: true, empty: true }]), 0);
  assert.deepEqual(shardReports(book, cluster.state).get(0), {
    view: 2,
    complete: [2],
    released: false,
    empty: true,
  });
  hear(book, 1, keepalive(1, 1, [{ shard: 0, view: 2, damaged: true }]), 0);
  assert.equal(shardReports(book, cluster.state).get(0)?.released, false);
  assert.deepEqual(damageCommands(book, cluster.state), [
    { type: "markDamaged", shard: 0, view: 2, brick: 1 },
  ]);
  cluster.ok({ type: "markDamaged", shard: 0, view: 2, brick: 1 });
  assert.deepEqual(damageCommands(book, cluster.state), []);
  assert.equal(shardReports(book, cluster.state).get(0)?.released, true);
});

test("a damaged primary that is the only member is not made the primary of one view after the other", () => {
  const cluster = new TestCluster(1);
  const book = beginBook(defaultTiming, 0, nobody);
  hear(book, 1, keepalive(1, 1, [{ shard: 0, view: 1, damaged: true }]), 0);
  const plan = () =>
    planViews(cluster.state, {
      nowMs: 1,
      transferAfterMs: defaultTiming.transferAfterMs,
      heard: new Set([1]),
      reports: shardReports(book, cluster.state),
      standing: new Set(),
      calm: false,
    }).filter(({ shard }) => shard === 0);
  assert.deepEqual(cluster.state.shards[0]!.members, [1]);
  assert.deepEqual(plan(), []);
  for (const command of damageCommands(book, cluster.state)) cluster.ok(command);
  assert.deepEqual(plan(), [{ type: "recover", shard: 0, view: 1, bricks: [1] }]);
});

test("a lease counts from the sending, and only once the brick knows what the leader knew", () => {
  const lease = noLease();
  assert.equal(takeGrant(lease, { sentMs: 100, leaseMs: 2000, stateVersion: 7 }, 6), false);
  assert.equal(lease.untilMs, Number.NEGATIVE_INFINITY);
  assert.equal(reachVersion(lease, 6), false);
  assert.equal(reachVersion(lease, 7), true);
  assert.equal(lease.untilMs, 2100);
  assert.equal(takeGrant(lease, { sentMs: 50, leaseMs: 2000, stateVersion: 7 }, 7), false);
  assert.equal(takeGrant(lease, { sentMs: 500, leaseMs: 2000, stateVersion: 7 }, 7), true);
  assert.equal(lease.untilMs, 2500);
});

/** Carries out changes until none is left. */
function settleVoters(cluster: TestCluster, members: RaftMembers): RaftMembers {
  let { voters, learners } = members;
  for (let round = 0; round < 50; round += 1) {
    const change = planVoters(cluster.state, { voters, learners });
    if (change === null) return { voters, learners };
    const { brick } = change;
    if (change.type === "addLearner") learners = [...learners, brick];
    if (change.type === "remove") learners = learners.filter((one) => one !== brick);
    if (change.type === "promote") {
      learners = learners.filter((one) => one !== brick);
      voters = [...voters, brick];
    }
    if (change.type === "demote") {
      voters = voters.filter((one) => one !== brick);
      learners = [...learners, brick];
    }
    assert.ok(voters.length > 0);
    // Raft refuses more.
    assert.ok(voters.length <= raftLimits.votersMax);
  }
  return assert.fail("the changes do not come to an end");
}

test("one of as many voters as may be is given up, or leaves: it makes room for another", () => {
  for (const leave of ["brickFailed", "drainBrick"] as const) {
    const cluster = new TestCluster(7, 1);
    const before = settleVoters(cluster, { voters: [1], learners: [] });
    assert.equal(before.voters.length, raftLimits.votersMax);
    const gone = before.voters[2]!;
    if (leave === "brickFailed") {
      cluster.down(gone);
      cluster.ok({ type: "brickFailed", number: gone });
    } else cluster.ok({ type: "drainBrick", number: gone, drain: true });
    const after = settleVoters(cluster, before);
    assert.equal(after.voters.length, raftLimits.votersMax);
    assert.ok(!after.voters.includes(gone));
  }
});

test("one voter until there are three bricks, then three, from five on five", () => {
  for (const [bricks, voters] of [
    [1, 1],
    [2, 1],
    [3, 3],
    [4, 3],
    [5, 5],
    [7, 5],
  ] as const) {
    assert.equal(votersWanted(bricks), voters);
    const settled = settleVoters(new TestCluster(bricks), { voters: [1], learners: [] });
    assert.equal(settled.voters.length, voters);
    assert.equal(settled.learners.length, bricks - voters);
  }
});

test("a voter that is down keeps its vote; one that is given up or drained is replaced", () => {
  const cluster = new TestCluster(4);
  const start = settleVoters(cluster, { voters: [1], learners: [] });
  assert.deepEqual(start.voters, [1, 2, 3]);
  cluster.down(2);
  assert.deepEqual(settleVoters(cluster, start), start);
  cluster.ok({ type: "brickFailed", number: 2 });
  const replaced = settleVoters(cluster, start);
  assert.deepEqual(replaced, { voters: [1, 3, 4], learners: [2] });
  cluster.ok({ type: "removeBrick", number: 2, emptied: false, force: true });
  assert.deepEqual(settleVoters(cluster, replaced).learners, []);
});

test("of three voters one is lost for good: the two that are left take its vote", () => {
  const cluster = new TestCluster(3);
  const start = settleVoters(cluster, { voters: [1], learners: [] });
  assert.deepEqual(start, { voters: [1, 2, 3], learners: [] });
  for (const command of voterCommands(cluster.state, start)) cluster.ok(command);
  const remove = { type: "removeBrick", number: 3, emptied: false, force: true } as const;
  assert.equal(cluster.refused(remove), "not_now");
  cluster.down(3);
  assert.equal(cluster.refused({ ...remove, force: false }), "not_now");
  cluster.ok(remove);
  const left = settleVoters(cluster, start);
  assert.deepEqual(left, { voters: [1], learners: [2] });
  for (const command of voterCommands(cluster.state, left)) cluster.ok(command);
  assert.equal(cluster.state.bricks[3]?.voter, false);
});
