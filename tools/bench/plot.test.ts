import assert from "node:assert/strict";
import { test } from "node:test";
import type { BenchResult, Measured } from "./measured.ts";
import { plotsOf } from "./plot.ts";
import { barChart } from "./svg.ts";

const one = (more: Partial<Measured>): Measured => ({
  target: "END",
  job: "4 KiB random read",
  depth: 32,
  iops: 8192,
  megabytesPerSecond: 33.6,
  p50Us: 2703,
  p99Us: 30_540,
  p999Us: 56_885,
  clientCpuPercent: 5,
  cpuUsPerCommand: 171,
  memoryBytes: 1,
  diskBytesPerByte: null,
  ...more,
});

const fixed: BenchResult = {
  machine: "2 x CPU",
  bricks: 4,
  seconds: 10,
  rounds: 1,
  measured: [
    one({ stages: [{ op: "read", stage: "fetch", count: 9, meanUs: 1234.5, p99Us: 9876 }] }),
    one({ target: "tgtd", iops: 28_512, cpuUsPerCommand: 38 }),
  ],
};

/** Of the bars, in their order: series by color, and length. */
function barsOf(svg: string): { color: string; width: number }[] {
  const pattern = /<rect x="250" y="(?:\d+)" width="([\d.]+)" height="11" fill="(#\w+)"\/>\n/g;
  return [...svg.matchAll(pattern)].map(([, width, color]) => {
    return { color: color!, width: Number(width) };
  });
}

test("a result makes four pictures, in which every figure is written", () => {
  const plots = plotsOf(fixed);
  assert.deepEqual([...plots.keys()], ["throughput.svg", "cpu.svg", "latency.svg", "stages.svg"]);
  for (const [name, svg] of plots) {
    assert.ok(svg.startsWith("<svg ") && svg.endsWith("</svg>\n"), name);
    assert.equal(svg.split("<text").length, svg.split("</text>").length, name);
    assert.match(svg, /4 KiB random read, depth 32/);
  }
  for (const figure of ["8192", "28512"]) assert.ok(plots.get("throughput.svg")!.includes(figure));
  for (const figure of ["2703", "30540", "56885"]) {
    assert.ok(plots.get("latency.svg")!.includes(`>${figure}<`));
  }
  assert.ok(plots.get("stages.svg")!.includes(">1235<"));
  assert.ok(!plots.get("latency.svg")!.includes("tgtd"));
});

test("a result from before steps were timed has no picture of them", () => {
  const before = { ...fixed, measured: fixed.measured.map(({ stages: _none, ...rest }) => rest) };
  assert.ok(!plotsOf(before).has("stages.svg"));
});

test("bars are as long as their figures are large", () => {
  const bars = [10, 20, 40].map((value, series) => ({ label: "", value, series }));
  const groups = [{ label: "a < b", bars }];
  const chart = { title: "T", unit: "u", series: ["x", "y", "z"], groups };
  const linear = barsOf(barChart(chart));
  assert.deepEqual(
    linear.map(({ width }) => width / linear[0]!.width),
    [1, 2, 4],
  );
  assert.equal(new Set(linear.map(({ color }) => color)).size, 3);
  const [small, middle, large] = barsOf(barChart({ ...chart, logarithmic: true }));
  // Each twice the one before: steps of the same length.
  assert.ok(small!.width > 0);
  assert.ok(Math.abs(large!.width - middle!.width - (middle!.width - small!.width)) < 0.2);
  assert.match(barChart(chart), /a &lt; b/);
});
