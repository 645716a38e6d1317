import { conflicts } from "../../brick/unit/conflicts.ts";
import { type VolumeDone, VolumeTask } from "../../brick/volume/volume.ts";
import { copiesPerSessionMax, copyListBytesMax } from "../limits.ts";
import { pastEnd } from "./block-commands.ts";
import { type BlockRange, blockBytes } from "./cdb.ts";
import {
  faultResult,
  good,
  type Peer,
  parameterData,
  refused,
  type ScsiCommand,
  type ScsiResult,
  withStatus,
} from "./command.ts";
import { operatingParameters } from "./copy-facts.ts";
import { type CopyList, type CopySegment, decodeCopyList } from "./copy-list.ts";
import { naaIdentifier } from "./identification.ts";
import { isWriteProtected, type LogicalUnit } from "./logical-unit.ts";
import { invalidFieldInCdb, type Sense, scsiStatus, sense, senseKey } from "./sense.ts";

/** EXTENDED COPY (LID1) and RECEIVE COPY RESULTS (SPC-4 §6.4, §6.19): the volumes know how to copy. */

const copyHeadBytes = 16;

/** How far the copy of a list identifier has come, while its nexus may ask. */
export interface CopyProgress {
  state: "running" | "done" | "failed";
  segments: number;
  bytes: number;
}

export function extendedCopyDataBytes(_unit: LogicalUnit, cdb: Buffer): number {
  const lengthBytes = cdb.readUInt32BE(10);
  return lengthBytes > copyHeadBytes + copyListBytesMax ? 0 : lengthBytes;
}

export async function extendedCopy(command: ScsiCommand): Promise<ScsiResult> {
  const { cdb, nexus } = command;
  const wantedBytes = cdb.readUInt32BE(10);
  if (wantedBytes === 0) return good;
  if (wantedBytes > copyHeadBytes + copyListBytesMax || command.dataOutBytes < wantedBytes) {
    return refused(sense.parameterListLength);
  }
  const decoded = decodeCopyList(Buffer.concat(command.dataOut));
  if (!decoded.ok) return refused(decoded.sense);
  const { list } = decoded;
  const progress: CopyProgress = { state: "running", segments: 0, bytes: 0 };
  if (list.keeps !== null) {
    // §6.4.3.2: the identifier of a copy that runs may not be used again.
    if (nexus.copies.get(list.listId)?.state === "running") {
      return refused(sense.operationInProgress);
    }
    nexus.copies.delete(list.listId);
    nexus.copies.set(list.listId, progress);
    forgetOldest(nexus.copies);
  }
  const result = await copyAll(command, list, progress);
  progress.state = result.status === scsiStatus.good ? "done" : "failed";
  if (list.keeps === "nothing") nexus.copies.delete(list.listId);
  return result;
}

function forgetOldest(copies: Map<number, CopyProgress>): void {
  for (const [listId, { state }] of copies) {
    if (copies.size <= copiesPerSessionMax) return;
    if (state !== "running") copies.delete(listId);
  }
}

async function copyAll(
  command: ScsiCommand,
  list: CopyList,
  progress: CopyProgress,
): Promise<ScsiResult> {
  const targets = list.targets.map(({ naa }) => (naa === null ? undefined : find(command, naa)));
  for (const segment of list.segments) {
    const source = targets[segment.source];
    const destination = targets[segment.destination];
    const wrong =
      source === undefined || destination === undefined
        ? sense.copyTargetNotReachable
        : segmentSense(source, destination, segment);
    if (wrong !== null) return copyAborted(wrong, progress);
    if (segment.blocks > 0) {
      const reply = await copySegment(command, source!, destination!, segment);
      if (!reply.ok) {
        const result = faultResult(reply.fault);
        return result.sense === null ? result : copyAborted(result.sense, progress);
      }
      if (command.task.cancelled) return withStatus(scsiStatus.taskAborted);
    }
    progress.segments += 1;
    progress.bytes += segment.blocks * blockBytes;
  }
  return good;
}

function find({ peers }: ScsiCommand, naa: Buffer): Peer | undefined {
  return peers.find(({ unit }) => naaIdentifier(unit.volume.info.uuid).equals(naa));
}

/** Why a segment cannot be copied. For a range that is not there the segment's number says all. */
function segmentSense(source: Peer, destination: Peer, segment: CopySegment): Sense | null {
  const { blocks } = segment;
  const from: BlockRange = { lba: segment.sourceLba, blocks };
  const to: BlockRange = { lba: segment.destinationLba, blocks };
  if (isReserved(source, "read") || isReserved(destination, "write")) {
    return sense.thirdPartyDeviceFailure;
  }
  if (pastEnd(source.unit, from) || pastEnd(destination.unit, to)) return sense.none;
  return isWriteProtected(destination.unit) ? sense.writeProtected : null;
}

function isReserved({ unit, nexus }: Peer, access: "read" | "write"): boolean {
  return conflicts(unit.volume.unit(), nexus.id, access);
}

/** §6.4.1: the copy ends with COPY ABORTED, the number of its segment in bytes 2 and 3. */
function copyAborted(condition: Sense, progress: CopyProgress): ScsiResult {
  const { asc, ascq } = condition;
  const commandSpecific = progress.segments;
  return refused({ key: senseKey.copyAborted, asc, ascq, commandSpecific });
}

/** At a unit other than the one addressed, the copy is a task of its own (its notices differ). */
function copySegment(
  { unit, task }: ScsiCommand,
  source: Peer,
  destination: Peer,
  segment: CopySegment,
): Promise<VolumeDone> {
  let own = task;
  if (destination.unit !== unit) {
    own = new VolumeTask(destination.nexus.id, destination.unit.noticeNext);
    task.onCancel = () => own.cancel();
  }
  const { uuid } = source.unit.volume.info;
  const from = { uuid, offsetBytes: segment.sourceLba * blockBytes };
  const lengthBytes = segment.blocks * blockBytes;
  const to = segment.destinationLba * blockBytes;
  return destination.unit.volume.copyFrom(from, to, lengthBytes, own);
}

const copyStatusCode = { running: 0x00, done: 0x01, failed: 0x02 } as const;
const transferCountInBytes = 0;

/** length[4] status[1] segments[2] units[1] count[4] */
export function receiveCopyStatus({ cdb, nexus }: ScsiCommand): ScsiResult {
  const listId = cdb[2]!;
  const progress = nexus.copies.get(listId);
  if (progress === undefined) return refused(invalidFieldInCdb(2));
  const out = Buffer.alloc(12);
  out.writeUInt32BE(out.length - 4, 0);
  out[4] = copyStatusCode[progress.state];
  out.writeUInt16BE(progress.segments, 5);
  out[7] = transferCountInBytes;
  out.writeUInt32BE(Math.min(progress.bytes, 0xffff_ffff), 8);
  // §6.19.2: what was told of a copy that has ended is forgotten.
  if (progress.state !== "running") nexus.copies.delete(listId);
  return parameterData(out, cdb.readUInt32BE(10));
}

export function receiveOperatingParameters({ cdb }: ScsiCommand): ScsiResult {
  return parameterData(operatingParameters(), cdb.readUInt32BE(10));
}
