import assert from "node:assert/strict";
import { test } from "node:test";
import { Prng } from "../prng.ts";
import { GrowingKeyFilter } from "./growing-key-filter.ts";

const prng = new Prng(1);
const names = Array.from({ length: 160_000 }, () => prng.fill(Buffer.alloc(32)).toString("latin1"));
const nameOf = (number: number) => names[number]!;

function added(filter: GrowingKeyFilter, count: number): GrowingKeyFilter {
  for (let number = 0; number < count; number += 1) filter.add(nameOf(number));
  return filter;
}

function wrongShare(filter: GrowingKeyFilter, from: number): number {
  let wrong = 0;
  for (let number = from; number < from + 10_000; number += 1) {
    wrong += +filter.mayHave(nameOf(number));
  }
  return wrong / 10_000;
}

test("a filter that was made for few keys knows many, and errs little more", () => {
  const count = 150_000;
  const filter = added(new GrowingKeyFilter(0), count);
  for (let number = 0; number < count; number += 1) assert.ok(filter.mayHave(nameOf(number)));
  const share = wrongShare(filter, count);
  assert.ok(share > 0 && share < 0.01, `${share}`);
  assert.ok(!filter.isWorn(count));
  assert.ok(filter.memoryBytes < 6 * count);
});

test("what is gone wears it: then, not before, its keys are to be learnt anew", () => {
  const filter = added(new GrowingKeyFilter(0), 120_000);
  assert.ok(!filter.isWorn(40_000));
  assert.ok(filter.isWorn(39_000));
  assert.ok(!added(new GrowingKeyFilter(0), 32_768).isWorn(0));
});

test("it keeps to its bound, and is worn when it is full there", () => {
  const bytesMax = 65_536;
  const filter = added(new GrowingKeyFilter(0, bytesMax), 130_000);
  assert.ok(filter.memoryBytes <= bytesMax);
  assert.ok(!filter.isWorn(65_000));
  assert.ok(filter.isWorn(64_999));
  for (let number = 0; number < 130_000; number += 1) assert.ok(filter.mayHave(nameOf(number)));
});
