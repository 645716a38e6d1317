import {
  copiesPerSessionMax,
  copyListBytesMax,
  copySegmentsMax,
  copyTargetsMax,
} from "../limits.ts";
import { blockBytes } from "./cdb.ts";

/** What third-party copies can do, as told in VPD page 8F and in RECEIVE COPY RESULTS. */

export const copyOpcode = { extendedCopy: 0x83, receiveCopyResults: 0x84 } as const;
export const copyResultsAction = { copyStatus: 0x00, operatingParameters: 0x03 } as const;
/** Descriptor type codes: copy from block device to block device; identification descriptor. */
export const copyDescriptor = { blockToBlock: 0x02, identification: 0xe4 } as const;
/** NUMBER OF BLOCKS of a segment has 16 bits. */
export const copySegmentBytesMax = 0xffff * blockBytes;
/** Power of two: copies are of whole blocks. */
const granularityExponent = Math.log2(blockBytes);

/** SPC-4 §7.8.17: descriptors, each type[2] length[2] content, multiples of four bytes long. */
export function thirdPartyCopy(): Buffer {
  return Buffer.concat([
    descriptor(0x0001, supportedCommands()),
    descriptor(0x0004, parameterLimits()),
    descriptor(0x0008, withLength(Object.values(copyDescriptor))),
    descriptor(0x8001, generalOperations()),
  ]);
}

function descriptor(type: number, content: Buffer): Buffer {
  const padded = Buffer.alloc(Math.ceil(content.length / 4) * 4);
  content.copy(padded);
  const head = Buffer.alloc(4);
  head.writeUInt16BE(type, 0);
  head.writeUInt16BE(padded.length, 2);
  return Buffer.concat([head, padded]);
}

/** length[1] list */
function withLength(list: readonly number[]): Buffer {
  return Buffer.from([list.length, ...list]);
}

/** length[1], then opcode[1] count[1] service-actions each */
function supportedCommands(): Buffer {
  const results = Object.values(copyResultsAction);
  return withLength([
    ...[copyOpcode.extendedCopy, 1, 0x00],
    ...[copyOpcode.receiveCopyResults, results.length, ...results],
  ]);
}

/** zero[4] targets[2] segments[2] list-bytes[4] inline-bytes[4]=0 zero[12] */
function parameterLimits(): Buffer {
  const out = Buffer.alloc(28);
  out.writeUInt16BE(copyTargetsMax, 4);
  out.writeUInt16BE(copySegmentsMax, 6);
  out.writeUInt32BE(copyListBytesMax, 8);
  return out;
}

/** concurrent[4] identified[4] segment-bytes[4] granularity[1] inline-granularity[1]=0 zero[18] */
function generalOperations(): Buffer {
  const out = Buffer.alloc(32);
  out.writeUInt32BE(copiesPerSessionMax, 0);
  out.writeUInt32BE(copiesPerSessionMax, 4);
  out.writeUInt32BE(copySegmentBytesMax, 8);
  out[12] = granularityExponent;
  return out;
}

/** SPC-4 §6.19.4, RECEIVE COPY RESULTS with OPERATING PARAMETERS. */
export function operatingParameters(): Buffer {
  const codes = Object.values(copyDescriptor);
  const out = Buffer.alloc(44 + codes.length);
  out.writeUInt32BE(out.length - 4, 0);
  out[4] = 0x01; // SNLID: no list identifier is needed
  out.writeUInt16BE(copyTargetsMax, 8);
  out.writeUInt16BE(copySegmentsMax, 10);
  out.writeUInt32BE(copyListBytesMax, 12);
  out.writeUInt32BE(copySegmentBytesMax, 16);
  out.writeUInt16BE(copiesPerSessionMax, 34);
  out[36] = copiesPerSessionMax;
  out[37] = granularityExponent;
  out[43] = codes.length;
  out.set(codes, 44);
  return out;
}
