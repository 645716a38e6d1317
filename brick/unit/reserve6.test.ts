import assert from "node:assert/strict";
import { test } from "node:test";
import type { ReservationType } from "./unit-record.ts";
import { key, nexusOf, TestUnit } from "./unit-testing.test-double.ts";

const a = nexusOf("a", 1);
const b = nexusOf("b", 1);
const reserve = (nexus: typeof a) => ({ type: "reserve6", nexus }) as const;
const release = (nexus: typeof a) => ({ type: "release6", nexus }) as const;

test("RESERVE(6) is one nexus', until it releases it", () => {
  const unit = new TestUnit();
  assert.equal(unit.change(reserve(a)), "done");
  const { record } = unit;
  assert.equal(unit.change(reserve(a)), "done");
  assert.equal(unit.change(reserve(b)), "reservation_conflict");
  assert.equal(unit.change(release(b)), "done");
  assert.equal(unit.record, record, "a release by another is no error and does nothing");
  assert.equal(unit.change(release(a)), "done");
  assert.equal(unit.change(reserve(b)), "done");
});

test("RESERVE(6) goes with its nexus, and with a reset", () => {
  const unit = new TestUnit();
  unit.change(reserve(a));
  const { record } = unit;
  assert.equal(unit.change({ type: "nexusLost", nexus: b }), "done");
  assert.equal(unit.record, record);
  assert.equal(unit.change({ type: "nexusLost", nexus: a }), "done");
  assert.equal(unit.record.reservations.reserve6, null);
  unit.change(reserve(a));
  unit.change({ type: "reset", nexus: b });
  assert.equal(unit.record.reservations.reserve6, null);
});

test("beside registrations RESERVE(6) and RELEASE(6) conflict (SPC-2 §5.5.1)", () => {
  const unit = new TestUnit().register(a);
  const { record } = unit;
  for (const nexus of [a, b]) {
    assert.equal(unit.change(reserve(nexus)), "reservation_conflict");
    assert.equal(unit.change(release(nexus)), "reservation_conflict");
  }
  assert.equal(unit.record, record);
});

test("compatible reservation handling: GOOD to whom the persistent reservation lets in", () => {
  const letsIn: readonly [ReservationType, boolean][] = [
    [1, false],
    [3, false],
    [5, true],
    [6, true],
    [7, true],
    [8, true],
  ];
  for (const [reservation, registrant] of letsIn) {
    const unit = new TestUnit().register(a, b);
    unit.out(a, "reserve", { key: key(1), reservation });
    const { record } = unit;
    for (const change of [reserve, release]) {
      assert.equal(unit.change(change(a)), "done");
      const expected = registrant ? "done" : "reservation_conflict";
      assert.equal(unit.change(change(b)), expected, `type ${reservation}`);
      assert.equal(unit.change(change(nexusOf("stranger", 1))), "reservation_conflict");
    }
    assert.equal(unit.record, record, "no reservation comes of it");
  }
});
