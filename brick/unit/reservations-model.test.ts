import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { conflicts, isHolder } from "./conflicts.ts";
import { registrationOf } from "./registrations.ts";
import type { ReserveOut, UnitOutcome } from "./unit-changes.ts";
import {
  type NexusId,
  type ReservationType,
  sameNexus,
  type UnitCondition,
} from "./unit-record.ts";
import { key, nexusOf, TestUnit, testPorts } from "./unit-testing.test-double.ts";

/**
 * Persistent reservations over again, one nexus at a time: every nexus is a row with its key or
 * none, ALL_TG_PT is a loop. Whatever is asked, the unit answers, keeps and tells the same.
 */
const nexuses = ["a", "b", "c"].flatMap((name) => testPorts.map((port) => nexusOf(name, port)));

class Model {
  keys = new Map<NexusId, string>();
  held: { type: ReservationType; holder: NexusId } | null = null;
  told = new Map<NexusId, UnitCondition[]>();

  out(out: ReserveOut): UnitOutcome {
    this.told = new Map();
    const self = nexuses.find((one) => sameNexus(one, out.nexus))!;
    const mine = this.keys.get(self);
    if (out.action === "register" || out.action === "registerAndIgnore") {
      return this.#register(out, self, mine);
    }
    if (mine !== out.key) return "reservation_conflict";
    switch (out.action) {
      case "reserve":
        this.held ??= { type: out.reservation!, holder: self };
        return this.held.type === out.reservation && this.holds(self)
          ? "done"
          : "reservation_conflict";
      case "release":
        if (!this.holds(self)) return "done";
        if (this.held!.type !== out.reservation) return "invalid_release";
        if (this.held!.type >= 5) this.#tell([...this.keys.keys()], "reservationsReleased", self);
        this.held = null;
        return "done";
      case "clear":
        this.#tell([...this.keys.keys()], "reservationsPreempted", self);
        this.keys.clear();
        this.held = null;
        return "done";
      case "registerAndMove":
        return this.#move(out, self);
      default:
        return this.#preempt(out, self);
    }
  }

  holds(nexus: NexusId): boolean {
    if (this.held === null) return false;
    return this.held.type >= 7 ? this.keys.has(nexus) : this.held.holder === nexus;
  }

  mayAccess(nexus: NexusId, access: "read" | "write"): boolean {
    if (this.held === null) return true;
    const { type, holder } = this.held;
    if (access === "read" && [1, 5, 7].includes(type)) return true;
    return type < 5 ? holder === nexus : this.keys.has(nexus);
  }

  #register(out: ReserveOut, self: NexusId, mine: string | undefined): UnitOutcome {
    const same = nexuses.filter((one) => one.initiatorPort === self.initiatorPort);
    const asked = out.allTargetPorts ? same : [self];
    if (out.action === "register") {
      const keys = asked.flatMap((one) => this.keys.get(one) ?? []);
      if (mine === undefined) keys.push(key(0));
      if (keys.some((one) => one !== out.key)) return "reservation_conflict";
    }
    if (out.actionKey !== key(0)) {
      for (const one of asked) this.keys.set(one, out.actionKey);
      return "done";
    }
    const before = this.held;
    for (const one of asked) this.keys.delete(one);
    if (before === null) return "done";
    const ends = before.type >= 7 ? this.keys.size === 0 : !this.keys.has(before.holder);
    if (!ends) return "done";
    this.held = null;
    if (before.type >= 5) this.#tell([...this.keys.keys()], "reservationsReleased", self);
    return "done";
  }

  #move(out: ReserveOut, self: NexusId): UnitOutcome {
    const to = nexuses.find((one) => sameNexus(one, out.move!.to))!;
    if (this.held === null) return "invalid_field";
    if (this.held.type >= 7 || this.held.holder !== self) return "reservation_conflict";
    if (out.actionKey === key(0) || to.initiatorPort === self.initiatorPort) {
      return "invalid_parameter";
    }
    this.keys.set(to, out.actionKey);
    this.held = { ...this.held, holder: to };
    if (out.move!.unregister) this.keys.delete(self);
    return "done";
  }

  #preempt(out: ReserveOut, self: NexusId): UnitOutcome {
    const all = this.held !== null && this.held.type >= 7;
    const zero = out.actionKey === key(0);
    if (zero && !all) return "invalid_parameter";
    const victims = [...this.keys].filter(([, one]) => zero || one === out.actionKey);
    if (victims.length === 0) return "reservation_conflict";
    const takesOver = all
      ? zero
      : this.held !== null && this.keys.get(this.held.holder) === out.actionKey;
    for (const [nexus] of victims) if (!takesOver || nexus !== self) this.keys.delete(nexus);
    this.#tell(
      victims.map(([nexus]) => nexus),
      "registrationsPreempted",
      self,
    );
    if (takesOver) {
      if (this.held!.type !== out.reservation) {
        this.#tell([...this.keys.keys()], "reservationsReleased", self);
      }
      this.held = { type: out.reservation!, holder: self };
    } else if (all && this.keys.size === 0) this.held = null;
    return "done";
  }

  #tell(whom: NexusId[], condition: UnitCondition, self: NexusId): void {
    for (const nexus of whom) if (nexus !== self) this.told.set(nexus, [condition]);
  }
}

const nexus = fc.constantFrom(...nexuses);
const someKey = fc.integer({ min: 0, max: 3 }).map(key);
const reserveOut = fc.record<ReserveOut>({
  type: fc.constant("reserveOut"),
  nexus,
  action: fc.constantFrom(
    ...(["register", "registerAndIgnore", "reserve", "release", "clear"] as const),
    ...(["preempt", "preemptAndAbort", "registerAndMove"] as const),
  ),
  reservation: fc.constantFrom(1, 3, 5, 6, 7, 8),
  key: someKey,
  actionKey: someKey,
  aptpl: fc.boolean(),
  allTargetPorts: fc.boolean(),
  initiatorPorts: fc.constant([]),
  move: fc.record({ to: nexus, unregister: fc.boolean() }),
});
/** Most steps have the right key, or few would get anywhere. */
const step = fc.tuple(reserveOut, fc.integer({ min: 0, max: 4 }).map(Boolean));

test("whatever is asked, each nexus is registered, holds, may and is told as in the model", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
      const unit = new TestUnit();
      const model = new Model();
      for (const [asked, rightKey] of steps) {
        const mine = registrationOf(unit.record.reservations.registrations, asked.nexus)?.key;
        const out = rightKey ? { ...asked, key: mine ?? key(0) } : asked;
        assert.equal(unit.change(out), model.out(out));
        for (const one of nexuses) {
          const { reservations } = unit.record;
          assert.equal(registrationOf(reservations.registrations, one)?.key, model.keys.get(one));
          assert.equal(isHolder(reservations, one), model.holds(one));
          for (const access of ["read", "write"] as const) {
            assert.equal(conflicts(unit.record, one, access), !model.mayAccess(one, access));
          }
          assert.deepEqual(unit.told(one), model.told.get(one) ?? []);
        }
      }
    }),
    { numRuns: 2000 },
  );
});
