import {
  atomicBlocksMax,
  compareAndWriteBlocksMax,
  transferBytesMax,
  unmapBlocksMax,
  unmapDescriptorsMax,
  writeSameBlocksMax,
} from "../limits.ts";
import { blockBytes, writeUint64 } from "./cdb.ts";
import { thirdPartyCopy } from "./copy-facts.ts";
import { deviceIdentification, scsiPorts } from "./identification.ts";
import type { LogicalUnit } from "./logical-unit.ts";
import { thresholdExponent } from "./space-threshold.ts";

/** Vital product data pages, each without its four-byte head (SPC-4 §7.8, SBC-4 §6.6). */

/** 4 KiB: below it a write still costs what a whole one costs. */
const granularityBlocks = 8;

/** In order of page code, as page 00 must list them. */
export const vitalPages: ReadonlyMap<number, (unit: LogicalUnit) => Buffer> = new Map([
  [0x00, () => Buffer.from([...vitalPages.keys()])],
  [0x80, (unit: LogicalUnit) => Buffer.from(unit.volume.info.uuid, "latin1")],
  [0x83, deviceIdentification],
  [0x86, extendedInquiry],
  [0x87, modePagePolicy],
  [0x88, scsiPorts],
  [0x8f, thirdPartyCopy],
  [0xb0, blockLimits],
  [0xb1, blockCharacteristics],
  [0xb2, logicalBlockProvisioning],
]);

function extendedInquiry(): Buffer {
  const content = Buffer.alloc(0x3c);
  content[1] = 0x07; // HEADSUP, ORDSUP, SIMPSUP
  return content;
}

/** Every mode page and subpage is shared by all initiators and ports (policy 0). */
function modePagePolicy(): Buffer {
  return Buffer.from([0x3f, 0xff, 0x00, 0x00]);
}

function blockLimits(): Buffer {
  const page = Buffer.alloc(0x40);
  page[4] = 0x01; // WSNZ
  page[5] = compareAndWriteBlocksMax;
  page.writeUInt16BE(granularityBlocks, 6);
  page.writeUInt32BE(transferBytesMax / blockBytes, 8);
  page.writeUInt32BE((1024 * 1024) / blockBytes, 12); // optimal transfer length
  page.writeUInt32BE(unmapBlocksMax, 20);
  page.writeUInt32BE(unmapDescriptorsMax, 24);
  page.writeUInt32BE(granularityBlocks, 28);
  page.writeUInt32BE(0x8000_0000, 32); // UGAVALID, aligned at 0
  writeUint64(page, writeSameBlocksMax, 36);
  // Atomic writes: length, no alignment, granularity; no atomic boundaries.
  page.writeUInt32BE(atomicBlocksMax, 44);
  page.writeUInt32BE(0, 48);
  page.writeUInt32BE(1, 52);
  return page.subarray(4);
}

function blockCharacteristics(): Buffer {
  const content = Buffer.alloc(0x3c);
  content.writeUInt16BE(1, 0); // non-rotating
  content[3] = 0x40; // WABEREQ 01b: after a block erase reads succeed
  return content;
}

/** threshold-exponent[1]; LBPU, LBPWS, LBPWS10, LBPRZ=001b; thin; no percentage */
function logicalBlockProvisioning(): Buffer {
  return Buffer.from([thresholdExponent, 0xe0 | 0x04, 0x02, 0x00]);
}
