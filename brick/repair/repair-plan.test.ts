import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { BrickRecord, BrickStatus, ClusterState } from "../cluster-state.ts";
import { type Extent, zeroKey } from "../map/grain.ts";
import { Prng } from "../prng.ts";
import { type BrickNumber, GiB } from "../units.ts";
import { writePlacement } from "../volume/placement.ts";
import { leavingBricks, planExtent, planGrain, type RepairTask } from "./repair-plan.ts";

type Facts = Partial<BrickRecord> & { status: BrickStatus };

/** A state with these bricks, numbered from 1. */
function stateOf(...bricks: (BrickStatus | Facts)[]): ClusterState {
  const records: Record<string, BrickRecord> = {};
  for (const [index, given] of bricks.entries()) {
    const facts = typeof given === "string" ? { status: given } : given;
    const number = index + 1;
    records[number] = {
      number,
      uuid: String(number).padStart(32, "0"),
      reachable: facts.status === "up" || facts.status === "draining",
      boot: 1,
      peerAddress: "",
      portalAddress: "",
      apiAddress: "",
      domain: "",
      capacityBytes: GiB,
      usedBytes: 0,
      full: false,
      voter: false,
      downSinceMs: 0,
      ...facts,
    };
  }
  return {
    clusterId: "0".repeat(32),
    version: 1,
    clusterTimeMs: 0,
    bricks: records,
    brickNumberNext: bricks.length + 1,
    shards: [],
    volumes: {},
    branchNext: 1,
    attachments: {},
    attachmentEpochNext: 1,
    gcEpoch: 0,
    joinTokens: {},
  };
}

function extentAt(holders: readonly BrickNumber[], seed = 1): Extent {
  const key = new Prng(seed).fill(Buffer.alloc(32));
  return { firstSector: 0, sectorCount: 8, chunkSector: 0, chunkSectors: 8, key, holders };
}

function plan(state: ClusterState, holders: readonly BrickNumber[], copies = 2) {
  return planExtent(state, writePlacement(state), copies, 7, extentAt(holders));
}

function taskOf(state: ClusterState, holders: readonly BrickNumber[], copies = 2): RepairTask {
  const task = plan(state, holders, copies);
  assert.ok(task !== null && task !== "stuck");
  return task;
}

test("an extent with its copies needs nothing", () => {
  const state = stateOf("up", "up", "up");
  assert.equal(plan(state, [1, 2]), null);
  assert.equal(plan(state, [1, 2, 3]), null);
});

test("a brick that is down or joining keeps counting", () => {
  assert.equal(plan(stateOf("up", "down", "up"), [1, 2]), null);
  assert.equal(plan(stateOf("up", "joining", "up"), [1, 2]), null);
});

test("a brick that failed, was removed or was never there does not count, and its copy is lost", () => {
  for (const status of ["failed", "removed"] as const) {
    const task = plan(stateOf("up", status, "up"), [1, 2]);
    assert.deepEqual(task, {
      key: extentAt([]).key,
      grain: 7,
      chunkBytes: 4096,
      living: 1,
      kept: [1],
      sources: [1],
      targets: [3],
      full: true,
      lost: true,
    });
  }
  assert.deepEqual(taskOf(stateOf("up", "up"), [1, 9]).targets, [2]);
});

test("a brick that drains does not count, but can be asked, and nothing is lost", () => {
  const task = taskOf(stateOf("up", "draining", "up"), [2, 1]);
  assert.deepEqual(task.kept, [1]);
  assert.deepEqual(new Set(task.sources), new Set([1, 2]));
  assert.deepEqual(task.targets, [3]);
  assert.equal(task.lost, false);
});

test("a draining brick that is away is no source", () => {
  const state = stateOf("up", { status: "draining", reachable: false }, "up");
  assert.deepEqual(taskOf(state, [2, 1]).sources, [1]);
  assert.equal(plan(state, [2]), "stuck");
});

test("a copy goes to a failure domain that has none, while there is one", () => {
  const inDomain = (domain: string, status: BrickStatus = "up") => ({ status, domain });
  const state = stateOf(inDomain("a"), inDomain("b", "failed"), inDomain("a"), inDomain("b"));
  const alone = stateOf(inDomain("a"), inDomain("b", "failed"), inDomain("a"));
  for (let seed = 0; seed < 50; seed += 1) {
    const task = planExtent(state, writePlacement(state), 2, 7, extentAt([1, 2], seed));
    assert.ok(task !== null && task !== "stuck");
    assert.deepEqual(task.targets, [4]);
    const least = planExtent(alone, writePlacement(alone), 2, 7, extentAt([1, 2], seed));
    assert.ok(least !== null && least !== "stuck");
    assert.deepEqual(least.targets, [3]);
  }
});

test("without anyone to ask or anyone to give to it is stuck", () => {
  assert.equal(plan(stateOf("down", "failed", "up"), [1, 2]), "stuck");
  assert.equal(plan(stateOf("up", "failed", "down"), [1, 2]), "stuck");
  assert.equal(plan(stateOf("up", "failed", { status: "up", full: true }), [1, 2]), "stuck");
});

