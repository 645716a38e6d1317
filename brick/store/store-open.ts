import { assert } from "../assert.ts";
import type { Disk, DiskFile, Host, Kv } from "../host.ts";
import { keyAfter } from "../kv-key.ts";
import {
  type BatchHeader,
  batchAlignBytes,
  decodeBatchHeader,
  logSalt,
} from "../log/batch-format.ts";
import type { LogIdentity, LogPlace } from "../log/log.ts";
import {
  LogReplay,
  type ReplayResult,
  type ReplaySegment,
  type ReplaySinks,
} from "../log/replay.ts";
import { logFolder, type SegmentFiles, segmentOfName, segmentPath } from "../log/segment-files.ts";
import { isZero, SegmentReader } from "../log/segment-reader.ts";
import { newSegment, type Segment, type Segments } from "../log/segments.ts";
import {
  type Checkpoint,
  checkpointKvKey,
  checkpointNone,
  decodeCheckpoint,
  decodeSegmentRow,
  type SegmentRow,
  segmentRowsEnd,
  segmentRowsStart,
} from "./store-keys.ts";
import { type Superblock, SuperblockCopies, superblockVersion } from "./superblock.ts";

/** The steps of opening a store, in the order in which store.ts takes them. */

export type StoreOpenFault =
  /** No superblock, and no identity given to make one. */
  | { code: "not_formatted" }
  /** Both superblock copies are broken, or one is missing from a folder that holds a log. */
  | { code: "superblock_damaged" }
  /** A newer END has written it. */
  | { code: "newer_format"; version: number }
  /** The checkpoint or a segment row in the key-value store is not what was written. */
  | { code: "index_damaged"; what: string };

export class StoreOpenError extends Error {
  override readonly name = "StoreOpenError";
  readonly fault: StoreOpenFault;
  constructor(fault: StoreOpenFault) {
    super(`the store cannot be opened: ${textOf(fault)}`);
    this.fault = fault;
  }
}

function textOf(fault: StoreOpenFault): string {
  if (fault.code !== "newer_format") return fault.code;
  return `it is of format ${fault.version}, and this build knows up to ${superblockVersion}; run the build that wrote it, or a newer one`;
}

export interface StoreIdentity {
  clusterId: string;
  brick: number;
  uuid: string;
}

/** The superblock of a data directory; null when there is none that is whole. */
export function readSuperblock(disk: Disk): Promise<Superblock | null> {
  return new SuperblockCopies(disk).read();
}

/** Step 1: who we are, under a boot number that no earlier start had, durable in both copies. */
export async function beginBoot(
  host: Host,
  identity: StoreIdentity | undefined,
  segmentBytes: number,
): Promise<{ superblock: Superblock; copies: SuperblockCopies }> {
  const copies = new SuperblockCopies(host.disk);
  let superblock = await copies.read();
  if (copies.newestVersion > superblockVersion) {
    throw new StoreOpenError({ code: "newer_format", version: copies.newestVersion });
  }
  if (superblock === null) {
    const names = await host.disk.list(logFolder);
    // The log is made after the superblock: with a log there was one.
    if (names.length > 0) throw new StoreOpenError({ code: "superblock_damaged" });
    if (identity === undefined) throw new StoreOpenError({ code: "not_formatted" });
    superblock = { ...identity, boot: 0, segmentBytes, cut: false, damaged: false, recycled: 0 };
  }
  superblock = { ...superblock, boot: superblock.boot + 1 };
  await copies.write(superblock);
  return { superblock, copies };
}

export function logIdentity(superblock: Superblock): LogIdentity {
  const { brick, boot, uuid } = superblock;
  return { brick, boot, salt: logSalt(uuid) };
}

/** Step 2: what the last checkpoint says. */
export function readCheckpoint(kv: Kv): { checkpoint: Checkpoint; rows: Map<number, SegmentRow> } {
  const value = kv.get(checkpointKvKey);
  const checkpoint = value === undefined ? checkpointNone : decodeCheckpoint(value);
  if (checkpoint === null) throw new StoreOpenError({ code: "index_damaged", what: "checkpoint" });
  const rows = new Map<number, SegmentRow>();
  let start = segmentRowsStart;
  for (;;) {
    const found = kv.range(start, segmentRowsEnd, rowsPerRead);
    for (const [key, rowValue] of found) {
      const row = decodeSegmentRow(key, rowValue);
      if (row === null) throw new StoreOpenError({ code: "index_damaged", what: "segment row" });
      rows.set(row.number, row);
    }
    if (found.length < rowsPerRead) return { checkpoint, rows };
    start = keyAfter(found.at(-1)![0]);
  }
}

const rowsPerRead = 1024;

/** Step 3: every segment there is, as the rows know it; the files tell how far they reach. */
export async function findSegments(
  host: Host,
  segments: Segments,
  rows: ReadonlyMap<number, SegmentRow>,
): Promise<void> {
  for (const name of await host.disk.list(logFolder)) {
    const number = segmentOfName(name);
    if (number === null) continue;
    segments.add(newSegment(number));
  }
  for (const row of rows.values()) {
    let segment = segments.byNumber.get(row.number);
    if (segment === undefined) {
      segment = newSegment(row.number);
      segments.add(segment);
    }
    segment.state = row.state;
    segment.epoch = row.epoch;
    segment.lastPosition = row.lastPosition;
    segment.liveBytes = row.liveBytes;
    segment.writtenBytes = row.writtenBytes;
    segment.flushedBytes = row.writtenBytes;
  }
}

