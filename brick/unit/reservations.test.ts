import assert from "node:assert/strict";
import { test } from "node:test";
import { isHolder, mayAccess } from "./conflicts.ts";
import { isRegistered } from "./registrations.ts";
import { newUnit, type ReservationType, registrationsMax, type UnitRecord } from "./unit-record.ts";
import { key, nexusOf, TestUnit, testPorts } from "./unit-testing.test-double.ts";

const a = nexusOf("a", 1);
const b = nexusOf("b", 1);
const c = nexusOf("c", 2);
const allTypes: readonly ReservationType[] = [1, 3, 5, 6, 7, 8];
const registrantsTypes: readonly ReservationType[] = [5, 6, 7, 8];

/** a, b and c are registered under keys 1, 2 and 3, and a has reserved. */
function reservedByA(reservation: ReservationType): TestUnit {
  const unit = new TestUnit().register(a, b, c);
  assert.equal(unit.out(a, "reserve", { key: key(1), reservation }), "done");
  return unit;
}

test("REGISTER: the key of an unregistered nexus is zero (table 69)", () => {
  const unit = new TestUnit();
  assert.equal(unit.out(a, "register", { key: key(9), actionKey: key(1) }), "reservation_conflict");
  assert.equal(unit.out(a, "register"), "done");
  assert.equal(unit.record, newUnit, "nothing to unregister: nothing happens");
  assert.equal(unit.out(a, "register", { actionKey: key(1) }), "done");
  assert.deepEqual(unit.keys(), [key(1)]);
});

test("REGISTER: a registered nexus changes or withdraws its key with the present one", () => {
  const unit = new TestUnit().register(a, b);
  assert.equal(unit.out(a, "register", { actionKey: key(7) }), "reservation_conflict");
  assert.equal(unit.out(a, "register", { key: key(1), actionKey: key(7) }), "done");
  assert.deepEqual(unit.keys(), [key(7), key(2)]);
  assert.equal(unit.out(a, "register", { key: key(7) }), "done");
  assert.deepEqual(unit.keys(), [key(2)]);
});

test("REGISTER AND IGNORE EXISTING KEY asks for no key (table 70)", () => {
  const unit = new TestUnit().register(a);
  assert.equal(unit.out(a, "registerAndIgnore", { key: key(9), actionKey: key(7) }), "done");
  assert.equal(unit.out(b, "registerAndIgnore", { key: key(9), actionKey: key(8) }), "done");
  assert.deepEqual(unit.keys(), [key(7), key(8)]);
  assert.equal(unit.out(a, "registerAndIgnore", { key: key(9) }), "done");
  assert.deepEqual(unit.keys(), [key(8)]);
  const { record } = unit;
  assert.equal(unit.out(c, "registerAndIgnore"), "done");
  assert.equal(unit.record, record);
});

test("SPEC_I_PT registers the initiator ports named, but those that are registered already", () => {
  const unit = new TestUnit().register(b);
  const initiatorPorts = [b.initiatorPort, c.initiatorPort];
  assert.equal(unit.out(a, "register", { actionKey: key(5), initiatorPorts }), "done");
  assert.deepEqual(unit.keys(), [key(1), key(5), key(5)]);
  assert.ok(isRegistered(unit.record.reservations.registrations, { ...c, targetPort: 1 }));
  assert.ok(!isRegistered(unit.record.reservations.registrations, c));
});

test("SPEC_I_PT is refused to whoever is registered, or registers otherwise", () => {
  const unit = new TestUnit().register(a);
  const { record } = unit;
  const initiatorPorts = [c.initiatorPort];
  const again = { key: key(1), actionKey: key(5), initiatorPorts };
  assert.equal(unit.out(a, "register", again), "invalid_field");
  assert.equal(unit.out(b, "register", { initiatorPorts }), "invalid_field");
  const ignoring = { actionKey: key(5), initiatorPorts };
  assert.equal(unit.out(b, "registerAndIgnore", ignoring), "invalid_field");
  assert.equal(unit.record, record);
});

