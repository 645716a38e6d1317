import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { Extent } from "../map/grain.ts";
import { sectorsPerGrain } from "../units.ts";
import { MapCache, type MapFill } from "./map-cache.ts";

/** What the map says, sector by sector: the write's number and the sector inside its chunk. */
class Model {
  readonly #sectors = new Map<number, { write: number; chunkSector: number }[]>();

  of(grain: number): ({ write: number; chunkSector: number } | undefined)[] {
    let sectors = this.#sectors.get(grain);
    if (sectors === undefined) {
      sectors = [];
      this.#sectors.set(grain, sectors);
    }
    return sectors;
  }

  write(grain: number, first: number, count: number, write: number | null): void {
    const sectors = this.of(grain);
    for (let index = 0; index < count; index += 1) {
      if (write === null) delete sectors[first + index];
      else sectors[first + index] = { write, chunkSector: index };
    }
  }

  extents(grain: number): Extent[] {
    const extents: Extent[] = [];
    const sectors = this.of(grain);
    for (let at = 0; at < sectorsPerGrain; at += 1) {
      const here = sectors[at];
      if (here === undefined) continue;
      const last = extents.at(-1);
      const continues =
        last !== undefined &&
        last.firstSector + last.sectorCount === at &&
        last.key.readUInt32BE(0) === here.write &&
        last.chunkSector + last.sectorCount === here.chunkSector;
      if (continues) extents[extents.length - 1] = longer(last);
      else extents.push(extentOf(at, 1, here.write, here.chunkSector));
    }
    return extents;
  }
}

function extentOf(first: number, count: number, write: number, chunkSector = 0): Extent {
  const key = Buffer.alloc(32);
  key.writeUInt32BE(write, 0);
  const holders = [1 + (write % 3), 4];
  return { firstSector: first, sectorCount: count, chunkSector, chunkSectors: 128, key, holders };
}

function longer(extent: Extent): Extent {
  return { ...extent, sectorCount: extent.sectorCount + 1 };
}

const grain = fc.nat(4).map((number) => number * 2 ** 33 + number);
const range = fc
  .tuple(fc.integer({ min: 0, max: 127 }), fc.integer({ min: 1, max: 128 }))
  .map(([first, count]) => ({ first, count: Math.min(count, 128 - first) }));

const step = fc.oneof(
  fc.record({ type: fc.constant("write" as const), grain, range, unmap: fc.boolean() }),
  fc.record({ type: fc.constant("fill" as const), grain }),
  fc.record({ type: fc.constant("answer" as const) }),
  fc.record({ type: fc.constant("endFill" as const) }),
  fc.record({ type: fc.constant("forget" as const), grain }),
  fc.record({ type: fc.constant("unmapRun" as const), grain }),
  fc.record({ type: fc.constant("clear" as const) }),
);

test("what is known is what the map says, whatever overtakes what", () => {
  fc.assert(
    fc.property(
      fc.array(step, { maxLength: 150, size: "max" }),
      fc.integer({ min: 1, max: 6 }),
      (steps, grainsMax) => {
        const cache = new MapCache({ grainsMax, cellsMax: 300 });
        const model = new Model();
        const fills: { fill: MapFill; answer: Extent[] | null }[] = [];
        let writes = 0;
        for (const one of steps) {
          writes += 1;
          if (one.type === "write") {
            const { first, count } = one.range;
            const write = one.unmap ? null : writes;
            model.write(one.grain, first, count, write);
            const extent = write === null ? null : extentOf(first, count, write);
            cache.commit(one.grain, first, count, extent);
          } else if (one.type === "unmapRun") {
            model.write(one.grain, 0, 128, null);
            cache.commitUnmapRun(one.grain, 1);
          } else if (one.type === "fill") {
            fills.push({ fill: cache.beginFill(one.grain, 1), answer: null });
          } else if (one.type === "answer") {
            // The primary answers now; the reply arrives later, perhaps after commits.
            const asked = fills.find(({ answer }) => answer === null);
            if (asked) asked.answer = model.extents(asked.fill.firstGrain);
          } else if (one.type === "endFill") {
            const asked = fills.shift();
            if (asked) cache.endFill(asked.fill, asked.answer && (() => asked.answer!));
          } else if (one.type === "forget") cache.forget(one.grain);
          else cache.clear();
          assert.ok(cache.grainCount <= grainsMax);
          for (let number = 0; number <= 4; number += 1) {
            checkGrain(cache, model, number * 2 ** 33 + number);
          }
        }
      },
    ),
    { numRuns: 150 },
  );
});

function checkGrain(cache: MapCache, model: Model, number: number): void {
  const found = cache.lookup(number, 0, sectorsPerGrain);
  if (found === undefined) return;
  const sectors = model.of(number);
  let at = 0;
  for (const { firstSector, sectorCount, key, chunkSector, holders } of found) {
    assert.ok(firstSector >= at && sectorCount > 0);
    for (; at < firstSector; at += 1) assert.equal(sectors[at], undefined);
    for (; at < firstSector + sectorCount; at += 1) {
      const write = key.readUInt32BE(0);
      assert.deepEqual(sectors[at], { write, chunkSector: chunkSector + at - firstSector });
      assert.deepEqual(holders, [1 + (write % 3), 4]);
    }
  }
  for (; at < sectorsPerGrain; at += 1) assert.equal(sectors[at], undefined);
}

test("a look-up returns only what overlaps", () => {
  const cache = new MapCache({ grainsMax: 4, cellsMax: 300 });
  const extents = [extentOf(0, 8, 1), extentOf(8, 8, 2), extentOf(32, 8, 3)];
  cache.endFill(cache.beginFill(7, 1), () => extents);
  const keysIn = (first: number, end: number) =>
    cache.lookup(7, first, end)!.map((extent) => extent.key.readUInt32BE(0));
  assert.deepEqual(keysIn(8, 9), [2]);
  assert.deepEqual(keysIn(7, 33), [1, 2, 3]);
  assert.deepEqual(keysIn(16, 32), []);
  assert.equal(cache.lookup(8, 0, 128), undefined);
});

test("evicted and removed grains give their cells back", () => {
  const cache = new MapCache({ grainsMax: 1000, cellsMax: 512 });
  for (let number = 0; number < 5000; number += 1) {
    const extents = Array.from({ length: 1 + (number % 16) }, (_, at) => extentOf(at, 1, number));
    cache.endFill(cache.beginFill(number, 1), () => extents);
    assert.ok(cache.cellCount <= 512);
    assert.equal(cache.lookup(number, 0, 128)!.length, extents.length);
  }
  for (let number = 0; number < 5000; number += 1) cache.forget(number);
  assert.equal(cache.cellCount, 0);
  assert.equal(cache.grainCount, 0);
});
