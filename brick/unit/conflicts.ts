import { isRegistered } from "./registrations.ts";
import {
  type NexusId,
  type ReservationRecord,
  type ReservationType,
  sameNexus,
  type UnitRecord,
} from "./unit-record.ts";

/**
 * How commands stand to the reservations of others: SPC-4 §5.13.1 (tables 66 and 67), SBC-3 §4.17
 * (table 13), for RESERVE(6) SPC-2 §5.5.1 (table 10).
 */
export type CommandKind =
  /** Never in conflict: INQUIRY, REPORT LUNS, REQUEST SENSE, LOG SENSE, RELEASE(6). */
  | "always"
  /** Only RESERVE(6) stops it: TEST UNIT READY, READ CAPACITY, REPORT TARGET PORT GROUPS. */
  | "status"
  /** Looks at the medium or at parameters, which the write-exclusive types let everyone do. */
  | "read"
  /** Changes the medium or how others see the unit. */
  | "write"
  /** PERSISTENT RESERVE IN and OUT, which a RESERVE(6) stops whoever holds it. */
  | "persistentReserve";

interface TypeRules {
  /** Whether nexuses outside may read. */
  readonly othersRead: boolean;
  /** Who is inside: the holder alone, or everyone registered. */
  readonly inside: "holder" | "registered";
  /** Whether everyone registered holds it, until the last of them has gone. */
  readonly allRegistrants: boolean;
}

/** SPC-4 §5.13.4.2, table 68. */
export const typeRules = {
  1: { othersRead: true, inside: "holder", allRegistrants: false },
  3: { othersRead: false, inside: "holder", allRegistrants: false },
  5: { othersRead: true, inside: "registered", allRegistrants: false },
  6: { othersRead: false, inside: "registered", allRegistrants: false },
  7: { othersRead: true, inside: "registered", allRegistrants: true },
  8: { othersRead: false, inside: "registered", allRegistrants: true },
} as const satisfies Record<ReservationType, TypeRules>;

/** Whether a command of this nexus ends in RESERVATION CONFLICT now. */
export function conflicts(record: UnitRecord, nexus: NexusId, kind: CommandKind): boolean {
  if (kind === "always") return false;
  const { reserve6, held } = record.reservations;
  if (reserve6 !== null && (kind === "persistentReserve" || !sameNexus(reserve6, nexus))) {
    return true;
  }
  if (held === null || kind === "status" || kind === "persistentReserve") return false;
  if (kind === "read" && typeRules[held.type].othersRead) return false;
  return !isInside(record.reservations, nexus);
}

/** Whether the reservations let a command of this nexus touch the medium now. */
export function mayAccess(record: UnitRecord, nexus: NexusId, access: "read" | "write"): boolean {
  return !conflicts(record, nexus, access);
}

/** SPC-4 §5.13.10: whether the nexus is a persistent reservation holder. */
export function isHolder({ held, registrations }: ReservationRecord, nexus: NexusId): boolean {
  if (held === null) return false;
  if (typeRules[held.type].allRegistrants) return isRegistered(registrations, nexus);
  return sameNexus(held.holder, nexus);
}

/** Whether the persistent reservation that is held lets the nexus do everything. */
export function isInside(reservations: ReservationRecord, nexus: NexusId): boolean {
  const { held, registrations } = reservations;
  if (held !== null && typeRules[held.type].inside === "registered") {
    return isRegistered(registrations, nexus);
  }
  return isHolder(reservations, nexus);
}
