import { blockBytes, writeUint64 } from "./cdb.ts";
import {
  type CommandRow,
  good,
  parameterData,
  refused,
  type ScsiCommand,
  type ScsiResult,
} from "./command.ts";
import { unitBlocks } from "./logical-unit.ts";
import { encodeSense, invalidFieldInCdb, sanitizeSense, sense } from "./sense.ts";

/** Commands about the unit itself: readiness, capacity, LUNs, sense, supported commands. */

/** A block can be written without reading others: it is a physical block of its own. */
const physicalBlockExponent = 0;

export function testUnitReady(): ScsiResult {
  return good;
}

export function requestSense(command: ScsiCommand): ScsiResult {
  const { cdb, nexus, unit } = command;
  // SPC-5 §6.39: a unit attention is returned as data, and is thereby cleared.
  const attention = nexus.attentions.shift();
  const condition = attention ?? sanitizeSense(unit.volume.unit()) ?? sense.none;
  return parameterData(encodeSense(condition, senseFormat(cdb)), cdb[4]!);
}

export function absentRequestSense(cdb: Buffer): ScsiResult {
  return parameterData(encodeSense(sense.unitNotSupported, senseFormat(cdb)), cdb[4]!);
}

function senseFormat(cdb: Buffer): "fixed" | "descriptor" {
  return (cdb[1]! & 1) !== 0 ? "descriptor" : "fixed";
}

export function readCapacity10(command: ScsiCommand): ScsiResult {
  const { cdb, unit } = command;
  // Without PMI the address must be zero (SBC-3 §5.15.2).
  if ((cdb[8]! & 1) === 0 && cdb.readUInt32BE(2) !== 0) return refused(invalidFieldInCdb(2));
  const out = Buffer.alloc(8);
  out.writeUInt32BE(Math.min(unitBlocks(unit) - 1, 0xffff_ffff), 0);
  out.writeUInt32BE(blockBytes, 4);
  return parameterData(out, out.length);
}

export function readCapacity16(command: ScsiCommand): ScsiResult {
  const { cdb, unit } = command;
  if ((cdb[14]! & 1) === 0 && (cdb.readUInt32BE(2) !== 0 || cdb.readUInt32BE(6) !== 0)) {
    return refused(invalidFieldInCdb(2));
  }
  const out = Buffer.alloc(32);
  writeUint64(out, unitBlocks(unit) - 1, 0);
  out.writeUInt32BE(blockBytes, 8);
  out[13] = physicalBlockExponent;
  out[14] = 0xc0; // LBPME, LBPRZ; block 0 is aligned
  return parameterData(out, cdb.readUInt32BE(10));
}

/** SPC-4 table 220: what SELECT REPORT asks for; the well-known units are none. */
const selectReport = { units: 0x00, wellKnown: 0x01, all: 0x02 } as const;
/** Above, a LUN needs more than the one byte of the peripheral device addressing method. */
const peripheralLunMax = 0xff;

/** SPC-4 §6.33. Every LUN lists the same. */
export function reportLuns(cdb: Buffer, luns: readonly number[]): ScsiResult {
  const select = cdb[2]!;
  if (select > selectReport.all) return refused(invalidFieldInCdb(2));
  const listed = select === selectReport.wellKnown ? [] : luns;
  const out = Buffer.alloc(8 + 8 * listed.length);
  out.writeUInt32BE(8 * listed.length, 0);
  // SAM-5 §4.7.7: peripheral device addressing, or flat space addressing (method 01b).
  listed.forEach((lun, index) => {
    out.writeUInt16BE(lun <= peripheralLunMax ? lun : 0x4000 | lun, 8 + 8 * index);
  });
  return parameterData(out, cdb.readUInt32BE(6));
}

/** POWER CONDITION of START STOP UNIT (SBC-4 §5.31): START_VALID, ACTIVE, IDLE, STANDBY, and on. */
const powerConditions: ReadonlySet<number> = new Set([0x0, 0x1, 0x2, 0x3, 0x7, 0xa, 0xb]);

