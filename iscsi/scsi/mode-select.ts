import { sameMode } from "../../brick/unit/unit-changes.ts";
import type { ModeRecord } from "../../brick/unit/unit-record.ts";
import { blockBytes } from "./cdb.ts";
import { good, refused, type ScsiCommand, type ScsiResult } from "./command.ts";
import type { LogicalUnit } from "./logical-unit.ts";
import {
  changeableBody,
  controlPageCode,
  defaultBody,
  dSenseBit,
  findModePage,
  type ModePage,
  softwareWriteProtectBit,
  taskAbortedBit,
} from "./mode-pages.ts";
import { invalidFieldInCdb, invalidFieldInParameters, type Sense, sense } from "./sense.ts";
import { changeUnit } from "./unit-change.ts";

/** MODE SELECT(6) and (10) (SPC-4 §6.10, §6.11). */

export function modeSelect6DataBytes(_unit: LogicalUnit, cdb: Buffer): number {
  return cdb[4]!;
}

export function modeSelect10DataBytes(_unit: LogicalUnit, cdb: Buffer): number {
  return cdb.readUInt16BE(7);
}

export function modeSelect6(command: ScsiCommand): ScsiResult | Promise<ScsiResult> {
  const list = Buffer.concat(command.dataOut);
  const descriptors = { start: 4, lengthBytes: list[3] ?? 0, long: false };
  return modeSelect(command, modeSelect6DataBytes(command.unit, command.cdb), list, descriptors);
}

export function modeSelect10(command: ScsiCommand): ScsiResult | Promise<ScsiResult> {
  const list = Buffer.concat(command.dataOut);
  const lengthBytes = list.length < 8 ? 0 : list.readUInt16BE(6);
  const descriptors = { start: 8, lengthBytes, long: (list[4]! & 0x01) !== 0 };
  return modeSelect(command, modeSelect10DataBytes(command.unit, command.cdb), list, descriptors);
}

/** Block descriptors behind the list's head. */
interface Descriptors {
  readonly start: number;
  readonly lengthBytes: number;
  /** LONGLBA: 16 bytes each, not 8. */
  readonly long: boolean;
}

function modeSelect(
  command: ScsiCommand,
  wantedBytes: number,
  list: Buffer,
  descriptors: Descriptors,
): ScsiResult | Promise<ScsiResult> {
  const { cdb, unit, nexus } = command;
  // SP: nothing is saved besides what is current, which the cluster keeps.
  if ((cdb[1]! & 0x01) !== 0) return refused(invalidFieldInCdb(1, 0));
  if (wantedBytes === 0) return good;
  if (list.length < wantedBytes) return refused(sense.parameterListLength);
  const decoded = decodeList(unit, list, descriptors);
  if (!decoded.ok) return refused(decoded.sense);
  const { mode } = decoded;
  return sameMode(mode, unit.volume.unit().mode)
    ? good
    : changeUnit(command, { type: "setMode", nexus: nexus.id, mode });
}

type Decoded = { ok: true; mode: ModeRecord } | { ok: false; sense: Sense };

function wrong(condition: Sense): Decoded {
  return { ok: false, sense: condition };
}

/** All pages of the list are good, or none is applied. */
function decodeList(unit: LogicalUnit, list: Buffer, descriptors: Descriptors): Decoded {
  const start = descriptors.start + descriptors.lengthBytes;
  if (list.length < start) return wrong(sense.parameterListLength);
  const condition = descriptorSenseOf(list, descriptors);
  if (condition !== null) return wrong(condition);
  let mode = unit.volume.unit().mode;
  for (let at = start; at < list.length; ) {
    const hasSubpage = (list[at]! & 0x40) !== 0;
    const bodyStart = at + (hasSubpage ? 4 : 2);
    if (bodyStart > list.length) return wrong(sense.parameterListLength);
    const bodyBytes = hasSubpage ? list.readUInt16BE(at + 2) : list[at + 1]!;
    const end = bodyStart + bodyBytes;
    const page = findModePage(list[at]! & 0x3f, hasSubpage ? list[at + 1]! : 0);
    if (page === undefined) return wrong(invalidFieldInParameters(at, 5));
    if (bodyBytes !== defaultBody(page, unit).length) {
      return wrong(invalidFieldInParameters(bodyStart - (hasSubpage ? 2 : 1)));
    }
    if (end > list.length) return wrong(sense.parameterListLength);
    const body = list.subarray(bodyStart, end);
    const place = unchangeablePlace(page, unit, body);
    if (place !== null) return wrong(invalidFieldInParameters(bodyStart + place.byte, place.bit));
    mode = applyPage(mode, page, body);
    at = end;
  }
  return { ok: true, mode };
}

/** One descriptor or none, of the block length there is. */
function descriptorSenseOf(list: Buffer, descriptors: Descriptors): Sense | null {
  const { start, lengthBytes, long } = descriptors;
  if (lengthBytes === 0) return null;
  const wantedBytes = long ? 16 : 8;
  if (lengthBytes !== wantedBytes) return invalidFieldInParameters(start === 4 ? 3 : 6);
  const at = long ? start + 12 : start + 5;
  const length = long ? list.readUInt32BE(at) : list.readUIntBE(at, 3);
  return length === blockBytes ? null : invalidFieldInParameters(at);
}

/** Where a page differs from what there is in what cannot be changed. */
function unchangeablePlace(
  page: ModePage,
  unit: LogicalUnit,
  body: Buffer,
): { byte: number; bit: number } | null {
  const fixed = defaultBody(page, unit);
  const changeable = changeableBody(page, unit);
  for (let byte = 0; byte < fixed.length; byte += 1) {
    const bits = (fixed[byte]! ^ body[byte]!) & ~changeable[byte]! & 0xff;
    if (bits !== 0) return { byte, bit: 31 - Math.clz32(bits) };
  }
  return null;
}

function applyPage(mode: ModeRecord, page: ModePage, body: Buffer): ModeRecord {
  if (page.page !== controlPageCode || page.subpage !== 0) return mode;
  return {
    descriptorSense: (body[0]! & dSenseBit) !== 0,
    writeProtected: (body[2]! & softwareWriteProtectBit) !== 0,
    taskAborted: (body[3]! & taskAbortedBit) !== 0,
  };
}
