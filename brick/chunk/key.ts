import { Blake3Hasher, blake3 } from "@napi-rs/blake-hash";

/** A chunk holds whole sectors of one grain. */
export const chunkBytesMin = 512;
export const chunkBytesMax = 65_536;
export const chunkKeyBytes = 32;

/** One for all: hashing is synchronous, and a new hasher costs more than hashing 4 KiB. */
const hasher = new Blake3Hasher();

/** The key of a chunk: the BLAKE3-256 hash of its bytes as stored. */
export function chunkKey(bytes: Buffer | readonly Buffer[]): Buffer {
  if (Buffer.isBuffer(bytes)) return blake3(bytes);
  if (bytes.length === 1) return blake3(bytes[0]!);
  hasher.reset();
  for (const part of bytes) hasher.update(part);
  return hasher.digestBuffer();
}

export function keyEquals(a: Buffer, b: Buffer): boolean {
  return a.equals(b);
}

export function keyHex(key: Buffer): string {
  return key.toString("hex");
}
