import assert from "node:assert/strict";
import { test } from "node:test";
import type { Extent } from "../map/grain.ts";
import { grainBytes, sectorBytes } from "../units.ts";
import { AllocationRuns } from "./allocation-runs.ts";

const extent = (firstSector: number, sectorCount: number) =>
  ({ firstSector, sectorCount }) as unknown as Extent;

test("neighbours of one kind are one run, over grains and answers", () => {
  const list = new AllocationRuns(grainBytes / 2, 3 * grainBytes, 8);
  list.take(0, { coveredCount: 2, grains: new Map([[1, [extent(0, 64), extent(64, 64)]]]) });
  assert.equal(list.done, false);
  assert.equal(list.atBytes, 2 * grainBytes);
  list.take(2, { coveredCount: 5, grains: new Map() });
  assert.equal(list.done, true);
  assert.deepEqual(list.runs, [
    { lengthBytes: grainBytes / 2, mapped: false },
    { lengthBytes: grainBytes, mapped: true },
    { lengthBytes: 1.5 * grainBytes, mapped: false },
  ]);
});

test("extents before the beginning and past the end are cut off", () => {
  const list = new AllocationRuns(4 * sectorBytes, 4 * sectorBytes, 8);
  list.take(0, { coveredCount: 1, grains: new Map([[0, [extent(0, 6), extent(7, 9)]]]) });
  assert.deepEqual(list.runs, [
    { lengthBytes: 2 * sectorBytes, mapped: true },
    { lengthBytes: sectorBytes, mapped: false },
    { lengthBytes: sectorBytes, mapped: true },
  ]);
});

test("runs beyond the most are left out, and the last one is not cut short", () => {
  const list = new AllocationRuns(0, grainBytes, 2);
  list.take(0, { coveredCount: 1, grains: new Map([[0, [extent(1, 2), extent(5, 1)]]]) });
  assert.equal(list.full, true);
  assert.deepEqual(list.runs, [
    { lengthBytes: sectorBytes, mapped: false },
    { lengthBytes: 2 * sectorBytes, mapped: true },
  ]);
});
