import { assertNever } from "../../brick/assert.ts";
import type { LentMemory } from "../../brick/rpc/lent-memory.ts";
import type { CommandKind } from "../../brick/unit/conflicts.ts";
import type { VolumeFault, VolumeTask } from "../../brick/volume/volume.ts";
import type { LogicalUnit, Nexus } from "./logical-unit.ts";
import { miscompare, type Sense, scsiStatus, sense } from "./sense.ts";

/** A SCSI command as the device server sees it: no word of iSCSI. */
export interface ScsiCommand {
  readonly unit: LogicalUnit;
  readonly nexus: Nexus;
  /** The LUNs of the session, ascending: what REPORT LUNS lists. */
  readonly luns: readonly number[];
  /** The units of the session, this one too: what EXTENDED COPY may name. */
  readonly peers: readonly Peer[];
  /** Whether QUERY TASK and the other functions of RFC 7144 are served in this session. */
  readonly queriesTasks: boolean;
  readonly cdb: Buffer;
  /** What came of the data that the row's `dataOutBytes` asked for, in order. */
  readonly dataOut: readonly Buffer[];
  readonly dataOutBytes: number;
  /** What long data of it lie in, to be given back when they are needed no more. */
  readonly received: LentMemory | null;
  /** What the initiator announced: more or less than the row asked for, if it errs. */
  readonly expectedBytes: number;
  readonly task: VolumeTask;
}

export interface Peer {
  readonly unit: LogicalUnit;
  readonly nexus: Nexus;
}

export interface ScsiResult {
  readonly status: number;
  readonly sense: Sense | null;
  /** Data-In; the transport cuts it to what the initiator expects. */
  readonly data: readonly Buffer[];
  readonly dataBytes: number;
  /** May be called when the data have been sent, and not otherwise: their memory may be given back. */
  readonly release?: () => void;
}

/** A command of the set: one line of the table in opcodes.ts. */
export interface CommandRow {
  readonly name: string;
  readonly opcode: number;
  /** For opcodes that are shared: bits 4-0 of byte 1. */
  readonly serviceAction?: number;
  /** The CDB usage data of REPORT SUPPORTED OPERATION CODES, hex, as long as the CDB. */
  readonly usage: string;
  /**
   * How much Data-Out to ask for; 0 for a command that will be refused. The command must be able
   * to run with less, when the initiator announces less.
   */
  readonly dataOutBytes?: (unit: LogicalUnit, cdb: Buffer) => number;
  /** Holds up to stepBytesMax besides the data it is sent. */
  readonly worksInSteps?: true;
  /** SAM-5 §5.14: INQUIRY, REPORT LUNS and REQUEST SENSE do not report unit attentions. */
  readonly passesUnitAttention?: true;
  /** "always": also while the unit is being sanitized. "failed": also when that has failed. */
  readonly whileSanitizing?: "always" | "failed";
  /** Only encrypted units have it: to others it is an unknown service action. */
  readonly encryptedOnly?: true;
  /** Bits that the usage data do not name are refused, not ignored. */
  readonly strict?: true;
  /** How it stands to the reservations of others. */
  readonly kind: CommandKind | ((cdb: Buffer) => CommandKind);
  readonly run: (command: ScsiCommand) => ScsiResult | Promise<ScsiResult>;
}

const nothing: readonly Buffer[] = [];

export const good: ScsiResult = {
  status: scsiStatus.good,
  sense: null,
  data: nothing,
  dataBytes: 0,
};

export function refused(condition: Sense): ScsiResult {
  return { status: scsiStatus.checkCondition, sense: condition, data: nothing, dataBytes: 0 };
}

export function withStatus(status: number): ScsiResult {
  return { status, sense: null, data: nothing, dataBytes: 0 };
}

/** Parameter data, cut to the CDB's allocation length. */
export function parameterData(bytes: Buffer, allocationLength: number): ScsiResult {
  const cut = bytes.subarray(0, allocationLength);
  return { status: scsiStatus.good, sense: null, data: [cut], dataBytes: cut.length };
}

export function dataResult(data: readonly Buffer[], dataBytes: number): ScsiResult {
  return { status: scsiStatus.good, sense: null, data, dataBytes };
}

/** What an initiator is told of a volume's fault. */
export function faultResult(fault: VolumeFault): ScsiResult {
  switch (fault.code) {
    // Retryable, and nothing is lost: initiators repeat a command that ended with BUSY.
    case "unavailable":
      return withStatus(scsiStatus.busy);
    case "no_space":
      return refused(sense.spaceAllocationFailed);
    case "out_of_range":
      return refused(sense.lbaOutOfRange);
    case "lost":
      return refused({
        ...sense.unrecoveredRead,
        information: Math.floor(fault.offsetBytes / 512),
      });
    case "cancelled":
      return withStatus(scsiStatus.taskAborted);
    case "deleted":
      return refused(sense.unitNotSupported);
    case "reservation_conflict":
      return withStatus(scsiStatus.reservationConflict);
    case "miscompare":
      return refused(miscompare(fault.offsetBytes));
    case "sanitizing":
      return refused(sense.sanitizeInProgress);
    default:
      return assertNever(fault);
  }
}
