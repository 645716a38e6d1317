import assert from "node:assert/strict";
import { test } from "node:test";
import { type CommandKind, conflicts } from "./conflicts.ts";
import type { ReservationType } from "./unit-record.ts";
import { key, nexusOf, TestUnit } from "./unit-testing.test-double.ts";

const holder = nexusOf("holder", 1);
const registrant = nexusOf("registrant", 1);
const stranger = nexusOf("stranger", 1);
const kinds = ["always", "status", "read", "write", "persistentReserve"] as const;

function stopped(unit: TestUnit, nexus: typeof holder): CommandKind[] {
  return kinds.filter((kind) => conflicts(unit.record, nexus, kind));
}

/** SPC-4 tables 66 and 68: what each type stops, for a registrant and for a stranger. */
const rows: readonly [ReservationType, CommandKind[], CommandKind[]][] = [
  [1, ["write"], ["write"]],
  [3, ["read", "write"], ["read", "write"]],
  [5, [], ["write"]],
  [6, [], ["read", "write"]],
  [7, [], ["write"]],
  [8, [], ["read", "write"]],
];

for (const [type, ofRegistrant, ofStranger] of rows) {
  test(`a persistent reservation of type ${type} stops others by the table`, () => {
    const unit = new TestUnit().register(holder, registrant);
    assert.equal(unit.out(holder, "reserve", { key: key(1), reservation: type }), "done");
    assert.deepEqual(stopped(unit, holder), []);
    assert.deepEqual(stopped(unit, registrant), ofRegistrant);
    assert.deepEqual(stopped(unit, stranger), ofStranger);
  });
}

test("the holder's other nexuses hold nothing: another port, another ISID", () => {
  const unit = new TestUnit().register(holder);
  unit.out(holder, "reserve", { key: key(1), reservation: 1 });
  assert.ok(conflicts(unit.record, { ...holder, targetPort: 2 }, "write"));
  const initiatorPort = holder.initiatorPort.replace("01", "02");
  assert.ok(conflicts(unit.record, { ...holder, initiatorPort }, "write"));
});

test("registrations alone stop nobody", () => {
  const unit = new TestUnit().register(holder);
  assert.deepEqual(stopped(unit, stranger), []);
});

test("RESERVE(6) stops all of others but what is always allowed, and PERSISTENT RESERVE of all", () => {
  const unit = new TestUnit();
  assert.equal(unit.change({ type: "reserve6", nexus: holder }), "done");
  assert.deepEqual(stopped(unit, stranger), ["status", "read", "write", "persistentReserve"]);
  assert.deepEqual(stopped(unit, holder), ["persistentReserve"]);
  assert.equal(unit.out(holder, "register", { actionKey: key(1) }), "reservation_conflict");
});
