import { assert } from "../assert.ts";
import { readUint64, writeUint64 } from "../log/uint64.ts";
import type { BrickNumber } from "../units.ts";

/**
 * Asks an attachment's holder to give it to another brick; version 1, big-endian, 28 bytes:
 *
 *     version[1] = 1, zero[1], brick[2], volume uuid[16], attachment epoch[8]
 *
 * It has no answer: the cluster state shows where the attachment stands.
 */
export interface MoveRequest {
  readonly uuid: string;
  readonly epoch: number;
  readonly to: BrickNumber;
}

const version = 1;
const moveBytes = 28;

export function encodeMove(request: MoveRequest): Buffer[] {
  const bytes = Buffer.alloc(moveBytes);
  bytes[0] = version;
  bytes.writeUInt16BE(request.to, 2);
  assert(bytes.write(request.uuid, 4, "hex") === 16);
  assert(writeUint64(bytes, request.epoch, 20) === moveBytes);
  return [bytes];
}

export function decodeMove(body: Buffer): MoveRequest | null {
  if (body.length !== moveBytes || body[0] !== version || body[1] !== 0) return null;
  const epoch = readUint64(body, 20);
  if (!Number.isSafeInteger(epoch)) return null;
  return { uuid: body.toString("hex", 4, 20), epoch, to: body.readUInt16BE(2) };
}
