/**
 * iSCSI PDUs (RFC 7143 §11): a 48-byte basic header segment, additional header segments, data.
 * A layout is a table of fields; the same table reads a received header in place, writes one, and
 * turns whole headers into values and back.
 */

export const bhsBytes = 48;
/** "No task": the reserved value of the initiator task tag and the target transfer tag. */
export const noTag = 0xffff_ffff;

export interface Field<V> {
  get(bhs: Buffer): V;
  set(bhs: Buffer, value: V): void;
}

function u8(at: number): Field<number> {
  return {
    get: (bhs) => bhs[at]!,
    set: (bhs, value) => {
      bhs[at] = value;
    },
  };
}

function u16(at: number): Field<number> {
  return {
    get: (bhs) => bhs.readUInt16BE(at),
    set: (bhs, value) => {
      bhs.writeUInt16BE(value, at);
    },
  };
}

function u24(at: number): Field<number> {
  return {
    get: (bhs) => bhs.readUIntBE(at, 3),
    set: (bhs, value) => {
      bhs.writeUIntBE(value, at, 3);
    },
  };
}

function u32(at: number): Field<number> {
  return {
    get: (bhs) => bhs.readUInt32BE(at),
    set: (bhs, value) => {
      bhs.writeUInt32BE(value, at);
    },
  };
}

function flag(at: number, mask: number): Field<boolean> {
  return {
    get: (bhs) => (bhs[at]! & mask) !== 0,
    set: (bhs, value) => {
      bhs[at] = value ? bhs[at]! | mask : bhs[at]! & ~mask;
    },
  };
}

/** A number in the adjacent bits of one byte. */
function bits(at: number, mask: number): Field<number> {
  const shift = 31 - Math.clz32(mask & -mask);
  return {
    get: (bhs) => (bhs[at]! & mask) >>> shift,
    set: (bhs, value) => {
      bhs[at] = (bhs[at]! & ~mask) | ((value << shift) & mask);
    },
  };
}

function bytes(at: number, length: number): Field<Buffer> {
  return {
    get: (bhs) => bhs.subarray(at, at + length),
    set: (bhs, value) => {
      value.copy(bhs, at, 0, length);
    },
  };
}

/** The fields of every header. `dataLength` is without padding. */
export const common = {
  opcode: bits(0, 0x3f),
  immediate: flag(0, 0x40),
  final: flag(1, 0x80),
  ahsWords: u8(4),
  dataLength: u24(5),
  initiatorTaskTag: u32(16),
};

const tag = { initiatorTaskTag: u32(16) };
/** The logical unit number as two words; only the first can differ from zero for our units. */
const lun = { lunHigh: u32(8), lunLow: u32(12) };
const transferTag = { targetTransferTag: u32(20) };
const request = { immediate: flag(0, 0x40), cmdSn: u32(24), expStatSn: u32(28) };
const answer = { statSn: u32(24), expCmdSn: u32(28), maxCmdSn: u32(32) };

export const nopOut = { opcode: 0x00, fields: { ...tag, ...lun, ...transferTag, ...request } };

export const scsiCommand = {
  opcode: 0x01,
  fields: {
    ...tag,
    ...lun,
    ...request,
    final: flag(1, 0x80),
    read: flag(1, 0x40),
    write: flag(1, 0x20),
    attribute: bits(1, 0x07),
    expectedLength: u32(20),
    cdb: bytes(32, 16),
  },
};

export const taskManagementRequest = {
  opcode: 0x02,
  fields: {
    ...tag,
    ...lun,
    ...request,
    function: bits(1, 0x7f),
    referencedTaskTag: u32(20),
    refCmdSn: u32(32),
    expDataSn: u32(36),
  },
};

export const loginRequest = {
  opcode: 0x03,
  fields: {
    ...tag,
    ...request,
    transit: flag(1, 0x80),
    continue: flag(1, 0x40),
    currentStage: bits(1, 0x0c),
    nextStage: bits(1, 0x03),
    versionMax: u8(2),
    versionMin: u8(3),
    isid: bytes(8, 6),
    tsih: u16(14),
    connectionId: u16(20),
  },
};

export const textRequest = {
  opcode: 0x04,
  fields: {
    ...tag,
    ...lun,
    ...transferTag,
    ...request,
    final: flag(1, 0x80),
    continue: flag(1, 0x40),
  },
};

export const dataOut = {
  opcode: 0x05,
  fields: {
    ...tag,
    ...lun,
    ...transferTag,
    final: flag(1, 0x80),
    expStatSn: u32(28),
    dataSn: u32(36),
    bufferOffset: u32(40),
  },
};

export const logoutRequest = {
  opcode: 0x06,
  fields: { ...tag, ...request, reason: bits(1, 0x7f), connectionId: u16(20) },
};

export const snackRequest = {
  opcode: 0x10,
  fields: {
    ...tag,
    ...lun,
    ...transferTag,
    type: bits(1, 0x0f),
    expStatSn: u32(28),
    begRun: u32(40),
    runLength: u32(44),
  },
};

export const nopIn = { opcode: 0x20, fields: { ...tag, ...lun, ...transferTag, ...answer } };

export const scsiResponse = {
  opcode: 0x21,
  fields: {
    ...tag,
    ...answer,
    overflow: flag(1, 0x04),
    underflow: flag(1, 0x02),
    response: u8(2),
    status: u8(3),
    expDataSn: u32(36),
    bidirectionalResidualCount: u32(40),
    residualCount: u32(44),
  },
};

export const taskManagementResponse = {
  opcode: 0x22,
  // RFC 7144 §6.2 adds three bytes of information to the response.
  fields: { ...tag, ...answer, response: u8(2), information: u24(36) },
};

