import type { Host } from "../host.ts";
import { decodeBatch, type FoundRecord, salvageRecords } from "./batch.ts";
import {
  alignUp,
  type BatchHeader,
  batchAlignBytes,
  batchHeaderBytes,
  batchHeaderChecksum,
  decodeBatchHeader,
  type RecordHeader,
  recordType,
} from "./batch-format.ts";
import type { LogIdentity, LogPlace, RecordLocation } from "./log.ts";
import { isZero, type SegmentReader } from "./segment-reader.ts";

/**
 * Reads the log from a checkpoint on. Three things look alike and are told apart here:
 *
 * - a **stale** batch, of an earlier use of the segment's file: its epoch or its position is old;
 * - a **torn tail**, the one commit under way when the power went: nothing of the chain follows
 *   it. It is cut: no record of it was ever acknowledged;
 * - a **corrupted middle**: batches of the chain follow. It is a fault, noted and repaired from
 *   peers; every whole record on both sides counts.
 *
 * The chain goes from batch to batch by position (dense) and by the checksum of the header before.
 * Where a cut was made the next batch stands at the start of another segment with a newer boot
 * number, so of two batches that claim one place in the chain the one of the newer boot is right.
 */

/** A segment that may hold batches at or after the start. */
export interface ReplaySegment {
  number: number;
  epoch: number;
  reader: SegmentReader;
}

/** A stretch of the log that is not what was written. */
export interface DamagedRange {
  segment: number;
  fromBytes: number;
  toBytes: number;
  /** Positions of the batches concerned. */
  firstPosition: number;
  lastPosition: number;
}

export type RecordSink = (header: RecordHeader, body: Buffer, location: RecordLocation) => void;

export interface ReplaySinks {
  /** Whole records, in order. */
  record: RecordSink;
  /** A record whose header is whole and whose body is not: `body` cannot be believed. */
  damagedRecord: RecordSink;
}

export interface ReplayResult {
  end: LogPlace;
  /** Whether the end is certain to be the end of what was acknowledged. */
  clean: boolean;
  /** A batch that was cut, if its header is whole: to be made unreadable. */
  torn: { segment: number; offsetBytes: number } | null;
  damage: DamagedRange[];
  /** The last batch of each segment that was read: its position and end. */
  reached: Map<number, { lastPosition: number; endBytes: number }>;
}

interface FoundBatch {
  segment: ReplaySegment;
  offsetBytes: number;
  header: BatchHeader;
  checksum: number;
}

export class LogReplay {
  readonly #host: Host;
  readonly #identity: LogIdentity;
  readonly #segments: Map<number, ReplaySegment>;
  readonly #sinks: ReplaySinks;
  readonly #heads = new Map<number, FoundBatch | null>();
  readonly #damage: DamagedRange[] = [];
  readonly #reached = new Map<number, { lastPosition: number; endBytes: number }>();
  /** Segments the chain has come through; nothing can begin in them any more. */
  readonly #visited = new Set<number>();
  #place: LogPlace;
  #boot = 0;
  /** Boot number of the seal if the batch last read was one; else -1. */
  #sealedBoot = -1;

  constructor(
    host: Host,
    identity: LogIdentity,
    segments: readonly ReplaySegment[],
    start: LogPlace,
    sinks: ReplaySinks,
  ) {
    this.#host = host;
    this.#identity = identity;
    this.#segments = new Map(segments.map((segment) => [segment.number, segment]));
    this.#place = start;
    this.#visited.add(start.segment);
    this.#sinks = sinks;
  }

  async run(): Promise<ReplayResult> {
    for (;;) {
      const next = await this.#next();
      if (next !== null) {
        const { decoded, bytes } = await this.#decode(next);
        if (decoded.intact) {
          this.#deliver(next, bytes, decoded.records);
          this.#pass(next);
          continue;
        }
        const later = await this.#later();
        if (later === null) return this.#finish(next);
        if (isChained(next, later)) {
          this.#noteDamage(next.segment, next.offsetBytes, endOf(next), next.header.position);
          this.#deliver(next, bytes, decoded.records);
          this.#pass(next);
          continue;
        }
        await this.#jump(later);
        continue;
      }
      const later = await this.#later();
      if (later === null) return this.#finish(null);
      await this.#jump(later);
    }
  }

