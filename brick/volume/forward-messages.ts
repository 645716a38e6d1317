import { assert } from "../assert.ts";
import { readUint64, writeUint64 } from "../log/uint64.ts";
import { pooledZeros } from "../pooled-zeros.ts";
import type { NexusId } from "../unit/unit-record.ts";
import { type BrickNumber, MiB } from "../units.ts";
import { initiatorPortBytesMax } from "./limits.ts";
import type { VolumeAllocation, VolumeFault } from "./volume.ts";

/** Data of one message of a read or a write; longer ones travel in pieces. */
export const forwardBytesMax = 256 * 1024;
export const forwardRunsMax = 1024;
assert(forwardBytesMax < 1 * MiB, "a forwarded piece fits a message");

/**
 * A command on its way to the attached gateway, version 2, big-endian, 80 bytes, the initiator port
 * (UTF-8), then the data:
 *
 *     version[1] = 2, length of the initiator port[1], target port[2], length[4], volume uuid[16],
 *     attachment epoch[8], offset[8], sequence[8], low-water mark[8], runsMax[4], zero[4],
 *     noticeNext[8], absences[8]
 *
 * The sequence is the sending brick's own under its boot: a command that comes twice is done once.
 * An initiator port of length 0: the cluster's own work, and its target port is 0.
 */
export interface ForwardRequest {
  uuid: string;
  epoch: number;
  offsetBytes: number;
  /** Of a compare and write, of each half. */
  lengthBytes: number;
  sequence: number;
  /** The sender has the answers to everything below. */
  lowWater: number;
  runsMax: number;
  nexus: NexusId | null;
  noticeNext: number;
  /** Of the sender, when the command began there. */
  absences: number;
}

const fixedBytes = 80;
const version = 2;

export function encodeForward(request: ForwardRequest): Buffer {
  const { nexus } = request;
  const initiatorPort = Buffer.from(nexus?.initiatorPort ?? "");
  assert(initiatorPort.length <= initiatorPortBytesMax);
  const head = pooledZeros(fixedBytes + initiatorPort.length);
  head[0] = version;
  head[1] = initiatorPort.length;
  head.writeUInt16BE(nexus?.targetPort ?? 0, 2);
  head.writeUInt32BE(request.lengthBytes, 4);
  assert(head.write(request.uuid, 8, "hex") === 16);
  writeUint64(head, request.epoch, 24);
  writeUint64(head, request.offsetBytes, 32);
  writeUint64(head, request.sequence, 40);
  writeUint64(head, request.lowWater, 48);
  head.writeUInt32BE(request.runsMax, 56);
  writeUint64(head, request.noticeNext, 64);
  writeUint64(head, request.absences, 72);
  initiatorPort.copy(head, fixedBytes);
  return head;
}

/** The request and what follows its head; null: not a well-formed one. */
export function decodeForward(body: Buffer): { request: ForwardRequest; data: Buffer } | null {
  if (body.length < fixedBytes || body[0] !== version || body.readUInt32BE(60) !== 0) return null;
  const headBytes = fixedBytes + body[1]!;
  if (body.length < headBytes) return null;
  const initiatorPort = body.toString("utf8", fixedBytes, headBytes);
  const targetPort = body.readUInt16BE(2);
  if (initiatorPort === "" && targetPort !== 0) return null;
  const request = {
    uuid: body.toString("hex", 8, 24),
    epoch: readUint64(body, 24),
    offsetBytes: readUint64(body, 32),
    lengthBytes: body.readUInt32BE(4),
    sequence: readUint64(body, 40),
    lowWater: readUint64(body, 48),
    runsMax: body.readUInt32BE(56),
    nexus: initiatorPort === "" ? null : { initiatorPort, targetPort },
    noticeNext: readUint64(body, 64),
    absences: readUint64(body, 72),
  };
  const { epoch, offsetBytes, sequence, lowWater, noticeNext, absences } = request;
  const counters = [epoch, offsetBytes, sequence, lowWater, noticeNext, absences];
  if (!counters.every(Number.isSafeInteger)) return null;
  return { request, data: body.subarray(headBytes) };
}

/** Whose message it is. */
export interface Asker {
  readonly from: BrickNumber;
  readonly boot: number;
}

