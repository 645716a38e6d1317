import assert from "node:assert/strict";
import { test } from "node:test";
import { type Stage, StageTimes, stage, stageSampling, stageTable } from "./stage-times.ts";

test("the names of the stages are the rows of the table", () => {
  for (const [name, row] of Object.entries(stage)) {
    const [operation, step] = stageTable[row]!;
    assert.equal(name, operation + step[0]!.toUpperCase() + step.slice(1));
  }
  assert.equal(Object.keys(stage).length, stageTable.length);
});

test("one in so many is timed, whatever order the stages come in", () => {
  let nowMs = 100;
  const times = new StageTimes({ nowMs: () => nowMs });
  const pattern: readonly Stage[] = [stage.writeHash, stage.writeMap];
  for (let command = 0; command < 5 * stageSampling; command += 1) {
    for (const which of pattern) {
      const sinceMs = times.since(which);
      nowMs += which === stage.writeHash ? 0.004 : 3;
      times.took(which, sinceMs);
    }
  }
  for (const [which, elapsedMs] of [
    [stage.writeHash, 0.004] as const,
    [stage.writeMap, 3] as const,
  ]) {
    const { counts, sumMs, boundsMs } = times.histograms[which]!;
    assert.equal(
      counts.reduce((sum, count) => sum + count, 0),
      5,
    );
    const bucket = boundsMs.findIndex((boundMs) => elapsedMs <= boundMs);
    assert.equal(counts[bucket], 5);
    assert.ok(Math.abs(sumMs - 5 * elapsedMs) < 1e-9);
  }
});

test("a step whose beginning is known is sampled, too", () => {
  const times = new StageTimes({ nowMs: () => 30 });
  for (let command = 0; command < 3 * stageSampling; command += 1) {
    times.took(stage.readWait, times.sample(stage.readWait, 20));
  }
  assert.equal(times.histograms[stage.readWait]!.sumMs, 30);
});
