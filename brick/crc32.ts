import { crc32 as crc32Native } from "@node-rs/crc32";

/** CRC-32 (ISO-HDLC, that of zlib), continued from `crc`: of records, frames, small files. */
export function crc32(bytes: Buffer | string, crc = 0): number {
  return crc32Native(bytes, crc);
}
