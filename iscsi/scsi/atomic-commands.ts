import { atomicBlocksMax, compareAndWriteBlocksMax, orStepBytesMax } from "../limits.ts";
import { writeDataBytes, writeRangeSense, writeSense } from "./block-commands.ts";
import { type BlockRange, blockBytes, blockRange, uint64 } from "./cdb.ts";
import {
  faultResult,
  good,
  refused,
  type ScsiCommand,
  type ScsiResult,
  withStatus,
} from "./command.ts";
import type { LogicalUnit } from "./logical-unit.ts";
import { invalidFieldInCdb, type Sense, scsiStatus, sense } from "./sense.ts";

/** COMPARE AND WRITE, ORWRITE and WRITE ATOMIC(16) (SBC-4 §5.3, §5.17, §5.44). */

function compareAndWriteSense(unit: LogicalUnit, cdb: Buffer): Sense | null {
  // NUMBER OF LOGICAL BLOCKS is one byte; with the reserved ones before it, it would be too many.
  const range = blockRange(cdb);
  return writeRangeSense(unit, cdb, range, { blocksMax: compareAndWriteBlocksMax, lengthByte: 13 });
}

/** What is compared, then what is written. */
export function compareAndWriteDataBytes(unit: LogicalUnit, cdb: Buffer): number {
  if (compareAndWriteSense(unit, cdb) !== null) return 0;
  return 2 * blockRange(cdb).blocks * blockBytes;
}

export async function compareAndWrite(command: ScsiCommand): Promise<ScsiResult> {
  const { unit, cdb } = command;
  const wrong = compareAndWriteSense(unit, cdb);
  if (wrong !== null) return refused(wrong);
  const { lba, blocks } = blockRange(cdb);
  const lengthBytes = blocks * blockBytes;
  // The CDB and the data disagree: neither a part nor more than it is what the initiator meant.
  if (command.expectedBytes !== 2 * lengthBytes) return refused(invalidFieldInCdb(13));
  if (blocks === 0) return good;
  const data = Buffer.concat(command.dataOut);
  const reply = await unit.volume.compareAndWrite(
    lba * blockBytes,
    [data.subarray(0, lengthBytes)],
    [data.subarray(lengthBytes)],
    command.task,
  );
  return reply.ok ? good : faultResult(reply.fault);
}

export const orWriteDataBytes = writeDataBytes;

/** Each block's bits are set in one step; the range is not one atomic change (SBC-4 §5.17). */
export async function orWrite(command: ScsiCommand): Promise<ScsiResult> {
  const { unit, cdb, task } = command;
  const wrong = writeSense(unit, cdb);
  if (wrong !== null) return refused(wrong);
  const { lba, blocks } = blockRange(cdb);
  const lengthBytes = blocks * blockBytes;
  if (command.dataOutBytes < lengthBytes) return refused(sense.invalidInformationUnit);
  const data = Buffer.concat(command.dataOut);
  for (let done = 0; done < lengthBytes; done += orStepBytesMax) {
    const piece = data.subarray(done, done + orStepBytesMax);
    const reply = await unit.volume.orWrite(lba * blockBytes + done, [piece], task);
    if (!reply.ok) return faultResult(reply.fault);
    if (task.cancelled) return withStatus(scsiStatus.taskAborted);
  }
  return good;
}

/** lba[8] atomic-boundary[2] transfer-length[2] */
function atomicRange(cdb: Buffer): BlockRange {
  return { lba: uint64(cdb, 2), blocks: cdb.readUInt16BE(12) };
}

function writeAtomicSense(unit: LogicalUnit, cdb: Buffer): Sense | null {
  const range = atomicRange(cdb);
  const wrong = writeRangeSense(unit, cdb, range, { blocksMax: atomicBlocksMax, lengthByte: 12 });
  if (wrong !== null) return wrong;
  // MAXIMUM ATOMIC BOUNDARY SIZE is 0 in VPD page B0.
  return cdb.readUInt16BE(10) === 0 ? null : invalidFieldInCdb(10);
}

export function writeAtomicDataBytes(unit: LogicalUnit, cdb: Buffer): number {
  return writeAtomicSense(unit, cdb) === null ? atomicRange(cdb).blocks * blockBytes : 0;
}

export async function writeAtomic(command: ScsiCommand): Promise<ScsiResult> {
  const { unit, cdb } = command;
  const wrong = writeAtomicSense(unit, cdb);
  if (wrong !== null) return refused(wrong);
  const { lba, blocks } = atomicRange(cdb);
  if (command.dataOutBytes < blocks * blockBytes) return refused(sense.invalidInformationUnit);
  if (blocks === 0) return good;
  const reply = await unit.volume.writeAtomic(lba * blockBytes, command.dataOut, command.task);
  return reply.ok ? good : faultResult(reply.fault);
}
