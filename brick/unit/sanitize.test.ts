import assert from "node:assert/strict";
import { test } from "node:test";
import { key, nexusOf, TestUnit } from "./unit-testing.test-double.ts";

const nexus = nexusOf("a", 1);
const other = nexusOf("b", 1);

function start(unit: TestUnit, allowUnrestrictedExit: boolean) {
  return unit.change({ type: "sanitizeStart", nexus, allowUnrestrictedExit });
}

function exitFailure(unit: TestUnit) {
  return unit.change({ type: "sanitizeExitFailure", nexus });
}

test("a sanitize runs once, tells its progress, and ends", () => {
  const unit = new TestUnit();
  assert.equal(start(unit, false), "done");
  assert.equal(start(unit, false), "sanitizing");
  assert.equal(exitFailure(unit), "sanitizing");
  unit.change({ type: "sanitizeProgress", progress: 30_000 });
  unit.change({ type: "sanitizeProgress", progress: 20_000 });
  assert.deepEqual(unit.record.sanitize, {
    state: "running",
    progress: 30_000,
    allowUnrestrictedExit: false,
  });
  unit.change({ type: "sanitizeEnd", ok: true });
  assert.equal(unit.record.sanitize, null);
  const { record } = unit;
  unit.change({ type: "sanitizeProgress", progress: 1 });
  unit.change({ type: "sanitizeEnd", ok: false });
  assert.equal(unit.record, record, "a late word of its runner is void");
});

test("a failure in restricted mode is left by sanitizing alone, in that mode", () => {
  const unit = new TestUnit();
  start(unit, false);
  unit.change({ type: "sanitizeEnd", ok: false });
  assert.equal(unit.record.sanitize?.state, "failed");
  assert.equal(exitFailure(unit), "invalid_field");
  assert.equal(start(unit, true), "invalid_field");
  assert.equal(start(unit, false), "done");
  assert.equal(unit.record.sanitize?.state, "running");
});

test("a failure in unrestricted mode is left by EXIT FAILURE MODE", () => {
  const unit = new TestUnit();
  start(unit, true);
  unit.change({ type: "sanitizeEnd", ok: false });
  assert.equal(exitFailure(unit), "done");
  assert.equal(unit.record.sanitize, null);
  assert.equal(exitFailure(unit), "done", "without a failure there is nothing to leave");
});

test("whom a reservation stops from writing cannot sanitize", () => {
  const unit = new TestUnit().register(other);
  unit.out(other, "reserve", { key: key(1), reservation: 5 });
  assert.equal(start(unit, false), "reservation_conflict");
  assert.equal(exitFailure(unit), "reservation_conflict");
  assert.equal(unit.record.sanitize, null);
});
