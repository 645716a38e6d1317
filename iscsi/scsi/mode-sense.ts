import { blockBytes, writeUint64 } from "./cdb.ts";
import { parameterData, refused, type ScsiCommand, type ScsiResult } from "./command.ts";
import { isWriteProtected, type LogicalUnit, unitBlocks } from "./logical-unit.ts";
import { changeableBody, defaultBody, type ModePage, modePages, withHead } from "./mode-pages.ts";
import { invalidFieldInCdb, type Sense, sense } from "./sense.ts";

/** MODE SENSE(6) and (10) (SPC-4 §6.12, §6.13). */

const pageControl = { current: 0, changeable: 1, defaults: 2, saved: 3 } as const;
const allPages = 0x3f;
const allSubpages = 0xff;
const writeProtectBit = 0x80;
const dpoFuaBit = 0x10;

export function modeSense6(command: ScsiCommand): ScsiResult {
  const { cdb, unit } = command;
  const content = pagesAskedFor(unit, cdb);
  if (!Buffer.isBuffer(content)) return refused(content);
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
  const content = pagesAskedFor(unit, cdb);
  if (!Buffer.isBuffer(content)) return refused(content);
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
  return dpoFuaBit | (isWriteProtected(unit) ? writeProtectBit : 0);
}

function pagesAskedFor(unit: LogicalUnit, cdb: Buffer): Buffer | Sense {
  const control = cdb[2]! >>> 6;
  const page = cdb[2]! & 0x3f;
  const subpage = cdb[3]!;
  if (control === pageControl.saved) return sense.savingNotSupported;
  const ofPage = modePages.filter((one) => page === allPages || one.page === page);
  if (ofPage.length === 0) return invalidFieldInCdb(2, 5);
  const found = ofPage.filter((one) => subpage === allSubpages || one.subpage === subpage);
  if (found.length === 0) return invalidFieldInCdb(3);
  return Buffer.concat(found.map((one) => withHead(one, bodyOf(one, unit, control))));
}

function bodyOf(page: ModePage, unit: LogicalUnit, control: number): number[] {
  if (control === pageControl.changeable) return changeableBody(page, unit);
  if (control === pageControl.defaults) return defaultBody(page, unit);
  return page.body(unit.volume.unit().mode, unit);
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
