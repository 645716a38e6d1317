import type { Prng } from "../../brick/prng.ts";
import { blockBytes } from "../../iscsi/scsi/cdb.ts";
import type { CommandRow } from "../../iscsi/scsi/command.ts";
import type { LogicalUnit } from "../../iscsi/scsi/logical-unit.ts";
import { commandRows } from "../../iscsi/scsi/opcodes.ts";
import { parameterList } from "./parameter-lists.ts";

/**
 * SCSI commands of every row of the target's own table, so that a new command is fuzzed as soon
 * as it exists: the CDB usage data says which bits a command looks at.
 */

export interface SourcedCommand {
  readonly name: string;
  readonly cdb: Buffer;
  readonly reads: boolean;
  readonly expectedBytes: number;
  /** null for a command that sends none. */
  readonly dataOut: Buffer | null;
}

/** Most commands move little, so that a million of them fit in a minute; a few move a lot. */
function someBlocks(prng: Prng, blocksMax: number): number {
  if (prng.chance(0.95)) return prng.between(0, 16);
  const many = prng.chance(0.95) ? prng.between(16, 256) : prng.between(256, 20_000);
  return Math.min(many, blocksMax);
}

/** PREEMPT AND ABORT ends others' commands, which nobody answers then (SAM-5 §5.6, TAS is 0). */
const peacefulRows = commandRows.filter((row) => !(row.opcode === 0x5f && row.serviceAction === 5));

export function someCommand(
  prng: Prng,
  unit: LogicalUnit,
  blocksMax: number,
  peaceful: boolean,
): SourcedCommand {
  const row = prng.pick(peaceful ? peacefulRows : commandRows);
  const cdb = Buffer.alloc(16);
  const usage = Buffer.from(row.usage, "hex");
  // Bits that the command looks at, sparsely set: most flags are refused.
  for (let at = 1; at < usage.length; at += 1) {
    if (prng.chance(0.25)) cdb[at] = prng.between(0, 255) & usage[at]!;
  }
  cdb[0] = row.opcode;
  if (row.serviceAction !== undefined) cdb[1] = (cdb[1]! & 0xe0) | row.serviceAction;
  if (prng.chance(0.9)) {
    // CONTROL: NACA is refused.
    cdb[usage.length - 1] = 0;
    placeRange(row, cdb, unit, prng, someBlocks(prng, blocksMax));
  }
  const list = parameterList(row.name, cdb, prng, unit);
  const askedBytes = row.dataOutBytes?.(unit, cdb) ?? 0;
  // What a CDB of random bits asks for may be more than is worth sending.
  const wantedBytes = Math.min(askedBytes, Math.max(blocksMax * blockBytes, 65_536));
  if (row.dataOutBytes !== undefined) {
    const dataOut = Buffer.alloc(wantedBytes, prng.between(0, 3));
    list?.copy(dataOut);
    return { name: row.name, cdb, reads: false, expectedBytes: wantedBytes, dataOut };
  }
  return {
    name: row.name,
    cdb,
    reads: true,
    expectedBytes: expectedOf(row, cdb, prng),
    dataOut: null,
  };
}

/** Commands whose range or length is not where the size of the opcode says. */
const withoutRange =
  /UNMAP|MODE|SENSE|INQUIRY|REPORT|RECEIVE|RESERVE|LOG|CAPACITY|COPY|SANITIZE|TARGET|TOKEN|DIAGNOSTIC/;

/** Puts a range within the unit where the opcode's group keeps it (SPC-5 §4.2.5). */
function placeRange(
  row: CommandRow,
  cdb: Buffer,
  unit: LogicalUnit,
  prng: Prng,
  blocks: number,
): void {
  if (withoutRange.test(row.name)) return;
  const sizeBlocks = unit.volume.info.sizeBytes / blockBytes;
  const lba = prng.between(0, Math.max(0, sizeBlocks - blocks));
  switch (row.opcode >>> 5) {
    case 0:
      cdb.writeUIntBE(lba & 0x1f_ffff, 1, 3);
      cdb[4] = blocks & 0xff;
      return;
    case 1:
    case 2:
      cdb.writeUInt32BE(lba, 2);
      cdb.writeUInt16BE(blocks & 0xffff, 7);
      return;
    case 5:
      cdb.writeUInt32BE(lba, 2);
      cdb.writeUInt32BE(blocks, 6);
      return;
    default:
      cdb.writeUInt32BE(0, 2);
      cdb.writeUInt32BE(lba, 6);
      // COMPARE AND WRITE: NUMBER OF LOGICAL BLOCKS is one byte.
      if (row.opcode === 0x89) cdb[13] = blocks & 0x0f;
      else cdb.writeUInt32BE(blocks, 10);
  }
}

const readOpcodes: Readonly<Record<number, (cdb: Buffer) => number>> = {
  8: (cdb) => (cdb[4] === 0 ? 256 : cdb[4]!),
  40: (cdb) => cdb.readUInt16BE(7),
  136: (cdb) => cdb.readUInt32BE(10),
  168: (cdb) => cdb.readUInt32BE(6),
};

function expectedOf(row: CommandRow, cdb: Buffer, prng: Prng): number {
  const blocks = readOpcodes[row.opcode]?.(cdb);
  if (blocks !== undefined && prng.chance(0.9)) return Math.min(blocks * blockBytes, 0xffff_ffff);
  return prng.pick([0, 1, 4, 8, 36, 96, 252, 512, 4096, 65_536]);
}

/** An opcode that may not exist, with anything behind it. */
export function strangeCommand(prng: Prng): SourcedCommand {
  const cdb = prng.fill(Buffer.alloc(16));
  if (prng.chance(0.5)) cdb[0] = prng.pick(commandRows).opcode;
  const reads = prng.chance(0.5);
  const expectedBytes = prng.pick([0, 1, 511, 512, 4096, 0xffff_ffff]);
  const dataOut = reads ? null : Buffer.alloc(Math.min(expectedBytes, 4096), 1);
  return { name: "anything", cdb, reads, expectedBytes, dataOut };
}