/**
 * Without a checkpoint the log is replayed from its first batch. A segment that was recycled is one
 * that a checkpoint made superfluous: then there was an index, and the log alone is not all.
 */
export async function refuseLostIndex(
  host: Host,
  known: { superblock: Superblock; segments: Segments; hasRows: boolean },
): Promise<void> {
  const { superblock, segments, hasRows } = known;
  if (hasRows) {
    refuseOldIndex(superblock, segments);
    return;
  }
  const identity = logIdentity(superblock);
  for (const { number } of segments.byNumber.values()) {
    const file = await host.disk.open(segmentPath(number));
    const reader = new SegmentReader(file, await file.sizeBytes());
    const first = await firstBatchIn(reader, identity, number);
    const isRecycled =
      first !== null &&
      (first.epoch > 1 || (first.offsetBytes > 0 && isZero(await reader.read(0, batchAlignBytes))));
    await file.close();
    if (isRecycled) throw new StoreOpenError({ code: "index_damaged", what: "missing" });
  }
}

/**
 * The key-value store takes what is damaged in its own log for its end, and is then as it once was. As
 * long as no segment was recycled since, the log has the rest. Else it has not, and what is missing was
 * acknowledged.
 */
function refuseOldIndex(superblock: Superblock, segments: Segments): void {
  if (recycledIn(segments) >= superblock.recycled) return;
  throw new StoreOpenError({ code: "index_damaged", what: "older than the log" });
}

/** How often any segment has begun anew: each time under the next epoch. */
export function recycledIn(segments: Segments): number {
  let recycled = 0;
  for (const { epoch } of segments.byNumber.values()) recycled += epoch - 1;
  return recycled;
}

async function firstBatchIn(
  reader: SegmentReader,
  { brick, salt }: LogIdentity,
  segment: number,
): Promise<BatchHeader | null> {
  for (let at = 0; at < reader.sizeBytes; at += batchAlignBytes) {
    const header = decodeBatchHeader(await reader.read(at, batchAlignBytes), 0, salt);
    if (header?.brick === brick && header.segment === segment) return header;
  }
  return null;
}

/** Step 4: replay from the checkpoint on; all that was read is on the medium when it resolves. */
export async function replayFrom(
  host: Host,
  identity: LogIdentity,
  segments: Segments,
  checkpoint: Checkpoint,
  sinks: ReplaySinks,
): Promise<ReplayResult> {
  const opened: { file: DiskFile; segment: Segment; reader: SegmentReader }[] = [];
  for (const segment of segments.byNumber.values()) {
    if (segment.state === "closed") continue;
    const file = await host.disk.open(segmentPath(segment.number), { create: true });
    // What a crashed process left in the page cache is read as if it were durable: make it so.
    await file.sync();
    const sizeBytes = Math.min(await file.sizeBytes(), segments.segmentBytes);
    segment.preparedBytes = sizeBytes - (sizeBytes % batchAlignBytes);
    opened.push({ file, segment, reader: new SegmentReader(file, sizeBytes) });
  }
  if (opened.length > 0) await host.disk.syncFolder(logFolder);
  const sources: ReplaySegment[] = opened.map(({ segment, reader }) => {
    return { number: segment.number, epoch: segment.epoch, reader };
  });
  const start: LogPlace = checkpoint;
  const replayed = await new LogReplay(host, identity, sources, start, sinks).run();
  for (const { segment, reader } of opened) {
    await settleSegment(segment, reader, replayed);
  }
  for (const { file } of opened) await file.close();
  return replayed;
}

/** What a segment is, now that the log has been read. */
async function settleSegment(
  segment: Segment,
  reader: SegmentReader,
  replayed: ReplayResult,
): Promise<void> {
  const reached = replayed.reached.get(segment.number);
  const isEnd = segment.number === replayed.end.segment;
  if (reached !== undefined || isEnd || segment.writtenBytes > 0) {
    segment.state = "closed";
    segment.dirty = true;
    const endBytes = isEnd ? replayed.end.offsetBytes : segment.writtenBytes;
    segment.writtenBytes = reached?.endBytes ?? endBytes;
    segment.flushedBytes = segment.writtenBytes;
    segment.lastPosition = reached?.lastPosition ?? segment.lastPosition;
    return;
  }
  // Zeroed ahead, recycled, or given up after a cut: to be used from its start, if at all.
  segment.state = "free";
  segment.lastPosition = 0;
  assert(segment.liveBytes === 0, "chunks are indexed in a segment that holds no batch");
  const lookBytes = segment.epoch === 1 ? reader.sizeBytes : batchAlignBytes;
  for (let at = 0; at < lookBytes && !segment.wipe; at += lookStepBytes) {
    const bytes = await reader.read(at, Math.min(lookStepBytes, lookBytes - at));
    segment.wipe = !isZero(bytes);
  }
}

const lookStepBytes = 256 * 1024;

/** Step 5: a batch that was cut can never be read again. */
export async function eraseTorn(
  files: SegmentFiles,
  torn: { segment: number; offsetBytes: number },
): Promise<void> {
  await files.with(torn.segment, async (file) => {
    await file.write(torn.offsetBytes, [Buffer.alloc(batchAlignBytes)]);
    await file.sync();
  });
}
