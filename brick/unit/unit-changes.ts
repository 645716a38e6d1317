import { assert, assertNever } from "../assert.ts";
import { conflicts } from "./conflicts.ts";
import { type NewNotice, withNotice } from "./notices.ts";
import { type Reserved, reserveOut } from "./reservations.ts";
import { release6, reserve6, withoutReserve6 } from "./reserve6.ts";
import {
  type Sanitized,
  sanitizeEnd,
  sanitizeExitFailure,
  sanitizeProgress,
  sanitizeRekeyed,
  sanitizeStart,
} from "./sanitize.ts";
import {
  type ModeRecord,
  type NexusId,
  newUnit,
  type ReservationRecord,
  type ReservationType,
  type UnitRecord,
} from "./unit-record.ts";

/** What initiators may do to a unit's shared state, and what comes of it. Pure. */

export type UnitChange =
  | ReserveOut
  /** RESERVE(6), RELEASE(6). */
  | { readonly type: "reserve6" | "release6"; readonly nexus: NexusId }
  /** A session has ended: what was bound to its nexus goes with it (RESERVE(6)). */
  | { readonly type: "nexusLost"; readonly nexus: NexusId }
  | { readonly type: "setMode"; readonly nexus: NexusId; readonly mode: ModeRecord }
  /** LOGICAL UNIT RESET and target resets. */
  | { readonly type: "reset"; readonly nexus: NexusId }
  | { readonly type: "clearTaskSet"; readonly nexus: NexusId }
  | {
      readonly type: "sanitizeStart";
      readonly nexus: NexusId;
      readonly allowUnrestrictedExit: boolean;
      /** CRYPTOGRAPHIC ERASE: only of volumes that are encrypted. */
      readonly method?: "crypto" | undefined;
    }
  | { readonly type: "sanitizeProgress"; readonly progress: number }
  | { readonly type: "sanitizeEnd"; readonly ok: boolean }
  | { readonly type: "sanitizeExitFailure"; readonly nexus: NexusId };

/** What befalls a unit, as the cluster state itself knows. */
export type UnitEvent =
  /** A cryptographic erase has given the volume a new key. */
  | { readonly type: "rekeyed"; readonly retiredKey: number }
  /** A portal's brick has gone: its sessions have ended, or will find that they have. */
  | { readonly type: "portLost"; readonly targetPort: number }
  /** Every brick was without power at once. */
  | { readonly type: "powerLost" };

/** PERSISTENT RESERVE OUT (SPC-4 §6.16), its fields checked for form by whoever decoded it. */
export interface ReserveOut {
  readonly type: "reserveOut";
  readonly nexus: NexusId;
  readonly action:
    | "register"
    | "registerAndIgnore"
    | "reserve"
    | "release"
    | "clear"
    | "preempt"
    | "preemptAndAbort"
    | "registerAndMove";
  /** Of reserve, release and the preempting ones; else null. */
  readonly reservation: ReservationType | null;
  /** RESERVATION KEY, 16 hex digits. */
  readonly key: string;
  /** SERVICE ACTION RESERVATION KEY, 16 hex digits. */
  readonly actionKey: string;
  readonly aptpl: boolean;
  readonly allTargetPorts: boolean;
  /** SPEC_I_PT: initiator ports that are registered besides the asking one. */
  readonly initiatorPorts: readonly string[];
  /** REGISTER AND MOVE only. */
  readonly move: { readonly to: NexusId; readonly unregister: boolean } | null;
}

/** What the device server answers. */
export type UnitOutcome =
  | "done"
  | "reservation_conflict"
  /** 05/26/04 */
  | "invalid_release"
  /** 05/55/04 */
  | "insufficient_registration_resources"
  /** 05/26/00 */
  | "invalid_parameter"
  /** 05/24/00 */
  | "invalid_field"
  /** 02/04/1B */
  | "sanitizing"
  /** 03/31/03: the last sanitize has failed. */
  | "sanitize_failed";

export interface UnitChanged {
  /** The same as before when nothing changed. */
  readonly record: UnitRecord;
  readonly outcome: UnitOutcome;
}

/** The state after a change. A refusal changes nothing. `targetPorts`: all there are now. */
export function changeUnit(
  record: UnitRecord,
  change: UnitChange | UnitEvent,
  targetPorts: readonly number[],
): UnitChanged {
  const changed = decide(record, change, targetPorts);
  if (changed.record === record) return changed;
  assert(changed.outcome === "done", "a refused change changes nothing");
  return { ...changed, record: { ...changed.record, version: record.version + 1 } };
}

function decide(
  record: UnitRecord,
  change: UnitChange | UnitEvent,
  targetPorts: readonly number[],
): UnitChanged {
  const { reservations } = record;
  switch (change.type) {
    case "reserveOut":
      return withReservations(record, reserveOut(reservations, change, targetPorts), change.nexus);
    case "reserve6":
      return withReservations(record, reserve6(reservations, change.nexus));
    case "release6":
      return withReservations(record, release6(reservations, change.nexus));
    case "nexusLost":
      return withReservations(record, {
        outcome: "done",
        reservations: withoutReserve6(reservations, change.nexus),
      });
    case "portLost":
      return done(portLost(record, change.targetPort));
    case "setMode":
      return setMode(record, change.nexus, change.mode);
    case "reset":
      return done(reset(record, change.nexus));
    case "clearTaskSet":
      return done(clearTaskSet(record, change.nexus));
    case "powerLost":
      return done(powerLost(record));
    case "sanitizeStart":
      if (conflicts(record, change.nexus, "write")) return refused(record, "reservation_conflict");
      return withSanitize(
        record,
        sanitizeStart(record.sanitize, change.allowUnrestrictedExit, change.method),
      );
    case "sanitizeProgress":
      return withSanitize(record, sanitizeProgress(record.sanitize, change.progress));
    case "rekeyed":
      return withSanitize(record, sanitizeRekeyed(record.sanitize, change.retiredKey));
    case "sanitizeEnd":
      return withSanitize(record, sanitizeEnd(record.sanitize, change.ok));
    case "sanitizeExitFailure":
      if (conflicts(record, change.nexus, "write")) return refused(record, "reservation_conflict");
      return withSanitize(record, sanitizeExitFailure(record.sanitize));
    default:
      return assertNever(change);
  }
}

