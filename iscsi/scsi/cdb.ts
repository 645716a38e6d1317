/** Fields of command descriptor blocks (SPC-5 §4.2, SBC-4 §5). */

export const blockBytes = 512;

export interface BlockRange {
  /** May exceed what a double holds exactly: then it is past the end of every volume. */
  readonly lba: number;
  readonly blocks: number;
}

/** Logical block address and transfer length of the 6, 10, 12 and 16-byte block commands. */
export function blockRange(cdb: Buffer): BlockRange {
  switch (cdb[0]! >>> 5) {
    case 0: {
      // READ(6) and WRITE(6): 21 bits of address; 0 blocks mean 256.
      const lba = cdb.readUIntBE(1, 3) & 0x1f_ffff;
      return { lba, blocks: cdb[4] === 0 ? 256 : cdb[4]! };
    }
    case 1:
    case 2:
      return { lba: cdb.readUInt32BE(2), blocks: cdb.readUInt16BE(7) };
    case 5:
      return { lba: cdb.readUInt32BE(2), blocks: cdb.readUInt32BE(6) };
    default:
      return { lba: uint64(cdb, 2), blocks: cdb.readUInt32BE(10) };
  }
}

export function uint64(bytes: Buffer, at: number): number {
  return bytes.readUInt32BE(at) * 2 ** 32 + bytes.readUInt32BE(at + 4);
}

export function writeUint64(bytes: Buffer, value: number, at: number): void {
  bytes.writeUInt32BE(Math.floor(value / 2 ** 32), at);
  bytes.writeUInt32BE(value >>> 0, at + 4);
}
