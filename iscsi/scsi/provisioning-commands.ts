import type { VolumeDone, VolumeTask } from "../../brick/volume/volume.ts";
import {
  allocationBytesMax,
  allocationRunsMax,
  allocationStepBytes,
  stepBytesMax,
  unmapBlocksMax,
  unmapDescriptorsMax,
  writeSameBlocksMax,
} from "../limits.ts";
import { pastEnd, shortDataResult } from "./block-commands.ts";
import { type BlockRange, blockBytes, blockRange, uint64, writeUint64 } from "./cdb.ts";
import {
  faultResult,
  good,
  parameterData,
  refused,
  type ScsiCommand,
  type ScsiResult,
  withStatus,
} from "./command.ts";
import { isWriteProtected, type LogicalUnit, unitBlocks } from "./logical-unit.ts";
import { invalidFieldInCdb, type Sense, scsiStatus, sense } from "./sense.ts";

/** UNMAP, WRITE SAME, GET LBA STATUS (SBC-4 §5.35, §5.52, §5.6). */

const anchorMask = 0x10;
const noDataOutMask = 0x01;

export function unmapDataBytes(_unit: LogicalUnit, cdb: Buffer): number {
  return (cdb[1]! & 1) === 0 ? cdb.readUInt16BE(7) : 0;
}

export async function unmap(command: ScsiCommand): Promise<ScsiResult> {
  const { unit, cdb, task } = command;
  // ANCHOR: no anchored state here.
  if ((cdb[1]! & 1) !== 0) return refused(invalidFieldInCdb(1, 0));
  const listBytes = cdb.readUInt16BE(7);
  if (listBytes === 0) return good;
  if (listBytes < 8) return refused(sense.parameterListLength);
  const short = shortDataResult(command, listBytes);
  if (short !== null) return short;
  if (isWriteProtected(unit)) return refused(sense.writeProtected);
  const list = decodeUnmapList(Buffer.concat(command.dataOut), unit);
  if (!list.ok) return refused(list.sense);
  for (const { lba, blocks } of list.ranges) {
    const reply = await unit.volume.unmap(lba * blockBytes, blocks * blockBytes, task);
    if (!reply.ok) return faultResult(reply.fault);
    if (task.cancelled) return withStatus(scsiStatus.taskAborted);
  }
  return good;
}

type UnmapList = { ok: true; ranges: BlockRange[] } | { ok: false; sense: Sense };

/** length[2] descriptors-length[2] zero[4], then lba[8] blocks[4] zero[4] each. */
function decodeUnmapList(list: Buffer, unit: LogicalUnit): UnmapList {
  const descriptorBytes = 16;
  // SBC-4 §5.35.2: a length that is not a multiple of 16 counts whole descriptors only.
  const announced = Math.floor(list.readUInt16BE(2) / descriptorBytes);
  const present = Math.floor((list.length - 8) / descriptorBytes);
  const count = Math.min(announced, present);
  if (count > unmapDescriptorsMax) return { ok: false, sense: sense.invalidFieldInParameterList };
  const ranges: BlockRange[] = [];
  let totalBlocks = 0;
  for (let index = 0; index < count; index += 1) {
    const at = 8 + index * descriptorBytes;
    const range = { lba: uint64(list, at), blocks: list.readUInt32BE(at + 8) };
    // SBC-4 §5.37.2: no blocks are no error, wherever they are not.
    if (range.blocks > 0 && pastEnd(unit, range)) return { ok: false, sense: sense.lbaOutOfRange };
    totalBlocks += range.blocks;
    addRange(ranges, range);
  }
  if (totalBlocks > unmapBlocksMax) return { ok: false, sense: sense.invalidFieldInParameterList };
  return { ok: true, ranges };
}

/** A range that begins where the last one ends is one change of the map with it, not another. */
function addRange(ranges: BlockRange[], range: BlockRange): void {
  const last = ranges.at(-1);
  if (range.blocks === 0) return;
  if (last === undefined || last.lba + last.blocks !== range.lba) ranges.push(range);
  else ranges[ranges.length - 1] = { lba: last.lba, blocks: last.blocks + range.blocks };
}

function writeSameSense(unit: LogicalUnit, cdb: Buffer): Sense | null {
  const is16 = cdb[0] === 0x93;
  const flags = cdb[1]!;
  if ((flags & 0xe0) !== 0) return invalidFieldInCdb(1, 7);
  if ((flags & anchorMask) !== 0) return invalidFieldInCdb(1, 4);
  // LBDATA and PBDATA are gone from SBC-3 on.
  if ((flags & 0x06) !== 0) return invalidFieldInCdb(1, 2);
  if (!is16 && (flags & noDataOutMask) !== 0) return invalidFieldInCdb(1, 0);
  const range = blockRange(cdb);
  // WSNZ is set in VPD page B0: no number of blocks does not mean "up to the end".
  if (range.blocks === 0) return invalidFieldInCdb(is16 ? 10 : 7);
  if (pastEnd(unit, range)) return sense.lbaOutOfRange;
  if (range.blocks > writeSameBlocksMax) return invalidFieldInCdb(is16 ? 10 : 7);
  return isWriteProtected(unit) ? sense.writeProtected : null;
}

