import { shortDataResult } from "./block-commands.ts";
import { blockBytes, writeUint64 } from "./cdb.ts";
import { good, parameterData, refused, type ScsiCommand, type ScsiResult } from "./command.ts";
import { type LogicalUnit, raiseAttention, unitBlocks } from "./logical-unit.ts";
import { invalidFieldInCdb, invalidFieldInParameters, sense } from "./sense.ts";

/** MODE SENSE, MODE SELECT and their pages (SPC-5 §6.11-14 and §7.5, SBC-4 §6.5). */

const pageControl = { current: 0, changeable: 1, defaults: 2, saved: 3 } as const;
const allPages = 0x3f;
const allSubpages = 0xff;
const writeProtectBit = 0x80;
const dpoFuaBit = 0x10;
/** In bytes 2 and 4 of the control page. */
const dSenseBit = 0x04;
const softwareWriteProtectBit = 0x08;

interface ModeValues {
  descriptorSense: boolean;
  writeProtected: boolean;
}

/** Page code -> the page without its two-byte head. */
const pages: ReadonlyMap<number, (values: ModeValues) => number[]> = new Map([
  // Read-write error recovery: AWRE and ARRE, for bad copies are replaced unasked.
  [0x01, () => [0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0]],
  [0x02, () => [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]],
  // Caching: WCE is 0, a write is durable when it is answered.
  [0x08, () => [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]],
  [0x0a, controlPage],
  [0x1c, () => [0, 0, 0, 0, 0, 0, 0, 0, 0, 0]],
]);

function controlPage(values: ModeValues): number[] {
  const dSense = values.descriptorSense ? dSenseBit : 0;
  const softwareWriteProtect = values.writeProtected ? softwareWriteProtectBit : 0;
  // Byte 3: unrestricted reordering (queue algorithm modifier 1).
  return [dSense, 0x10, softwareWriteProtect, 0, 0, 0, 0xff, 0xff, 0, 0];
}

export function modeSense6(command: ScsiCommand): ScsiResult {
  const { cdb, unit } = command;
  const content = modePages(unit, cdb);
  if (content === null) return refused(invalidFieldInCdb(2));
  if (content === "saved") return refused(sense.savingNotSupported);
  const withDescriptor = (cdb[1]! & 0x08) === 0;
  const descriptor = withDescriptor ? shortDescriptor(unit) : Buffer.alloc(0);
  const out = Buffer.concat([Buffer.alloc(4), descriptor, content]);
  out[0] = out.length - 1;
  out[2] = deviceSpecific(unit);
  out[3] = descriptor.length;
  return parameterData(out, cdb[4]!);
}

export function modeSense10(command: ScsiCommand): ScsiResult {
  const { cdb, unit } = command;
  const content = modePages(unit, cdb);
  if (content === null) return refused(invalidFieldInCdb(2));
  if (content === "saved") return refused(sense.savingNotSupported);
  const withDescriptor = (cdb[1]! & 0x08) === 0;
  const long = (cdb[1]! & 0x10) !== 0;
  const present = long ? longDescriptor(unit) : shortDescriptor(unit);
  const descriptor = withDescriptor ? present : Buffer.alloc(0);
  const out = Buffer.concat([Buffer.alloc(8), descriptor, content]);
  out.writeUInt16BE(out.length - 2, 0);
  out[3] = deviceSpecific(unit);
  out[4] = withDescriptor && long ? 1 : 0;
  out.writeUInt16BE(descriptor.length, 6);
  return parameterData(out, cdb.readUInt16BE(7));
}

function deviceSpecific(unit: LogicalUnit): number {
  return dpoFuaBit | (unit.writeProtected ? writeProtectBit : 0);
}

/** The pages asked for; null when there is no such page. */
function modePages(unit: LogicalUnit, cdb: Buffer): Buffer | null | "saved" {
  const control = cdb[2]! >>> 6;
  const page = cdb[2]! & 0x3f;
  const subpage = cdb[3]!;
  if (control === pageControl.saved) return "saved";
  if (subpage !== 0 && !(page === allPages && subpage === allSubpages)) return null;
  const codes = page === allPages ? [...pages.keys()] : pages.has(page) ? [page] : null;
  if (codes === null) return null;
  return Buffer.concat(codes.map((code) => modePage(unit, code, control)));
}

