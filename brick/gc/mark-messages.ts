import { assert } from "../assert.ts";
import { chunkKeyBytes } from "../chunk/key.ts";

/**
 * A shard's marks, version 1, big-endian: version[1] = 1, zero[1], key count[2] (1 to 1024),
 * garbage-collection epoch[4]; then 32 bytes a key. The reply is that of chunkHas: which of them
 * are here. Whoever answers keeps those as if they had been stored in that epoch.
 */
const version = 1;
const headerBytes = 8;
export const markKeysMax = 1024;

export function encodeChunkMark(gcEpoch: number, keys: readonly Buffer[]): Buffer[] {
  assert(keys.length >= 1 && keys.length <= markKeysMax);
  const header = Buffer.alloc(headerBytes);
  header[0] = version;
  header.writeUInt16BE(keys.length, 2);
  header.writeUInt32BE(gcEpoch, 4);
  return [header, ...keys];
}

/** null: not exactly as written here. The keys are slices. */
export function decodeChunkMark(body: Buffer): { gcEpoch: number; keys: Buffer[] } | null {
  if (body.length < headerBytes || body[0] !== version || body[1] !== 0) return null;
  const count = body.readUInt16BE(2);
  if (count === 0 || count > markKeysMax) return null;
  if (body.length !== headerBytes + count * chunkKeyBytes) return null;
  const keys: Buffer[] = [];
  for (let at = headerBytes; at < body.length; at += chunkKeyBytes) {
    keys.push(body.subarray(at, at + chunkKeyBytes));
  }
  return { gcEpoch: body.readUInt32BE(4), keys };
}
