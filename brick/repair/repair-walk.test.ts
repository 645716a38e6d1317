import assert from "node:assert/strict";
import { test } from "node:test";
import type { RepairTask } from "./repair-plan.ts";
import { RepairWalk, retryMs, stuckRetryMs } from "./repair-walk.ts";

function taskWith(living: number, targets = 1): RepairTask {
  return {
    key: Buffer.alloc(32),
    grain: 0,
    chunkBytes: 4096,
    living,
    kept: [],
    sources: [1],
    targets: Array.from({ length: targets }, (_, at) => 2 + at),
    full: true,
    lost: true,
  };
}

/** A walk that looks at a shard with these tasks, and carries them out; in which order it did. */
function walkThrough(walk: RepairWalk, tasks: RepairTask[]): number[] {
  const order: number[] = [];
  let nowMs = 0;
  for (let walks = 0; walk.clean !== walk.purpose; walks += 1) {
    assert.ok(walks < 20);
    nowMs = Math.max(nowMs, walk.resumeAtMs);
    walk.begins();
    for (const task of [...tasks]) {
      if (walk.livingMax === null) walk.found(task);
      else if (task.living <= walk.livingMax) {
        order.push(task.living);
        tasks.splice(tasks.indexOf(task), 1);
        walk.mended(task, true);
      }
    }
    walk.ended(nowMs);
  }
  return order;
}

test("what has the fewest copies left is copied first, wherever it stands", () => {
  const walk = new RepairWalk();
  walk.aim("a");
  const tasks = [2, 1, 3, 1, 2, 1].map((living) => taskWith(living));
  assert.deepEqual(walkThrough(walk, tasks), [1, 1, 1, 2, 2, 3]);
  assert.equal(walk.left, 0);
  assert.equal(walk.leftBytes, 0);
});

test("what is left is known from the survey on, and goes down", () => {
  const walk = new RepairWalk();
  walk.aim("a");
  walk.begins();
  const tasks = [taskWith(1, 2), taskWith(2)];
  for (const task of tasks) walk.found(task);
  walk.found("stuck");
  assert.equal(walk.left, 0);
  walk.ended(0);
  assert.deepEqual([walk.left, walk.stuck, walk.leftBytes], [3, 1, 3 * 4096]);
  assert.equal(walk.urgency, 1);
  walk.begins();
  walk.mended(tasks[0]!, true);
  assert.deepEqual([walk.left, walk.stuck, walk.leftBytes], [2, 1, 4096]);
});

test("a survey that finds nothing ends it, until it is for something else", () => {
  const walk = new RepairWalk();
  walk.aim("a");
  assert.ok(walk.isDue(0));
  walk.begins();
  walk.ended(0);
  assert.equal(walk.clean, "a");
  assert.ok(!walk.isDue(1e9));
  walk.aim("b");
  assert.ok(walk.isDue(0));
});

test("what commits short while a survey is under way keeps it from the end", () => {
  const walk = new RepairWalk();
  walk.aim("a");
  walk.begins();
  walk.committedShort();
  assert.equal(walk.left, 1);
  walk.ended(0);
  assert.notEqual(walk.clean, "a");
  assert.ok(!walk.isDue(retryMs - 1) && walk.isDue(retryMs));
  walk.begins();
  assert.equal(walk.left, 0);
  walk.ended(retryMs);
  assert.equal(walk.clean, "a");
  walk.committedShort();
  assert.ok(walk.isDue(retryMs + stuckRetryMs));
});

test("after a failure it rests a little, and longer when nothing could be tried", () => {
  const walk = new RepairWalk();
  walk.aim("a");
  walk.begins();
  walk.found(taskWith(1));
  walk.ended(0);
  assert.ok(walk.isDue(0));
  walk.begins();
  walk.mended(taskWith(1), false);
  walk.ended(0);
  assert.ok(!walk.isDue(retryMs - 1) && walk.isDue(retryMs));
  walk.begins();
  walk.found("stuck");
  walk.ended(0);
  assert.ok(!walk.isDue(stuckRetryMs - 1) && walk.isDue(stuckRetryMs));
});
