import type { Volume, VolumeTask } from "../../brick/volume/volume.ts";
import { stepBytesMax, transferBytesMax } from "../limits.ts";
import { type BlockRange, blockBytes, blockRange } from "./cdb.ts";
import {
  dataResult,
  faultResult,
  good,
  refused,
  type ScsiCommand,
  type ScsiResult,
  withStatus,
} from "./command.ts";
import { isWriteProtected, type LogicalUnit, unitBlocks } from "./logical-unit.ts";
import { invalidFieldInCdb, miscompare, type Sense, scsiStatus, sense } from "./sense.ts";

/** READ, WRITE, VERIFY, WRITE AND VERIFY, PRE-FETCH, SYNCHRONIZE CACHE (SBC-4 §5). */

const transferBlocksMax = transferBytesMax / blockBytes;
/** RDPROTECT, WRPROTECT, VRPROTECT: bits 7-5 of byte 1, in all but the 6-byte commands. */
const protectMask = 0xe0;

/** A range of no blocks must begin at a block of the unit, too (SBC-4 §4.5). */
export function pastEnd(unit: LogicalUnit, range: BlockRange): boolean {
  return range.lba >= unitBlocks(unit) || range.lba + range.blocks > unitBlocks(unit);
}

const unlimited: LengthLimit = { blocksMax: Number.POSITIVE_INFINITY, lengthByte: 0 };

/** How many blocks a command may move, and where its CDB says how many it moves. */
interface LengthLimit {
  readonly blocksMax: number;
  readonly lengthByte: number;
}

/** What is wrong with a command that moves `range`, if anything. */
function rangeSense(
  unit: LogicalUnit,
  cdb: Buffer,
  range: BlockRange,
  limit: LengthLimit,
): Sense | null {
  // No protection information: a protect field other than zero is refused (SBC-4 §4.22).
  if (cdb[0]! >= 0x20 && (cdb[1]! & protectMask) !== 0) return invalidFieldInCdb(1, 7);
  if (pastEnd(unit, range)) return sense.lbaOutOfRange;
  // SBC-4 §6.6.4: longer than VPD page B0 says.
  return range.blocks > limit.blocksMax ? invalidFieldInCdb(limit.lengthByte) : null;
}

export function writeRangeSense(
  unit: LogicalUnit,
  cdb: Buffer,
  range: BlockRange,
  limit: LengthLimit,
): Sense | null {
  return isWriteProtected(unit) ? sense.writeProtected : rangeSense(unit, cdb, range, limit);
}

function transferLimit(cdb: Buffer): LengthLimit {
  return { blocksMax: transferBlocksMax, lengthByte: [4, 7, 7, 0, 10, 6, 0, 0][cdb[0]! >>> 5]! };
}

function transferSense(unit: LogicalUnit, cdb: Buffer): Sense | null {
  return rangeSense(unit, cdb, blockRange(cdb), transferLimit(cdb));
}

export function writeSense(unit: LogicalUnit, cdb: Buffer): Sense | null {
  return writeRangeSense(unit, cdb, blockRange(cdb), transferLimit(cdb));
}

export function read(command: ScsiCommand): ScsiResult | Promise<ScsiResult> {
  const { unit, cdb } = command;
  const wrong = transferSense(unit, cdb);
  if (wrong !== null) return refused(wrong);
  const { lba, blocks } = blockRange(cdb);
  if (blocks === 0) return good;
  const lengthBytes = blocks * blockBytes;
  return unit.volume.read(lba * blockBytes, lengthBytes, command.task).then((reply) => {
    if (!reply.ok) return faultResult(reply.fault);
    const { buffers, release } = reply;
    return { ...dataResult(buffers, lengthBytes), ...(release !== undefined && { release }) };
  });
}

export function writeDataBytes(unit: LogicalUnit, cdb: Buffer): number {
  return writeSense(unit, cdb) === null ? blockRange(cdb).blocks * blockBytes : 0;
}

export function write(command: ScsiCommand): ScsiResult | Promise<ScsiResult> {
  // Once it is written nobody needs the data any more.
  command.task.memory = command.received;
  return writeKept(command);
}

function writeKept(command: ScsiCommand): ScsiResult | Promise<ScsiResult> {
  const { unit, cdb } = command;
  const wrong = writeSense(unit, cdb);
  if (wrong !== null) return refused(wrong);
  const { lba, blocks } = blockRange(cdb);
  // RFC 7143 §11.4.5.1: announced less than its CDB moves, a command moves what was announced, and
  // the residual tells. A part of a block cannot be written.
  if (command.dataOutBytes % blockBytes !== 0) return refused(sense.invalidInformationUnit);
  if (blocks === 0 || command.dataOutBytes === 0) return good;
  return unit.volume
    .write(lba * blockBytes, command.dataOut, command.task)
    .then((reply) => (reply.ok ? good : faultResult(reply.fault)));
}