test("ALL_TG_PT registers on every target port, and unregisters there", () => {
  const unit = new TestUnit().register(b);
  const { registrations: before } = unit.record.reservations;
  assert.equal(unit.out(a, "register", { actionKey: key(5), allTargetPorts: true }), "done");
  const { registrations } = unit.record.reservations;
  for (const targetPort of [1, 2, 9]) assert.ok(isRegistered(registrations, { ...a, targetPort }));
  assert.equal(unit.out({ ...a, targetPort: 2 }, "register", { key: key(5) }), "done");
  const fewer = unit.record.reservations.registrations;
  assert.ok(!isRegistered(fewer, { ...a, targetPort: 2 }), "withdrawn through this port alone");
  assert.ok(isRegistered(fewer, { ...a, targetPort: 3 }));
  const again = { ...a, targetPort: 2 };
  assert.equal(unit.out(again, "register", { actionKey: key(6) }), "done");
  const all = { actionKey: key(7), allTargetPorts: true };
  const differing = unit.out(a, "register", { ...all, key: key(5) });
  assert.equal(differing, "reservation_conflict", "port 2 has another key");
  assert.equal(unit.out(a, "registerAndIgnore", { allTargetPorts: true }), "done");
  assert.deepEqual(unit.record.reservations.registrations, before);
  // Withdrawn through each port by itself, nothing is left of it either.
  unit.out(a, "register", { actionKey: key(5), allTargetPorts: true });
  for (const targetPort of testPorts) {
    assert.equal(unit.out({ ...a, targetPort }, "register", { key: key(5) }), "done");
  }
  assert.deepEqual(unit.record.reservations.registrations, before);
});

test("registrations are bounded: 05/55/04, and nothing is changed", () => {
  const unit = new TestUnit();
  for (let index = 1; index <= registrationsMax; index += 1) {
    unit.out(nexusOf(`i${index}`, 1), "register", { actionKey: key(index) });
  }
  const { record } = unit;
  const outcome = unit.out(a, "register", { actionKey: key(1) });
  assert.equal(outcome, "insufficient_registration_resources");
  assert.equal(unit.record, record);
});

test("all but the registering actions need the key of the asking nexus (§6.16.2)", () => {
  const unit = new TestUnit().register(a);
  const { record } = unit;
  const actions = ["reserve", "release", "clear", "preempt", "preemptAndAbort"] as const;
  for (const action of [...actions, "registerAndMove" as const]) {
    const fields = { reservation: 1 as const, actionKey: key(1) };
    for (const [nexus, wrong] of [
      [a, 9],
      [a, 0],
      [b, 1],
      [b, 0],
    ] as const) {
      const outcome = unit.out(nexus, action, { ...fields, key: key(wrong) });
      assert.equal(outcome, "reservation_conflict", `${action} with key ${wrong}`);
    }
  }
  assert.equal(unit.record, record);
});

test("RESERVE: again by the holder is GOOD, otherwise a conflict (§5.13.9)", () => {
  for (const type of allTypes) {
    const unit = reservedByA(type);
    const { record } = unit;
    assert.equal(unit.out(a, "reserve", { key: key(1), reservation: type }), "done");
    const other = type === 1 ? 3 : 1;
    const changed = unit.out(a, "reserve", { key: key(1), reservation: other });
    assert.equal(changed, "reservation_conflict");
    // With the all-registrants types every registered nexus holds it.
    const byOther = unit.out(b, "reserve", { key: key(2), reservation: type });
    assert.equal(byOther, type >= 7 ? "done" : "reservation_conflict", `type ${type}`);
    assert.equal(unit.record, record);
  }
});

