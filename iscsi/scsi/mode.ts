import { blockBytes, writeUint64 } from "./cdb.ts";
import { parameterData, refused, type ScsiCommand, type ScsiResult } from "./command.ts";
import { type LogicalUnit, unitBlocks } from "./logical-unit.ts";
import { invalidFieldInCdb, sense } from "./sense.ts";

/** MODE SENSE and its pages (SPC-5 §6.14 and §7.5, SBC-4 §6.5). */

const pageControl = { current: 0, changeable: 1, defaults: 2, saved: 3 } as const;
const allPages = 0x3f;
const allSubpages = 0xff;
const writeProtectBit = 0x80;
const dpoFuaBit = 0x10;

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
  const dSense = values.descriptorSense ? 0x04 : 0;
  const softwareWriteProtect = values.writeProtected ? 0x08 : 0;
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

export function modePage(unit: LogicalUnit, code: number, control: number): Buffer {
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
