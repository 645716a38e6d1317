import assert from "node:assert/strict";
import { test } from "node:test";
import { newUnit, noticedNexusesMax, noticesMax, registrationsMax } from "./unit-record.ts";
import { key, nexusOf, TestUnit } from "./unit-testing.test-double.ts";

const a = nexusOf("a", 1);
const b = nexusOf("b", 2);
const mode = { descriptorSense: true, writeProtected: false };

test("a mode parameter that changes is told to all others, 2A/01; the same again to nobody", () => {
  const unit = new TestUnit();
  assert.equal(unit.change({ type: "setMode", nexus: a, mode }), "done");
  assert.deepEqual(unit.record.mode, mode);
  assert.deepEqual(unit.told(a), []);
  assert.deepEqual(unit.told(b), ["modeParametersChanged"]);
  assert.equal(unit.fresh[0]?.endsTasks, false);
  const { record } = unit;
  unit.change({ type: "setMode", nexus: b, mode });
  assert.equal(unit.record, record);
});

test("whom a reservation stops from writing cannot change mode parameters", () => {
  const unit = new TestUnit().register(b);
  unit.out(b, "reserve", { key: key(1), reservation: 1 });
  assert.equal(unit.change({ type: "setMode", nexus: a, mode }), "reservation_conflict");
  assert.deepEqual(unit.record.mode, newUnit.mode);
});

test("a reset tells all, ends their commands, resets the mode, and keeps reservations", () => {
  const unit = new TestUnit().register(a);
  unit.out(a, "reserve", { key: key(1), reservation: 3 });
  unit.change({ type: "setMode", nexus: a, mode });
  const { registrations, held, generation } = unit.record.reservations;
  assert.equal(unit.change({ type: "reset", nexus: b }), "done");
  assert.deepEqual(unit.record.mode, newUnit.mode);
  assert.deepEqual(unit.told(a), ["resetOccurred"]);
  assert.deepEqual(unit.told(b), ["resetOccurred"]);
  assert.ok(unit.fresh.every((one) => one.endsTasks));
  const after = unit.record.reservations;
  assert.deepEqual(
    { registrations: after.registrations, held: after.held, generation: after.generation },
    { registrations, held, generation },
  );
});

test("CLEAR TASK SET ends the commands of all, and tells the others", () => {
  const unit = new TestUnit();
  assert.equal(unit.change({ type: "clearTaskSet", nexus: a }), "done");
  assert.deepEqual(unit.told(b), ["commandsCleared"]);
  assert.deepEqual(unit.told(a), ["tasksEnded"]);
  assert.ok(unit.fresh.every((one) => one.endsTasks));
});

test("with TAS 1 notices that end commands say whose doing it was; none else does", () => {
  const unit = new TestUnit().register(a, b);
  const aborting = () => unit.fresh.map(({ endsTasks, abortedBy }) => endsTasks && abortedBy);
  unit.change({ type: "clearTaskSet", nexus: a });
  assert.deepEqual(aborting(), [undefined, undefined]);
  unit.change({ type: "setMode", nexus: a, mode: { ...mode, taskAborted: true } });
  assert.deepEqual(aborting(), [false]);
  unit.change({ type: "setMode", nexus: a, mode });
  assert.deepEqual(unit.told(b), ["modeParametersChanged"], "the bit alone is a change");
  unit.change({ type: "setMode", nexus: a, mode: { ...mode, taskAborted: true } });
  unit.change({ type: "clearTaskSet", nexus: a });
  assert.deepEqual(unit.told(b), ["tasksEnded"], "each command tells that it was cleared");
  assert.deepEqual(aborting(), [a, undefined]);
  unit.out(a, "preemptAndAbort", { key: key(1), actionKey: key(2), reservation: 1 });
  assert.ok(unit.told(b).includes("registrationsPreempted"));
  assert.ok(aborting().some((by) => by === a));
  unit.change({ type: "reset", nexus: b });
  assert.deepEqual(aborting(), [b]);
  unit.change({ type: "reset", nexus: b });
  assert.deepEqual(aborting(), [undefined], "a reset restores the mode");
});

test("notices are numbered without a gap, and the oldest make room", () => {
  const unit = new TestUnit();
  for (let index = 0; index < noticesMax + 10; index += 1) {
    unit.change({ type: "reset", nexus: a });
  }
  const sequences = unit.record.notices.map((one) => one.sequence);
  assert.deepEqual(
    sequences,
    Array.from({ length: noticesMax }, (_, index) => index + 11),
  );
  assert.equal(unit.record.noticeNext, noticesMax + 11);
});

test("notices name a bounded number of nexuses in all", () => {
  const unit = new TestUnit();
  const many = Array.from({ length: registrationsMax }, (_, index) => nexusOf(`i${index}`, 1));
  for (let round = 0; round < 6; round += 1) {
    unit.register(...many);
    unit.out(many[0]!, "clear", { key: key(1) });
    const named = unit.record.notices.flatMap((one) => one.nexuses ?? []);
    assert.ok(named.length <= noticedNexusesMax);
    assert.deepEqual(unit.told(many[1]!), ["reservationsPreempted"]);
  }
  assert.ok((unit.record.notices[0]?.sequence ?? 0) > 1, "the oldest have made room");
});

test("RESERVE(6) of a portal that has gone is released, and its nexus told of a reset", () => {
  const unit = new TestUnit();
  unit.change({ type: "reserve6", nexus: b });
  const { record } = unit;
  unit.change({ type: "portLost", targetPort: 1 });
  assert.equal(unit.record, record);
  unit.change({ type: "portLost", targetPort: 2 });
  assert.equal(unit.record.reservations.reserve6, null);
  assert.deepEqual(unit.told(b), ["resetOccurred"]);
  assert.deepEqual(unit.told(a), []);
});

for (const aptpl of [true, false]) {
  test(`after a power loss reservations are ${aptpl ? "kept" : "gone"}: APTPL is ${aptpl}`, () => {
    const unit = new TestUnit();
    unit.out(a, "register", { actionKey: key(1), aptpl });
    unit.out(a, "reserve", { key: key(1), reservation: 3 });
    unit.change({ type: "setMode", nexus: a, mode });
    const { reservations } = unit.record;
    assert.equal(unit.change({ type: "powerLost" }), "done");
    assert.deepEqual(unit.record.mode, newUnit.mode);
    assert.deepEqual(unit.told(a), ["resetOccurred"]);
    assert.deepEqual(unit.record.reservations, {
      ...reservations,
      generation: 0,
      ...(aptpl ? {} : { registrations: [], held: null }),
    });
    const { record } = unit;
    unit.change({ type: "powerLost" });
    assert.equal(unit.record, record, "again it changes nothing");
  });
}
