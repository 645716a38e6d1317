import assert from "node:assert/strict";
import { test } from "node:test";
import { dialGroups } from "./fault-dials.ts";
import { simulate } from "./simulate.ts";

for (const dials of [[], dialGroups]) {
  test(`the same seed gives the same events; another one others (${dials.length} groups)`, async () => {
    const options = { seed: 4, bricks: 3, hours: 0.01, clients: 3, pauseMsMax: 400, dials };
    const first = await simulate(options);
    assert.equal(first.violation, null);
    assert.ok(first.counts.writes > 0);
    const second = await simulate(options);
    assert.equal(second.hash, first.hash);
    assert.deepEqual(second.counts, first.counts);
    assert.deepEqual(second.faults, first.faults);
    assert.notEqual((await simulate({ ...options, seed: 5 })).hash, first.hash);
  });
}
