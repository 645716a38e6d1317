import type { ChunkIndex } from "../chunk/chunk-index.ts";
import { chunkKey, keyEquals } from "../chunk/key.ts";
import { DiskError, type Host, type Kv } from "../host.ts";
import { keyAfter } from "../kv-key.ts";
import { decodeBatch } from "../log/batch.ts";
import { alignUp, batchAlignBytes, decodeBatchHeader } from "../log/batch-format.ts";
import type { LogIdentity } from "../log/log.ts";
import type { SegmentFiles } from "../log/segment-files.ts";
import { SegmentReader } from "../log/segment-reader.ts";
import type { Segment, Segments } from "../log/segments.ts";
import type { ChunkReads } from "./chunk-reads.ts";
import { decodeChunkEntry, kvPrefix } from "./store-keys.ts";

export interface ScrubStep {
  /** Bytes of the log looked at. */
  scannedBytes: number;
  chunksVerified: number;
  /** Keys of chunks that are indexed here and cannot be read any more. */
  damagedKeys: Buffer[];
  /** Stretches of the log that hold no whole batch where one was written. */
  damagedRanges: { segment: number; fromBytes: number; toBytes: number }[];
  /** The walk has come to the end; the next step begins anew. */
  finished: boolean;
}

const indexEntriesPerRead = 1024;

/**
 * Walks the log in the order of segments and offsets and verifies every chunk against its key, a
 * step at a time, so that the caller sets the pace.
 */
export class Scrub {
  readonly #host: Host;
  readonly #identity: LogIdentity;
  readonly #parts: { segments: Segments; files: SegmentFiles; index: ChunkIndex; kv: Kv };
  readonly #reads: ChunkReads;
  #segment = 0;
  #epoch = 0;
  #atBytes = 0;

  constructor(
    host: Host,
    identity: LogIdentity,
    parts: { segments: Segments; files: SegmentFiles; index: ChunkIndex; kv: Kv },
    reads: ChunkReads,
  ) {
    this.#host = host;
    this.#identity = identity;
    this.#parts = parts;
    this.#reads = reads;
  }

