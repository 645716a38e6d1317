import { assert } from "../assert.ts";
import { readUint64, writeUint64 } from "../log/uint64.ts";
import { MiB } from "../units.ts";
import type { VolumeAllocation, VolumeFault } from "./volume.ts";

/** Bytes of one forwarded read or write; longer commands travel in pieces. */
export const forwardBytesMax = 256 * 1024;
export const forwardRunsMax = 1024;
assert(forwardBytesMax < 1 * MiB, "a forwarded piece fits a message");

/**
 * A command on its way to the attached gateway, version 1, big-endian, 64 bytes, then the data of
 * a write:
 *
 *     version[1] = 1, zero[3], length[4], volume uuid[16], attachment epoch[8], offset[8],
 *     sequence[8], low-water mark[8], runsMax[4], zero[4]
 *
 * The sequence is the sending brick's own under its boot: a command that comes twice is done once.
 */
export interface ForwardRequest {
  uuid: string;
  epoch: number;
  offsetBytes: number;
  lengthBytes: number;
  sequence: number;
  /** The sender has the answers to everything below. */
  lowWater: number;
  runsMax: number;
}

export const forwardHeadBytes = 64;
const version = 1;

export function encodeForward(request: ForwardRequest): Buffer {
  const head = Buffer.alloc(forwardHeadBytes);
  head[0] = version;
  head.writeUInt32BE(request.lengthBytes, 4);
  assert(head.write(request.uuid, 8, "hex") === 16);
  writeUint64(head, request.epoch, 24);
  writeUint64(head, request.offsetBytes, 32);
  writeUint64(head, request.sequence, 40);
  writeUint64(head, request.lowWater, 48);
  head.writeUInt32BE(request.runsMax, 56);
  return head;
}

export function decodeForward(body: Buffer): ForwardRequest | null {
  if (body.length < forwardHeadBytes || body[0] !== version) return null;
  const request = {
    uuid: body.toString("hex", 8, 24),
    epoch: readUint64(body, 24),
    offsetBytes: readUint64(body, 32),
    lengthBytes: body.readUInt32BE(4),
    sequence: readUint64(body, 40),
    lowWater: readUint64(body, 48),
    runsMax: body.readUInt32BE(56),
  };
  const safe = [request.epoch, request.offsetBytes, request.sequence, request.lowWater];
  return safe.every(Number.isSafeInteger) ? request : null;
}

/** The gateway has moved: ask again where it is now. The command was not carried out. */
export type ForwardFault = VolumeFault | { code: "elsewhere" };

/** Answers: version[1] = 1, done[1], zero[2]; then the data, or the fault as JSON. */
export function encodeForwardReply(parts: readonly Buffer[]): Buffer[] {
  return [Buffer.from([version, 1, 0, 0]), ...parts];
}

export function encodeForwardFault(fault: ForwardFault): Buffer[] {
  return [Buffer.from([version, 0, 0, 0]), Buffer.from(JSON.stringify(fault))];
}

export type ForwardReply = { ok: true; data: Buffer } | { ok: false; fault: ForwardFault };

const faultCodes: readonly ForwardFault["code"][] = [
  "unavailable",
  "no_space",
  "out_of_range",
  "lost",
  "cancelled",
  "deleted",
  "elsewhere",
];

export function decodeForwardReply(body: Buffer): ForwardReply | null {
  if (body.length < 4 || body[0] !== version || body[1]! > 1) return null;
  const data = body.subarray(4);
  if (body[1] === 1) return { ok: true, data };
  try {
    const fault = JSON.parse(data.toString("utf8")) as ForwardFault;
    return faultCodes.includes(fault?.code) ? { ok: false, fault } : null;
  } catch {
    return null;
  }
}

type Runs = Extract<VolumeAllocation, { ok: true }>["runs"];

/** Runs of an allocation: mapped[1] zero[3] length[8] each. */
export function encodeRuns(runs: Runs): Buffer {
  const bytes = Buffer.alloc(runs.length * 12);
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
