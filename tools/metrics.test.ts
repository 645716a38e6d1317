import assert from "node:assert/strict";
import { test } from "node:test";
import { LatencyHistogram } from "../brick/latency-histogram.ts";
import { StageTimes, stage, stageSampling, stageTable } from "../brick/stage-times.ts";
import { metricsText, metricTable } from "./metrics.ts";

const noStages = new StageTimes({ nowMs: () => 0 });

function lineOf(text: string, start: string): string | undefined {
  return text.split("\n").find((line) => line.startsWith(start));
}

test("every metric is there from the first scrape on, at zero", async () => {
  const text = await metricsText(2, {
    values: () => ({}),
    commands: () => [],
    latencies: new Map(),
    stages: noStages,
  })();
  for (const name of Object.keys(metricTable)) {
    assert.equal(lineOf(text, `${name}{`), `${name}{brick="2"} 0`);
  }
  assert.ok(lineOf(text, "process_resident_memory_bytes"));
});

test("values are read at each scrape", async () => {
  let repaired = 0;
  const metrics = metricsText(1, {
    values: () => ({ endisk_repair_bytes_total: repaired }),
    commands: () => [{ opcode: "READ(10)", status: "GOOD", count: repaired + 1 }],
    latencies: new Map(),
    stages: noStages,
  });
  await metrics();
  repaired = 4096;
  const text = await metrics();
  assert.match(text, /^endisk_repair_bytes_total\{brick="1"\} 4096$/m);
  assert.match(
    text,
    /^endisk_commands_total\{opcode="READ\(10\)",status="GOOD",brick="1"\} 4097$/m,
  );
});

test("a histogram's buckets are cumulative and end in the count", async () => {
  const write = new LatencyHistogram();
  for (const elapsedMs of [0, 0.05, 0.3, 7, 1e6]) write.observe(elapsedMs);
  const text = await metricsText(1, {
    values: () => ({}),
    commands: () => [],
    latencies: new Map([["write", write]]),
    stages: noStages,
  })();
  const bucket = (le: string) =>
    Number(
      lineOf(text, `endisk_latency_seconds_bucket{kind="write",le="${le}"`)?.split(" ").at(-1),
    );
  assert.deepEqual(
    ["0.00005", "0.0002", "0.0005", "0.01", "30", "+Inf"].map(bucket),
    [2, 2, 3, 4, 4, 5],
  );
  assert.match(text, /^endisk_latency_seconds_count\{kind="write",brick="1"\} 5$/m);
});

test("the steps of commands are there from the first scrape on, in seconds", async () => {
  let nowMs = 5;
  const stages = new StageTimes({ nowMs: () => nowMs });
  const sources = { values: () => ({}), commands: () => [], latencies: new Map(), stages };
  const metrics = metricsText(1, sources);
  const empty = await metrics();
  for (const [op, step] of stageTable) {
    const labels = `op="${op}",stage="${step}",brick="1"`;
    assert.match(empty, new RegExp(`^endisk_stage_seconds_count\\{${labels}\\} 0$`, "m"));
  }
  for (let turn = 1; turn < stageSampling; turn += 1)
    assert.equal(stages.since(stage.readFetch), 0);
  const sinceMs = stages.since(stage.readFetch);
  nowMs = 7;
  stages.took(stage.readFetch, sinceMs);
  const bucket = 'endisk_stage_seconds_bucket{op="read",stage="fetch",le=';
  const text = await metrics();
  assert.equal(lineOf(text, `${bucket}"0.001"`)?.split(" ").at(-1), "0");
  assert.equal(lineOf(text, `${bucket}"0.002"`)?.split(" ").at(-1), "1");
  assert.match(text, /^endisk_stage_seconds_sum\{op="read",stage="fetch",brick="1"\} 0.002$/m);
});
