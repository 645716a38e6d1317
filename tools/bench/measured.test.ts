import assert from "node:assert/strict";
import { test } from "node:test";
import { type Measured, median, mediansOf, rowsOf } from "./measured.ts";

const one = (more: Partial<Measured>): Measured => ({
  target: "END",
  job: "read",
  depth: 1,
  iops: 100,
  megabytesPerSecond: 1,
  p50Us: 10,
  p99Us: 20,
  p999Us: 30,
  clientCpuPercent: 5,
  cpuUsPerCommand: 50,
  memoryBytes: 1,
  diskBytesPerByte: null,
  ...more,
});

test("medians of rounds, by job, depth and target", () => {
  assert.equal(median([3, 1, 2]), 2);
  assert.equal(median([4, 1, 2, 3]), 2.5);
  const rounds = [
    one({ iops: 100, memoryBytes: 7 }),
    one({ target: "tgtd", iops: 500 }),
    one({ iops: 300, memoryBytes: 9 }),
    one({ iops: 200, memoryBytes: 8 }),
    one({ depth: 32, iops: 900, diskBytesPerByte: 2 }),
    one({ depth: 32, iops: 700, diskBytesPerByte: 3 }),
  ];
  const found = mediansOf(rounds);
  assert.deepEqual(
    found.map(({ target, depth, iops, memoryBytes, diskBytesPerByte }) => {
      return [target, depth, iops, memoryBytes, diskBytesPerByte];
    }),
    [
      ["END", 1, 200, 9, null],
      ["tgtd", 1, 500, 1, null],
      ["END", 32, 800, 1, 2.5],
    ],
  );
});

test("a row says what it is of tgtd, and of an earlier run", () => {
  const rows = rowsOf(
    [one({ iops: 200 }), one({ target: "tgtd", iops: 400 })],
    [one({ iops: 100 })],
  );
  assert.deepEqual(
    rows.map((row) => row.slice(-2)),
    [
      ["0.50x", "2.00x"],
      ["", ""],
    ],
  );
});
