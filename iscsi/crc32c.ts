import { crc32c as crc32cNative } from "@node-rs/crc32";

/**
 * CRC32C (Castagnoli, RFC 7143 §13.1). Of short inputs, as headers are, eight bytes a step through
 * eight tables: a call of native code costs more than the work.
 */

const nativeFromBytes = 192;
const polynomialReflected = 0x82f63b78;
const tableCount = 8;
const tables = makeTables();

function makeTables(): Uint32Array[] {
  const made = Array.from({ length: tableCount }, () => new Uint32Array(256));
  for (let byte = 0; byte < 256; byte += 1) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ (crc & 1 ? polynomialReflected : 0);
    made[0]![byte] = crc;
  }
  for (let table = 1; table < tableCount; table += 1) {
    for (let byte = 0; byte < 256; byte += 1) {
      const previous = made[table - 1]![byte]!;
      made[table]![byte] = (previous >>> 8) ^ made[0]![previous & 0xff]!;
    }
  }
  return made;
}

/** Continues `crc` (0 to begin with) over the bytes. */
export function crc32c(bytes: Buffer, crc = 0): number {
  if (bytes.length >= nativeFromBytes) return crc32cNative(bytes, crc);
  const [t0, t1, t2, t3, t4, t5, t6, t7] = tables as [
    Uint32Array,
    Uint32Array,
    Uint32Array,
    Uint32Array,
    Uint32Array,
    Uint32Array,
    Uint32Array,
    Uint32Array,
  ];
  let state = ~crc;
  let at = 0;
  for (const end = bytes.length - 7; at < end; at += 8) {
    state ^= bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
    state =
      t7[state & 0xff]! ^
      t6[(state >>> 8) & 0xff]! ^
      t5[(state >>> 16) & 0xff]! ^
      t4[state >>> 24]! ^
      t3[bytes[at + 4]!]! ^
      t2[bytes[at + 5]!]! ^
      t1[bytes[at + 6]!]! ^
      t0[bytes[at + 7]!]!;
  }
  for (; at < bytes.length; at += 1) state = (state >>> 8) ^ t0[(state ^ bytes[at]!) & 0xff]!;
  return ~state >>> 0;
}

/** A digest as it stands on the wire: the CRC's bytes, least significant first. */
export function writeDigest(out: Buffer, at: number, crc: number): void {
  out.writeUInt32LE(crc, at);
}

export function readDigest(bytes: Buffer, at: number): number {
  return bytes.readUInt32LE(at);
}
