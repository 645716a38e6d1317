import { Blake3Hasher } from "@napi-rs/blake-hash";

/** A chunk holds whole sectors of one grain. */
export const chunkBytesMin = 512;
export const chunkBytesMax = 65_536;
export const chunkKeyBytes = 32;

/** One for all: hashing is synchronous, and a new hasher costs more than hashing 4 KiB. */
const hasher = new Blake3Hasher();

/**
 * The key of a chunk: the BLAKE3-256 hash of its bytes as stored. By way of text, for what native code
 * makes a buffer of is memory of its own, which the collector has to see off: dearer than the text.
 */
export function chunkKey(bytes: Buffer | readonly Buffer[]): Buffer {
  hasher.reset();
  if (Buffer.isBuffer(bytes)) hasher.update(bytes);
  else for (const part of bytes) hasher.update(part);
  return Buffer.from(hasher.digest("hex"), "hex");
}

export function keyEquals(a: Buffer, b: Buffer): boolean {
  return a.equals(b);
}

export function keyHex(key: Buffer): string {
  return key.toString("hex");
}
