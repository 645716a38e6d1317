import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { grainsPerShardRun } from "../cluster-state.ts";
import { grainBytes, sectorBytes } from "../units.ts";
import { groupStored, isZero, type Piece, splitUnmap, splitWrite } from "./split.ts";

const grainsStart = (run: number) => run * grainsPerShardRun;

function startOf(piece: Piece): number {
  return piece.grain * grainBytes + piece.firstSector * sectorBytes;
}

function checkCover(pieces: Piece[], offsetBytes: number, lengthBytes: number): void {
  let at = offsetBytes;
  for (const piece of pieces) {
    assert.equal(startOf(piece), at);
    if (piece.grainCount > 0) {
      assert.equal(piece.lengthBytes, piece.grainCount * grainBytes);
      assert.equal(piece.data, null);
      const runOf = (grain: number) => Math.floor(grain / grainsPerShardRun);
      assert.equal(runOf(piece.grain), runOf(piece.grain + piece.grainCount - 1));
    } else {
      assert.equal(piece.lengthBytes, piece.sectorCount * sectorBytes);
      assert.ok(piece.sectorCount > 0 && piece.firstSector + piece.sectorCount <= 128);
    }
    at += piece.lengthBytes;
  }
  assert.equal(at, offsetBytes + lengthBytes);
}

test("splitWrite covers the range once, with the bytes in order, and finds the zeros", () => {
  const part = fc.record({ sectors: fc.integer({ min: 1, max: 300 }), zero: fc.boolean() });
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 2 * 128 * grainsPerShardRun }),
      fc.array(part, { minLength: 1, maxLength: 8 }),
      fc.integer({ min: 1, max: 5000 }),
      (firstSector, parts, cutBytes) => {
        const bytes = Buffer.concat(
          parts.map(({ sectors, zero }) => Buffer.alloc(sectors * sectorBytes, zero ? 0 : 7)),
        );
        const buffers: Buffer[] = [];
        for (let at = 0; at < bytes.length; at += cutBytes) {
          buffers.push(bytes.subarray(at, at + cutBytes));
        }
        const offsetBytes = firstSector * sectorBytes;
        const pieces = splitWrite(offsetBytes, buffers);
        checkCover(pieces, offsetBytes, bytes.length);
        for (const piece of pieces) {
          const at = startOf(piece) - offsetBytes;
          const expected = bytes.subarray(at, at + piece.lengthBytes);
          if (piece.data === null) assert.ok(expected.every((byte) => byte === 0));
          else {
            assert.ok(Buffer.concat(piece.data).equals(expected));
            assert.ok(expected.some((byte) => byte !== 0));
          }
        }
      },
    ),
    { numRuns: 100 },
  );
});

test("splitUnmap covers the range with at most two partial pieces and one run a shard run", () => {
  fc.assert(
    fc.property(fc.nat(1 << 20), fc.integer({ min: 1, max: 1 << 20 }), (first, count) => {
      const pieces = splitUnmap(first * sectorBytes, count * sectorBytes);
      checkCover(pieces, first * sectorBytes, count * sectorBytes);
      const partial = pieces.filter((piece) => piece.grainCount === 0);
      assert.ok(partial.length <= 2);
      const runsTouched = Math.ceil(count / 128 / grainsPerShardRun) + 1;
      assert.ok(pieces.length - partial.length <= runsTouched);
    }),
  );
});

test("a run of zero grains ends at the end of the shard run", () => {
  const grain = grainsStart(1) - 2;
  const pieces = splitWrite(grain * grainBytes, [Buffer.alloc(4 * grainBytes)]);
  assert.deepEqual(
    pieces.map((piece) => [piece.grain, piece.grainCount]),
    [
      [grain, 2],
      [grain + 2, 2],
    ],
  );
});

test("isZero finds a single set bit anywhere", () => {
  const bytes = Buffer.alloc(3 * grainBytes);
  assert.equal(isZero(bytes), true);
  for (const at of [0, 1, 511, grainBytes, 2 * grainBytes + 5, bytes.length - 1]) {
    bytes[at] = 1;
    assert.equal(isZero(bytes), false);
    bytes[at] = 0;
  }
  assert.equal(isZero(Buffer.alloc(0)), true);
});

test("pieces that are stored beforehand are told of together, others alone", () => {
  const data = (grains: number) => Buffer.alloc(grains * grainBytes, 7);
  const shape = (pieces: readonly Piece[]) =>
    pieces.map(({ grain, group, lengthBytes }) => [grain, group?.length ?? 1, lengthBytes]);
  const cut = (offsetBytes: number, bytes: Buffer) =>
    shape(groupStored(splitWrite(offsetBytes, [bytes]), grainBytes / 2));
  assert.deepEqual(cut(0, data(16)), [[0, 16, 16 * grainBytes]]);
  assert.deepEqual(cut(5 * grainBytes, data(1)), [[5, 1, grainBytes]]);
  // Its ends lie inside grains: one is long enough to be stored, the other travels inside.
  const most = grainBytes - 4096;
  assert.deepEqual(cut(4096, data(2)), [
    [0, 2, most + grainBytes],
    [2, 1, 4096],
  ]);
  // No longer than a group may be, nor over the end of a shard's run.
  assert.deepEqual(cut(0, data(20)), [
    [0, 17, 17 * grainBytes],
    [17, 3, 3 * grainBytes],
  ]);
  assert.deepEqual(cut((grainsPerShardRun - 2) * grainBytes, data(4)), [
    [grainsPerShardRun - 2, 2, 2 * grainBytes],
    [grainsPerShardRun, 2, 2 * grainBytes],
  ]);
  // Zeros between them are an unmap of their own.
  const holed = Buffer.concat([data(2), Buffer.alloc(grainBytes), data(2)]);
  assert.deepEqual(cut(0, holed), [
    [0, 2, 2 * grainBytes],
    [2, 1, grainBytes],
    [3, 2, 2 * grainBytes],
  ]);
});
