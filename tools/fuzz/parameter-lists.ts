import type { Prng } from "../../brick/prng.ts";
import { blockBytes } from "../../iscsi/scsi/cdb.ts";
import { naaIdentifier } from "../../iscsi/scsi/identification.ts";
import type { LogicalUnit } from "../../iscsi/scsi/logical-unit.ts";

/** Parameter lists of commands that send one; each sets the length in its CDB. */

type Source = (cdb: Buffer, prng: Prng, unit: LogicalUnit) => Buffer;

const listLengthAt = { reserveOut: 5, portGroups: 6, extendedCopy: 10 } as const;

const sources: Readonly<Record<string, Source>> = {
  "PERSISTENT RESERVE OUT": (cdb, prng) => {
    const list = reserveList(prng);
    cdb[2] = prng.pick([1, 3, 5, 6, 7, 8]);
    cdb.writeUInt32BE(list.length, listLengthAt.reserveOut);
    return list;
  },
  "EXTENDED COPY(LID1)": (cdb, prng, unit) => {
    const list = copyList(prng, unit);
    cdb.writeUInt32BE(list.length, listLengthAt.extendedCopy);
    return list;
  },
  "SET TARGET PORT GROUPS": (cdb, prng) => {
    const list = Buffer.alloc(8);
    list.writeUInt16BE(prng.pick([7, 8, 9]), 6);
    cdb.writeUInt32BE(list.length, listLengthAt.portGroups);
    return list;
  },
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

/** SPC-4 §6.16.3: key[8] action-key[8] obsolete[4] flags[1] zero[3]; few keys, so that they meet. */
function reserveList(prng: Prng): Buffer {
  const list = Buffer.alloc(24);
  list[7] = prng.between(0, 2);
  list[15] = prng.between(0, 2);
  list[20] = prng.pick([0, 0, 0, 1, 4, 8]);
  return list;
}

/** SPC-4 §6.4.3: a head of 16 bytes, one target descriptor (E4), one block-to-block segment (02). */
function copyList(prng: Prng, unit: LogicalUnit): Buffer {
  const list = Buffer.alloc(16 + 32 + 28);
  list[0] = prng.between(0, 3);
  list[1] = prng.pick([0x00, 0x10]);
  list.writeUInt16BE(32, 2);
  list.writeUInt32BE(28, 8);
  list[16] = 0xe4;
  Buffer.from([1, 3, 0, 16]).copy(list, 20);
  naaIdentifier(unit.volume.info.uuid).copy(list, 24);
  list.writeUIntBE(blockBytes, 45, 3);
  list[48] = 0x02;
  list.writeUInt16BE(24, 50);
  const blocks = prng.between(0, 100);
  const last = unit.volume.info.sizeBytes / blockBytes - blocks;
  list.writeUInt16BE(blocks, 58);
  list.writeUInt32BE(prng.between(0, last), 64);
  list.writeUInt32BE(prng.between(0, last), 72);
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