/** For commands that cannot do with less data than their CDB says. */
export function shortDataResult(command: ScsiCommand, wantedBytes: number): ScsiResult | null {
  return command.dataOutBytes < wantedBytes ? refused(sense.invalidInformationUnit) : null;
}

/** 0: the medium alone, 1: against the data sent, 3: against one block sent, for all. */
function byteCheck(cdb: Buffer): number {
  return (cdb[1]! >>> 1) & 3;
}

function verifySense(unit: LogicalUnit, cdb: Buffer): Sense | null {
  if (byteCheck(cdb) === 2) return invalidFieldInCdb(1, 2);
  // Without data for each block there is no limit but the volume's end.
  const limit = byteCheck(cdb) === 1 ? transferLimit(cdb) : unlimited;
  return rangeSense(unit, cdb, blockRange(cdb), limit);
}

export function verifyDataBytes(unit: LogicalUnit, cdb: Buffer): number {
  const { blocks } = blockRange(cdb);
  if (verifySense(unit, cdb) !== null || blocks === 0) return 0;
  return [0, blocks * blockBytes, 0, blockBytes][byteCheck(cdb)]!;
}

export async function verify(command: ScsiCommand): Promise<ScsiResult> {
  const { unit, cdb } = command;
  const wrong = verifySense(unit, cdb);
  if (wrong !== null) return refused(wrong);
  const short = shortDataResult(command, verifyDataBytes(unit, cdb));
  if (short !== null) return short;
  const data = byteCheck(cdb) === 0 ? null : Buffer.concat(command.dataOut);
  return compareRange(unit.volume, blockRange(cdb), data, command.task);
}

export function writeAndVerifyDataBytes(unit: LogicalUnit, cdb: Buffer): number {
  return byteCheck(cdb) > 1 ? 0 : writeDataBytes(unit, cdb);
}

export async function writeAndVerify(command: ScsiCommand): Promise<ScsiResult> {
  const { unit, cdb } = command;
  if (byteCheck(cdb) > 1) return refused(invalidFieldInCdb(1, 2));
  const written = await writeKept(command);
  if (written.status !== scsiStatus.good) return written;
  const data = byteCheck(cdb) === 0 ? null : Buffer.concat(command.dataOut);
  const range = { lba: blockRange(cdb).lba, blocks: command.dataOutBytes / blockBytes };
  return compareRange(unit.volume, range, data, command.task);
}

/** Reads a range step by step, and compares it with `data`, repeated as often as it takes. */
async function compareRange(
  volume: Volume,
  range: BlockRange,
  data: Buffer | null,
  task: VolumeTask,
): Promise<ScsiResult> {
  const totalBytes = range.blocks * blockBytes;
  for (let done = 0; done < totalBytes; ) {
    const lengthBytes = Math.min(stepBytesMax, totalBytes - done);
    const reply = await volume.read(range.lba * blockBytes + done, lengthBytes, task);
    if (!reply.ok) return faultResult(reply.fault);
    if (task.cancelled) return withStatus(scsiStatus.taskAborted);
    if (data !== null) {
      const difference = firstDifference(reply.buffers, data, done);
      if (difference !== null) return refused(miscompare(done + difference));
    }
    done += lengthBytes;
  }
  return good;
}

/** Where the buffers differ from `data`, which repeats and is entered at `from`; or null. */
export function firstDifference(
  buffers: readonly Buffer[],
  data: Buffer,
  from: number,
): number | null {
  let compared = 0;
  for (const buffer of buffers) {
    for (let at = 0; at < buffer.length; ) {
      const start = (from + compared) % data.length;
      const length = Math.min(buffer.length - at, data.length - start);
      if (buffer.compare(data, start, start + length, at, at + length) !== 0) {
        let same = 0;
        while (buffer[at + same] === data[start + same]) same += 1;
        return compared + same;
      }
      at += length;
      compared += length;
    }
  }
  return null;
}

/** Nothing is kept ahead of reads: the hint is checked and heard. */
export function prefetch(command: ScsiCommand): ScsiResult {
  const wrong = pastEnd(command.unit, blockRange(command.cdb));
  return wrong ? refused(sense.lbaOutOfRange) : good;
}

/** A write was durable before it was answered: there is nothing left to synchronize. */
export function synchronizeCache(command: ScsiCommand): ScsiResult {
  const wrong = pastEnd(command.unit, blockRange(command.cdb));
  return wrong ? refused(sense.lbaOutOfRange) : good;
}
