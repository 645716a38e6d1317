/**
 * What a volume remembers as a SCSI logical unit, wherever its initiators are logged in:
 * reservations, mode parameters, unit attentions that initiators of other portals must be told. It
 * is part of the cluster state, so that it holds over the death of a portal, of the gateway, and
 * over a power cut. Plain JSON data, changed only by `changeUnit` (unit-changes.ts).
 */
export interface UnitRecord {
  /** Counts changes; a larger version is newer. */
  readonly version: number;
  readonly reservations: ReservationRecord;
  readonly mode: ModeRecord;
  /** null while none was started, or once the last one has ended well. */
  readonly sanitize: SanitizeRecord | null;
  /** Newest last; the oldest make room (noticesMax, noticedNexusesMax). */
  readonly notices: readonly UnitNotice[];
  /** The sequence of the next notice; the first is 1. */
  readonly noticeNext: number;
}

/** SAM-5 I_T nexus: an initiator port and a target port. */
export interface NexusId {
  /** iSCSI name and ISID, as in a TransportID: "iqn.2026-11.example:host,i,0x00023d000001". */
  readonly initiatorPort: string;
  /** Relative target port identifier: the number of the portal's brick; 1 or more. */
  readonly targetPort: number;
}

/** Nexuses of one initiator port: one, or with target port 0 those of all target ports. */
export interface NexusSet extends NexusId {
  /** With target port 0: target ports that are not meant all the same. Absent: none. */
  readonly exceptPorts?: readonly number[];
}

/** SPC-4 §5.13.4.2: the type codes of persistent reservations. */
export const reservationType = {
  writeExclusive: 1,
  exclusiveAccess: 3,
  writeExclusiveRegistrantsOnly: 5,
  exclusiveAccessRegistrantsOnly: 6,
  writeExclusiveAllRegistrants: 7,
  exclusiveAccessAllRegistrants: 8,
} as const;
export type ReservationType = (typeof reservationType)[keyof typeof reservationType];

export interface ReservationRecord {
  /** PRGENERATION, mod 2^32. */
  readonly generation: number;
  /** Activate persist through power loss, as the last registration said. */
  readonly aptpl: boolean;
  /** In order of registration. */
  readonly registrations: readonly Registration[];
  readonly held: {
    readonly type: ReservationType;
    /** The nexus that reserved; with the all-registrants types every registered one holds it. */
    readonly holder: NexusId;
  } | null;
  /** RESERVE(6) of SPC-2: the whole unit, until its nexus is lost or the unit is reset. */
  readonly reserve6: NexusId | null;
}

export interface Registration {
  /** Of all target ports when it was made with ALL_TG_PT. No two registrations share a nexus. */
  readonly nexus: NexusSet;
  /** 16 hex digits; never all zero. */
  readonly key: string;
}

export interface ModeRecord {
  /** Control mode page, D_SENSE: descriptor-format sense data. */
  readonly descriptorSense: boolean;
  /** Control mode page, SWP. */
  readonly writeProtected: boolean;
  /** Control mode page, TAS: commands that another nexus aborts are answered. Absent: they are not. */
  readonly taskAborted?: boolean | undefined;
}

export interface SanitizeRecord {
  readonly state: "running" | "failed";
  /** Out of 65536, as REQUEST SENSE shows it. */
  readonly progress: number;
  /** AUSE: a failed one may be left with EXIT FAILURE MODE. */
  readonly allowUnrestrictedExit: boolean;
  /** CRYPTOGRAPHIC ERASE; absent: BLOCK ERASE. */
  readonly method?: "crypto";
  /** With that method: the key domain that the volume had, once it has a new one. */
  readonly retiredKey?: number;
}

/** Something that initiators must be told, or whose commands it ends. */
export interface UnitNotice {
  readonly sequence: number;
  readonly condition: UnitCondition;
  /** Whom it concerns; null: every nexus but `except`. */
  readonly nexuses: readonly NexusSet[] | null;
  readonly except: NexusId | null;
  /** The commands of those nexuses that began before the notice can no longer take effect. */
  readonly endsTasks: boolean;
  /**
   * It was made under TAS 1, by this nexus: commands of others that it ends are answered TASK ABORTED.
   * Absent: nothing is said of what it ends.
   */
  readonly abortedBy?: NexusId;
}

export type UnitCondition =
  /** 2A/03 */
  | "reservationsPreempted"
  /** 2A/04 */
  | "reservationsReleased"
  /** 2A/05 */
  | "registrationsPreempted"
  /** 2A/01 */
  | "modeParametersChanged"
  /** 29/03: LOGICAL UNIT RESET, TARGET RESET */
  | "resetOccurred"
  /** 2F/00: CLEAR TASK SET by another initiator */
  | "commandsCleared"
  /** Ends tasks, but is no unit attention. */
  | "tasksEnded";

export const noticesMax = 256;
/** Nexuses that all notices of a unit name together. */
export const noticedNexusesMax = 1024;
export const registrationsMax = 256;

/** The state of a unit of which nothing was ever asked. */
export const newUnit: UnitRecord = {
  version: 0,
  reservations: { generation: 0, aptpl: false, registrations: [], held: null, reserve6: null },
  mode: { descriptorSense: false, writeProtected: false },
  sanitize: null,
  notices: [],
  noticeNext: 1,
};

export function sameNexus(a: NexusId, b: NexusId): boolean {
  return a.initiatorPort === b.initiatorPort && a.targetPort === b.targetPort;
}

/** Whether a nexus is among those that `named` names. */
export function namesNexus(named: NexusSet, nexus: NexusId): boolean {
  if (named.initiatorPort !== nexus.initiatorPort) return false;
  if (named.targetPort !== 0) return named.targetPort === nexus.targetPort;
  return !named.exceptPorts?.includes(nexus.targetPort);
}

export function concernsNexus(notice: UnitNotice, nexus: NexusId): boolean {
  if (notice.except !== null && sameNexus(notice.except, nexus)) return false;
  return notice.nexuses === null || notice.nexuses.some((named) => namesNexus(named, nexus));
}
