import type { ModeRecord } from "../../brick/unit/unit-record.ts";
import type { LogicalUnit } from "./logical-unit.ts";
import { softThreshold } from "./space-threshold.ts";

/** The mode pages (SPC-4 §7.5, SBC-4 §6.5): their bytes as a function of what can be changed. */

export interface ModePage {
  readonly page: number;
  /** 0: the page's own form, without a subpage code. */
  readonly subpage: number;
  /** Behind the page's head. */
  readonly body: (values: ModeRecord, unit: LogicalUnit) => number[];
}

/** In bytes 2, 4 and 5 of the control page. */
export const dSenseBit = 0x04;
export const softwareWriteProtectBit = 0x08;
export const taskAbortedBit = 0x40;
export const controlPageCode = 0x0a;

/** In order of page, then subpage. */
export const modePages: readonly ModePage[] = [
  {
    // Read-write error recovery: AWRE and ARRE, for bad copies are replaced unasked; LBPERE.
    page: 0x01,
    subpage: 0,
    body: () => [0xc0, 0, 0, 0, 0, 0x80, 0, 0, 0, 0],
  },
  { page: 0x02, subpage: 0, body: () => zeros(14) },
  // Caching: WCE is 0, a write is durable when it is answered.
  { page: 0x08, subpage: 0, body: () => zeros(18) },
  { page: controlPageCode, subpage: 0, body: controlPage },
  {
    // Control extension: IALUAE, the unit's access states change by themselves.
    page: controlPageCode,
    subpage: 0x01,
    body: () => [0x01, ...zeros(27)],
  },
  // Informational exceptions: none is reported (MRIE 0).
  { page: 0x1c, subpage: 0, body: () => zeros(10) },
  { page: 0x1c, subpage: 0x02, body: provisioningPage },
];

function zeros(count: number): number[] {
  return new Array<number>(count).fill(0);
}

/** TST 0, unrestricted reordering, QERR 0: see task management. */
function controlPage(values: ModeRecord): number[] {
  const dSense = values.descriptorSense ? dSenseBit : 0;
  const softwareWriteProtect = values.writeProtected ? softwareWriteProtectBit : 0;
  const taskAborted = values.taskAborted ? taskAbortedBit : 0;
  return [dSense, 0x10, softwareWriteProtect, taskAborted, 0, 0, 0xff, 0xff, 0, 0];
}

/**
 * SBC-4 §6.5.9: one soft threshold, told to every nexus, of what can still be allocated:
 * enabled-type-arming[1] resource[1] zero[2] count[4].
 */
function provisioningPage(_values: ModeRecord, unit: LogicalUnit): number[] {
  const count = Buffer.alloc(4);
  count.writeUInt32BE(softThreshold(unit.volume.space()).count, 0);
  return [...zeros(12), 0x80, 0x01, 0, 0, ...count];
}

export function findModePage(page: number, subpage: number): ModePage | undefined {
  return modePages.find((one) => one.page === page && one.subpage === subpage);
}

/** A page with its head: code[1] length[1], or code[1] subpage[1] length[2]. */
export function withHead({ page, subpage }: ModePage, body: readonly number[]): Buffer {
  if (subpage === 0) return Buffer.from([page, body.length, ...body]);
  return Buffer.from([page | 0x40, subpage, body.length >>> 8, body.length & 0xff, ...body]);
}

const allOff: ModeRecord = { descriptorSense: false, writeProtected: false };
const allOn: ModeRecord = { descriptorSense: true, writeProtected: true, taskAborted: true };

export function defaultBody(page: ModePage, unit: LogicalUnit): number[] {
  return page.body(allOff, unit);
}

/** What differs when every changeable value is set is what can be changed. */
export function changeableBody(page: ModePage, unit: LogicalUnit): number[] {
  const on = page.body(allOn, unit);
  return defaultBody(page, unit).map((byte, index) => byte ^ on[index]!);
}
