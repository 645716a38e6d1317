import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  emptyModel,
  event,
  happen,
  ledBy,
  model,
  transferAfterMs,
  writeAll,
} from "./planner-model.test-support.ts";
import { uuid } from "./testing.ts";
import { handoversMax, planViews, replicasAfterRecovery } from "./view-planner.ts";

test("a new cluster spreads replicas and primaries over its bricks", () => {
  const cluster = model(4, 32);
  const led = new Map<number, number>();
  for (const shard of cluster.state.shards)
    led.set(shard.primary, (led.get(shard.primary) ?? 0) + 1);
  assert.equal(led.size, 4);
  for (const count of led.values()) assert.ok(count >= 4 && count <= 12, `${[...led]}`);
});

test("a gateway leads every shard that it is a member of, and nothing else moves", () => {
  const cluster = model(4, 32);
  writeAll(cluster);
  const members = cluster.state.shards.map((shard) => shard.members);
  cluster.serve(2);
  cluster.settle();
  const heldBy2 = members.filter((one) => one.includes(2)).length;
  assert.ok(heldBy2 > 8);
  assert.equal(ledBy(cluster, 2), heldBy2);
  assert.deepEqual(
    cluster.state.shards.map((shard) => shard.members),
    members,
  );
  cluster.assertWhole();
  // The brick is gone: others lead, and when it is back and serves again, it does.
  cluster.down(2);
  cluster.settle();
  assert.equal(ledBy(cluster, 2), 0);
  cluster.up(2);
  cluster.nowMs += transferAfterMs;
  cluster.settle();
  assert.equal(ledBy(cluster, 2), heldBy2);
  cluster.assertWhole();
});

test("gateways share what they are both members of by the number of their volumes", () => {
  const cluster = model(2, 64);
  writeAll(cluster);
  cluster.serve(1, 3);
  cluster.serve(2, 1, cluster.state.attachments);
  cluster.settle();
  const share = ledBy(cluster, 1);
  assert.ok(share >= 40 && share <= 56, `${share} of 64`);
  assert.equal(ledBy(cluster, 2), 64 - share);
});

test("a brick goes down: others lead, and a fresh candidate logs new ops but waits for older", () => {
  const cluster = model(3, 8);
  writeAll(cluster);
  cluster.down(1);
  const hit = cluster.state.shards.flatMap((shard, at) => (shard.members.includes(1) ? [at] : []));
  assert.ok(hit.length > 0);
  const views = cluster.state.shards.map((shard) => shard.view);
  cluster.plan();
  for (const [number, shard] of cluster.state.shards.entries()) {
    if (!hit.includes(number)) {
      assert.equal(shard.view, views[number]);
      continue;
    }
    assert.notEqual(shard.primary, 1);
    assert.deepEqual(
      [shard.members.length, shard.candidates.length, shard.transfer],
      [1, 1, false],
    );
    assert.equal(shard.chain.length, 1);
  }
  cluster.nowMs += transferAfterMs - 1;
  const early = planViews(cluster.state, cluster.input());
  assert.equal(early.filter((one) => one.type === "setTransfer").length, 0);
  cluster.nowMs += 1;
  const due = planViews(cluster.state, cluster.input());
  assert.equal(due.filter((one) => one.type === "setTransfer").length, hit.length);
  cluster.settle();
  cluster.assertWhole();
});

test("a brick that returns joins beside the candidate, catches up, and the candidate leaves", () => {
  const cluster = model(3, 8);
  const before = cluster.state.shards.map((shard) => shard.members);
  writeAll(cluster);
  cluster.down(2);
  cluster.plan();
  writeAll(cluster);
  cluster.announce(2, 2);
  cluster.plan();
  for (const [number, members] of before.entries()) {
    if (!members.includes(2)) continue;
    const shard = cluster.state.shards[number]!;
    assert.equal(shard.candidates.length, 2);
    assert.ok(shard.candidates.includes(2) && shard.transfer);
  }
  cluster.settle();
  cluster.assertWhole();
  assert.deepEqual(
    cluster.state.shards.map((shard) => shard.members),
    before,
  );
});

test("a restarted primary loses its view at once, nobody their membership", () => {
  const cluster = model(3, 8);
  writeAll(cluster);
  const led = cluster.state.shards.flatMap((shard, at) => (shard.primary === 3 ? [at] : []));
  assert.ok(led.length > 0);
  const members = cluster.state.shards.map((shard) => shard.members);
  cluster.announce(3, 2);
  cluster.plan();
  for (const number of led) assert.notEqual(cluster.state.shards[number]!.primary, 3);
  assert.deepEqual(
    cluster.state.shards.map((shard) => shard.members),
    members,
  );
});

test("a single brick leads again after each restart, with an empty chain", () => {
  const cluster = model(1, 2);
  for (let boot = 2; boot < 50; boot += 1) {
    writeAll(cluster);
    cluster.announce(1, boot);
    cluster.settle();
    cluster.assertWhole();
  }
});

test("a member that only the state calls up does not lead before it is heard", () => {
  const cluster = model(2, 1);
  const [shard] = cluster.state.shards;
  const other = shard!.members.find((one) => one !== shard!.primary)!;
  cluster.announce(shard!.primary, 2);
  const input = { ...cluster.input(), heard: new Set<number>() };
  assert.deepEqual(planViews(cluster.state, input), []);
  const change = planViews(cluster.state, { ...input, heard: new Set([other]) })[0];
  assert.equal(change?.type === "changeView" && change.primary, other);
});

