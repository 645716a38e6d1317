import { assert } from "../assert.ts";
import type { Host } from "../host.ts";
import { LatencyHistogram } from "../latency-histogram.ts";
import { StageTimes, stage } from "../stage-times.ts";
import { type BatchRecord, batchBytesMax, batchRecordsMax, encodeBatch } from "./batch.ts";
import { alignUp, batchAlignBytes, batchHeaderBytes, recordBytesInBatch } from "./batch-format.ts";
import type { SegmentFiles } from "./segment-files.ts";
import type { Claim, Segments } from "./segments.ts";

/** Where a record's body is. */
export interface RecordLocation {
  segment: number;
  epoch: number;
  offsetBytes: number;
  lengthBytes: number;
}

/** A record on its way into the log. */
export interface LogRecord extends BatchRecord {
  readonly claim: Claim;
  /** Whose it is: records of one order stay in it, whatever waits. */
  readonly order: number;
  /**
   * Runs once: durable at `location`, or refused for want of space, or given up (null). In append order,
   * but that control records pass those of other orders that wait for room.
   */
  readonly done: (location: RecordLocation | null) => void;
}

/** A place between two batches. */
export interface LogPlace {
  /** Position of the batch that comes next. */
  position: number;
  /** Where the batch before it ended; segment 0 before the first. */
  segment: number;
  offsetBytes: number;
  /** Of the batch header before it; 0 before the first. */
  previousChecksum: number;
}

export interface LogIdentity {
  brick: number;
  boot: number;
  salt: number;
}

export interface LogCounters {
  flushes: number;
  records: number;
  bodyBytes: number;
  writtenBytes: number;
  refused: number;
}

const zeroPage = Buffer.alloc(batchAlignBytes);

/**
 * The writing end of the log: group commit. What is queued while one commit is under way goes out
 * together in the next, in one gathered write and one flush; one commit at a time, so that a power
 * cut can tear only the last batch.
 */
export class Log {
  readonly counters: LogCounters = {
    flushes: 0,
    records: 0,
    bodyBytes: 0,
    writtenBytes: 0,
    refused: 0,
  };
  /** How long each write and flush took. */
  readonly flushLatency = new LatencyHistogram();
  readonly stages: StageTimes;
  queuedBytes = 0;
  /** Runs after the callbacks of each commit, when what comes after them may be written down. */
  onCommitted: () => void = () => {};
  readonly #host: Host;
  readonly #identity: LogIdentity;
  readonly #segments: Segments;
  readonly #files: SegmentFiles;
  #queue: LogRecord[] = [];
  #queueAt = 0;
  /** Of the oldest record in the queue. */
  #queuedSinceMs = 0;
  #ticking = false;
  #committing = false;
  #inCallbacks = false;
  #idle: (() => void)[] = [];
  /** The end of what has been written and flushed. */
  #end: LogPlace;
  /** The end of what has been flushed and answered. */
  #answered: LogPlace;

  constructor(
    host: Host,
    identity: LogIdentity,
    segments: Segments,
    files: SegmentFiles,
    end: LogPlace,
  ) {
    this.#host = host;
    this.stages = new StageTimes(host.clock);
    this.#identity = identity;
    this.#segments = segments;
    this.#files = files;
    this.#end = end;
    this.#answered = end;
    segments.onChange = () => this.#wake();
  }

  /** Covers exactly the records whose callbacks have run; null while some of a batch's have. */
  get answered(): LogPlace | null {
    return this.#inCallbacks ? null : this.#answered;
  }

