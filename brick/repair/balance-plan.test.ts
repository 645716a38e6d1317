import assert from "node:assert/strict";
import { test } from "node:test";
import type { BrickRecord, ClusterState } from "../cluster-state.ts";
import type { Extent } from "../map/grain.ts";
import { Prng } from "../prng.ts";
import { type BrickNumber, GiB } from "../units.ts";
import { lastingPlacement } from "../volume/placement.ts";
import { growingBricks, planMove } from "./balance-plan.ts";
import { domainCount } from "./spread.ts";

/** Bricks numbered from 1: half used, up. */
function stateOf(...bricks: Partial<BrickRecord>[]): ClusterState {
  const usual = { status: "up", reachable: true, domain: "", full: false };
  const records = bricks.map((facts, at) => {
    const space = { capacityBytes: GiB, usedBytes: GiB / 2 };
    return [at + 1, { ...usual, ...space, number: at + 1, ...facts }];
  });
  return { bricks: Object.fromEntries(records) } as ClusterState;
}

const prng = new Prng(1);
const keys = Array.from({ length: 400 }, () => prng.fill(Buffer.alloc(32)));

function extentOf(key: Buffer, holders: readonly BrickNumber[]): Extent {
  return { firstSector: 0, sectorCount: 8, chunkSector: 0, chunkSectors: 8, key, holders };
}

function move(state: ClusterState, key: Buffer, holders: readonly BrickNumber[], copies = 2) {
  return planMove(state, lastingPlacement(state), copies, extentOf(key, holders));
}

/** Where the keys were put while only the first bricks were there. */
function placed(state: ClusterState, bricks: number): Map<Buffer, BrickNumber[]> {
  const first = Object.entries(state.bricks).slice(0, bricks);
  const before = lastingPlacement({ ...state, bricks: Object.fromEntries(first) });
  return new Map(keys.map((key) => [key, before.order(key).slice(0, 2)]));
}

const empty = { usedBytes: 0, growing: true } as const;

test("a brick that grows gets about its share, and nothing moves twice", () => {
  const state = stateOf({}, {}, {}, empty);
  const at = placed(state, 3);
  let moves = 0;
  for (let walk = 0; walk < 3; walk += 1) {
    for (const [key, holders] of at) {
      const planned = move(state, key, holders);
      if (planned === null) continue;
      assert.equal(walk, 0, "a chunk is moved once");
      assert.deepEqual(planned.targets, [4]);
      assert.equal(planned.kept.length, 1);
      at.set(key, [...planned.kept, ...planned.targets]);
      moves += 1;
    }
  }
  // Half of all chunks have one of two copies there.
  assert.ok(moves > 0.4 * keys.length && moves < 0.6 * keys.length, `${moves} moves`);
});

test("nothing moves to a brick that does not grow, however empty it is", () => {
  const state = stateOf({}, {}, {}, { usedBytes: 0 });
  assert.equal(growingBricks(state), "");
  for (const [key, holders] of placed(state, 3)) assert.equal(move(state, key, holders), null);
});

test("nothing moves to a brick that is away, full or leaving", () => {
  for (const facts of [
    { status: "down", reachable: false },
    { status: "draining" },
    { status: "failed", reachable: false },
    { full: true },
  ] as const) {
    const state = stateOf({}, {}, {}, { ...empty, ...facts });
    assert.equal(growingBricks(state), "");
    for (const [key, holders] of placed(state, 3)) assert.equal(move(state, key, holders), null);
  }
});

test("what lacks a copy, or has one on a brick that is away or leaves, is left alone", () => {
  const away = stateOf({}, { status: "down", reachable: false }, {}, empty);
  const leaving = stateOf({}, { status: "draining" }, {}, empty);
  for (const key of keys) {
    assert.equal(move(away, key, [1, 2]), null);
    assert.equal(move(leaving, key, [1, 2]), null);
    assert.equal(move(away, key, [1]), null);
  }
});

test("failure domains become no fewer, even where the fullest brick would lose its copy", () => {
  const full = { domain: "b", usedBytes: (3 * GiB) / 4 };
  const state = stateOf({ domain: "a" }, full, full, { ...empty, domain: "a" });
  let moves = 0;
  for (const key of keys) {
    for (const holders of [
      [1, 2],
      [1, 3],
    ]) {
      const planned = move(state, key, holders);
      if (planned === null) continue;
      moves += 1;
      assert.equal(domainCount(state, [...planned.kept, ...planned.targets]), 2);
    }
  }
  assert.ok(moves > 0.3 * keys.length, `${moves} moves`);
});

test("the copy that goes is the one on the fullest brick that it does not belong to", () => {
  const state = stateOf({ usedBytes: GiB / 4 }, { usedBytes: (3 * GiB) / 4 }, {}, empty, empty);
  for (const key of keys) {
    const ideal = lastingPlacement(state).order(key).slice(0, 2);
    const planned = move(state, key, [1, 2]);
    if (ideal.includes(1) || ideal.includes(2) || planned === null) continue;
    assert.deepEqual(planned.kept, [1]);
  }
});
