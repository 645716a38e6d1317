import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { sectorsPerGrain } from "../units.ts";
import {
  clearSectors,
  decodeGrain,
  type Extent,
  encodeGrain,
  type Grain,
  mappedSectors,
  overlayOver,
  rehint,
  zeroKey,
} from "./grain.ts";
import { overwriteSectors } from "./grain-model.test-support.ts";

/** One sector as the model has it: chunk and sector in it, "zeros", or undefined. */
type Cell = string | undefined;

type Change =
  | { type: "write"; first: number; count: number; chunk: number; skip: number; holders: number[] }
  | { type: "unmap"; first: number; count: number }
  | { type: "rehint"; chunk: number; holders: number[] };

const range = fc
  .tuple(fc.nat(sectorsPerGrain - 1), fc.integer({ min: 1, max: sectorsPerGrain }))
  .map(([first, count]) => ({ first, count: Math.min(count, sectorsPerGrain - first) }));
const holders = fc.array(fc.integer({ min: 1, max: 65_535 }), { maxLength: 8 });
const chunk = fc.integer({ min: 1, max: 3 });
const change: fc.Arbitrary<Change> = fc.oneof(
  fc.tuple(range, chunk, fc.nat(40), holders).map(([{ first, count }, chunk, skip, holders]) => ({
    type: "write" as const,
    ...{ first, count, chunk, holders },
    skip: Math.min(skip, sectorsPerGrain - count),
  })),
  range.map((range) => ({ type: "unmap" as const, ...range })),
  fc.record({ type: fc.constant("rehint" as const), chunk, holders }),
);
const changes = fc.array(change, { maxLength: 12 });

function keyOf(chunk: number): Buffer {
  const key = Buffer.alloc(32);
  key.writeUInt32BE(chunk, 28);
  return key;
}

function apply(grain: Grain | undefined, op: number, change: Change, overlay: boolean) {
  if (change.type === "unmap") return clearSectors(grain, op, change.first, change.count, overlay);
  if (change.type === "rehint") {
    return grain && rehint(grain, op, keyOf(change.chunk), change.holders);
  }
  return overwriteSectors(grain, op, {
    firstSector: change.first,
    sectorCount: change.count,
    chunkSector: change.skip,
    chunkSectors: change.count + change.skip,
    key: keyOf(change.chunk),
    holders: change.holders,
  });
}

function applyToModel(cells: Cell[], change: Change, zeros: Cell): void {
  if (change.type === "rehint") {
    for (const [at, cell] of cells.entries()) {
      const parts = cell?.split(":");
      if (parts?.[0] !== String(change.chunk)) continue;
      cells[at] = `${parts[0]}:${parts[1]}:${parts[2]}:${change.holders}`;
    }
    return;
  }
  for (let index = 0; index < change.count; index += 1) {
    const at = change.first + index;
    if (change.type === "unmap") cells[at] = zeros;
    else {
      const size = change.count + change.skip;
      cells[at] = `${change.chunk}:${change.skip + index}:${size}:${change.holders}`;
    }
  }
}

function cellsOf(grain: Grain | undefined): Cell[] {
  const cells = emptyCells();
  let sector = 0;
  for (const extent of grain?.extents ?? []) {
    assert(extent.firstSector >= sector, "extents overlap or are out of order");
    sector = extent.firstSector + extent.sectorCount;
    for (let index = 0; index < extent.sectorCount; index += 1) {
      cells[extent.firstSector + index] = extent.key.equals(zeroKey)
        ? "zeros"
        : `${extent.key.readUInt32BE(28)}:${extent.chunkSector + index}:${extent.chunkSectors}:${extent.holders}`;
    }
  }
  assert(sector <= sectorsPerGrain);
  return cells;
}

const emptyCells = (): Cell[] => new Array<Cell>(sectorsPerGrain).fill(undefined);

for (const overlay of [false, true]) {
  test(`changes of ${overlay ? "an overlay's" : "a"} grain do what they do to plain sectors`, () => {
    fc.assert(
      fc.property(changes, (changes) => {
        const cells = emptyCells();
        let grain: Grain | undefined;
        for (const [index, change] of changes.entries()) {
          const next = apply(grain, index + 1, change, overlay);
          if (next === undefined) continue;
          grain = next;
          applyToModel(cells, change, overlay ? "zeros" : undefined);
          assert.equal(grain.op, index + 1);
          assert.deepEqual(cellsOf(grain), cells);
          assert.deepEqual(decodeGrain(encodeGrain(grain)), grain);
        }
        const mapped = cells.filter((cell) => cell !== undefined && cell !== "zeros").length;
        assert.equal(mappedSectors(grain), mapped);
      }),
    );
  });
}

test("an overlay over its base is what all the changes make of the base", () => {
  // Hints of the base's chunks are changed only by complete replicas and by the walk after.
  const later = changes.map((all) => all.filter((change) => change.type !== "rehint"));
  fc.assert(
    fc.property(changes, later, (before, after) => {
      let base: Grain | undefined;
      let op = 0;
      for (const change of before) base = apply(base, (op += 1), change, false) ?? base;
      let whole = base;
      let overlay: Grain | undefined;
      for (const change of after) {
        op += 1;
        whole = apply(whole, op, change, false);
        overlay = apply(overlay, op, change, true);
      }
      if (overlay === undefined) return;
      const merged = overlayOver(base, overlay);
      assert.equal(merged.op, op);
      assert.deepEqual(cellsOf(merged), cellsOf(whole));
    }),
  );
});

