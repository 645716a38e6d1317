import { crc32c } from "../../iscsi/crc32c.ts";

/**
 * The initiator's side of iSCSI, as much as a load generator and scripted exchanges need (RFC
 * 7143): built apart from the target's codec in iscsi/, so that a shared mistake cannot hide. One
 * connection, error recovery level 0.
 */

export const headerBytes = 48;
export const noTag = 0xffff_ffff;

/** RFC 7143 §11.2.1.2. */
export const opcode = {
  nopOut: 0x00,
  scsiCommand: 0x01,
  taskRequest: 0x02,
  loginRequest: 0x03,
  textRequest: 0x04,
  dataOut: 0x05,
  logoutRequest: 0x06,
  nopIn: 0x20,
  scsiResponse: 0x21,
  taskResponse: 0x22,
  loginResponse: 0x23,
  textResponse: 0x24,
  dataIn: 0x25,
  logoutResponse: 0x26,
  readyToTransfer: 0x31,
  asyncMessage: 0x32,
  reject: 0x3f,
} as const;

export interface ReceivedPdu {
  header: Buffer;
  data: Buffer;
  /** Whether the digests that were agreed on are right. */
  intact: boolean;
}

/** RFC 7143 §13.1: which of the two CRC32C digests the PDUs carry, from the full feature phase on. */
export interface Digests {
  header: boolean;
  data: boolean;
}

const digestBytes = 4;

/** Cuts a stream of bytes into PDUs. */
export class PduCutter {
  digests: Digests = { header: false, data: false };
  #pending: Buffer[] = [];
  #pendingBytes = 0;
  #wantedBytes = headerBytes;

  push(bytes: Buffer, received: (pdu: ReceivedPdu) => void): void {
    this.#pending.push(bytes);
    this.#pendingBytes += bytes.length;
    while (this.#pendingBytes >= this.#wantedBytes) {
      const all = this.#pending.length === 1 ? this.#pending[0]! : Buffer.concat(this.#pending);
      const total = pduBytes(all, this.digests);
      if (all.length < total) {
        this.#pending = [all];
        this.#wantedBytes = total;
        return;
      }
      received(toPdu(all.subarray(0, total), this.digests));
      const rest = all.subarray(total);
      this.#pending = rest.length === 0 ? [] : [rest];
      this.#pendingBytes = rest.length;
      this.#wantedBytes = headerBytes;
    }
  }
}

function pduBytes(header: Buffer, digests: Digests): number {
  const dataBytes = padded(header.readUIntBE(5, 3));
  const dataDigest = digests.data && dataBytes > 0 ? digestBytes : 0;
  const headerDigest = digests.header ? digestBytes : 0;
  return headerBytes + header[4]! * 4 + headerDigest + dataBytes + dataDigest;
}

function toPdu(bytes: Buffer, digests: Digests): ReceivedPdu {
  const headersEnd = headerBytes + bytes[4]! * 4;
  const dataAt = headersEnd + (digests.header ? digestBytes : 0);
  const dataBytes = bytes.readUIntBE(5, 3);
  const paddedEnd = dataAt + padded(dataBytes);
  const agrees = (from: number, end: number) =>
    crc32c(bytes.subarray(from, end)) === bytes.readUInt32LE(end);
  return {
    header: bytes.subarray(0, headerBytes),
    data: bytes.subarray(dataAt, dataAt + dataBytes),
    intact:
      (!digests.header || agrees(0, headersEnd)) &&
      (!digests.data || dataBytes === 0 || agrees(dataAt, paddedEnd)),
  };
}

/** The parts of a PDU (header, data, padding) with the digests that were agreed on. */
export function withDigests(parts: readonly Buffer[], digests: Digests): Buffer[] {
  const [header, ...data] = parts as [Buffer, ...Buffer[]];
  const out = [header];
  if (digests.header) out.push(digestOf([header]));
  out.push(...data);
  if (digests.data && data.length > 0) out.push(digestOf(data));
  return out;
}

function digestOf(parts: readonly Buffer[]): Buffer {
  const digest = Buffer.alloc(digestBytes);
  digest.writeUInt32LE(parts.reduce((crc, part) => crc32c(part, crc), 0));
  return digest;
}

export function padded(bytes: number): number {
  return (bytes + 3) & ~3;
}

/** An immediate NOP-Out that asks for an answer (RFC 7143 §11.18). */
export function pingRequest(tag: number, commandSn: number, expectedStatusSn: number): Buffer {
  const header = Buffer.alloc(headerBytes);
  header[0] = 0x40 | opcode.nopOut;
  header[1] = 0x80;
  header.writeUInt32BE(tag, 16);
  header.writeUInt32BE(noTag, 20);
  header.writeUInt32BE(commandSn, 24);
  header.writeUInt32BE(expectedStatusSn, 28);
  return header;
}

