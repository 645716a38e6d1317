import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Prng } from "../prng.ts";
import { Placement } from "./placement.ts";

function keys(count: number, seed: number): Buffer[] {
  const prng = new Prng(seed);
  return Array.from({ length: count }, () => prng.fill(Buffer.alloc(32)));
}

const weights = fc.array(fc.integer({ min: 1, max: 10 }), { minLength: 2, maxLength: 8 });

function bricksOf(list: number[], domain = (_index: number) => "") {
  return list.map((weight, index) => ({ number: index + 1, weight, domain: domain(index) }));
}

test("bricks come first in proportion to their weight", () => {
  fc.assert(
    fc.property(weights, fc.nat(), (list, seed) => {
      const placement = new Placement(bricksOf(list));
      const total = list.reduce((sum, weight) => sum + weight, 0);
      const counts = new Map<number, number>();
      const sample = keys(4000, seed);
      for (const key of sample) {
        const best = placement.order(key)[0]!;
        counts.set(best, (counts.get(best) ?? 0) + 1);
      }
      for (const [index, weight] of list.entries()) {
        const share = (counts.get(index + 1) ?? 0) / sample.length;
        const expected = weight / total;
        const deviation = Math.sqrt((expected * (1 - expected)) / sample.length);
        assert.ok(Math.abs(share - expected) < 6 * deviation, `${share} against ${expected}`);
      }
    }),
    { numRuns: 25 },
  );
});

test("what comes last stands behind all others, by the same order, whatever its domain", () => {
  const domains = ["a", "a", "b", "c", "c", "d"];
  const bricks = bricksOf([3, 1, 2, 5, 1, 4], (index) => domains[index]!);
  const all = new Placement(bricks.map((one) => ({ ...one, last: one.number > 3 })));
  const first = new Placement(bricks.slice(0, 3));
  const last = new Placement(bricks.slice(3));
  for (const key of keys(200, 5)) {
    const order = all.order(key);
    assert.deepEqual(order.slice(0, 3), first.order(key));
    assert.deepEqual(order.slice(3), last.order(key));
  }
});

test("a brick that comes or goes leaves the order of the others alone", () => {
  fc.assert(
    fc.property(weights, fc.nat(), fc.nat(), (list, seed, pick) => {
      const all = bricksOf(list);
      const gone = all[pick % all.length]!;
      const whole = new Placement(all);
      const less = new Placement(all.filter((brick) => brick !== gone));
      for (const key of keys(50, seed)) {
        const expected = whole.order(key).filter((number) => number !== gone.number);
        assert.deepEqual(less.order(key), expected);
      }
    }),
    { numRuns: 50 },
  );
});

test("the order has every brick once and begins with distinct failure domains", () => {
  fc.assert(
    fc.property(weights, fc.integer({ min: 1, max: 4 }), fc.nat(), (list, domainCount, seed) => {
      const domainOf = (index: number) => `rack ${index % domainCount}`;
      const placement = new Placement(bricksOf(list, domainOf));
      const distinct = Math.min(domainCount, list.length);
      for (const key of keys(20, seed)) {
        const order = placement.order(key);
        assert.deepEqual(
          order.toSorted((a, b) => a - b),
          list.map((_, index) => index + 1),
        );
        const domains = new Set(order.slice(0, distinct).map((number) => domainOf(number - 1)));
        assert.equal(domains.size, distinct);
        assert.deepEqual(placement.order(key), order);
      }
    }),
    { numRuns: 50 },
  );
});