test("RELEASE by the holder tells the others, when it was theirs too (§5.13.11.2)", () => {
  for (const type of allTypes) {
    const unit = reservedByA(type);
    assert.equal(unit.out(a, "release", { key: key(1), reservation: type }), "done");
    assert.equal(unit.record.reservations.held, null);
    assert.deepEqual(unit.keys(), [key(1), key(2), key(3)]);
    const told = registrantsTypes.includes(type) ? ["reservationsReleased"] : [];
    assert.deepEqual(unit.told(b), told, `type ${type}`);
    assert.deepEqual(unit.told(c), told);
    assert.deepEqual(unit.told(a), []);
    assert.deepEqual(unit.told(nexusOf("stranger", 1)), []);
  }
});

test("RELEASE: of another type 05/26/04; by others, or of nothing, GOOD", () => {
  const unit = reservedByA(1);
  const { record } = unit;
  assert.equal(unit.out(a, "release", { key: key(1), reservation: 3 }), "invalid_release");
  assert.equal(unit.out(b, "release", { key: key(2), reservation: 1 }), "done");
  assert.equal(unit.out(b, "release", { key: key(2), reservation: 3 }), "done");
  assert.equal(unit.record, record);
  const idle = new TestUnit().register(a);
  assert.equal(idle.out(a, "release", { key: key(1), reservation: 1 }), "done");
});

test("CLEAR ends all, and tells those who were registered (§5.13.11.6)", () => {
  const unit = reservedByA(1);
  assert.equal(unit.out(b, "clear", { key: key(2) }), "done");
  assert.deepEqual(unit.keys(), []);
  assert.equal(unit.record.reservations.held, null);
  assert.deepEqual(unit.told(a), ["reservationsPreempted"]);
  assert.deepEqual(unit.told(c), ["reservationsPreempted"]);
  assert.deepEqual(unit.told(b), []);
});

test("unregistering the holder releases, and tells registrants-only ones (§5.13.11.3)", () => {
  for (const type of allTypes) {
    const unit = reservedByA(type);
    assert.equal(unit.out(a, "register", { key: key(1) }), "done");
    const { held } = unit.record.reservations;
    assert.equal(held === null, type < 7, `type ${type}`);
    const told = type === 5 || type === 6 ? ["reservationsReleased"] : [];
    assert.deepEqual(unit.told(b), told);
    assert.deepEqual(unit.told(c), told);
    assert.deepEqual(unit.told(a), []);
  }
});

test("an all-registrants reservation ends with its last registration", () => {
  const unit = reservedByA(7);
  unit.out(a, "register", { key: key(1) });
  unit.out(b, "register", { key: key(2) });
  assert.equal(isHolder(unit.record.reservations, c), true);
  unit.out(c, "register", { key: key(3) });
  assert.equal(unit.record.reservations.held, null);
  assert.deepEqual(unit.fresh, []);
});

test("PREEMPT by the holder's key takes the reservation over (§5.13.11.4.3)", () => {
  for (const type of [1, 3, 5, 6] as const) {
    const unit = reservedByA(type);
    const fields = { key: key(2), actionKey: key(1), reservation: type };
    assert.equal(unit.out(b, "preempt", fields), "done");
    assert.deepEqual(unit.record.reservations.held, { type, holder: b });
    assert.deepEqual(unit.keys(), [key(2), key(3)]);
    assert.deepEqual(unit.told(a), ["registrationsPreempted"]);
    assert.deepEqual(unit.told(b), []);
    assert.deepEqual(unit.told(c), [], "the type is the same");
    assert.equal(
      unit.fresh.some((one) => one.endsTasks),
      false,
    );
  }
});

test("PREEMPT to another type tells those whose registration stays", () => {
  const unit = reservedByA(1);
  const fields = { key: key(2), actionKey: key(1), reservation: 5 as const };
  assert.equal(unit.out(b, "preempt", fields), "done");
  assert.deepEqual(unit.told(a), ["registrationsPreempted"]);
  assert.deepEqual(unit.told(c), ["reservationsReleased"]);
  assert.deepEqual(unit.told(b), []);
});

