import assert from "node:assert/strict";
import { test } from "node:test";
import { Prng } from "../prng.ts";
import { exploreCrashes, type StateCounts } from "./crash-states.test-support.ts";
import {
  operationNames,
  recordSequence,
  recordStore,
  sequences,
  usedStore,
} from "./store-recordings.test-support.ts";
import { openStore, StoreStory, StoreWork } from "./store-story.test-support.ts";
import { DiskImage, TraceHost } from "./trace-disk.ts";

/**
 * A share of what `npm run crash-states` looks at: that one goes through every cut of a long run
 * and every short sequence of operations.
 */

function sum(counts: StateCounts): number {
  return [...counts.values()].reduce((total, count) => total + count, 0);
}

for (const seed of [1, 2, 1020]) {
  test(`no power cut loses or invents anything, seed ${seed}`, async () => {
    const prng = new Prng(seed);
    const recording = await recordStore(prng, 300);
    const counts: StateCounts = new Map();
    const options = { statesPerCut: 4, cutShare: 0.6, workShare: 0.2 };
    await exploreCrashes(recording, options, { prng, counts, name: `seed ${seed}` });
    const { recycledSegments, compactedBytes, dedupHits } = recording.counters;
    assert.ok(sum(counts) > 1000, `only ${sum(counts)} states`);
    assert.ok(recording.story.seen.cut > 0, "no state has a torn tail");
    assert.ok(recycledSegments > 0, "no segment was used twice");
    assert.ok(compactedBytes > 0, "nothing was carried to another segment");
    assert.ok(dedupHits > 0, "nothing was put twice");
  });
}

test("no power cut in any sequence of two operations loses or invents anything", async () => {
  const prng = new Prng(7);
  const used = await usedStore(prng);
  const counts: StateCounts = new Map();
  const options = { statesPerCut: 4, cutShare: 0.6, workShare: 0 };
  let number = 0;
  for (const sequence of sequences(2)) {
    const name = `after use, ${sequence.join(", ")}`;
    number += 1;
    await exploreCrashes(await recordSequence(prng, used, sequence), options, {
      prng,
      counts,
      name,
    });
  }
  assert.equal(number, operationNames.length * (operationNames.length + 1));
  assert.ok(sum(counts) > 1000, `only ${sum(counts)} states`);
});

test("one flipped bit anywhere is noticed or harmless", async () => {
  const prng = new Prng(99);
  const host = new TraceHost();
  const story = new StoreStory();
  await new StoreWork(await openStore(host), prng, story).bursts(6);
  const image = new DiskImage();
  for (const event of host.trace) image.note(event);
  for (const [path, bytes] of image.files) {
    for (let at = 0; at < bytes.length; at += path.startsWith("log/") ? 61 : 9) {
      const flipped = image.copy();
      flipped.files.get(path)![at]! ^= 1 << prng.between(0, 7);
      const { store, counting } = await openStore(new TraceHost(flipped));
      const what = `${path} at ${at}`;
      let missing = counting.gap || counting.applied < story.ackedRecord;
      for (const expected of story.live()) {
        const read = await store.readChunk(expected.key);
        if (read.ok) assert.ok(read.bytes.equals(expected.bytes), what);
        else if (read.fault.code === "absent") missing = true;
      }
      if (missing) assert.ok(store.cut || store.damaged, `${what}: a silent loss`);
    }
  }
});