export interface LoginState {
  isid: number;
  target: string | null;
  initiator: string;
  commandSn: number;
}

/** One login request that goes from operational negotiation straight to the full feature phase. */
export function loginRequest(state: LoginState): Buffer[] {
  const keys: Record<string, string> = {
    InitiatorName: state.initiator,
    SessionType: state.target === null ? "Discovery" : "Normal",
    ...(state.target !== null && { TargetName: state.target }),
    HeaderDigest: "None",
    DataDigest: "None",
    MaxRecvDataSegmentLength: "262144",
    DefaultTime2Wait: "2",
    DefaultTime2Retain: "0",
    ErrorRecoveryLevel: "0",
    ...(state.target !== null && {
      InitialR2T: "Yes",
      ImmediateData: "Yes",
      FirstBurstLength: "262144",
      MaxBurstLength: "1048576",
      MaxOutstandingR2T: "1",
      MaxConnections: "1",
      DataPDUInOrder: "Yes",
      DataSequenceInOrder: "Yes",
    }),
  };
  const header = Buffer.alloc(headerBytes);
  header[0] = 0x40 | opcode.loginRequest;
  // Transit from stage 1 (operational) to stage 3 (full feature).
  header[1] = 0x80 | (1 << 2) | 3;
  // An ISID of the random kind (RFC 7143 §11.12.5).
  header[8] = 0x80;
  header.writeUInt32BE(state.isid >>> 0, 9);
  header.writeUInt32BE(1, 16);
  header.writeUInt32BE(state.commandSn, 24);
  return withData(header, textOf(keys));
}

export function textOf(keys: Record<string, string>): Buffer {
  return Buffer.from(
    Object.entries(keys)
      .map(([key, value]) => `${key}=${value}\0`)
      .join(""),
  );
}

export function keysOf(data: Buffer): Map<string, string> {
  const keys = new Map<string, string>();
  for (const pair of data.toString("latin1").split("\0")) {
    const equals = pair.indexOf("=");
    if (equals > 0) keys.set(pair.slice(0, equals), pair.slice(equals + 1));
  }
  return keys;
}

const zeros = Buffer.alloc(3);

/** Fills in the data segment's length and pads. */
export function withData(header: Buffer, ...data: readonly Buffer[]): Buffer[] {
  let bytes = 0;
  for (const part of data) bytes += part.length;
  header.writeUIntBE(bytes, 5, 3);
  const pad = padded(bytes) - bytes;
  return pad === 0 ? [header, ...data] : [header, ...data, zeros.subarray(0, pad)];
}

export interface CommandFields {
  tag: number;
  commandSn: number;
  expectedStatusSn: number;
  cdb: Buffer;
  readBytes: number;
  writeBytes: number;
}

export function commandHeader(fields: CommandFields): Buffer {
  const header = Buffer.alloc(headerBytes);
  header[0] = opcode.scsiCommand;
  const direction = fields.readBytes > 0 ? 0x40 : fields.writeBytes > 0 ? 0x20 : 0;
  // Final: no unsolicited Data-Out follows; task attribute simple.
  header[1] = 0x80 | direction | 1;
  header.writeUInt32BE(fields.tag, 16);
  header.writeUInt32BE(fields.readBytes || fields.writeBytes, 20);
  header.writeUInt32BE(fields.commandSn, 24);
  header.writeUInt32BE(fields.expectedStatusSn, 28);
  fields.cdb.copy(header, 32);
  return header;
}

export function dataOutHeader(fields: {
  tag: number;
  transferTag: number;
  expectedStatusSn: number;
  dataSn: number;
  offsetBytes: number;
  final: boolean;
}): Buffer {
  const header = Buffer.alloc(headerBytes);
  header[0] = opcode.dataOut;
  header[1] = fields.final ? 0x80 : 0;
  header.writeUInt32BE(fields.tag, 16);
  header.writeUInt32BE(fields.transferTag, 20);
  header.writeUInt32BE(fields.expectedStatusSn, 28);
  header.writeUInt32BE(fields.dataSn, 36);
  header.writeUInt32BE(fields.offsetBytes, 40);
  return header;
}

/** The answer to a target's ping (RFC 7143 §11.18). */
export function pingAnswer(ping: Buffer, commandSn: number, expectedStatusSn: number): Buffer {
  const header = Buffer.alloc(headerBytes);
  header[0] = 0x40 | opcode.nopOut;
  header[1] = 0x80;
  ping.copy(header, 8, 8, 16);
  header.writeUInt32BE(noTag, 16);
  header.writeUInt32BE(ping.readUInt32BE(20), 20);
  header.writeUInt32BE(commandSn, 24);
  header.writeUInt32BE(expectedStatusSn, 28);
  return header;
}

/** Serial number arithmetic on 32 bits (RFC 1982). */
export function serialAtMost(a: number, b: number): boolean {
  return ((b - a) | 0) >= 0;
}