  append(record: LogRecord): void {
    assert(record.bodyBytes <= this.#segments.bodyBytesMax, "a record longer than the log takes");
    if (this.#queue.length === 0) this.#queuedSinceMs = this.stages.since(stage.writeQueue);
    this.#queue.push(record);
    this.queuedBytes += record.bodyBytes;
    this.#wake();
  }

  /** While records wait for room, those of this order are given up: none of them will be there. */
  giveUp(order: number): boolean {
    if (!this.#segments.waitsForRoom) return false;
    const waiting = this.#queue.slice(this.#queueAt);
    const given = waiting.filter((record) => record.order === order);
    if (given.length === 0) return false;
    this.#queue = waiting.filter((record) => record.order !== order);
    this.#queueAt = 0;
    for (const record of given) {
      this.queuedBytes -= record.bodyBytes;
      record.done(null);
    }
    return true;
  }

  /** Resolves when nothing is queued or under way. */
  idle(): Promise<void> {
    if (!this.#committing && this.#queue.length === 0) return Promise.resolve();
    return new Promise((resolve) => this.#idle.push(resolve));
  }

  #wake(): void {
    if (this.#ticking || this.#committing || this.#queue.length === 0) return;
    this.#ticking = true;
    this.#host.clock.soon(() => {
      this.#ticking = false;
      this.#begin();
    });
  }

  #begin(): void {
    if (this.#committing) return;
    const taken = this.#take();
    if (taken.records.length === 0) return;
    this.#committing = true;
    this.#commit(taken).catch((error: unknown) => this.#host.crash(error));
  }

  /** The next batch: records in order, and which of them are refused. */
  #take(): { records: LogRecord[]; written: LogRecord[] } {
    const records: LogRecord[] = [];
    const written: LogRecord[] = [];
    let bytes = batchHeaderBytes;
    while (this.#queueAt < this.#queue.length && records.length < batchRecordsMax) {
      const record = this.#queue[this.#queueAt]!;
      const bytesAfter = bytes + recordBytesInBatch(record.bodyBytes);
      const pages = alignUp(bytesAfter, batchAlignBytes);
      if (written.length === 0) {
        const room = this.#segments.room(pages, record.claim);
        if (room === "later") {
          if (this.#segments.waitsForRoom) this.#takePast(records, written);
          break;
        }
        if (room === "never") this.counters.refused += 1;
        else {
          written.push(record);
          bytes = bytesAfter;
        }
      } else {
        if (pages > batchBytesMax || !this.#segments.fits(pages, record.claim)) break;
        written.push(record);
        bytes = bytesAfter;
      }
      records.push(record);
      this.#queueAt += 1;
      this.queuedBytes -= record.bodyBytes;
    }
    if (this.#queueAt === this.#queue.length) {
      this.#queue = [];
      this.#queueAt = 0;
    } else if (this.#queueAt > batchRecordsMax) {
      this.#queue = this.#queue.slice(this.#queueAt);
      this.#queueAt = 0;
    }
    return { records, written };
  }

  /**
   * While one that must be logged waits for room, those that need not be are refused, and control
   * records go, as far as none of their own order is before them.
   */
  #takePast(records: LogRecord[], written: LogRecord[]): void {
    const held = new Set<number>();
    const left: LogRecord[] = [];
    let bytes = batchHeaderBytes;
    for (const record of this.#queue.slice(this.#queueAt)) {
      const { claim, order, bodyBytes } = record;
      if (claim === "reserve" || claim === "control") {
        const bytesAfter = bytes + recordBytesInBatch(bodyBytes);
        const may = claim === "control" && !held.has(order) && written.length < batchRecordsMax;
        if (!may || !this.#fitsControl(bytesAfter, written.length === 0)) {
          held.add(order);
          left.push(record);
          continue;
        }
        written.push(record);
        bytes = bytesAfter;
      } else this.counters.refused += 1;
      records.push(record);
      this.queuedBytes -= bodyBytes;
    }
    this.#queue = left;
    this.#queueAt = 0;
  }

  #fitsControl(bytes: number, isFirst: boolean): boolean {
    const pages = alignUp(bytes, batchAlignBytes);
    if (isFirst) return this.#segments.room(pages, "control") === "now";
    return pages <= batchBytesMax && this.#segments.fits(pages, "control");
  }

  async #commit(taken: { records: LogRecord[]; written: LogRecord[] }): Promise<void> {
    const { records, written } = taken;
    const locations = written.length === 0 ? [] : await this.#write(written);
    this.#inCallbacks = true;
    let writtenAt = 0;
    for (const record of records) {
      if (record === written[writtenAt]) {
        record.done(locations[writtenAt]!);
        writtenAt += 1;
      } else record.done(null);
    }
    this.#inCallbacks = false;
    this.#answered = this.#end;
    this.#committing = false;
    this.#ticking = true;
    this.#host.clock.soon(() => {
      this.#ticking = false;
      // In this order, so that a checkpoint is made while the next commit's flush runs.
      this.#begin();
      this.onCommitted();
    });
    if (this.#queue.length > 0) return;
    for (const resolve of this.#idle.splice(0)) resolve();
  }

  /** A batch is on the medium when this resolves; a failure ends the brick, and is never retried. */
  async #write(written: readonly LogRecord[]): Promise<RecordLocation[]> {
    const segment = this.#segments.current;
    const { brick, boot, salt } = this.#identity;
    const { position, previousChecksum } = this.#end;
    const epoch = segment.epoch;
    const offsetBytes = segment.writtenBytes;
    const place = { brick, segment: segment.number, epoch, offsetBytes, boot };
    const batch = encodeBatch({ ...place, position, previousChecksum }, written, salt);
    this.#segments.take(batch.paddedBytes, position);
    const endBytes = offsetBytes + batch.paddedBytes;
    // After a batch come zeros: without them a recycled segment's old bytes would look like the
    // torn beginning of the next batch.
    if (epoch > 1 && endBytes < this.#segments.segmentBytes) batch.buffers.push(zeroPage);
    this.stages.took(stage.writeQueue, this.#queuedSinceMs);
    // Who still waits has the batch before to wait for, too: not timed.
    this.#queuedSinceMs = 0;
    const startMs = this.#host.clock.nowMs();
    await this.#files.with(segment.number, async (file) => {
      await file.write(offsetBytes, batch.buffers);
      await file.sync();
    });
    this.flushLatency.observe(this.#host.clock.nowMs() - startMs);
    this.stages.took(stage.writeFlush, startMs);
    segment.flushedBytes = endBytes;
    this.#end = {
      position: position + 1,
      segment: segment.number,
      offsetBytes: endBytes,
      previousChecksum: batch.checksum,
    };
    this.counters.flushes += 1;
    this.counters.records += written.length;
    this.counters.writtenBytes += batch.paddedBytes;
    return written.map((record, at) => {
      this.counters.bodyBytes += record.bodyBytes;
      return {
        segment: segment.number,
        epoch,
        offsetBytes: batch.bodyOffsets[at]!,
        lengthBytes: record.bodyBytes,
      };
    });
  }
}