export const loginResponse = {
  opcode: 0x23,
  fields: {
    ...tag,
    ...answer,
    transit: flag(1, 0x80),
    continue: flag(1, 0x40),
    currentStage: bits(1, 0x0c),
    nextStage: bits(1, 0x03),
    versionMax: u8(2),
    versionActive: u8(3),
    isid: bytes(8, 6),
    tsih: u16(14),
    statusClass: u8(36),
    statusDetail: u8(37),
  },
};

export const textResponse = {
  opcode: 0x24,
  fields: {
    ...tag,
    ...lun,
    ...transferTag,
    ...answer,
    final: flag(1, 0x80),
    continue: flag(1, 0x40),
  },
};

export const dataIn = {
  opcode: 0x25,
  fields: {
    ...tag,
    ...lun,
    ...transferTag,
    ...answer,
    final: flag(1, 0x80),
    acknowledge: flag(1, 0x40),
    overflow: flag(1, 0x04),
    underflow: flag(1, 0x02),
    hasStatus: flag(1, 0x01),
    status: u8(3),
    dataSn: u32(36),
    bufferOffset: u32(40),
    residualCount: u32(44),
  },
};

export const logoutResponse = {
  opcode: 0x26,
  fields: { ...tag, ...answer, response: u8(2), time2Wait: u16(40), time2Retain: u16(42) },
};

export const readyToTransfer = {
  opcode: 0x31,
  fields: {
    ...tag,
    ...lun,
    ...transferTag,
    ...answer,
    r2tSn: u32(36),
    bufferOffset: u32(40),
    desiredLength: u32(44),
  },
};

export const asyncMessage = {
  opcode: 0x32,
  fields: {
    ...tag,
    ...lun,
    ...answer,
    event: u8(36),
    vendorCode: u8(37),
    parameter1: u16(38),
    parameter2: u16(40),
    parameter3: u16(42),
  },
};

export const reject = {
  opcode: 0x3f,
  fields: { ...tag, ...answer, reason: u8(2), dataSn: u32(36) },
};

/** PDUs whose F bit means nothing else than "always one" (RFC 7143 §11). */
const alwaysFinal = new Set([0x00, 0x02, 0x06, 0x10, 0x20, 0x21, 0x22, 0x26, 0x31, 0x32, 0x3f]);

export const layouts = {
  nopOut,
  scsiCommand,
  taskManagementRequest,
  loginRequest,
  textRequest,
  dataOut,
  logoutRequest,
  snackRequest,
  nopIn,
  scsiResponse,
  taskManagementResponse,
  loginResponse,
  textResponse,
  dataIn,
  logoutResponse,
  readyToTransfer,
  asyncMessage,
  reject,
};

// biome-ignore lint/suspicious/noExplicitAny: a table's fields differ in type
type Fields = Record<string, Field<any>>;
export interface Layout<F extends Fields = Fields> {
  opcode: number;
  fields: F;
}
export type Values<F extends Fields> = {
  [K in keyof F]: F[K] extends Field<infer V> ? V : never;
};

/** Writes a header into 48 zeroed bytes. Fields that are not given stay zero. */
export function encode<F extends Fields>(
  layout: Layout<F>,
  values: Partial<Values<F>>,
  bhs: Buffer,
): void {
  bhs[0] = layout.opcode;
  if (alwaysFinal.has(layout.opcode)) bhs[1] = 0x80;
  const fields: Fields = layout.fields;
  const given: Record<string, unknown> = values;
  for (const name in given) fields[name]!.set(bhs, given[name]);
}

export function decode<F extends Fields>(layout: Layout<F>, bhs: Buffer): Values<F> {
  const values: Record<string, unknown> = {};
  for (const [name, field] of Object.entries(layout.fields)) values[name] = field.get(bhs);
  return values as Values<F>;
}

/** Additional header segments (RFC 7143 §11.2.2): length[2] type[1] specific[length], padded. */
export const ahsType = { extendedCdb: 1, bidirectionalReadLength: 2 } as const;

export interface Ahs {
  type: number;
  /** What follows the type byte, `length` bytes. */
  specific: Buffer;
}

/** The segments of a header, or undefined when their lengths do not fit. */
export function decodeAhs(segments: Buffer): Ahs[] | undefined {
  const found: Ahs[] = [];
  for (let at = 0; at < segments.length; ) {
    if (at + 4 > segments.length) return undefined;
    const length = segments.readUInt16BE(at);
    const end = at + 3 + length;
    if (length === 0 || end > segments.length) return undefined;
    found.push({ type: segments[at + 2]!, specific: segments.subarray(at + 3, end) });
    at = (end + 3) & ~3;
  }
  return found;
}

export function encodeAhs(segments: readonly Ahs[]): Buffer {
  const parts = segments.map(({ type, specific }) => {
    const part = Buffer.alloc((3 + specific.length + 3) & ~3);
    part.writeUInt16BE(specific.length, 0);
    part[2] = type;
    specific.copy(part, 3);
    return part;
  });
  return Buffer.concat(parts);
}

/** The CDB of a SCSI command: its 16 bytes, longer with an extended-CDB segment. */
export function commandCdb(bhs: Buffer, ahs: Buffer | null): Buffer | undefined {
  const first = scsiCommand.fields.cdb.get(bhs);
  if (ahs === null) return first;
  const segments = decodeAhs(ahs);
  if (segments === undefined) return undefined;
  const extended = segments.find((segment) => segment.type === ahsType.extendedCdb);
  if (extended === undefined) return first;
  // The specific part begins with one reserved byte (§11.2.2.3).
  return Buffer.concat([first, extended.specific.subarray(1)]);
}