test("PREEMPT of another key removes registrations only (§5.13.11.4.4)", () => {
  for (const type of allTypes) {
    const unit = reservedByA(type);
    const { held } = unit.record.reservations;
    const fields = { key: key(2), actionKey: key(3), reservation: 3 as const };
    assert.equal(unit.out(b, "preempt", fields), "done");
    assert.deepEqual(unit.record.reservations.held, held);
    assert.deepEqual(unit.keys(), [key(1), key(2)]);
    assert.deepEqual(unit.told(c), ["registrationsPreempted"]);
    assert.deepEqual(unit.told(a), []);
  }
});

test("PREEMPT without a reservation removes registrations, the asking one's own too", () => {
  const unit = new TestUnit().register(a, b);
  const fields = { key: key(1), actionKey: key(1), reservation: 1 as const };
  assert.equal(unit.out(a, "preempt", fields), "done");
  assert.deepEqual(unit.keys(), [key(2)]);
  assert.deepEqual(unit.fresh, []);
});

test("PREEMPT: the holder preempts itself, to change the type", () => {
  const unit = reservedByA(1);
  const fields = { key: key(1), actionKey: key(1), reservation: 6 as const };
  assert.equal(unit.out(a, "preempt", fields), "done");
  assert.deepEqual(unit.record.reservations.held, { type: 6, holder: a });
  assert.deepEqual(unit.keys(), [key(1), key(2), key(3)]);
  assert.deepEqual(unit.told(b), ["reservationsReleased"]);
});

test("PREEMPT: a key that nobody has is a conflict, key zero an error", () => {
  for (const type of [1, 5] as const) {
    const unit = reservedByA(type);
    const { record } = unit;
    const fields = { key: key(2), actionKey: key(9), reservation: type };
    assert.equal(unit.out(b, "preempt", fields), "reservation_conflict");
    assert.equal(unit.out(b, "preempt", { ...fields, actionKey: key(0) }), "invalid_parameter");
    assert.equal(unit.record, record);
  }
});

test("PREEMPT of an all-registrants reservation: key zero removes all others", () => {
  for (const type of [7, 8] as const) {
    const unit = reservedByA(type);
    const fields = { key: key(2), reservation: 3 as const };
    assert.equal(unit.out(b, "preempt", fields), "done");
    assert.deepEqual(unit.record.reservations.held, { type: 3, holder: b });
    assert.deepEqual(unit.keys(), [key(2)]);
    assert.deepEqual(unit.told(a), ["registrationsPreempted"]);
    assert.deepEqual(unit.told(c), ["registrationsPreempted"]);
  }
});

test("PREEMPT of all registrants by key ends the reservation with the last of them", () => {
  const unit = new TestUnit().register(a);
  unit.out(b, "register", { actionKey: key(1) });
  unit.out(a, "reserve", { key: key(1), reservation: 7 });
  const fields = { key: key(1), actionKey: key(1), reservation: 7 as const };
  assert.equal(unit.out(b, "preempt", fields), "done");
  assert.deepEqual(unit.keys(), []);
  assert.equal(unit.record.reservations.held, null);
  assert.deepEqual(unit.told(a), ["registrationsPreempted"]);
});

test("PREEMPT AND ABORT ends the commands of the preempted (§5.13.11.5)", () => {
  const unit = reservedByA(1);
  const fields = { key: key(2), actionKey: key(1), reservation: 5 as const };
  assert.equal(unit.out(b, "preemptAndAbort", fields), "done");
  const ending = unit.fresh.filter((one) => one.endsTasks);
  assert.deepEqual(
    ending.map(({ condition, nexuses }) => ({ condition, nexuses })),
    [{ condition: "registrationsPreempted", nexuses: [a] }],
  );
  assert.deepEqual(unit.told(c), ["reservationsReleased"]);
});

test("REGISTER AND MOVE registers another nexus and gives it the reservation (§5.13.8)", () => {
  for (const unregister of [false, true]) {
    const unit = reservedByA(3);
    const to = nexusOf("d", 2);
    const fields = { key: key(1), actionKey: key(4), aptpl: true, move: { to, unregister } };
    assert.equal(unit.out(a, "registerAndMove", fields), "done");
    assert.deepEqual(unit.record.reservations.held, { type: 3, holder: to });
    assert.equal(unit.record.reservations.aptpl, true);
    assert.deepEqual(unit.keys(), [...(unregister ? [] : [key(1)]), key(2), key(3), key(4)]);
    assert.deepEqual(unit.fresh, []);
    assert.equal(mayAccess(unit.record, a, "read"), false);
    assert.equal(mayAccess(unit.record, to, "write"), true);
  }
});

