/**
 * Sectors that say who wrote them: every sector of every write is different from all others, so
 * that what a later read returns can be told exactly, and a mixture inside a sector shows.
 *
 * Sector, 512 bytes, big-endian:
 *  magic[4]="ENDt" run[4] write[6] sector[6] fill[480] write[6] sector[6]
 */

export const taggedSectorBytes = 512;
const magic = 0x454e4474;
const tailAt = taggedSectorBytes - 12;

/** Filling that does not compress to nothing and differs between neighbours. */
const filling = makeFilling();

function makeFilling(): Buffer {
  const bytes = Buffer.alloc(64 * 1024);
  let state = 0x9e3779b9;
  for (let at = 0; at < bytes.length; at += 4) {
    state = Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9;
    bytes.writeInt32LE(state | 0, at);
  }
  return bytes;
}

/** `run` tells apart loads on the same volume; `write` counts from 1. */
export function tagSectors(out: Buffer, run: number, write: number, firstSector: number): void {
  for (let at = 0; at < out.length; at += taggedSectorBytes) {
    const sector = firstSector + at / taggedSectorBytes;
    const from = ((write * 131 + sector * 17) * 4) % (filling.length - taggedSectorBytes);
    filling.copy(out, at, from, from + taggedSectorBytes);
    out.writeUInt32BE(magic, at);
    out.writeUInt32BE(run, at + 4);
    out.writeUIntBE(write, at + 8, 6);
    out.writeUIntBE(sector, at + 14, 6);
    out.writeUIntBE(write, at + tailAt, 6);
    out.writeUIntBE(sector, at + tailAt + 6, 6);
  }
}

/** Which write a sector holds: its number, 0 for zeros, or what is wrong with it. */
export function readTag(bytes: Buffer, at: number, run: number, sector: number): number | string {
  if (bytes.readUInt32BE(at) !== magic) {
    const end = at + taggedSectorBytes;
    for (let byte = at; byte < end; byte += 1) {
      if (bytes[byte] !== 0) return `no tag, but ${bytes.toString("hex", at, at + 16)}`;
    }
    return 0;
  }
  const write = bytes.readUIntBE(at + 8, 6);
  const foundRun = bytes.readUInt32BE(at + 4);
  if (foundRun !== run) return `write ${write} of another run (${foundRun})`;
  const foundSector = bytes.readUIntBE(at + 14, 6);
  if (foundSector !== sector) return `write ${write} of sector ${foundSector}`;
  const expected = scratch;
  tagSectors(expected, run, write, sector);
  if (bytes.compare(expected, 0, taggedSectorBytes, at, at + taggedSectorBytes) !== 0) {
    return `write ${write}, torn inside the sector`;
  }
  return write;
}

const scratch = Buffer.alloc(taggedSectorBytes);
