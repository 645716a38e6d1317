import { assert } from "../assert.ts";
import { readUint64, writeUint64 } from "../log/uint64.ts";
import { pooledZeros } from "../pooled-zeros.ts";
import {
  type GroupPart,
  groupPartBytes,
  groupPartsMax,
  readGroupParts,
  writeGroupParts,
} from "./group.ts";

/** A gateway's change of several grains: all of it lands, or none. */
export interface MapGroupRequest {
  shard: number;
  view: number;
  branch: number;
  generation: number;
  epoch: number;
  sequence: number;
  lowWater: number;
  /** The garbage-collection epoch before any chunk of the parts was stored or guarded. */
  gcEpoch: number;
  parts: readonly GroupPart[];
}

/**
 * Group, big-endian, 56 bytes and the parts:
 *
 *     version[1] = 1, partCount[1] (1..17), shard[2], view[8], branch[6], zero[2], generation[4],
 *     epoch[8], sequence[8], lowWater[8], gcEpoch[4], zero[4], parts[partCount x 64] as in an entry
 */
const headBytes = 56;
const version = 1;
assert(groupPartsMax <= 0xff);

export function encodeMapGroup(request: MapGroupRequest): Buffer[] {
  const { parts } = request;
  const out = pooledZeros(headBytes + parts.length * groupPartBytes);
  out[0] = version;
  out[1] = parts.length;
  let at = out.writeUInt16BE(request.shard, 2);
  at = writeUint64(out, request.view, at);
  at = out.writeUIntBE(request.branch, at, 6) + 2;
  at = out.writeUInt32BE(request.generation, at);
  at = writeUint64(out, request.epoch, at);
  at = writeUint64(out, request.sequence, at);
  at = writeUint64(out, request.lowWater, at);
  at = out.writeUInt32BE(request.gcEpoch, at) + 4;
  assert(at === headBytes);
  assert(writeGroupParts(out, parts, at) === out.length);
  return [out];
}

export function decodeMapGroup(body: Buffer): MapGroupRequest | null {
  if (body.length < headBytes || body[0] !== version) return null;
  const count = body[1]!;
  if (body.length !== headBytes + count * groupPartBytes) return null;
  if (body.readUInt16BE(18) !== 0 || body.readUInt32BE(52) !== 0) return null;
  const parts = readGroupParts(body, headBytes, count);
  if (parts === null) return null;
  const request = {
    shard: body.readUInt16BE(2),
    view: readUint64(body, 4),
    branch: body.readUIntBE(12, 6),
    generation: body.readUInt32BE(20),
    epoch: readUint64(body, 24),
    sequence: readUint64(body, 32),
    lowWater: readUint64(body, 40),
    gcEpoch: body.readUInt32BE(48),
    parts,
  };
  const { view, epoch, sequence, lowWater } = request;
  return [view, epoch, sequence, lowWater].every(Number.isSafeInteger) ? request : null;
}