test("REGISTER AND MOVE to one who is registered changes its key", () => {
  const unit = reservedByA(3);
  const move = { to: b, unregister: false };
  assert.equal(unit.out(a, "registerAndMove", { key: key(1), actionKey: key(8), move }), "done");
  assert.deepEqual(unit.keys(), [key(1), key(8), key(3)]);
});

test("REGISTER AND MOVE is refused without a reservation, by others, and to itself", () => {
  const move = { to: nexusOf("d", 1), unregister: false };
  const idle = new TestUnit().register(a);
  const fields = { key: key(1), actionKey: key(4), move };
  assert.equal(idle.out(a, "registerAndMove", fields), "invalid_field");
  const unit = reservedByA(3);
  assert.equal(unit.out(b, "registerAndMove", { ...fields, key: key(2) }), "reservation_conflict");
  assert.equal(
    unit.out(a, "registerAndMove", { ...fields, actionKey: key(0) }),
    "invalid_parameter",
  );
  const own = { to: { ...a, targetPort: 2 }, unregister: false };
  assert.equal(unit.out(a, "registerAndMove", { ...fields, move: own }), "invalid_parameter");
  const all = reservedByA(8);
  assert.equal(all.out(a, "registerAndMove", fields), "reservation_conflict");
});

test("PRGENERATION counts all but RESERVE, RELEASE and what is refused (§6.15.2)", () => {
  const unit = new TestUnit();
  const generation = () => unit.record.reservations.generation;
  const counts = (by: number, act: () => unknown) => {
    const before = generation();
    act();
    assert.equal(generation(), before + by, String(act));
  };
  counts(1, () => unit.out(a, "register", { actionKey: key(1) }));
  counts(1, () => unit.out(b, "registerAndIgnore", { actionKey: key(2) }));
  counts(1, () => unit.out(c, "registerAndIgnore", { actionKey: key(3) }));
  counts(0, () => unit.out(a, "register", { actionKey: key(9) }));
  counts(0, () => unit.out(a, "reserve", { key: key(1), reservation: 1 }));
  counts(0, () => unit.out(b, "preempt", { key: key(2), actionKey: key(9), reservation: 1 }));
  counts(1, () => unit.out(b, "preempt", { key: key(2), actionKey: key(1), reservation: 1 }));
  const move = { to: a, unregister: false };
  counts(1, () => unit.out(b, "registerAndMove", { key: key(2), actionKey: key(1), move }));
  counts(0, () => unit.out(a, "release", { key: key(1), reservation: 1 }));
  const abort = { key: key(1), actionKey: key(2), reservation: 1 as const };
  counts(1, () => unit.out(a, "preemptAndAbort", abort));
  counts(1, () => unit.out(c, "register", { key: key(3) }));
  counts(1, () => unit.out(a, "clear", { key: key(1) }));
});

test("PRGENERATION wraps at 2^32", () => {
  const unit = new TestUnit().register(a);
  const { reservations } = unit.record;
  const late: UnitRecord = {
    ...unit.record,
    reservations: { ...reservations, generation: 2 ** 32 - 1 },
  };
  unit.record = late;
  unit.out(b, "register", { actionKey: key(2) });
  assert.equal(unit.record.reservations.generation, 0);
});

test("APTPL is what the last registration said", () => {
  const unit = new TestUnit();
  unit.out(a, "register", { actionKey: key(1), aptpl: true });
  assert.equal(unit.record.reservations.aptpl, true);
  unit.out(b, "register", { actionKey: key(2) });
  assert.equal(unit.record.reservations.aptpl, false);
});
