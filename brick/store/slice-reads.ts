import { ChunkCache } from "../chunk/chunk-cache.ts";
import type { ChunkIndex } from "../chunk/chunk-index.ts";
import { isOutlineOf, isSliced, outlineOf, sliceBytes } from "../chunk/outline.ts";
import { DiskError } from "../host.ts";
import type { SegmentFiles } from "../log/segment-files.ts";
import type { ChunkReadFault, ChunkReads } from "./chunk-reads.ts";
import type { ChunkEntry } from "./store-keys.ts";

export type SliceRead =
  | { readonly ok: true; readonly outline: Buffer; readonly bytes: Buffer }
  | { readonly ok: false; readonly fault: ChunkReadFault };

/**
 * Reads parts of chunks. The first time the whole chunk is read and checked, and its outline is kept;
 * from then on only what is asked for leaves the disk, and whoever asked checks it by the outline.
 */
export class SliceReads {
  readonly #index: ChunkIndex;
  readonly #files: SegmentFiles;
  readonly #reads: ChunkReads;
  readonly #outlines: ChunkCache;

  constructor(
    index: ChunkIndex,
    files: SegmentFiles,
    reads: ChunkReads,
    outlineCacheBytes: number,
  ) {
    this.#outlines = new ChunkCache(outlineCacheBytes);
    this.#index = index;
    this.#files = files;
    this.#reads = reads;
  }

  /** Slices `first`, `first` + 1, ... and the outline that proves them, at once if that can be. */
  read(key: Buffer, first: number, count: number): SliceRead | Promise<SliceRead> {
    const entry = this.#index.find(key);
    if (entry === null) return absent;
    return this.#now(key, entry, first, count) ?? this.#later(key, entry, first, count);
  }

  /** The same, where it can be had on the spot; else null. */
  readNow(key: Buffer, first: number, count: number): SliceRead | null {
    const entry = this.#index.find(key);
    return entry === null ? null : this.#now(key, entry, first, count);
  }

  #now(key: Buffer, entry: ChunkEntry, first: number, count: number): SliceRead | null {
    if (entry.damaged || !isWithin(entry, first, count)) return null;
    const outline = this.#outlines.get(key);
    if (outline === undefined) return null;
    const offsetBytes = entry.offsetBytes + first * sliceBytes;
    try {
      const bytes = this.#files.readNow(entry.segment, offsetBytes, count * sliceBytes);
      return bytes === null ? null : { ok: true, outline, bytes };
    } catch (error) {
      if (!(error instanceof DiskError)) throw error;
      return unread;
    }
  }

  async #later(key: Buffer, entry: ChunkEntry, first: number, count: number): Promise<SliceRead> {
    const { lengthBytes, damaged } = entry;
    const fromBytes = first * sliceBytes;
    const partBytes = count * sliceBytes;
    if (!isWithin(entry, first, count)) return absent;
    const known = damaged ? undefined : this.#outlines.get(key);
    if (known !== undefined) {
      const bytes = await this.#readPart(entry, fromBytes, partBytes);
      return bytes === null ? unread : { ok: true, outline: known, bytes };
    }
    const whole = damaged ? null : await this.#readPart(entry, 0, lengthBytes);
    const outline = whole === null ? null : outlineOf(whole);
    if (whole === null || outline === null || !isOutlineOf(outline, key)) {
      // What is wrong with it is for the reader of whole chunks to find out.
      const read = await this.#reads.read(key, entry);
      return read.ok ? unread : read;
    }
    this.#outlines.put(key, outline);
    return { ok: true, outline, bytes: whole.subarray(fromBytes, fromBytes + partBytes) };
  }

  /** Not checked against anything; null when it cannot be read now. */
  async #readPart(entry: ChunkEntry, fromBytes: number, partBytes: number): Promise<Buffer | null> {
    const offsetBytes = entry.offsetBytes + fromBytes;
    const bytes = await this.#reads.inTurn(async () => {
      try {
        return await this.#files.with(entry.segment, (file) => file.read(offsetBytes, partBytes));
      } catch (error) {
        if (!(error instanceof DiskError)) throw error;
        return null;
      }
    });
    // The segment may have been recycled meanwhile.
    return bytes?.length === partBytes && this.#index.isCurrent(entry) ? bytes : null;
  }
}

function isWithin({ lengthBytes }: ChunkEntry, first: number, count: number): boolean {
  return isSliced(lengthBytes) && (first + count) * sliceBytes <= lengthBytes;
}

const absent: SliceRead = { ok: false, fault: { code: "absent" } };
const unread: SliceRead = { ok: false, fault: { code: "io" } };
