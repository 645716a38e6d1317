import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { clearSectors, decodeGrain, encodeGrain, type Grain, mappedSectors } from "./grain.ts";
import { overwriteSectors } from "./grain-model.test-support.ts";
import { mappedInRecord, overwriteRecord, recordOp } from "./grain-splice.ts";

const range = fc
  .record({ firstSector: fc.nat(127), length: fc.integer({ min: 1, max: 128 }) })
  .map(({ firstSector, length }) => {
    return { firstSector, sectorCount: Math.min(length, 128 - firstSector) };
  });
const step = fc.record({
  range,
  write: fc.boolean(),
  explicitZeros: fc.boolean(),
  lead: fc.nat(3),
  holders: fc.array(fc.integer({ min: 1, max: 65_535 }), { maxLength: 8 }),
});

test("a write into a stored record does what it does to the grain", () => {
  fc.assert(
    fc.property(fc.array(step, { minLength: 1, maxLength: 40 }), (steps) => {
      let grain: Grain | undefined;
      for (const [at, { range, write, explicitZeros, lead, holders }] of steps.entries()) {
        const op = 2 ** 33 + at;
        const before = grain === undefined ? undefined : encodeGrain(grain);
        const { firstSector, sectorCount } = range;
        if (!write) {
          grain = clearSectors(grain, op, firstSector, sectorCount, explicitZeros);
          continue;
        }
        const chunkSector = Math.min(lead, 128 - sectorCount);
        const chunk = { chunkSector, chunkSectors: chunkSector + sectorCount, holders };
        const extent = { ...range, ...chunk, key: Buffer.alloc(32, 1 + at) };
        grain = overwriteSectors(grain, op, extent);
        const record = overwriteRecord(before, op, extent);
        assert.deepEqual(record, encodeGrain(grain));
        assert.deepEqual(decodeGrain(record), grain);
        assert.equal(recordOp(record), op);
        assert.equal(mappedInRecord(record), mappedSectors(grain));
        if (before !== undefined) assert.equal(recordOp(before) < op, true);
      }
    }),
    { numRuns: 2000 },
  );
});

test("an entry older than the record is refused", () => {
  const extent = {
    firstSector: 0,
    sectorCount: 8,
    chunkSector: 0,
    chunkSectors: 8,
    key: Buffer.alloc(32, 1),
    holders: [1],
  };
  const record = overwriteRecord(undefined, 5, extent);
  assert.throws(() => overwriteRecord(record, 4, extent), /older/);
});
