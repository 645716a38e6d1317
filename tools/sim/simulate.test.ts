import assert from "node:assert/strict";
import { test } from "node:test";
import { simulate } from "./simulate.ts";

test("the same seed gives the same events; another one others", async () => {
  const options = { dials: [], seed: 4, bricks: 3, hours: 0.01, clients: 3, pauseMsMax: 400 };
  const first = await simulate(options);
  assert.equal(first.violation, null);
  assert.ok(first.counts.writes > 0);
  const second = await simulate(options);
  assert.equal(second.hash, first.hash);
  assert.deepEqual(second.counts, first.counts);
  assert.notEqual((await simulate({ ...options, seed: 5 })).hash, first.hash);
});
