import assert from "node:assert/strict";
import { test } from "node:test";
import { checkSector, type SectorHistory } from "./history.ts";

const never = Number.POSITIVE_INFINITY;
const write = (tag: number, start: number, end: number) => ({ tag, start, end });

function verdict(history: Partial<SectorHistory>): string {
  return checkSector({ writes: [], reads: [], ...history })?.kind ?? "ok";
}

test("reads of a sector never written are zeros", () => {
  assert.equal(verdict({ reads: [write(0, 1, 2)] }), "ok");
  assert.equal(verdict({ reads: [write(7, 1, 2)] }), "invented");
});

test("an acknowledged write is seen by every later read", () => {
  const writes = [write(1, 1, 2), write(2, 3, 4)];
  assert.equal(verdict({ writes, reads: [write(2, 5, 6)] }), "ok");
  assert.equal(verdict({ writes, reads: [write(1, 5, 6)] }), "order");
  assert.equal(verdict({ writes, reads: [write(0, 5, 6)] }), "lost");
});

test("during a write a read may see old or new", () => {
  const writes = [write(1, 1, 2), write(2, 3, 8)];
  assert.equal(verdict({ writes, reads: [write(1, 4, 5), write(2, 6, 7)] }), "ok");
});

test("a value does not come back once a newer one was read", () => {
  const writes = [write(1, 1, 2), write(2, 3, 10)];
  assert.equal(verdict({ writes, reads: [write(2, 4, 5), write(1, 6, 7)] }), "order");
});

test("a write without an answer may land late, or never, but not twice", () => {
  const writes = [write(1, 1, 2), write(2, 3, never)];
  assert.equal(verdict({ writes, reads: [write(1, 4, 5), write(2, 8, 9)] }), "ok");
  assert.equal(verdict({ writes, reads: [write(1, 4, 5)] }), "ok");
  assert.equal(verdict({ writes, reads: [write(2, 4, 5), write(1, 6, 7)] }), "order");
});

test("a read cannot see a write that begins later", () => {
  assert.equal(verdict({ writes: [write(1, 5, 6)], reads: [write(1, 2, 3)] }), "invented");
});

test("zeros are seen only while a zeroing can be the last write", () => {
  const writes = [write(1, 1, 2), write(0, 3, 4), write(2, 5, 6)];
  assert.equal(verdict({ writes: writes.slice(0, 2), reads: [write(0, 7, 8)] }), "ok");
  assert.equal(verdict({ writes, reads: [write(0, 7, 8)] }), "lost");
  assert.equal(
    verdict({ writes: [write(1, 1, 2), write(0, 3, never)], reads: [write(0, 7, 8)] }),
    "ok",
  );
});

test("concurrent writes settle in one order for all readers", () => {
  const writes = [write(1, 1, 10), write(2, 2, 9)];
  assert.equal(verdict({ writes, reads: [write(1, 11, 12), write(1, 13, 14)] }), "ok");
  assert.equal(verdict({ writes, reads: [write(1, 11, 12), write(2, 13, 14)] }), "order");
});
