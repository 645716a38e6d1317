import type { UnitRecord } from "../../brick/unit/unit-record.ts";

/** SCSI status codes (SAM-5 §5.3.1) and sense data (SPC-5 §4.4). */

export const scsiStatus = {
  good: 0x00,
  checkCondition: 0x02,
  conditionMet: 0x04,
  busy: 0x08,
  reservationConflict: 0x18,
  taskSetFull: 0x28,
  taskAborted: 0x40,
} as const;

export const senseKey = {
  noSense: 0x0,
  notReady: 0x2,
  mediumError: 0x3,
  hardwareError: 0x4,
  illegalRequest: 0x5,
  unitAttention: 0x6,
  dataProtect: 0x7,
  copyAborted: 0xa,
  abortedCommand: 0xb,
  miscompare: 0xe,
} as const;

export interface Sense {
  key: number;
  asc: number;
  ascq: number;
  /** A logical block address or an offset, as the condition demands. */
  information?: number;
  /** Which byte of the CDB or of the parameter data is wrong, and its most significant wrong bit. */
  field?: { inCdb: boolean; byte: number; bit?: number };
  /** COPY ABORTED: the number of the segment that could not be copied. */
  commandSpecific?: number;
  /** How much of what keeps the unit from being ready is done, out of 65536. */
  progress?: number;
}

const { illegalRequest, unitAttention, abortedCommand } = senseKey;

/** Conditions without further facts, named as in SPC-5 annex F. */
export const sense = {
  none: { key: senseKey.noSense, asc: 0x00, ascq: 0x00 },
  parameterListLength: { key: illegalRequest, asc: 0x1a, ascq: 0x00 },
  invalidOpcode: { key: illegalRequest, asc: 0x20, ascq: 0x00 },
  lbaOutOfRange: { key: illegalRequest, asc: 0x21, ascq: 0x00 },
  invalidFieldInParameterList: { key: illegalRequest, asc: 0x26, ascq: 0x00 },
  unitNotSupported: { key: illegalRequest, asc: 0x25, ascq: 0x00 },
  savingNotSupported: { key: illegalRequest, asc: 0x39, ascq: 0x00 },
  invalidInformationUnit: { key: illegalRequest, asc: 0x0e, ascq: 0x03 },
  writeProtected: { key: senseKey.dataProtect, asc: 0x27, ascq: 0x00 },
  spaceAllocationFailed: { key: senseKey.dataProtect, asc: 0x27, ascq: 0x07 },
  unrecoveredRead: { key: senseKey.mediumError, asc: 0x11, ascq: 0x00 },
  unexpectedUnsolicitedData: { key: abortedCommand, asc: 0x0c, ascq: 0x0c },
  protocolServiceCrcError: { key: abortedCommand, asc: 0x47, ascq: 0x05 },
  incorrectAmountOfData: { key: abortedCommand, asc: 0x0c, ascq: 0x0d },
  powerOn: { key: unitAttention, asc: 0x29, ascq: 0x00 },
  operationInProgress: { key: illegalRequest, asc: 0x00, ascq: 0x16 },
  copyTargetNotReachable: { key: senseKey.copyAborted, asc: 0x0d, ascq: 0x02 },
  thirdPartyDeviceFailure: { key: senseKey.copyAborted, asc: 0x0d, ascq: 0x01 },
  tooManyTargetDescriptors: { key: illegalRequest, asc: 0x26, ascq: 0x06 },
  unsupportedTargetDescriptor: { key: illegalRequest, asc: 0x26, ascq: 0x07 },
  tooManySegmentDescriptors: { key: illegalRequest, asc: 0x26, ascq: 0x08 },
  unsupportedSegmentDescriptor: { key: illegalRequest, asc: 0x26, ascq: 0x09 },
  inlineDataLengthExceeded: { key: illegalRequest, asc: 0x26, ascq: 0x0b },
  setPortGroupsFailed: { key: senseKey.hardwareError, asc: 0x67, ascq: 0x0a },
  accessStateChanged: { key: unitAttention, asc: 0x2a, ascq: 0x06 },
  softThresholdReached: { key: unitAttention, asc: 0x38, ascq: 0x07 },
  sanitizeInProgress: { key: senseKey.notReady, asc: 0x04, ascq: 0x1b },
  sanitizeFailed: { key: senseKey.mediumError, asc: 0x31, ascq: 0x03 },
  invalidRelease: { key: illegalRequest, asc: 0x26, ascq: 0x04 },
  insufficientRegistrationResources: { key: illegalRequest, asc: 0x55, ascq: 0x04 },
  reservationsPreempted: { key: unitAttention, asc: 0x2a, ascq: 0x03 },
  reservationsReleased: { key: unitAttention, asc: 0x2a, ascq: 0x04 },
  registrationsPreempted: { key: unitAttention, asc: 0x2a, ascq: 0x05 },
  resetOccurred: { key: unitAttention, asc: 0x29, ascq: 0x03 },
  modeParametersChanged: { key: unitAttention, asc: 0x2a, ascq: 0x01 },
  capacityChanged: { key: unitAttention, asc: 0x2a, ascq: 0x09 },
  reportedLunsChanged: { key: unitAttention, asc: 0x3f, ascq: 0x0e },
  nexusLost: { key: unitAttention, asc: 0x29, ascq: 0x07 },
  commandsCleared: { key: unitAttention, asc: 0x2f, ascq: 0x00 },
} as const satisfies Record<string, Sense>;