/** The reader has all parts of what it has read. */
export const noPart = 0xffff_ffff;
const partBytes = 4;
const takingBytes = 8;

/** Which part of a long read is asked for, the data of its message: part[4], counted from 0. */
export function encodePart(part: number): Buffer {
  const bytes = Buffer.alloc(partBytes);
  bytes.writeUInt32BE(part);
  return bytes;
}

export function decodePart(bytes: Buffer): number | null {
  return bytes.length === partBytes ? bytes.readUInt32BE(0) : null;
}

/** In the answer, before the part's bytes: taking[8]. Parts of one read are of one taking. */
export function encodeTaking(taking: number): Buffer {
  const bytes = Buffer.alloc(takingBytes);
  writeUint64(bytes, taking, 0);
  return bytes;
}

export function decodeTaken(bytes: Buffer): { taking: number; data: Buffer } | null {
  if (bytes.length < takingBytes) return null;
  const taking = readUint64(bytes, 0);
  return Number.isSafeInteger(taking) ? { taking, data: bytes.subarray(takingBytes) } : null;
}

/** What a copy reads, the data of its command: volume uuid[16], offset[8]. */
export interface CopySource {
  readonly uuid: string;
  readonly offsetBytes: number;
}

const copySourceBytes = 24;

export function encodeCopySource(source: CopySource): Buffer {
  const bytes = pooledZeros(copySourceBytes);
  assert(bytes.write(source.uuid, 0, "hex") === 16);
  writeUint64(bytes, source.offsetBytes, 16);
  return bytes;
}

export function decodeCopySource(bytes: Buffer): CopySource | null {
  if (bytes.length !== copySourceBytes) return null;
  const offsetBytes = readUint64(bytes, 16);
  if (!Number.isSafeInteger(offsetBytes)) return null;
  return { uuid: bytes.toString("hex", 0, 16), offsetBytes };
}

/** The gateway has moved: ask again where it is now. The command was not carried out. */
export type ForwardFault = VolumeFault | { code: "elsewhere" };

const replyVersion = 1;

/** Answers: version[1] = 1, done[1], zero[2]; then the data, or the fault as JSON. */
export function encodeForwardReply(parts: readonly Buffer[]): Buffer[] {
  return [Buffer.from([replyVersion, 1, 0, 0]), ...parts];
}

export function encodeForwardFault(fault: ForwardFault): Buffer[] {
  return [Buffer.from([replyVersion, 0, 0, 0]), Buffer.from(JSON.stringify(fault))];
}

export type ForwardReply = { ok: true; data: Buffer } | { ok: false; fault: ForwardFault };

const faultCodes: readonly ForwardFault["code"][] = [
  "unavailable",
  "no_space",
  "out_of_range",
  "lost",
  "cancelled",
  "deleted",
  "reservation_conflict",
  "miscompare",
  "sanitizing",
  "elsewhere",
];

export function decodeForwardReply(body: Buffer): ForwardReply | null {
  if (body.length < 4 || body[0] !== replyVersion || body[1]! > 1) return null;
  const data = body.subarray(4);
  if (body[1] === 1) return { ok: true, data };
  try {
    const fault = JSON.parse(data.toString("utf8")) as ForwardFault;
    if (!faultCodes.includes(fault?.code)) return null;
    const placed = fault.code === "miscompare" || fault.code === "lost";
    if (placed && !Number.isSafeInteger(fault.offsetBytes)) return null;
    return { ok: false, fault };
  } catch {
    return null;
  }
}

type Runs = Extract<VolumeAllocation, { ok: true }>["runs"];

/** Runs of an allocation: mapped[1] zero[3] length[8] each. */
export function encodeRuns(runs: Runs): Buffer {
  const bytes = pooledZeros(runs.length * 12);
  for (const [index, run] of runs.entries()) {
    bytes[index * 12] = run.mapped ? 1 : 0;
    writeUint64(bytes, run.lengthBytes, index * 12 + 4);
  }
  return bytes;
}

export function decodeRuns(bytes: Buffer): Runs | null {
  if (bytes.length % 12 !== 0) return null;
  const runs: Runs = [];
  for (let at = 0; at < bytes.length; at += 12) {
    runs.push({ mapped: bytes[at] === 1, lengthBytes: readUint64(bytes, at + 4) });
  }
  return runs;
}
