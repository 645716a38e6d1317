import { assert } from "../assert.ts";
import { chunkKeyBytes } from "../chunk/key.ts";

/**
 * A shard's primary to a brick that the map names for chunks which it does not have, version 1,
 * big-endian: version[1] = 1, zero[1], key count[2] (1 to 1024), zero[4]; then 32 bytes a key. There
 * is no reply.
 */
const version = 1;
const headerBytes = 8;
export const healKeysMax = 1024;

export function encodeChunkHeal(keys: readonly Buffer[]): Buffer[] {
  assert(keys.length >= 1 && keys.length <= healKeysMax);
  const header = Buffer.alloc(headerBytes);
  header[0] = version;
  header.writeUInt16BE(keys.length, 2);
  return [header, ...keys];
}

/** null: not exactly as written here. The keys are copies. */
export function decodeChunkHeal(body: Buffer): Buffer[] | null {
  if (body.length < headerBytes || body[0] !== version || body[1] !== 0) return null;
  const count = body.readUInt16BE(2);
  if (count === 0 || count > healKeysMax || body.readUInt32BE(4) !== 0) return null;
  if (body.length !== headerBytes + count * chunkKeyBytes) return null;
  return Array.from({ length: count }, (_, index) => {
    const at = headerBytes + index * chunkKeyBytes;
    return Buffer.from(body.subarray(at, at + chunkKeyBytes));
  });
}