test("a copy that was never made counts as lost; fewer takers than copies are not the end of it", () => {
  assert.equal(taskOf(stateOf("up", "up"), [1]).lost, true);
  const task = taskOf(stateOf("draining", "draining", "up"), [1, 2]);
  assert.deepEqual(task.targets, [3]);
  assert.equal(task.full, false);
});

test("what is planned is eligible, distinct, and no more than is missing", () => {
  const brick = fc.record({
    status: fc.constantFrom<BrickStatus[]>(
      "up",
      "up",
      "up",
      "joining",
      "down",
      "draining",
      "failed",
      "removed",
    ),
    full: fc.boolean(),
  });
  const cluster = fc.array(brick, { minLength: 1, maxLength: 8 });
  const holders = fc.uniqueArray(fc.integer({ min: 1, max: 9 }), { maxLength: 6 });
  fc.assert(
    fc.property(
      cluster,
      holders,
      fc.integer({ min: 1, max: 4 }),
      fc.nat(),
      (bricks, held, copies, seed) => {
        const state = stateOf(...bricks);
        const task = planExtent(state, writePlacement(state), copies, 7, extentAt(held, seed));
        const statusOf = (number: BrickNumber) => state.bricks[number]?.status ?? "removed";
        const staying = held.filter((one) => ["up", "down", "joining"].includes(statusOf(one)));
        const open = Object.values(state.bricks)
          .filter(({ number, status, full }) => status === "up" && !full && !held.includes(number))
          .map(({ number }) => number);
        const askable = held.filter((one) => ["up", "draining"].includes(statusOf(one)));
        const possible = Math.min(copies - staying.length, open.length);
        if (copies <= staying.length) {
          assert.equal(task, null);
          return;
        }
        if (possible === 0 || askable.length === 0) {
          assert.equal(task, "stuck");
          return;
        }
        assert.ok(task !== null && task !== "stuck");
        assert.deepEqual(task.kept, staying);
        assert.deepEqual([...task.sources].sort(), askable.sort());
        assert.equal(task.targets.length, possible);
        assert.equal(new Set(task.targets).size, possible);
        for (const target of task.targets) assert.ok(open.includes(target));
        const gone = held.some((one) => ["failed", "removed"].includes(statusOf(one)));
        const moves = held.some((one) => statusOf(one) === "draining");
        assert.equal(task.lost, gone || !moves);
        assert.equal(task.full, possible === copies - staying.length);
      },
    ),
  );
});

/** What is done about a grain whose extents, all of one chunk, name these bricks. */
function planOfSame(state: ClusterState, ...holders: (readonly BrickNumber[])[]) {
  const extents = holders.map((named) => extentAt(named));
  return planGrain(state, writePlacement(state), 2, 7, extents);
}

test("of two extents of one chunk, either may be the one that names too few", () => {
  const state = stateOf("up", "up", "up");
  assert.deepEqual(planOfSame(state, [1, 2], [2, 3]), []);
  for (const holders of [
    [[1, 2], [2]],
    [[2], [1, 2]],
    [[1], [2]],
  ]) {
    const [task, ...others] = planOfSame(state, ...holders);
    assert.ok(task !== undefined && task !== "stuck" && others.length === 0);
    assert.deepEqual([...task.kept].sort(), [1, 2]);
    assert.deepEqual(task.targets, []);
    assert.equal(task.full, true);
  }
  const [task] = planOfSame(stateOf("up", "failed", "failed"), [1, 2], [3]);
  assert.equal(task, "stuck");
  const [copied, ...more] = planOfSame(stateOf("up", "failed", "up"), [1, 2], [2]);
  assert.ok(copied !== undefined && copied !== "stuck" && more.length === 0);
  assert.deepEqual(copied.sources, [1]);
  assert.deepEqual(copied.targets, [3]);
});

test("each chunk of a grain is planned for itself, and zeros are none", () => {
  const state = stateOf("up", "up", "up");
  const zeros = { ...extentAt([]), key: zeroKey };
  const extents = [extentAt([1], 1), zeros, extentAt([1, 2], 2), extentAt([3], 3)];
  const tasks = planGrain(state, writePlacement(state), 2, 7, extents);
  const kept = tasks.map((task) => (task === "stuck" ? task : task.kept));
  assert.deepEqual(kept, [[1], [3]]);
});

test("the bricks that leave change only when one begins to leave, is lost, or stays after all", () => {
  const before = leavingBricks(stateOf("up", "up", "up"));
  assert.equal(leavingBricks(stateOf("up", "down", "joining")), before);
  const seen = [before];
  for (const status of ["draining", "failed", "removed"] as const) {
    for (const state of [stateOf("up", status, "up"), stateOf("up", "up", status)]) {
      const leaving = leavingBricks(state);
      assert.ok(!seen.includes(leaving), leaving);
      seen.push(leaving);
    }
  }
});