  /** The batch that comes next in the chain, in place or at the start of another segment. */
  async #next(): Promise<FoundBatch | null> {
    const { segment, offsetBytes, position, previousChecksum } = this.#place;
    const candidates: (FoundBatch | null)[] = [];
    const here = this.#segments.get(segment);
    if (here !== undefined) candidates.push(await this.#batchAt(here, offsetBytes));
    for (const other of this.#unread()) candidates.push(await this.#head(other));
    let best: FoundBatch | null = null;
    for (const found of candidates) {
      if (found === null || found.header.position !== position) continue;
      if (found.header.previousChecksum !== previousChecksum) continue;
      if (found.header.boot < this.#boot) continue;
      if (best === null || found.header.boot > best.header.boot) best = found;
    }
    return best;
  }

  /** The first batch after the expected one that is still there; null at the end of the log. */
  async #later(): Promise<FoundBatch | null> {
    const { segment, offsetBytes } = this.#place;
    const here = this.#segments.get(segment);
    const candidates = here === undefined ? [] : [await this.#scan(here, offsetBytes)];
    for (const other of this.#unread()) candidates.push(await this.#scan(other, 0));
    let best: FoundBatch | null = null;
    for (const found of candidates) {
      if (found === null) continue;
      const ahead = best === null ? -1 : found.header.position - best.header.position;
      if (ahead < 0 || (ahead === 0 && found.header.boot > best!.header.boot)) best = found;
    }
    return best;
  }

  /** The first batch beyond the expected position, looking at every page from an offset on. */
  async #scan(segment: ReplaySegment, fromBytes: number): Promise<FoundBatch | null> {
    for (let at = fromBytes; at < segment.reader.sizeBytes; at += batchAlignBytes) {
      const found = await this.#batchAt(segment, at);
      if (found === null || found.header.position <= this.#place.position) continue;
      if (found.header.boot >= this.#boot) return found;
    }
    return null;
  }

  /** Continues at a batch beyond damage; what is whole in between still counts. */
  async #jump(later: FoundBatch): Promise<void> {
    const { segment, offsetBytes, position } = this.#place;
    const lastPosition = later.header.position - 1;
    // Only what the same boot wrote: an older one's torn tail may lie here as well.
    const wanted = (header: RecordHeader) =>
      header.boot === later.header.boot &&
      header.position >= position &&
      header.position <= lastPosition;
    const sameSegment = later.segment.number === segment;
    const here = this.#segments.get(segment);
    const gaps = [
      { at: later.segment, from: sameSegment ? offsetBytes : 0, to: later.offsetBytes },
    ];
    if (!sameSegment && here !== undefined) {
      gaps.unshift({ at: here, from: offsetBytes, to: here.reader.sizeBytes });
    }
    for (const { at, from, to } of gaps) {
      if (from >= to) continue;
      this.#noteDamage(at, from, to, position, lastPosition);
      const bytes = await at.reader.read(from, to - from);
      const records = salvageRecords(bytes, wanted, this.#identity.salt);
      this.#deliver({ segment: at, offsetBytes: from }, bytes, records);
    }
    this.#sealedBoot = -1;
    this.#visited.add(later.segment.number);
    this.#place = {
      position: later.header.position,
      segment: later.segment.number,
      offsetBytes: later.offsetBytes,
      previousChecksum: later.header.previousChecksum,
    };
  }

  #deliver(
    at: { segment: ReplaySegment; offsetBytes: number },
    bytes: Buffer,
    records: readonly FoundRecord[],
  ): void {
    this.#sealedBoot = -1;
    for (const { header, bodyAt, bodyWhole } of records) {
      this.#sealedBoot = header.type === recordType.seal && bodyWhole ? header.boot : -1;
      const body = bytes.subarray(bodyAt, bodyAt + header.bodyBytes);
      const location = {
        segment: at.segment.number,
        epoch: at.segment.epoch,
        offsetBytes: at.offsetBytes + bodyAt,
        lengthBytes: header.bodyBytes,
      };
      if (bodyWhole) this.#sinks.record(header, body, location);
      else this.#sinks.damagedRecord(header, body, location);
    }
  }

  #pass(batch: FoundBatch): void {
    const { position, boot } = batch.header;
    const endBytes = endOf(batch);
    const segment = batch.segment.number;
    this.#boot = boot;
    this.#place = {
      position: position + 1,
      segment,
      offsetBytes: endBytes,
      previousChecksum: batch.checksum,
    };
    this.#visited.add(segment);
    this.#reached.set(segment, { lastPosition: position, endBytes });
  }

