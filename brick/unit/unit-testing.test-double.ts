import assert from "node:assert/strict";
import {
  changeUnit,
  type ReserveOut,
  type UnitChange,
  type UnitEvent,
  type UnitOutcome,
} from "./unit-changes.ts";
import {
  concernsNexus,
  type NexusId,
  newUnit,
  type UnitCondition,
  type UnitNotice,
  type UnitRecord,
} from "./unit-record.ts";

/** Target ports of the unit. */
export const testPorts = [1, 2, 3];

/** A unit under examination: what was asked of it last, and who learnt of it. */
export class TestUnit {
  record: UnitRecord = newUnit;
  /** Notices of the last change. */
  fresh: UnitNotice[] = [];

  change(change: UnitChange | UnitEvent): UnitOutcome {
    const before = this.record;
    const { record, outcome } = changeUnit(before, change, testPorts);
    this.record = record;
    this.fresh = record.notices.filter(({ sequence }) => sequence >= before.noticeNext);
    assert.equal(record.version, before.version + (record === before ? 0 : 1));
    return outcome;
  }

  /** PERSISTENT RESERVE OUT; what is not given is zero. */
  out(nexus: NexusId, action: ReserveOut["action"], rest: Partial<ReserveOut> = {}): UnitOutcome {
    return this.change({
      type: "reserveOut",
      nexus,
      action,
      reservation: null,
      key: key(0),
      actionKey: key(0),
      aptpl: false,
      allTargetPorts: false,
      initiatorPorts: [],
      move: null,
      ...rest,
    });
  }

  /** Registers nexuses under keys 1, 2, ... */
  register(...nexuses: NexusId[]): this {
    for (const [index, nexus] of nexuses.entries()) {
      assert.equal(this.out(nexus, "register", { actionKey: key(index + 1) }), "done");
    }
    return this;
  }

  /** What the nexus was told by the last change. */
  told(nexus: NexusId): UnitCondition[] {
    return this.fresh.filter((one) => concernsNexus(one, nexus)).map((one) => one.condition);
  }

  keys(): string[] {
    return this.record.reservations.registrations.map((one) => one.key);
  }
}

export function nexusOf(initiator: string, targetPort: number): NexusId {
  return { initiatorPort: `iqn.2026-11.example:${initiator},i,0x00023d000001`, targetPort };
}

export function key(number: number): string {
  return number.toString(16).padStart(16, "0");
}
