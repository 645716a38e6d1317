import { copyListBytesMax, copySegmentsMax, copyTargetsMax } from "../limits.ts";
import { blockBytes, uint64 } from "./cdb.ts";
import { copyDescriptor } from "./copy-facts.ts";
import { invalidFieldInParameters, type Sense, sense } from "./sense.ts";

/** The parameter list of EXTENDED COPY (LID1), as values (SPC-4 §6.4.3-§6.4.6). Pure. */

export interface CopyList {
  readonly listId: number;
  /** null: the copy is not to be asked about afterwards. */
  readonly keeps: "status" | "nothing" | null;
  readonly targets: readonly CopyTarget[];
  readonly segments: readonly CopySegment[];
}

export interface CopyTarget {
  /** NAA designator; null with NUL: no device is meant. */
  readonly naa: Buffer | null;
}

export interface CopySegment {
  readonly source: number;
  readonly destination: number;
  readonly blocks: number;
  readonly sourceLba: number;
  readonly destinationLba: number;
}

export type DecodedCopyList = { ok: true; list: CopyList } | { ok: false; sense: Sense };

const headBytes = 16;
const targetBytes = 32;
const segmentBytes = 28;
const listIdUsage = { keepStatus: 0, discard: 2, none: 3 } as const;

/**
 * listId[1] flags[1] targets-bytes[2] zero[4] segments-bytes[4] inline-bytes[4]; flags: STR in bit
 * 5, LIST ID USAGE in bits 4-3, PRIORITY in bits 2-0.
 */
export function decodeCopyList(bytes: Buffer): DecodedCopyList {
  if (bytes.length < headBytes) return wrong(sense.parameterListLength);
  const targetsBytes = bytes.readUInt16BE(2);
  const segmentsBytes = bytes.readUInt32BE(8);
  const segmentsStart = headBytes + targetsBytes;
  if (targetsBytes + segmentsBytes > copyListBytesMax) return wrong(sense.parameterListLength);
  if (segmentsStart + segmentsBytes > bytes.length) return wrong(sense.parameterListLength);
  if (bytes.readUInt32BE(12) !== 0) return wrong(sense.inlineDataLengthExceeded);
  const usage = (bytes[1]! >>> 3) & 3;
  if (usage === 1) return wrong(invalidFieldInParameters(1, 4));
  // §6.4.3.2: without a list identifier the field is zero.
  if (usage === listIdUsage.none && bytes[0] !== 0) return wrong(invalidFieldInParameters(0));
  const targets = decodeTargets(bytes, headBytes, segmentsStart);
  if (!Array.isArray(targets)) return wrong(targets);
  const segments = decodeSegments(bytes, segmentsStart, segmentsStart + segmentsBytes);
  if (!Array.isArray(segments)) return wrong(segments);
  const keeps =
    usage === listIdUsage.none ? null : usage === listIdUsage.discard ? "nothing" : "status";
  return { ok: true, list: { listId: bytes[0]!, keeps, targets, segments } };
}

function wrong(condition: Sense): DecodedCopyList {
  return { ok: false, sense: condition };
}

function decodeTargets(bytes: Buffer, start: number, end: number): CopyTarget[] | Sense {
  if ((end - start) % targetBytes !== 0) return invalidFieldInParameters(2);
  if ((end - start) / targetBytes > copyTargetsMax) return sense.tooManyTargetDescriptors;
  const targets: CopyTarget[] = [];
  for (let at = start; at < end; at += targetBytes) {
    const target = decodeTarget(bytes, at);
    if ("key" in target) return target;
    targets.push(target);
  }
  return targets;
}

/**
 * type[1]=E4 flags[1] zero[2] code-set[1] designator-type[1] zero[1] length[1] designator[20]
 * zero[1] block-length[3]; flags: LU ID TYPE in bits 7-6, NUL in bit 5, device type in bits 4-0.
 */
function decodeTarget(bytes: Buffer, at: number): CopyTarget | Sense {
  if (bytes[at] !== copyDescriptor.identification) return sense.unsupportedTargetDescriptor;
  const flags = bytes[at + 1]!;
  // SPC-4 §6.4.5.1: LU ID TYPE is ignored in this type of descriptor.
  if ((flags & 0x1f) !== 0) return invalidFieldInParameters(at + 1, 4);
  if ((flags & 0x20) !== 0) return { naa: null };
  // Binary, of the logical unit, NAA, 16 bytes: what VPD page 83 tells first.
  const isNaa = (bytes[at + 4]! & 0x0f) === 1 && (bytes[at + 5]! & 0x3f) === 3;
  if (!isNaa) return invalidFieldInParameters(at + 5, 5);
  if (bytes[at + 7] !== 16) return invalidFieldInParameters(at + 7);
  const blockLength = bytes.readUIntBE(at + 29, 3);
  if (blockLength !== blockBytes) return invalidFieldInParameters(at + 29);
  return { naa: Buffer.from(bytes.subarray(at + 8, at + 24)) };
}

function decodeSegments(bytes: Buffer, start: number, end: number): CopySegment[] | Sense {
  const segments: CopySegment[] = [];
  for (let at = start; at < end; at += segmentBytes) {
    if (segments.length === copySegmentsMax) return sense.tooManySegmentDescriptors;
    if (bytes[at] !== copyDescriptor.blockToBlock) return sense.unsupportedSegmentDescriptor;
    if (at + segmentBytes > end) return sense.parameterListLength;
    if (bytes.readUInt16BE(at + 2) !== segmentBytes - 4) return invalidFieldInParameters(at + 2);
    segments.push({
      source: bytes.readUInt16BE(at + 4),
      destination: bytes.readUInt16BE(at + 6),
      blocks: bytes.readUInt16BE(at + 10),
      sourceLba: uint64(bytes, at + 12),
      destinationLba: uint64(bytes, at + 20),
    });
  }
  return segments;
}
