import { assert } from "../assert.ts";
import { pooledZeros } from "../pooled-zeros.ts";
import { type GetStatus, getStatus } from "./chunk-messages.ts";
import { chunkBytesMax, chunkKeyBytes } from "./key.ts";
import { outlineBytes, sliceBytes } from "./outline.ts";

/**
 * Asking for slices of chunks (outline.ts). Version 1, big-endian; a decode answers null for what is
 * not exactly as written here.
 *
 * request:  version[1] = 1, count[1], zero[2]; each: key[32], first slice[1], slices[1], flags[1]
 *           (1: with the outline), zero[1]
 * reply:    version[1] = 1, count[1], zero[2]; each, in the order asked: status[1] as of a chunkGet,
 *           zero[1], outline's length[2], length[4]; then of those found the outline and the bytes
 */

const version = 1;
const headerBytes = 4;
const wishBytes = 36;
const entryBytes = 8;
const flagOutline = 1;

export const slicesWishedMax = 64;
const sliceNumbers = chunkBytesMax / sliceBytes;

export interface SliceWish {
  readonly key: Buffer;
  readonly first: number;
  readonly count: number;
  readonly withOutline: boolean;
}

export type SliceResult =
  | {
      readonly status: typeof getStatus.found;
      readonly outline: Buffer | null;
      readonly bytes: Buffer;
    }
  | { readonly status: Exclude<GetStatus, 0> };

export function encodeSliceRequest(wishes: readonly SliceWish[]): Buffer[] {
  assert(wishes.length >= 1 && wishes.length <= slicesWishedMax);
  const out = pooledZeros(headerBytes + wishes.length * wishBytes);
  out[0] = version;
  out[1] = wishes.length;
  let at = headerBytes;
  for (const { key, first, count, withOutline } of wishes) {
    assert(first >= 0 && count >= 1 && first + count <= sliceNumbers);
    key.copy(out, at);
    out[at + chunkKeyBytes] = first;
    out[at + chunkKeyBytes + 1] = count;
    out[at + chunkKeyBytes + 2] = withOutline ? flagOutline : 0;
    at += wishBytes;
  }
  return [out];
}

export function decodeSliceRequest(body: Buffer): SliceWish[] | null {
  if (body.length < headerBytes || body[0] !== version) return null;
  const wishCount = body[1]!;
  if (wishCount < 1 || wishCount > slicesWishedMax) return null;
  if (body.length !== headerBytes + wishCount * wishBytes) return null;
  const wishes: SliceWish[] = [];
  for (let at = headerBytes; at < body.length; at += wishBytes) {
    const first = body[at + chunkKeyBytes]!;
    const count = body[at + chunkKeyBytes + 1]!;
    const flags = body[at + chunkKeyBytes + 2]!;
    if (count < 1 || first + count > sliceNumbers || flags > flagOutline) return null;
    if (body[at + chunkKeyBytes + 3] !== 0) return null;
    const key = body.subarray(at, at + chunkKeyBytes);
    wishes.push({ key, first, count, withOutline: flags === flagOutline });
  }
  return wishes;
}

export function encodeSliceReply(results: readonly SliceResult[]): Buffer[] {
  assert(results.length >= 1 && results.length <= slicesWishedMax);
  const header = pooledZeros(headerBytes + results.length * entryBytes);
  header[0] = version;
  header[1] = results.length;
  const parts: Buffer[] = [header];
  let at = headerBytes;
  for (const result of results) {
    header[at] = result.status;
    if (result.status === getStatus.found) {
      header.writeUInt16BE(result.outline?.length ?? 0, at + 2);
      header.writeUInt32BE(result.bytes.length, at + 4);
      if (result.outline !== null) parts.push(result.outline);
      parts.push(result.bytes);
    }
    at += entryBytes;
  }
  return parts;
}

export function decodeSliceReply(body: Buffer): SliceResult[] | null {
  if (body.length < headerBytes || body[0] !== version) return null;
  const count = body[1]!;
  let at = headerBytes + count * entryBytes;
  if (count < 1 || count > slicesWishedMax || body.length < at) return null;
  const results: SliceResult[] = [];
  for (let entry = headerBytes; entry < headerBytes + count * entryBytes; entry += entryBytes) {
    const status = body[entry]!;
    const outlineLength = body.readUInt16BE(entry + 2);
    const lengthBytes = body.readUInt32BE(entry + 4);
    if (status > getStatus.omitted || body[entry + 1] !== 0) return null;
    if (status !== getStatus.found) {
      if (outlineLength !== 0 || lengthBytes !== 0) return null;
      results.push({ status: status as Exclude<GetStatus, 0> });
      continue;
    }
    if (outlineLength > outlineBytes(chunkBytesMax) || lengthBytes > chunkBytesMax) return null;
    const bytesAt = at + outlineLength;
    if (bytesAt + lengthBytes > body.length) return null;
    const outline = outlineLength === 0 ? null : body.subarray(at, bytesAt);
    results.push({
      status: getStatus.found,
      outline,
      bytes: body.subarray(bytesAt, bytesAt + lengthBytes),
    });
    at = bytesAt + lengthBytes;
  }
  return at === body.length ? results : null;
}
