import { type CommandKind, conflicts } from "../../brick/unit/conflicts.ts";
import type { UnitRecord } from "../../brick/unit/unit-record.ts";
import {
  type CommandRow,
  refused,
  type ScsiCommand,
  type ScsiResult,
  withStatus,
} from "./command.ts";
import { type LogicalUnit, watchUnitConditions } from "./logical-unit.ts";
import { invalidFieldInCdb, type Sense, sanitizeSense, scsiStatus, sense } from "./sense.ts";

/** How a command is examined before its own code sees it, and in which order. */

/** `row`: what `findCommand` found. `dataOutBytes`: what its row asked for when it came. */
export function runCommand(
  command: ScsiCommand,
  row: CommandRow | undefined | null,
  dataOutBytes: number,
): ScsiResult | Promise<ScsiResult> {
  const { unit, cdb } = command;
  const answer = examine(command, row?.encryptedOnly === true ? ifEncrypted(unit, row) : row);
  if (answer !== null) return answer;
  // The unit has changed while data were under way: what came is not what the command needs now.
  const wantedBytes = row!.dataOutBytes?.(unit, cdb) ?? 0;
  return wantedBytes === dataOutBytes ? row!.run(command) : withStatus(scsiStatus.busy);
}

function ifEncrypted({ volume }: LogicalUnit, row: CommandRow): CommandRow | null {
  return volume.info.keyDomain === undefined ? null : row;
}

/** What keeps the command from being run, if anything. */
function examine(command: ScsiCommand, row: CommandRow | undefined | null): ScsiResult | null {
  const { unit, nexus, cdb } = command;
  const kind = kindOf(row, cdb);
  watchUnitConditions(unit, kind);
  // SAM-5 §5.3.3: a reset comes before a reservation conflict, other unit attentions after it.
  const waits = row?.passesUnitAttention === true ? undefined : nexus.attentions[0];
  if (waits?.asc === sense.resetOccurred.asc) return refused(nexus.attentions.shift()!);
  if (conflicts(unit.volume.unit(), nexus.id, kind)) {
    return withStatus(scsiStatus.reservationConflict);
  }
  if (waits !== undefined) return refused(nexus.attentions.shift()!);
  if (row === undefined) return refused(sense.invalidOpcode);
  if (row === null) return refused(invalidFieldInCdb(1, 4));
  const wrong = notReadySense(unit.volume.unit(), row) ?? reservedBitSense(row, cdb);
  return wrong === null ? null : refused(wrong);
}

/** What is no command of the set is in conflict with nothing, but refused. */
function kindOf(row: CommandRow | undefined | null, cdb: Buffer): CommandKind {
  if (!row) return "always";
  return typeof row.kind === "function" ? row.kind(cdb) : row.kind;
}

/** SBC-4 §4.11: while it is sanitized, and when that has failed, a unit does little else. */
function notReadySense(record: UnitRecord, row: CommandRow): Sense | null {
  const { sanitize } = record;
  const runs =
    row.whileSanitizing === "always" ||
    (row.whileSanitizing === "failed" && sanitize?.state === "failed");
  return runs ? null : sanitizeSense(record);
}

const nacaBit = 0x04;

/**
 * SAM-5 §5.2: NACA must be zero where ACA is not supported (NORMACA 0). Other reserved bits are
 * looked at only where the row says so: initiators in use set some.
 */
function reservedBitSense(row: CommandRow, cdb: Buffer): Sense | null {
  const control = row.usage.length / 2 - 1;
  if ((cdb[control]! & nacaBit) !== 0) return invalidFieldInCdb(control, 2);
  if (row.strict !== true) return null;
  const usage = Buffer.from(row.usage, "hex");
  for (let at = 1; at < usage.length; at += 1) {
    // The usage data hold a service action's number, not the mask of its field.
    const used = usage[at]! | (at === 1 && row.serviceAction !== undefined ? 0x1f : 0);
    const wrong = cdb[at]! & ~used & 0xff;
    if (wrong !== 0) return invalidFieldInCdb(at, 31 - Math.clz32(wrong));
  }
  return null;
}
