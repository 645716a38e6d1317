import assert from "node:assert/strict";
import { test } from "node:test";
import { Prng } from "../../brick/prng.ts";
import { exploreCrashes, type StateCounts } from "../../brick/store/crash-states.test-support.ts";
import { recordRaft } from "./testing-story.ts";

/** A share of what `npm run crash-states` looks at. */
for (const seed of [1, 3]) {
  test(`no power cut takes back a vote, an entry or a snapshot, seed ${seed}`, async () => {
    const prng = new Prng(seed);
    const counts: StateCounts = new Map();
    const options = { statesPerCut: 6, cutShare: 1, workShare: 0.3 };
    await exploreCrashes(await recordRaft(prng, 250), options, {
      prng,
      counts,
      name: `seed ${seed}`,
    });
    for (const kind of ["raft state write", "raft log flush", "raft snapshot rename"]) {
      assert.ok((counts.get(kind) ?? 0) > 0, `no power cut after ${kind}`);
    }
  });
}
