import { isInside } from "./conflicts.ts";
import type { UnitOutcome } from "./unit-changes.ts";
import { type NexusId, type ReservationRecord, sameNexus } from "./unit-record.ts";

/** RESERVE(6) and RELEASE(6) of SPC-2, which persistent reservations have superseded. */

export interface Reserved6 {
  readonly outcome: UnitOutcome;
  readonly reservations: ReservationRecord;
}

export function reserve6(before: ReservationRecord, nexus: NexusId): Reserved6 {
  const persistent = besidePersistent(before, nexus);
  if (persistent !== null) return { outcome: persistent, reservations: before };
  const held = before.reserve6;
  if (held === null) return { outcome: "done", reservations: { ...before, reserve6: nexus } };
  const outcome = sameNexus(held, nexus) ? "done" : "reservation_conflict";
  return { outcome, reservations: before };
}

/** SPC-2 §7.24: a release by one who holds nothing is no error. */
export function release6(before: ReservationRecord, nexus: NexusId): Reserved6 {
  const persistent = besidePersistent(before, nexus);
  if (persistent !== null) return { outcome: persistent, reservations: before };
  return { outcome: "done", reservations: withoutReserve6(before, nexus) };
}

/** The reservation of a nexus that is no more. */
export function withoutReserve6(before: ReservationRecord, nexus: NexusId): ReservationRecord {
  if (before.reserve6 === null || !sameNexus(before.reserve6, nexus)) return before;
  return { ...before, reserve6: null };
}

/**
 * Compatible reservation handling (SPC-4 §5.13.3): whom the persistent reservation lets do
 * everything is told GOOD, and nothing happens. Beside registrations, everyone else is in conflict
 * (SPC-2 §5.5.1). null: there are none.
 */
function besidePersistent(before: ReservationRecord, nexus: NexusId): UnitOutcome | null {
  if (before.registrations.length === 0) return null;
  return isInside(before, nexus) ? "done" : "reservation_conflict";
}