/** The unit has no motor, and one initiator may not stop it for the others. */
export function startStopUnit({ cdb }: ScsiCommand): ScsiResult {
  const flags = cdb[4]!;
  if (!powerConditions.has(flags >>> 4)) return refused(invalidFieldInCdb(4, 7));
  // LOEJ: nothing can be ejected, or loaded. With a power condition the bit is not looked at.
  const loadEject = (flags & 0x02) !== 0 && flags >>> 4 === 0;
  return loadEject ? refused(invalidFieldInCdb(4, 1)) : good;
}

/** The medium cannot be removed anyway. */
export function preventAllow(): ScsiResult {
  return good;
}

const supported = { no: 1, yes: 3 } as const;

/** SPC-5 §6.37. The rows are the command set itself, so the report cannot differ from it. */
export function reportSupportedOpcodes(
  command: ScsiCommand,
  allRows: readonly CommandRow[],
): ScsiResult {
  const { cdb, unit } = command;
  const encrypted = unit.volume.info.keyDomain !== undefined;
  const rows = allRows.filter((row) => encrypted || row.encryptedOnly !== true);
  const withTimeouts = (cdb[2]! & 0x80) !== 0;
  const reporting = cdb[2]! & 0x07;
  const opcode = cdb[3]!;
  const serviceAction = cdb.readUInt16BE(4);
  const allocationLength = cdb.readUInt32BE(6);
  if (reporting === 0) return parameterData(allOpcodes(rows, withTimeouts), allocationLength);
  if (reporting > 3) return refused(invalidFieldInCdb(2, 2));
  const ofOpcode = rows.filter((row) => row.opcode === opcode);
  const hasActions = ofOpcode.some((row) => row.serviceAction !== undefined);
  // Options 1 and 2 must fit the opcode; option 3 takes both kinds.
  if (reporting === 1 && hasActions) return refused(invalidFieldInCdb(2, 2));
  if (reporting === 2 && ofOpcode.length > 0 && !hasActions) {
    return refused(invalidFieldInCdb(2, 2));
  }
  const row = ofOpcode.find((one) => !hasActions || one.serviceAction === serviceAction);
  return parameterData(oneOpcode(row, withTimeouts), allocationLength);
}

/** length[2] zero[1] no timeouts are known[9] */
function timeoutsDescriptor(): Buffer<ArrayBuffer> {
  const out = Buffer.alloc(12);
  out.writeUInt16BE(out.length - 2, 0);
  return out;
}

function allOpcodes(rows: readonly CommandRow[], withTimeouts: boolean): Buffer {
  const descriptors = rows.map((row) => {
    const out = Buffer.alloc(8);
    out[0] = row.opcode;
    out.writeUInt16BE(row.serviceAction ?? 0, 2);
    out[5] = (withTimeouts ? 0x02 : 0) | (row.serviceAction === undefined ? 0 : 0x01);
    out.writeUInt16BE(row.usage.length / 2, 6);
    return withTimeouts ? Buffer.concat([out, timeoutsDescriptor()]) : out;
  });
  const content = Buffer.concat(descriptors);
  const head = Buffer.alloc(4);
  head.writeUInt32BE(content.length, 0);
  return Buffer.concat([head, content]);
}

function oneOpcode(row: CommandRow | undefined, withTimeouts: boolean): Buffer {
  if (row === undefined) return Buffer.from([0, supported.no, 0, 0]);
  const usage = Buffer.from(row.usage, "hex");
  const head = Buffer.from([0, supported.yes | (withTimeouts ? 0x80 : 0), 0, usage.length]);
  const parts: Buffer[] = [head, usage];
  if (withTimeouts) parts.push(timeoutsDescriptor());
  return Buffer.concat(parts);
}

/** SPC-4 §6.36: ATS, ATSS, CTSS, LURS, TRS; then, as RFC 7144 adds them, QTS; QAES, QTSS, ITNRS. */
export function reportSupportedTaskManagement(command: ScsiCommand): ScsiResult {
  const extended = (command.cdb[2]! & 0x80) !== 0;
  const out = Buffer.alloc(extended ? 16 : 4);
  out[0] = 0x80 | 0x40 | 0x10 | 0x08 | 0x02;
  if (command.queriesTasks) {
    out[0] |= 0x04;
    out[1] = 0x04 | 0x02 | 0x01;
  }
  if (extended) out[3] = out.length - 4;
  return parameterData(out, command.cdb.readUInt32BE(6));
}
