import { type ChunkIndex, keyName } from "../chunk/chunk-index.ts";
import { chunkKey, keyEquals } from "../chunk/key.ts";
import type { Stamps } from "../gc/stamps.ts";
import { DiskError } from "../host.ts";
import { decodeBatch } from "../log/batch.ts";
import {
  alignUp,
  batchAlignBytes,
  decodeBatchHeader,
  type RecordChunk,
  recordType,
} from "../log/batch-format.ts";
import type { Log, LogIdentity } from "../log/log.ts";
import type { SegmentFiles } from "../log/segment-files.ts";
import { SegmentReader } from "../log/segment-reader.ts";
import type { Segment, Segments } from "../log/segments.ts";
import { chunkEntry } from "./chunk-entries.ts";
import type { ChunkReads } from "./chunk-reads.ts";
import type { ChunkEntry } from "./store-keys.ts";

/**
 * Segments with a smaller share of live chunk bytes are worth rewriting. Even chunks of one sector,
 * whose record header is a fifth of them, then come out in less than they took.
 */
export const liveShareMax = 0.5;
/** The same while the brick is short of space. Above it chunks of one sector would gain nothing. */
export const liveShareMaxUrgent = 0.8;

interface Parts {
  segments: Segments;
  files: SegmentFiles;
  index: ChunkIndex;
  log: Log;
  stamps: Stamps;
  reads: ChunkReads;
}

export interface CompactionStep {
  readBytes: number;
  copiedBytes: number;
  /** A segment has no live chunk left: a checkpoint and `recycle` give its space back. */
  emptied: boolean;
  /** There is nothing worth rewriting now, or no room for copies. */
  idle: boolean;
}

/** Segments that could not be emptied, by number: not tried again before their contents change. */
type Stuck = Map<number, { epoch: number; liveBytes: number }>;

/** The closed segment with the least live bytes, if that is little enough. Pure. */
export function planCompaction(
  segments: Iterable<Segment>,
  segmentBytes: number,
  shareMax: number,
  stuck: Stuck,
): Segment | null {
  let best: Segment | null = null;
  for (const segment of segments) {
    if (segment.state !== "closed" || segment.liveBytes === 0) continue;
    if (segment.liveBytes > shareMax * segmentBytes) continue;
    const known = stuck.get(segment.number);
    if (known?.epoch === segment.epoch && known.liveBytes === segment.liveBytes) continue;
    if (best === null || segment.liveBytes < best.liveBytes) best = segment;
  }
  return best;
}

/**
 * Copies what is still live out of segments that are mostly dead, a step at a time. A copy is a
 * record like any other, durable before the index points to it; map records need no copying, for
 * the next checkpoint holds all that they say.
 */
export class Compaction {
  readonly #identity: LogIdentity;
  readonly #parts: Parts;
  readonly #stuck: Stuck = new Map();
  #segment: Segment | null = null;
  #epoch = 0;
  #atBytes = 0;

  constructor(identity: LogIdentity, parts: Parts) {
    this.#identity = identity;
    this.#parts = parts;
  }