function hasDataOut(cdb: Buffer): boolean {
  return cdb[0] === 0x41 || (cdb[1]! & noDataOutMask) === 0;
}

export function writeSameDataBytes(unit: LogicalUnit, cdb: Buffer): number {
  return writeSameSense(unit, cdb) === null && hasDataOut(cdb) ? blockBytes : 0;
}

/**
 * A block of zeros is unmapped whether or not UNMAP is set: it reads the same and nothing is
 * stored. Any other block is written out, also with UNMAP (it could not be read back otherwise).
 */
export async function writeSame(command: ScsiCommand): Promise<ScsiResult> {
  const { unit, cdb, task } = command;
  const wrong = writeSameSense(unit, cdb);
  if (wrong !== null) return refused(wrong);
  const wantedBytes = writeSameDataBytes(unit, cdb);
  if (command.expectedBytes !== wantedBytes) return refused(sense.invalidInformationUnit);
  const range = blockRange(cdb);
  const block = hasDataOut(cdb) ? Buffer.concat(command.dataOut) : null;
  if (block === null || block.every((byte) => byte === 0)) {
    return inSteps(range, unmapBlocksMax * blockBytes, task, (offsetBytes, lengthBytes) => {
      return unit.volume.unmap(offsetBytes, lengthBytes, task);
    });
  }
  const pattern = Buffer.alloc(Math.min(stepBytesMax, range.blocks * blockBytes), block);
  return inSteps(range, pattern.length, task, (offsetBytes, lengthBytes) => {
    return unit.volume.write(offsetBytes, [pattern.subarray(0, lengthBytes)], task);
  });
}

/** One step after the other, until one fails or the command is cancelled. */
async function inSteps(
  { lba, blocks }: BlockRange,
  stepBytes: number,
  task: VolumeTask,
  step: (offsetBytes: number, lengthBytes: number) => Promise<VolumeDone>,
): Promise<ScsiResult> {
  const totalBytes = blocks * blockBytes;
  for (let done = 0; done < totalBytes; done += stepBytes) {
    const reply = await step(lba * blockBytes + done, Math.min(stepBytes, totalBytes - done));
    if (!reply.ok) return faultResult(reply.fault);
    if (task.cancelled) return withStatus(scsiStatus.taskAborted);
  }
  return good;
}

/**
 * length[4] zero[4], then lba[8] blocks[4] status[1] zero[3] each; status 0: mapped, 1: deallocated.
 * Looks as far as the descriptors asked for reach, in steps, and not further than a bound.
 */
export async function getLbaStatus(command: ScsiCommand): Promise<ScsiResult> {
  const { unit, cdb, task } = command;
  const startLba = uint64(cdb, 2);
  const allocationLength = cdb.readUInt32BE(10);
  const endBlock = unitBlocks(unit);
  if (startLba >= endBlock) return refused(sense.lbaOutOfRange);
  const asked = Math.floor((allocationLength - lbaStatusBytes.head) / lbaStatusBytes.descriptor);
  const extentsMax = Math.max(1, Math.min(allocationRunsMax, asked));
  const lookEnd = Math.min(endBlock, startLba + allocationBytesMax / blockBytes);
  const extents: LbaExtent[] = [];
  // One more than is asked for tells that the last one is whole.
  for (let lba = startLba; lba < lookEnd && extents.length <= extentsMax; ) {
    const lengthBytes = Math.min((lookEnd - lba) * blockBytes, allocationStepBytes);
    const offsetBytes = lba * blockBytes;
    const reply = await unit.volume.allocation(offsetBytes, lengthBytes, extentsMax + 1, task);
    if (!reply.ok) return faultResult(reply.fault);
    if (task.cancelled) return withStatus(scsiStatus.taskAborted);
    for (const run of reply.runs) {
      addExtent(extents, { lba, blocks: run.lengthBytes / blockBytes, mapped: run.mapped });
      lba += run.lengthBytes / blockBytes;
    }
  }
  return parameterData(encodeLbaStatus(extents.slice(0, extentsMax)), allocationLength);
}

const lbaStatusBytes = { head: 8, descriptor: 16 } as const;
const extentBlocksMax = 0xffff_ffff;

interface LbaExtent {
  readonly lba: number;
  blocks: number;
  readonly mapped: boolean;
}

/** Neighbours of the same state are one extent, as far as its 32 bits reach. */
function addExtent(extents: LbaExtent[], extent: LbaExtent): void {
  const last = extents.at(-1);
  const joins = last?.mapped === extent.mapped && last.blocks + extent.blocks <= extentBlocksMax;
  if (joins) last.blocks += extent.blocks;
  else extents.push(extent);
}

function encodeLbaStatus(extents: readonly LbaExtent[]): Buffer {
  const { head, descriptor } = lbaStatusBytes;
  const out = Buffer.alloc(head + extents.length * descriptor);
  out.writeUInt32BE(out.length - 4, 0);
  extents.forEach(({ lba, blocks, mapped }, index) => {
    const at = head + index * descriptor;
    writeUint64(out, lba, at);
    out.writeUInt32BE(blocks, at + 8);
    out[at + 12] = mapped ? 0 : 1;
  });
  return out;
}
