import assert from "node:assert/strict";
import { test } from "node:test";
import { linearityOf, measureScaling, type ScalingPlan, scalingJobs } from "./scaling-run.ts";

const plan = (bricks: number, more: Partial<ScalingPlan> = {}): ScalingPlan => ({
  seed: 7,
  bricks,
  shardCount: 16,
  shardSpan: 4,
  volumesPerBrick: 1,
  depth: 4,
  warmUpMs: 10,
  measureMs: 20,
  jobs: scalingJobs.slice(0, 2),
  ...more,
});

test("the same seed gives the same figures, another seed others", async () => {
  const first = await measureScaling(plan(2));
  assert.deepEqual(await measureScaling(plan(2)), first);
  // Counts of so short a time may well agree once.
  const others = [8, 9, 10].map((seed) => measureScaling(plan(2, { seed })));
  const figures = (await Promise.all(others)).map((other) => JSON.stringify(other));
  assert.ok(figures.some((other) => other !== JSON.stringify(first)));
  assert.ok(first.every(({ operationsPerSecond }) => operationsPerSecond > 0));
});

test("four bricks carry more than two, in simulated time", async () => {
  const jobs = scalingJobs.slice(0, 1);
  const [two] = await measureScaling(plan(2, { jobs }));
  const [four] = await measureScaling(plan(4, { jobs }));
  const linear = linearityOf(four!, [two!, four!])!;
  assert.ok(linear > 0.7 && linear < 1.3, `${linear}`);
  assert.equal(linearityOf(two!, [two!]), 1);
  assert.equal(linearityOf(four!, [four!]), null);
});

test("volumes made on two bricks are written faster once their backups are on all four", async () => {
  const jobs = scalingJobs.slice(0, 1);
  const shape = { jobs, shardCount: 64, volumesPerBrick: 2, depth: 16, madeOn: 2 };
  const [before] = await measureScaling(plan(4, shape));
  const [after] = await measureScaling(plan(4, { ...shape, evened: true }));
  const gain = after!.operationsPerSecond / before!.operationsPerSecond;
  assert.ok(gain > 1.05, `${gain}`);
});
