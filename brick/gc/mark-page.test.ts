import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { ClusterState } from "../cluster-state.ts";
import { decodeChunkMark, encodeChunkMark } from "./mark-messages.ts";
import { MarkPage } from "./mark-page.ts";

/** Bricks 1 to `count`, all there; `away` are not steady. */
function stateOf(count: number, away: readonly number[] = []): ClusterState {
  const numbers = Array.from({ length: count }, (_, at) => at + 1);
  const usual = {
    status: "up",
    reachable: true,
    boot: 1,
    domain: "",
    capacityBytes: 64,
    usedBytes: 0,
  };
  const brick = (number: number) => ({ number, ...usual });
  const steady = { boot: 1, absences: 0, since: 1 };
  return {
    bricks: Object.fromEntries(numbers.map((number) => [number, brick(number)])),
    gc: {
      marked: 1,
      begunMs: 0,
      steady: Object.fromEntries(
        numbers.filter((one) => !away.includes(one)).map((number) => [number, steady]),
      ),
    },
  } as unknown as ClusterState;
}

const key = (seed: number) => Buffer.alloc(32, seed);

/** Who is asked for what, as text. */
function shown(questions: Map<number, Buffer[]>): string[] {
  return [...questions].map(([brick, keys]) => `${brick}: ${keys.map((one) => one[0]).join(" ")}`);
}

test("each named brick is asked once for each chunk, and when all have it nobody else is", () => {
  const page = new MarkPage();
  page.add(key(7), [1, 2], 2);
  page.add(key(7), [1, 3], 3);
  page.add(key(8), [2, 3], 2);
  const state = stateOf(4);
  const questions = page.byHolder(state);
  assert.deepEqual(shown(questions).sort(), ["1: 7", "2: 7 8", "3: 7 8"]);
  for (const [brick, keys] of questions) {
    page.answered(
      brick,
      keys,
      keys.map(() => true),
    );
  }
  assert.deepEqual(shown(page.byStranger(state)), []);
  assert.deepEqual(page.corrections(state), []);
});

test("where too few have it every other brick is asked, and the map learns who has it", () => {
  const page = new MarkPage();
  page.add(key(7), [1, 2], 2);
  const state = stateOf(4);
  page.byHolder(state);
  page.answered(1, [key(7)], [true]);
  page.answered(2, [key(7)], [false]);
  assert.deepEqual(shown(page.byStranger(state)), ["3: 7", "4: 7"]);
  page.answered(3, [key(7)], [false]);
  page.answered(4, [key(7)], [true]);
  assert.deepEqual(page.corrections(state), [{ key: key(7), holders: [1, 4], surplus: 0 }]);
});

test("a brick that is away says nothing of what it has, and stays named", () => {
  const page = new MarkPage();
  page.add(key(7), [1, 2], 2);
  const state = stateOf(3, [2]);
  assert.deepEqual(shown(page.byHolder(state)), ["1: 7"]);
  page.answered(1, [key(7)], [true]);
  assert.deepEqual(shown(page.byStranger(state)), ["3: 7"]);
  page.answered(3, [key(7)], [true]);
  assert.deepEqual(page.corrections(state), [{ key: key(7), holders: [1, 3, 2], surplus: 0 }]);
});

test("while too few copies are found the map keeps the hints that it has", () => {
  const page = new MarkPage();
  page.add(key(7), [1, 2], 2);
  // Brick 3 is back since a moment ago, and may be the one that has it.
  const state = stateOf(3, [3]);
  page.byHolder(state);
  page.answered(1, [key(7)], [true]);
  page.answered(2, [key(7)], [false]);
  assert.deepEqual(shown(page.byStranger(state)), []);
  assert.deepEqual(page.corrections(state), []);
});

/** A page on which everybody who is asked has everything. */
function allHave(page: MarkPage, state: ClusterState): void {
  for (const round of ["byHolder", "byStranger"] as const) {
    for (const [brick, keys] of page[round](state)) {
      page.answered(
        brick,
        keys,
        keys.map(() => true),
      );
    }
  }
}

test("of more copies than are wanted as many are named as are", () => {
  const page = new MarkPage();
  page.add(key(7), [1, 2, 3, 4], 2);
  page.add(key(8), [1, 2], 2);
  const state = stateOf(4);
  allHave(page, state);
  const [correction, ...others] = page.corrections(state);
  assert.equal(others.length, 0);
  assert.deepEqual(correction!.key, key(7));
  assert.equal(correction!.holders.length, 2);
  assert.equal(correction!.surplus, 2);
});

test("copies are surplus by who has one and stays, not by who is named", () => {
  const named = [1, 2, 3];
  const lacking = new MarkPage();
  lacking.add(key(7), named, 2);
  const state = stateOf(3);
  lacking.byHolder(state);
  for (const brick of named) lacking.answered(brick, [key(7)], [brick !== 2]);
  assert.deepEqual(lacking.corrections(state), [{ key: key(7), holders: [1, 3], surplus: 0 }]);
  for (const away of [stateOf(3, [3]), stateOf(3)]) {
    const page = new MarkPage();
    page.add(key(7), named, 2);
    const bricks = { ...away.bricks, 3: { ...away.bricks[3]!, status: "draining" as const } };
    const leaving = { ...away, bricks };
    allHave(page, leaving);
    assert.deepEqual(page.corrections(leaving), []);
  }
});

test("the copies that stay named are in as many failure domains as can be", () => {
  const plain = stateOf(4);
  const domains = ["", "a", "a", "a", "b"];
  const bricks = Object.values(plain.bricks).map((brick) => {
    return [brick.number, { ...brick, domain: domains[brick.number]! }];
  });
  const state = { ...plain, bricks: Object.fromEntries(bricks) };
  for (let seed = 1; seed < 50; seed += 1) {
    const page = new MarkPage();
    page.add(key(seed), [1, 2, 3, 4], 2);
    allHave(page, state);
    assert.ok(page.corrections(state)[0]!.holders.includes(4));
  }
});

test("what nobody has is not named nowhere", () => {
  const page = new MarkPage();
  page.add(key(7), [1], 1);
  const state = stateOf(2);
  page.byHolder(state);
  page.answered(1, [key(7)], [false]);
  page.byStranger(state);
  page.answered(2, [key(7)], [false]);
  assert.deepEqual(page.corrections(state), []);
});

test("marks come back as they were sent, and no bytes crash the decoder", () => {
  const keys = [key(1), key(2), key(3)];
  const body = Buffer.concat(encodeChunkMark(2 ** 32 - 1, keys));
  assert.deepEqual(decodeChunkMark(body), { gcEpoch: 2 ** 32 - 1, keys });
  assert.equal(body.subarray(0, 8).toString("hex"), "01000003ffffffff");
  assert.equal(decodeChunkMark(body.subarray(1)), null);
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      decodeChunkMark(Buffer.from(bytes));
    }),
  );
});
