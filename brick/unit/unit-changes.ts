import type { ModeRecord, NexusId, ReservationType, UnitRecord } from "./unit-record.ts";

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
    }
  | { readonly type: "sanitizeProgress"; readonly progress: number }
  | { readonly type: "sanitizeEnd"; readonly ok: boolean }
  | { readonly type: "sanitizeExitFailure"; readonly nexus: NexusId };

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

/** The state after a change; the same record when nothing changed. */
export function changeUnit(
  record: UnitRecord,
  change: UnitChange,
): { record: UnitRecord; outcome: UnitOutcome } {
  throw new Error(`not written yet: ${change.type} of unit version ${record.version}`);
}

/** Whether SPC-4 tables 50-52 let a command of this nexus touch the medium now. */
export function mayAccess(record: UnitRecord, nexus: NexusId, access: "read" | "write"): boolean {
  throw new Error(`not written yet: ${nexus.initiatorPort} ${access} ${record.version}`);
}