function modePage(unit: LogicalUnit, code: number, control: number): Buffer {
  const body = pages.get(code)!;
  const off = { descriptorSense: false, writeProtected: false };
  const bytes = body(control === pageControl.current ? unit : off);
  if (control === pageControl.changeable) {
    // What differs when every changeable value is set is what can be changed.
    const on = body({ descriptorSense: true, writeProtected: true });
    return Buffer.from([code, on.length, ...on.map((byte, index) => byte ^ bytes[index]!)]);
  }
  return Buffer.from([code, bytes.length, ...bytes]);
}

/** blocks[4] density[1] block-length[3] */
function shortDescriptor(unit: LogicalUnit): Buffer {
  const out = Buffer.alloc(8);
  out.writeUInt32BE(Math.min(unitBlocks(unit), 0xffff_ffff), 0);
  out.writeUIntBE(blockBytes, 5, 3);
  return out;
}

/** blocks[8] zero[4] block-length[4] */
function longDescriptor(unit: LogicalUnit): Buffer {
  const out = Buffer.alloc(16);
  writeUint64(out, unitBlocks(unit), 0);
  out.writeUInt32BE(blockBytes, 12);
  return out;
}

export function modeSelect6DataBytes(_unit: LogicalUnit, cdb: Buffer): number {
  return cdb[4]!;
}

export function modeSelect10DataBytes(_unit: LogicalUnit, cdb: Buffer): number {
  return cdb.readUInt16BE(7);
}

export function modeSelect6(command: ScsiCommand): ScsiResult {
  const list = Buffer.concat(command.dataOut);
  return modeSelect(command, modeSelect6DataBytes(command.unit, command.cdb), list, 4, list[3]);
}

export function modeSelect10(command: ScsiCommand): ScsiResult {
  const list = Buffer.concat(command.dataOut);
  const descriptorBytes = list.length < 8 ? 0 : list.readUInt16BE(6);
  return modeSelect(
    command,
    modeSelect10DataBytes(command.unit, command.cdb),
    list,
    8,
    descriptorBytes,
  );
}

/** Pages behind `headBytes` and the block descriptors; all of them are good, or none is applied. */
function modeSelect(
  command: ScsiCommand,
  wantedBytes: number,
  list: Buffer,
  headBytes: number,
  descriptorBytes = 0,
): ScsiResult {
  const { cdb, unit, nexus } = command;
  const savePages = (cdb[1]! & 0x01) !== 0;
  if (savePages) return refused(invalidFieldInCdb(1, 0));
  const short = shortDataResult(command, wantedBytes);
  if (short !== null) return short;
  if (wantedBytes === 0) return good;
  if (list.length < headBytes + descriptorBytes) return refused(sense.parameterListLength);
  let values: ModeValues = unit;
  for (let at = headBytes + descriptorBytes; at < list.length; ) {
    if (at + 2 > list.length) return refused(sense.parameterListLength);
    const code = list[at]! & 0x3f;
    const subpageFormat = (list[at]! & 0x40) !== 0;
    const end = at + 2 + list[at + 1]!;
    if (end > list.length) return refused(sense.parameterListLength);
    if (subpageFormat || !pages.has(code)) return refused(invalidFieldInParameters(at));
    const changed = changePage(values, code, list.subarray(at + 2, end));
    if (typeof changed === "number") return refused(invalidFieldInParameters(at + 2 + changed));
    values = changed;
    at = end;
  }
  const { descriptorSense, writeProtected } = values;
  if (descriptorSense === unit.descriptorSense && writeProtected === unit.writeProtected) {
    return good;
  }
  unit.descriptorSense = descriptorSense;
  unit.writeProtected = writeProtected;
  raiseAttention(unit, sense.modeParametersChanged, nexus);
  return good;
}

/** The values with a page's bytes applied, or the place of a byte that may not be changed. */
function changePage(values: ModeValues, code: number, bytes: Buffer): ModeValues | number {
  const body = pages.get(code)!;
  const off = body({ descriptorSense: false, writeProtected: false });
  const on = body({ descriptorSense: true, writeProtected: true });
  if (bytes.length !== off.length) return -1;
  const wrong = off.findIndex((byte, index) => (byte ^ bytes[index]!) & ~(byte ^ on[index]!));
  if (wrong >= 0) return wrong;
  if (code !== 0x0a) return values;
  return {
    descriptorSense: (bytes[0]! & dSenseBit) !== 0,
    writeProtected: (bytes[2]! & softwareWriteProtectBit) !== 0,
  };
}