/** SPC-4 §5.14: all other initiators are told that the parameters they share have changed. */
function setMode(record: UnitRecord, nexus: NexusId, mode: ModeRecord): UnitChanged {
  if (conflicts(record, nexus, "write")) return refused(record, "reservation_conflict");
  if (sameMode(record.mode, mode)) return done(record);
  const notice = toAllBut(nexus, "modeParametersChanged", false);
  return done(withNotice({ ...record, mode }, notice));
}

/** SAM-5 §6.3.3: a logical unit reset. Persistent reservations outlive it. */
function reset(record: UnitRecord, nexus: NexusId): UnitRecord {
  const reservations = { ...record.reservations, reserve6: null };
  const after = { ...record, mode: newUnit.mode, reservations };
  // What comes of the commands is as the mode was when they were ended.
  return withNotice(after, byWhom(record, nexus, toAllBut(null, "resetOccurred", true)));
}

/**
 * SAM-5 §7.5. The asking nexus' own commands end without a word. The attention is for those who
 * would learn nothing otherwise: with TAS 1 each command says it.
 */
function clearTaskSet(record: UnitRecord, nexus: NexusId): UnitRecord {
  const condition = record.mode.taskAborted ? "tasksEnded" : "commandsCleared";
  const notice = byWhom(record, nexus, toAllBut(nexus, condition, true));
  const others = withNotice(record, notice);
  const own = { condition: "tasksEnded", nexuses: [nexus], except: null, endsTasks: true } as const;
  return withNotice(others, own);
}

/** Should the session live on, behind a broken link, its initiator learns that it lost something. */
function portLost(record: UnitRecord, targetPort: number): UnitRecord {
  const nexus = record.reservations.reserve6;
  if (nexus?.targetPort !== targetPort) return record;
  const after = { ...record, reservations: withoutReserve6(record.reservations, nexus) };
  const notice = { condition: "resetOccurred", nexuses: [nexus], except: null } as const;
  return withNotice(after, { ...notice, endsTasks: false });
}

/**
 * SPC-4 §5.13.5: without APTPL, as the last registration said, nothing of the reservations is
 * left; PRGENERATION begins anew in any case (§6.15.2). Sessions are new, and told so; one that
 * outlived it all the same, behind a broken link, is told by the notice.
 */
function powerLost(record: UnitRecord): UnitRecord {
  const { reservations, mode } = record;
  const kept = { ...reservations, generation: 0, reserve6: null };
  const after: ReservationRecord = reservations.aptpl
    ? kept
    : { ...kept, registrations: [], held: null };
  const same =
    sameMode(mode, newUnit.mode) &&
    reservations.generation === 0 &&
    reservations.reserve6 === null &&
    after.registrations.length === reservations.registrations.length;
  if (same) return record;
  const lost = { ...record, mode: newUnit.mode, reservations: after };
  return withNotice(lost, toAllBut(null, "resetOccurred", true));
}

function toAllBut(
  except: NexusId | null,
  condition: NewNotice["condition"],
  endsTasks: boolean,
): NewNotice {
  return { condition, nexuses: null, except, endsTasks };
}

/** SPC-4 §7.5.8, TAS: whether those whose commands it ends are told, and by whom it was done. */
function byWhom({ mode }: UnitRecord, nexus: NexusId, notice: NewNotice): NewNotice {
  return mode.taskAborted && notice.endsTasks ? { ...notice, abortedBy: nexus } : notice;
}

export function sameMode(one: ModeRecord, other: ModeRecord): boolean {
  return (
    one.descriptorSense === other.descriptorSense &&
    one.writeProtected === other.writeProtected &&
    (one.taskAborted ?? false) === (other.taskAborted ?? false)
  );
}

function withReservations(
  record: UnitRecord,
  after: Pick<Reserved, "outcome" | "reservations"> & Partial<Reserved>,
  nexus: NexusId | null = null,
): UnitChanged {
  const { outcome, reservations, notices = [] } = after;
  if (reservations === record.reservations) return { record, outcome };
  const told = notices.map((one) => (nexus === null ? one : byWhom(record, nexus, one)));
  return { record: told.reduce(withNotice, { ...record, reservations }), outcome };
}

function withSanitize(record: UnitRecord, { outcome, sanitize }: Sanitized): UnitChanged {
  return { record: sanitize === record.sanitize ? record : { ...record, sanitize }, outcome };
}

function done(record: UnitRecord): UnitChanged {
  return { record, outcome: "done" };
}

function refused(record: UnitRecord, outcome: UnitOutcome): UnitChanged {
  return { record, outcome };
}
