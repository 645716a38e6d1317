import assert from "node:assert/strict";
import { test } from "node:test";
import { clusterYears, drawRun, noRuns } from "./soak.ts";

const twoYears = {
  ...noRuns(),
  reboots: 104,
  partitions: 24,
  corruptions: 8,
  losses: 4,
  powerCuts: 2,
  operations: 40_000,
};

test("events make as many cluster-years as the scarcest kind is enough for", () => {
  assert.equal(clusterYears(noRuns()), 0);
  assert.equal(clusterYears(twoYears), 2);
  assert.equal(clusterYears({ ...twoYears, clogs: 1_000, freezes: 1_000, reboots: 10_400 }), 2);
  for (const kind of ["reboots", "partitions", "corruptions", "losses", "powerCuts"] as const) {
    assert.equal(clusterYears({ ...twoYears, [kind]: 0 }), 0, kind);
  }
  assert.equal(clusterYears({ ...twoYears, operations: 20_000 }), 1);
});

test("a seed draws the same run, but for what is given", () => {
  const drawn = drawRun(7, {});
  assert.deepEqual(drawRun(7, {}), drawn);
  assert.deepEqual(drawRun(7, { hours: 0.01 }), { ...drawn, hours: 0.01 });
  const bricks = new Set(Array.from({ length: 200 }, (_, seed) => drawRun(seed, {}).bricks));
  assert.deepEqual([...bricks].sort(), [3, 4, 5, 6, 7, 8]);
});