export function invalidFieldInCdb(byte: number, bit?: number): Sense {
  const field = bit === undefined ? { inCdb: true, byte } : { inCdb: true, byte, bit };
  return { key: illegalRequest, asc: 0x24, ascq: 0x00, field };
}

export function invalidFieldInParameters(byte: number, bit?: number): Sense {
  const field = bit === undefined ? { inCdb: false, byte } : { inCdb: false, byte, bit };
  return { ...sense.invalidFieldInParameterList, field };
}

/** `offsetBytes` is where the compared data first differ, from the command's first byte. */
export function miscompare(offsetBytes: number): Sense {
  return { key: senseKey.miscompare, asc: 0x1d, ascq: 0x00, information: offsetBytes };
}

/** SBC-4 §4.11: why a unit that is being sanitized, or was in vain, is not ready. */
export function sanitizeSense({ sanitize }: UnitRecord): Sense | null {
  if (sanitize === null) return null;
  if (sanitize.state === "failed") return sense.sanitizeFailed;
  return { ...sense.sanitizeInProgress, progress: sanitize.progress };
}

export function encodeSense(condition: Sense, format: "fixed" | "descriptor"): Buffer {
  return format === "fixed" ? encodeFixed(condition) : encodeDescriptors(condition);
}

/** SPC-5 §4.4.3: code[1] obsolete[1] key[1] information[4] more[1] specific[4] asc[1] ascq[1]
 *  unit[1] key-specific[3] */
function encodeFixed(condition: Sense): Buffer {
  const out = Buffer.alloc(18);
  const { information, field, progress, commandSpecific } = condition;
  out[0] = 0x70;
  out[2] = condition.key;
  if (information !== undefined && information < 2 ** 32) {
    out[0] |= 0x80;
    out.writeUInt32BE(information, 3);
  }
  out[7] = out.length - 8;
  out.writeUInt32BE(commandSpecific ?? 0, 8);
  out[12] = condition.asc;
  out[13] = condition.ascq;
  if (field !== undefined) encodeFieldPointer(field, out, 15);
  else if (progress !== undefined) encodeProgress(progress, out, 15);
  return out;
}

/** SPC-5 §4.4.2: code[1] key[1] asc[1] ascq[1] zero[3] more[1] descriptors. */
function encodeDescriptors(condition: Sense): Buffer {
  const { information, field, progress, commandSpecific } = condition;
  const descriptors: Buffer[] = [];
  if (information !== undefined) {
    const descriptor = Buffer.from([0x00, 0x0a, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    descriptor.writeBigUInt64BE(BigInt(information), 4);
    descriptors.push(descriptor);
  }
  if (commandSpecific !== undefined) {
    const descriptor = Buffer.from([0x01, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    descriptor.writeUInt32BE(commandSpecific, 8);
    descriptors.push(descriptor);
  }
  if (field !== undefined) {
    const descriptor = Buffer.from([0x02, 0x06, 0, 0, 0, 0, 0, 0]);
    encodeFieldPointer(field, descriptor, 4);
    descriptors.push(descriptor);
  }
  if (progress !== undefined) {
    const descriptor = Buffer.from([0x02, 0x06, 0, 0, 0, 0, 0, 0]);
    encodeProgress(progress, descriptor, 4);
    descriptors.push(descriptor);
  }
  const more = Buffer.concat(descriptors);
  const head = [0x72, condition.key, condition.asc, condition.ascq, 0, 0, 0, more.length];
  return Buffer.concat([Buffer.from(head), more]);
}

function encodeFieldPointer(field: NonNullable<Sense["field"]>, out: Buffer, at: number): void {
  out[at] = 0x80 | (field.inCdb ? 0x40 : 0) | (field.bit === undefined ? 0 : 0x08 | field.bit);
  out.writeUInt16BE(field.byte, at + 1);
}

function encodeProgress(progress: number, out: Buffer, at: number): void {
  out[at] = 0x80;
  out.writeUInt16BE(Math.min(progress, 0xffff), at + 1);
}