  async #finish(torn: FoundBatch | null): Promise<ReplayResult> {
    const clean = torn === null && (await this.#isClean());
    return {
      end: this.#place,
      clean,
      torn: torn && { segment: torn.segment.number, offsetBytes: torn.offsetBytes },
      damage: this.#damage,
      reached: this.#reached,
    };
  }

  /**
   * After a seal of the boot before this one nothing was written. Otherwise only zeros wherever
   * the next batch could have gone prove that no acknowledged batch is missing.
   */
  async #isClean(): Promise<boolean> {
    if (this.#sealedBoot === this.#identity.boot - 1) return true;
    const here = this.#segments.get(this.#place.segment);
    if (here !== undefined && !(await this.#isZeroFrom(here, this.#place.offsetBytes))) {
      return false;
    }
    for (const other of this.#unread()) {
      if (!(await this.#isUnused(other)) && !(await this.#isZeroFrom(other, 0))) return false;
    }
    return true;
  }

  /** The head of an earlier use is overwritten before the segment is used again. */
  async #isUnused(segment: ReplaySegment): Promise<boolean> {
    const bytes = await segment.reader.read(0, batchHeaderBytes);
    const header = decodeBatchHeader(bytes, 0, this.#identity.salt);
    if (header === null || header.segment !== segment.number) return false;
    return header.offsetBytes === 0 && header.epoch < segment.epoch;
  }

  /** In a recycled segment only the page where the next batch would begin is kept zero. */
  async #isZeroFrom({ reader, epoch }: ReplaySegment, fromBytes: number): Promise<boolean> {
    if (epoch > 1) return isZero(await reader.read(fromBytes, batchAlignBytes));
    for (let at = fromBytes; at < reader.sizeBytes; at += zeroStepBytes) {
      if (!isZero(await reader.read(at, zeroStepBytes))) return false;
    }
    return true;
  }

  /** Segments in which nothing has been read yet. */
  *#unread(): Iterable<ReplaySegment> {
    for (const segment of this.#segments.values()) {
      if (!this.#visited.has(segment.number)) yield segment;
    }
  }

  async #head(segment: ReplaySegment): Promise<FoundBatch | null> {
    let head = this.#heads.get(segment.number);
    if (head === undefined) {
      head = await this.#batchAt(segment, 0);
      this.#heads.set(segment.number, head);
    }
    return head;
  }

  async #batchAt(segment: ReplaySegment, offsetBytes: number): Promise<FoundBatch | null> {
    const bytes = await segment.reader.read(offsetBytes, batchHeaderBytes);
    const header = decodeBatchHeader(bytes, 0, this.#identity.salt);
    if (header === null || header.brick !== this.#identity.brick) return null;
    if (header.segment !== segment.number || header.epoch !== segment.epoch) return null;
    // Copied elsewhere, or running out of its file: not a batch of ours.
    if (header.offsetBytes !== offsetBytes) return null;
    if (offsetBytes + header.lengthBytes > segment.reader.sizeBytes) return null;
    return { segment, offsetBytes, header, checksum: batchHeaderChecksum(bytes, 0) };
  }

  async #decode(batch: FoundBatch) {
    const bytes = await batch.segment.reader.read(batch.offsetBytes, batch.header.lengthBytes);
    return { bytes, decoded: decodeBatch(bytes, batch.header, this.#identity.salt) };
  }

  #noteDamage(
    segment: { number: number },
    fromBytes: number,
    toBytes: number,
    firstPosition: number,
    lastPosition = firstPosition,
  ): void {
    this.#damage.push({ segment: segment.number, fromBytes, toBytes, firstPosition, lastPosition });
    this.#host.log(`log: segment ${segment.number} is damaged from ${fromBytes} to ${toBytes}`);
  }
}

const zeroStepBytes = 256 * 1024;

/** Whether a damaged batch is certain to be in the chain of a later whole one. */
function isChained(damaged: FoundBatch, later: FoundBatch): boolean {
  if (later.header.position === damaged.header.position + 1) {
    return later.header.previousChecksum === damaged.checksum;
  }
  return later.segment === damaged.segment && later.offsetBytes > damaged.offsetBytes;
}

function endOf(batch: FoundBatch): number {
  return batch.offsetBytes + alignUp(batch.header.lengthBytes, batchAlignBytes);
}
