import { crc32c } from "../../iscsi/crc32c.ts";

/**
 * PDUs as the fuzzer sees them, with offsets of its own: what the target's codec gets wrong must
 * not be invisible here. Only the CRC is shared; it has test vectors of its own (RFC 7143 §13.1).
 */

export const headerBytes = 48;
const digestBytes = 4;
export const noTag = 0xffff_ffff;

export interface WirePdu {
  bhs: Buffer;
  /** The additional header segments; TotalAHSLength may say something else after a mutation. */
  ahs: Buffer;
  /** The data segment without padding; DataSegmentLength may say something else. */
  data: Buffer;
}

export interface Digests {
  readonly header: boolean;
  readonly data: boolean;
}

export const noDigests: Digests = { header: false, data: false };

/** The bytes that go out. `wrong` spoils one digest, if it is in use. */
export function wireBytes(pdu: WirePdu, digests: Digests, wrong: "header" | "data" | null): Buffer {
  const header = Buffer.concat([pdu.bhs, pdu.ahs]);
  const parts: Buffer[] = [header];
  if (digests.header) parts.push(digestOf(header, wrong === "header"));
  if (pdu.data.length > 0) {
    const data = Buffer.concat([pdu.data, Buffer.alloc(-pdu.data.length & 3)]);
    parts.push(data);
    if (digests.data) parts.push(digestOf(data, wrong === "data"));
  }
  return Buffer.concat(parts);
}

function digestOf(bytes: Buffer, wrong: boolean): Buffer {
  const digest = Buffer.alloc(digestBytes);
  digest.writeUInt32LE(wrong ? ~crc32c(bytes) >>> 0 : crc32c(bytes), 0);
  return digest;
}

/** What a header is called in the protocol's fields that nearly every PDU has. */
export const opcodeOf = (bhs: Buffer): number => bhs[0]! & 0x3f;
export const isImmediate = (bhs: Buffer): boolean => (bhs[0]! & 0x40) !== 0;
export const tagOf = (bhs: Buffer): number => bhs.readUInt32BE(16);
export const ahsLengthOf = (bhs: Buffer): number => bhs[4]! * 4;
export const dataLengthOf = (bhs: Buffer): number => bhs.readUIntBE(5, 3);

/** The request opcodes of RFC 7143 §11.2.1.2. */
export const requestOpcode = {
  nopOut: 0x00,
  scsiCommand: 0x01,
  taskManagement: 0x02,
  login: 0x03,
  text: 0x04,
  dataOut: 0x05,
  logout: 0x06,
  snack: 0x10,
} as const;

export const answerOpcode = {
  nopIn: 0x20,
  scsiResponse: 0x21,
  taskManagement: 0x22,
  login: 0x23,
  text: 0x24,
  dataIn: 0x25,
  logout: 0x26,
  readyToTransfer: 0x31,
  asyncMessage: 0x32,
  reject: 0x3f,
} as const;

export type WireEvent =
  | { type: "pdu"; pdu: WirePdu }
  | { type: "more" }
  /** But for a data digest, the stream cannot be read any further; `bhs` is its last header. */
  | { type: "fault"; what: "header digest" | "data digest" | "too long" | "padding"; bhs: Buffer };

/** Cuts a stream into PDUs, by the plainest means. */
export class WireReader {
  digests: Digests = noDigests;
  dataBytesMax: number;
  readonly #ahsBytesMax: number;
  /** Whether padding must be zero: what a target sends is held to it, what it gets is not. */
  readonly #zeroPadding: boolean;
  #bytes: Buffer = Buffer.alloc(0);

  constructor(options: { dataBytesMax: number; ahsBytesMax: number; zeroPadding: boolean }) {
    this.dataBytesMax = options.dataBytesMax;
    this.#ahsBytesMax = options.ahsBytesMax;
    this.#zeroPadding = options.zeroPadding;
  }

  push(bytes: Buffer): void {
    this.#bytes = this.#bytes.length === 0 ? bytes : Buffer.concat([this.#bytes, bytes]);
  }

  get leftBytes(): number {
    return this.#bytes.length;
  }

  next(): WireEvent {
    const bytes = this.#bytes;
    if (bytes.length < headerBytes) return { type: "more" };
    const bhs = bytes.subarray(0, headerBytes);
    const ahsLength = ahsLengthOf(bhs);
    const dataLength = dataLengthOf(bhs);
    if (ahsLength > this.#ahsBytesMax || dataLength > this.dataBytesMax) {
      return { type: "fault", what: "too long", bhs };
    }
    const headerEnd = headerBytes + ahsLength;
    const dataStart = headerEnd + (this.digests.header ? digestBytes : 0);
    if (bytes.length < dataStart) return { type: "more" };
    if (this.digests.header && !digestFits(bytes, 0, headerEnd)) {
      return { type: "fault", what: "header digest", bhs };
    }
    const dataEnd = dataStart + dataLength;
    const paddedEnd = dataEnd + (-dataLength & 3);
    const digested = this.digests.data && dataLength > 0;
    const end = paddedEnd + (digested ? digestBytes : 0);
    if (bytes.length < end) return { type: "more" };
    if (digested && !digestFits(bytes, dataStart, paddedEnd)) {
      // Where the next PDU begins is known all the same (RFC 7143 §7.8).
      this.#bytes = bytes.subarray(end);
      return { type: "fault", what: "data digest", bhs };
    }
    if (this.#zeroPadding && bytes.subarray(dataEnd, paddedEnd).some((byte) => byte !== 0)) {
      return { type: "fault", what: "padding", bhs };
    }
    this.#bytes = bytes.subarray(end);
    const ahs = bytes.subarray(headerBytes, headerEnd);
    return { type: "pdu", pdu: { bhs, ahs, data: bytes.subarray(dataStart, dataEnd) } };
  }
}

function digestFits(bytes: Buffer, start: number, end: number): boolean {
  return crc32c(bytes.subarray(start, end)) === bytes.readUInt32LE(end);
}