test("a view is short of replicas only when the state says that bricks are gone", () => {
  const cluster = model(3, 8);
  writeAll(cluster);
  cluster.down(2);
  // This leader has heard one brick of the two that are up.
  for (const heard of [1, 3]) {
    const input = { ...cluster.input(), heard: new Set([heard]) };
    const changes = planViews(cluster.state, input);
    assert.ok(changes.some((change) => change.type === "changeView"));
    for (const change of changes) {
      if (change.type !== "changeView") continue;
      assert.deepEqual([...change.members, ...change.candidates].sort(), [1, 3]);
    }
  }
  cluster.plan();
  cluster.down(3);
  cluster.plan();
  for (const { primary, members, candidates } of cluster.state.shards) {
    if (primary === 1) assert.deepEqual([members, candidates], [[1], []]);
  }
});

test("who leads after a recovery has candidates at once, though nobody else of the chain is left", () => {
  const cluster = model(4, 8);
  for (const [number, { primary, members }] of cluster.state.shards.entries()) {
    const other = members.find((one) => one !== primary)!;
    const { state } = cluster;
    const bricks = { ...state.bricks, [other]: { ...state.bricks[other]!, reachable: false } };
    const { candidates } = replicasAfterRecovery({ ...state, bricks }, number, primary);
    assert.equal(candidates.length, 1);
    assert.ok(![primary, other].includes(candidates[0]!));
  }
});

test("a third brick takes its share gently: a few whole shards at a time", () => {
  const cluster = model(2, 32);
  for (let round = 0; round < 3; round += 1) writeAll(cluster);
  cluster.join(3);
  const adding = planViews(cluster.state, cluster.input()).filter(
    (one) => one.type === "changeView",
  );
  assert.equal(adding.length, 4);
  cluster.settle();
  cluster.assertWhole();
  const held = cluster.state.shards.filter((shard) => shard.members.includes(3)).length;
  assert.ok(held >= 12 && held <= 30, `${held} of 32`);
});

test("a draining brick hands its replicas over and keeps none", () => {
  const cluster = model(4, 16);
  writeAll(cluster);
  cluster.ok({ type: "drainBrick", number: 1, drain: true });
  assert.equal(
    cluster.refused({ type: "removeBrick", number: 1, emptied: true, force: false }),
    "not_now",
  );
  cluster.settle();
  cluster.assertWhole();
  for (const shard of cluster.state.shards) assert.ok(!shard.members.includes(1));
  cluster.ok({ type: "setVoter", number: 1, voter: false });
  assert.equal(
    cluster.refused({ type: "removeBrick", number: 1, emptied: false, force: false }),
    "not_now",
  );
  cluster.ok({ type: "removeBrick", number: 1, emptied: true, force: false });
});

test("a full brick leaves its shards in the first steps, and is back once it has room", () => {
  const cluster = model(3, 32);
  writeAll(cluster);
  const before = cluster.state.shards.map((shard) => shard.members);
  const led = ledBy(cluster, 1);
  assert.ok(led > handoversMax);
  cluster.setFull(1, true);
  // One step for candidates in its place and the lead that it is to give up, one to do without it.
  for (let step = 0; step < 3; step += 1) cluster.plan();
  for (const [number, shard] of cluster.state.shards.entries()) {
    if (!before[number]!.includes(1)) continue;
    const { members, candidates, transfer } = shard;
    assert.deepEqual([members.length, candidates.length, transfer], [1, 1, true]);
    assert.ok(![...members, ...candidates].includes(1));
    assert.equal(shard.chain.length > 0, true);
  }
  writeAll(cluster);
  cluster.settle();
  cluster.assertWhole();
  assert.ok(cluster.state.shards.every(({ members }) => !members.includes(1)));
  cluster.setFull(1, false);
  cluster.settle();
  cluster.assertWhole();
  assert.deepEqual(
    cluster.state.shards.map((shard) => shard.members),
    before,
  );
});

test("where too few have room a full brick keeps its shards", () => {
  const cluster = model(3, 8);
  writeAll(cluster);
  const before = cluster.state.shards.map((shard) => shard.members);
  cluster.setFull(1, true);
  cluster.down(2);
  cluster.plan();
  for (const [number, { members }] of cluster.state.shards.entries()) {
    assert.deepEqual(
      members,
      before[number]!.filter((one) => one !== 2),
    );
  }
});

test("three copies ask for three members, distinct domains first", () => {
  const cluster = model(5, 16);
  cluster.ok({
    type: "createVolume",
    name: "disk",
    uuid: uuid(7),
    sizeBytes: 2 ** 30,
    copies: 3,
    degradedWrites: true,
  });
  for (const [number, domain] of [
    [1, "a"],
    [2, "a"],
    [3, "b"],
    [4, "b"],
    [5, "c"],
  ] as const) {
    const brick = { ...cluster.state.bricks[number]!, domain };
    cluster.state = { ...cluster.state, bricks: { ...cluster.state.bricks, [number]: brick } };
  }
  cluster.settle();
  cluster.assertWhole();
  for (const shard of cluster.state.shards) {
    const domains = new Set(shard.members.map((one) => cluster.state.bricks[one]!.domain));
    assert.equal(domains.size, 3);
  }
});

test("whatever happens to the bricks, no op is lost and every shard is whole in the end", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 5 }),
      fc.array(event, { minLength: 10, maxLength: 120 }),
      fc.constantFrom(undefined, 2),
      fc.constantFrom(model, emptyModel),
      (brickCount, events, shardSpan, make) => {
        const cluster = make(brickCount, 4, shardSpan);
        for (const one of events) happen(cluster, one);
        for (const brick of Object.values(cluster.state.bricks)) {
          if (!brick.reachable) cluster.up(brick.number);
        }
        cluster.nowMs += transferAfterMs;
        cluster.settle();
        cluster.assertWhole();
      },
    ),
    { numRuns: 300 },
  );
});