  /** One step at a time: the caller waits for it before it asks for the next. */
  async step(budgetBytes: number, shareMax: number): Promise<CompactionStep> {
    const step: CompactionStep = { readBytes: 0, copiedBytes: 0, emptied: false, idle: false };
    const segment = this.#segmentNow(shareMax);
    if (segment === null) return { ...step, idle: true };
    const copies: Promise<boolean>[] = [];
    try {
      await this.#parts.files.with(segment.number, (file) =>
        this.#copyLive(segment, new SegmentReader(file, segment.flushedBytes), budgetBytes, {
          step,
          copies,
        }),
      );
    } catch (error) {
      if (!(error instanceof DiskError)) throw error;
      this.#giveUp(segment);
      return step;
    }
    if ((await Promise.all(copies)).includes(false)) {
      // There is no room for copies: later perhaps, and from the segment's start.
      this.#segment = null;
      step.idle = true;
    } else if (this.#atBytes >= segment.flushedBytes) {
      if (segment.liveBytes > 0) this.#giveUp(segment);
      else step.emptied = true;
      this.#segment = null;
    }
    return step;
  }

  #segmentNow(shareMax: number): Segment | null {
    const { segments } = this.#parts;
    const now = this.#segment;
    if (now !== null && now.epoch === this.#epoch && now.state === "closed") return now;
    const all = segments.byNumber.values();
    const next = planCompaction(all, segments.segmentBytes, shareMax, this.#stuck);
    this.#segment = next;
    this.#epoch = next?.epoch ?? 0;
    this.#atBytes = 0;
    return next;
  }

  #giveUp(segment: Segment): void {
    const { number, epoch, liveBytes } = segment;
    this.#stuck.set(number, { epoch, liveBytes });
    this.#segment = null;
  }

  async #copyLive(
    segment: Segment,
    reader: SegmentReader,
    budgetBytes: number,
    { step, copies }: { step: CompactionStep; copies: Promise<boolean>[] },
  ): Promise<void> {
    const { salt } = this.#identity;
    while (this.#atBytes < reader.sizeBytes && step.readBytes < budgetBytes) {
      if (segment.epoch !== this.#epoch) return;
      const at = this.#atBytes;
      const header = decodeBatchHeader(await reader.read(at, batchAlignBytes), 0, salt);
      const right =
        header !== null &&
        header.segment === segment.number &&
        header.epoch === segment.epoch &&
        header.offsetBytes === at;
      // What lies in damaged pages stays where it is, and so does the segment.
      const lengthBytes = right ? alignUp(header.lengthBytes, batchAlignBytes) : batchAlignBytes;
      if (right) {
        const bytes = await reader.read(at, header.lengthBytes);
        for (const { header: record, bodyAt } of decodeBatch(bytes, header, salt).records) {
          if (record.chunk === null) continue;
          const { chunk } = record;
          const from = bodyAt + chunk.offsetBytes;
          const body = bytes.subarray(from, from + chunk.lengthBytes);
          const copy = this.#copy(segment, chunk, body, at + from);
          if (copy === null) continue;
          copies.push(copy);
          step.copiedBytes += chunk.lengthBytes;
        }
      }
      this.#atBytes += lengthBytes;
      step.readBytes += lengthBytes;
    }
  }

  /** null: that place of the chunk is not what the index points to, or cannot be believed. */
  #copy(
    segment: Segment,
    chunk: RecordChunk,
    body: Buffer,
    offsetBytes: number,
  ): Promise<boolean> | null {
    const { index, log, reads, stamps } = this.#parts;
    const old = index.find(chunk.key);
    if (old === null || old.damaged || !isAt(old, segment, offsetBytes)) return null;
    if (!keyEquals(chunkKey(body), chunk.key)) {
      reads.noteCorrupt(chunk.key, old);
      return null;
    }
    // Of their own: the reader's window is used again.
    const key = Buffer.from(chunk.key);
    const parts = [Buffer.from(body)];
    const moved: RecordChunk = { ...chunk, key, offsetBytes: 0 };
    return new Promise((resolve) => {
      log.append({
        type: recordType.chunk,
        parts,
        bodyBytes: chunk.lengthBytes,
        chunk: moved,
        claim: "compaction",
        order: 0,
        done: (location) => {
          if (location !== null) {
            // It may have been dropped, or found damaged, while the copy was on its way.
            const now = index.find(key);
            const entry = chunkEntry(moved, location);
            if (now !== null && !now.damaged && isAt(now, segment, offsetBytes)) {
              stamps.carry(now, entry);
              index.set(keyName(key), entry, now);
            }
          }
          resolve(location !== null);
        },
      });
    });
  }
}

function isAt(entry: ChunkEntry, segment: Segment, offsetBytes: number): boolean {
  return (
    entry.segment === segment.number &&
    entry.epoch === segment.epoch &&
    entry.offsetBytes === offsetBytes
  );
}