  /** One walk at a time: the caller waits for a step before it asks for the next. */
  async step(budgetBytes: number): Promise<ScrubStep> {
    const step: ScrubStep = {
      scannedBytes: 0,
      chunksVerified: 0,
      damagedKeys: [],
      damagedRanges: [],
      finished: false,
    };
    while (step.scannedBytes < budgetBytes) {
      const segment = this.#segmentNow();
      if (segment === null) {
        this.#segment = 0;
        this.#atBytes = 0;
        step.finished = true;
        break;
      }
      // What a commit under way writes is beyond the end as of now.
      const endBytes = segment.flushedBytes;
      try {
        await this.#parts.files.with(segment.number, async (file) => {
          const reader = new SegmentReader(file, endBytes);
          await this.#walk(segment, reader, budgetBytes, step);
        });
      } catch (error) {
        if (!(error instanceof DiskError)) throw error;
        // The file is gone, or does not open: so are the chunks that the index finds in it.
        const fromBytes = this.#atBytes;
        step.damagedRanges.push({ segment: segment.number, fromBytes, toBytes: endBytes });
        step.scannedBytes += endBytes - fromBytes;
        this.#atBytes = endBytes;
      }
    }
    await this.#findDamagedEntries(step);
    return step;
  }

  /** The segment at the cursor, or the next one that holds anything. */
  #segmentNow(): Segment | null {
    let best: Segment | null = null;
    for (const segment of this.#parts.segments.byNumber.values()) {
      if (segment.number < this.#segment || segment.flushedBytes === 0) continue;
      const done = segment.number === this.#segment && segment.epoch === this.#epoch;
      if (done && this.#atBytes >= segment.flushedBytes) continue;
      if (best === null || segment.number < best.number) best = segment;
    }
    if (best !== null && (best.number !== this.#segment || best.epoch !== this.#epoch)) {
      this.#segment = best.number;
      this.#epoch = best.epoch;
      this.#atBytes = 0;
    }
    return best;
  }

  async #walk(
    segment: Segment,
    reader: SegmentReader,
    budgetBytes: number,
    step: ScrubStep,
  ): Promise<void> {
    const { salt } = this.#identity;
    let damagedFrom = -1;
    const endDamage = (toBytes: number) => {
      if (damagedFrom < 0) return;
      step.damagedRanges.push({ segment: segment.number, fromBytes: damagedFrom, toBytes });
      damagedFrom = -1;
    };
    const { epoch } = segment;
    while (this.#atBytes < reader.sizeBytes && step.scannedBytes < budgetBytes) {
      if (segment.epoch !== epoch) return;
      const at = this.#atBytes;
      const head = await reader.read(at, batchAlignBytes);
      // Recycled while it was read: nothing of it is owed to anybody.
      if (segment.epoch !== epoch) return;
      const header = decodeBatchHeader(head, 0, salt);
      const right =
        header !== null &&
        header.segment === segment.number &&
        header.epoch === segment.epoch &&
        header.offsetBytes === at &&
        at + header.lengthBytes <= reader.sizeBytes;
      if (!right) {
        if (damagedFrom < 0) damagedFrom = at;
        this.#atBytes += batchAlignBytes;
        step.scannedBytes += batchAlignBytes;
        continue;
      }
      endDamage(at);
      const bytes = await reader.read(at, header.lengthBytes);
      if (segment.epoch !== epoch) return;
      const decoded = decodeBatch(bytes, header, salt);
      for (const { header: record, bodyAt } of decoded.records) {
        if (record.chunk === null) continue;
        const { key, offsetBytes, lengthBytes } = record.chunk;
        const from = bodyAt + offsetBytes;
        this.#verify(key, bytes.subarray(from, from + lengthBytes), segment, at + from, step);
      }
      const paddedBytes = alignUp(header.lengthBytes, batchAlignBytes);
      if (!decoded.intact) {
        const toBytes = at + paddedBytes;
        step.damagedRanges.push({ segment: segment.number, fromBytes: at, toBytes });
      }
      this.#atBytes += paddedBytes;
      step.scannedBytes += paddedBytes;
    }
    endDamage(this.#atBytes);
  }

  /** Only the copy that the index points to matters. */
  #verify(key: Buffer, bytes: Buffer, segment: Segment, offsetBytes: number, step: ScrubStep) {
    const entry = this.#parts.index.find(key);
    if (entry === null) return;
    if (entry.segment !== segment.number || entry.offsetBytes !== offsetBytes) return;
    // Known already, and still not written anew: said again.
    if (entry.damaged) {
      this.#reads.onDamaged(key);
      return;
    }
    step.chunksVerified += 1;
    if (keyEquals(chunkKey(bytes), key)) return;
    this.#reads.noteCorrupt(key, entry);
    step.damagedKeys.push(key);
  }

  /** Where headers are gone the log cannot say which chunks it held: ask the whole index. */
  async #findDamagedEntries(step: ScrubStep): Promise<void> {
    if (step.damagedRanges.length === 0) return;
    const { index, kv } = this.#parts;
    let start = Buffer.from([kvPrefix.chunk]);
    const end = Buffer.from([kvPrefix.chunk + 1]);
    const suspects: Buffer[] = index.dirtyKeys();
    for (;;) {
      const found = kv.range(start, end, indexEntriesPerRead);
      for (const [kvKey, value] of found) {
        const entry = decodeChunkEntry(value);
        if (entry !== null && inRanges(entry, step)) suspects.push(kvKey.subarray(1));
      }
      if (found.length < indexEntriesPerRead) break;
      start = keyAfter(found.at(-1)![0]);
      await new Promise<void>((resolve) => this.#host.clock.soon(resolve));
    }
    for (const key of suspects) {
      const entry = index.find(key);
      if (entry === null || !inRanges(entry, step)) continue;
      if (entry.damaged) {
        this.#reads.onDamaged(key);
        continue;
      }
      const read = await this.#reads.read(key, entry);
      if (!read.ok && read.fault.code !== "absent") step.damagedKeys.push(key);
    }
  }
}

function inRanges(entry: { segment: number; offsetBytes: number }, step: ScrubStep): boolean {
  return step.damagedRanges.some(
    ({ segment, fromBytes, toBytes }) =>
      entry.segment === segment && entry.offsetBytes >= fromBytes && entry.offsetBytes < toBytes,
  );
}
