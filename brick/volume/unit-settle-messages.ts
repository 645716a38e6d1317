import { assert } from "../assert.ts";
import { readUint64, writeUint64 } from "../log/uint64.ts";

/**
 * Whether a brick acts by a unit's record. Request, version 1, big-endian, 28 bytes:
 *
 *     version[1] = 1, zero[3], volume uuid[16], version of the record[8]
 *
 * Reply, 4 bytes: version[1] = 1, settled[1], zero[2]. Zeros are examined.
 */
export interface UnitSettleRequest {
  readonly uuid: string;
  readonly unitVersion: number;
}

const version = 1;
const requestBytes = 28;
const replyBytes = 4;

export function encodeUnitSettle(request: UnitSettleRequest): Buffer[] {
  const bytes = Buffer.alloc(requestBytes);
  bytes[0] = version;
  assert(bytes.write(request.uuid, 4, "hex") === 16);
  assert(writeUint64(bytes, request.unitVersion, 20) === requestBytes);
  return [bytes];
}

export function decodeUnitSettle(body: Buffer): UnitSettleRequest | null {
  if (body.length !== requestBytes || body.readUInt32BE(0) !== version << 24) return null;
  const unitVersion = readUint64(body, 20);
  if (!Number.isSafeInteger(unitVersion)) return null;
  return { uuid: body.toString("hex", 4, 20), unitVersion };
}

export function encodeUnitSettleReply(settled: boolean): Buffer[] {
  return [Buffer.from([version, settled ? 1 : 0, 0, 0])];
}

/** null: not a reply of ours. */
export function decodeUnitSettleReply(body: Buffer): boolean | null {
  if (body.length !== replyBytes || body[0] !== version || body[1]! > 1) return null;
  return body.readUInt16BE(2) === 0 ? body[1] === 1 : null;
}
