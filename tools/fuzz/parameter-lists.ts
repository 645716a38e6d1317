import type { Prng } from "../../brick/prng.ts";
import { blockBytes } from "../../iscsi/scsi/cdb.ts";
import type { LogicalUnit } from "../../iscsi/scsi/logical-unit.ts";

/** Parameter lists of commands that send one; each sets the length in its CDB. */

type Source = (cdb: Buffer, prng: Prng, unit: LogicalUnit) => Buffer;

const sources: Readonly<Record<string, Source>> = {
  UNMAP: (cdb, prng, unit) => {
    const list = unmapList(prng, unit);
    cdb.writeUInt16BE(list.length, 7);
    return list;
  },
  "MODE SELECT(6)": (cdb, prng) => {
    const list = Buffer.concat([Buffer.alloc(4), modePage(prng)]);
    cdb[1] = 0x10;
    cdb[4] = list.length;
    return list;
  },
  "MODE SELECT(10)": (cdb, prng) => {
    const list = Buffer.concat([Buffer.alloc(8), modePage(prng)]);
    cdb[1] = 0x10;
    cdb.writeUInt16BE(list.length, 7);
    return list;
  },
};

/** undefined: the command's data are blocks, or it has none. */
export function parameterList(
  name: string,
  cdb: Buffer,
  prng: Prng,
  unit: LogicalUnit,
): Buffer | undefined {
  if (prng.chance(0.1)) return undefined;
  return sources[name]?.(cdb, prng, unit);
}

/** SBC-4 §5.35: length[2] descriptor-length[2] zero[4], then lba[8] blocks[4] zero[4] each. */
function unmapList(prng: Prng, unit: LogicalUnit): Buffer {
  const count = prng.between(0, 4);
  const list = Buffer.alloc(8 + 16 * count);
  list.writeUInt16BE(list.length - 2, 0);
  list.writeUInt16BE(16 * count, 2);
  for (let at = 8; at < list.length; at += 16) {
    const blocks = prng.between(0, 300);
    const last = unit.volume.info.sizeBytes / blockBytes - blocks;
    list.writeUInt32BE(prng.between(0, last), at + 4);
    list.writeUInt32BE(blocks, at + 8);
  }
  return list;
}

/** The control mode page, its D_SENSE and SWP bits turned on and off (SPC-5 §7.5.8). */
function modePage(prng: Prng): Buffer {
  const page = Buffer.alloc(12);
  page[0] = 0x0a;
  page[1] = 0x0a;
  page[2] = prng.chance(0.5) ? 0x04 : 0;
  page[3] = 0x10;
  page[4] = prng.chance(0.1) ? 0x08 : 0;
  page.writeUInt16BE(0xffff, 8);
  return page;
}
