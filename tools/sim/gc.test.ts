import assert from "node:assert/strict";
import { test } from "node:test";
import { simulate } from "./simulate.ts";

/** Seeds that once found something: two recycles at a time; hints of a brick that never had it. */
for (const [seed, gcEveryMs] of [
  [3, 700],
  [5, 1185],
] as const) {
  test(`garbage is collected under faults, and nothing else, seed ${seed}`, async () => {
    const options = {
      dials: [],
      seed,
      bricks: 4,
      hours: 0.015,
      clients: 2,
      pauseMsMax: 500,
      gcEveryMs,
    };
    const { violation, gc } = await simulate(options);
    assert.equal(violation, null);
    // Epochs went by, chunks died, and live ones were carried out of the way.
    assert.ok(gc!.epoch > 20, `epoch ${gc!.epoch}`);
    assert.ok(gc!.sweptChunks > 100 && gc!.recycledSegments > 0, JSON.stringify(gc));
  });
}