test("an overlay does not cover a base record that is newer than it", () => {
  const older = extent({ key: keyOf(1) });
  const newer = extent({ key: keyOf(2) });
  const base = overwriteSectors(undefined, 9, newer);
  assert.deepEqual(overlayOver(base, overwriteSectors(undefined, 8, older)), base);
  assert.deepEqual(overlayOver(base, overwriteSectors(undefined, 10, older)).extents, [older]);
});

test("unmaps side by side leave one extent of explicit zeros", () => {
  const sectors = [5, 3, 4];
  let grain: Grain | undefined;
  for (const [op, sector] of sectors.entries()) grain = clearSectors(grain, op, sector, 1, true);
  const zeros = { chunkSector: 0, chunkSectors: 3, key: zeroKey, holders: [] };
  assert.deepEqual(grain!.extents, [{ firstSector: 3, sectorCount: 3, ...zeros }]);
});

test("an entry older than the record is refused", () => {
  const grain = overwriteSectors(undefined, 5, extent({}));
  assert.throws(() => overwriteSectors(grain, 4, extent({})), /older/);
});

function extent(change: Partial<Extent>): Extent {
  return {
    firstSector: 2,
    sectorCount: 3,
    chunkSector: 4,
    chunkSectors: 8,
    key: Buffer.alloc(32, 0xab),
    holders: [1, 0x203],
    ...change,
  };
}

const golden = Buffer.from(
  [
    "01 00 0002 0000000102030405",
    "02 03 04 08 00 00 0000 0001 0203 0000 0000 0000 0000 0000 0000",
    "ab".repeat(32),
    "05 7b 00 7b 00 01 0000 0000 0000 0000 0000 0000 0000 0000 0000",
    "00".repeat(32),
  ]
    .join("")
    .replaceAll(" ", ""),
  "hex",
);

test("the format of a grain record stays", () => {
  const zeros = { chunkSector: 0, chunkSectors: 123, key: zeroKey, holders: [] };
  const extents = [extent({}), { firstSector: 5, sectorCount: 123, ...zeros }];
  const grain = { op: 0x0102030405, extents };
  assert.deepEqual(encodeGrain(grain), golden);
  assert.deepEqual(decodeGrain(golden), grain);
});

test("an extent carries the domain of its key, and nothing of one when it is not encrypted", () => {
  const sealed = Buffer.from(golden);
  sealed.writeUInt16BE(0xfedc, 18);
  const grain = decodeGrain(sealed)!;
  assert.equal(grain.extents[0]!.keyDomain, 0xfedc);
  assert.deepEqual(encodeGrain(grain), sealed);
  const plain = decodeGrain(golden)!;
  assert.equal("keyDomain" in plain.extents[0]!, false);
  // What is left of an extent that was cut is encrypted as it was.
  const cut = clearSectors(grain, grain.op, grain.extents[0]!.firstSector, 1, false);
  assert.equal(cut.extents[0]!.keyDomain, 0xfedc);
});

test("a malformed record is refused", () => {
  const wrong: [string, number, number][] = [
    ["version", 0, 2],
    ["reserve", 1, 1],
    ["count", 3, 3],
    ["op beyond exact numbers", 4, 0x20],
    ["no sectors", 13, 0],
    ["overlap", 13, 4],
    ["past the chunk's end", 14, 6],
    ["chunk too long", 15, 129],
    ["codec", 16, 1],
    ["form", 17, 2],
    ["zeros with a key", 17, 1],
    ["zeros with a key domain", 75, 1],
    ["a holder after the end", 27, 1],
    ["out of order", 68, 4],
    ["past the grain's end", 69, 124],
    ["zeros with a place in a chunk", 70, 1],
    ["a chunk without a key", 73, 0],
    ["zeros with a holder", 77, 1],
  ];
  for (const [what, at, value] of wrong) {
    const bytes = Buffer.from(golden);
    bytes[at] = value;
    assert.equal(decodeGrain(bytes), null, what);
  }
  for (let length = 0; length < golden.length; length += 1) {
    assert.equal(decodeGrain(golden.subarray(0, length)), null);
  }
  assert.equal(decodeGrain(Buffer.concat([golden, Buffer.alloc(1)])), null);
});

test("decoding junk never throws, and what it accepts is the one encoding", () => {
  const flips = fc.array(fc.tuple(fc.nat(golden.length - 1), fc.nat(255)), { maxLength: 3 });
  fc.assert(
    fc.property(flips, (flips) => {
      const bytes = Buffer.from(golden);
      for (const [at, value] of flips) bytes[at] = value;
      const grain = decodeGrain(bytes);
      if (grain !== null) assert.deepEqual(encodeGrain(grain), bytes);
    }),
  );
});
