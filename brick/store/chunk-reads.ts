import type { ChunkIndex } from "../chunk/chunk-index.ts";
import { chunkKey, keyEquals } from "../chunk/key.ts";
import { DiskError, type DiskFile } from "../host.ts";
import type { SegmentFiles } from "../log/segment-files.ts";
import type { ChunkEntry } from "./store-keys.ts";

export type ChunkReadFault =
  /** Not here: try another holder. */
  | { code: "absent" }
  /** Here, but not what it should be: try another holder, and this one writes it anew from there. */
  | { code: "corrupt" }
  /** The disk did not answer, or too many reads wait: try another holder. */
  | { code: "io" };
export type ChunkRead = { ok: true; bytes: Buffer } | { ok: false; fault: ChunkReadFault };

export const readsInFlightMax = 64;
export const readsWaitingMax = 4096;

/** Reads chunks from segments, a bounded number at a time, and believes nothing it reads. */
export class ChunkReads {
  readonly #index: ChunkIndex;
  readonly #files: SegmentFiles;
  readonly #counters: { corruptChunks: number };
  /** Told of each chunk that is found damaged. */
  onDamaged: (key: Buffer) => void = () => {};
  #inFlight = 0;
  readonly #waiting: (() => void)[] = [];

  constructor(index: ChunkIndex, files: SegmentFiles, counters: { corruptChunks: number }) {
    this.#index = index;
    this.#files = files;
    this.#counters = counters;
  }

  async read(key: Buffer, entry: ChunkEntry): Promise<ChunkRead> {
    if (entry.damaged) return { ok: false, fault: { code: "corrupt" } };
    const read = await this.inTurn(() => this.#readNow(key, entry));
    return read ?? { ok: false, fault: { code: "io" } };
  }

  /** Runs a read of the disk when its turn has come; null when too many wait. */
  async inTurn<T>(act: () => Promise<T>): Promise<T | null> {
    if (this.#inFlight >= readsInFlightMax) {
      if (this.#waiting.length >= readsWaitingMax) return null;
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    } else this.#inFlight += 1;
    try {
      return await act();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#inFlight -= 1;
      else next();
    }
  }

  async #readNow(key: Buffer, entry: ChunkEntry): Promise<ChunkRead> {
    const read = (file: DiskFile) => file.read(entry.offsetBytes, entry.lengthBytes);
    // Twice: what went wrong on the way, and not on the medium, is no verdict.
    for (let attempt = 0; attempt < 2; attempt += 1) {
      let bytes: Buffer;
      try {
        bytes = await this.#files.with(entry.segment, read);
      } catch (error) {
        if (!(error instanceof DiskError)) throw error;
        // A sector that cannot be read, or a file that is gone, is damage like any other.
        if (attempt === 0) continue;
        if (isLoss(error)) break;
        return { ok: false, fault: { code: "io" } };
      }
      if (bytes.length === entry.lengthBytes && keyEquals(chunkKey(bytes), key)) {
        return { ok: true, bytes };
      }
      // The segment may have been recycled while we read, and the chunk copied elsewhere before.
      if (!this.#index.isCurrent(entry)) {
        const now = this.#index.find(key);
        if (now === null) return { ok: false, fault: { code: "absent" } };
        return this.#readNow(key, now);
      }
    }
    this.noteCorrupt(key, entry);
    return { ok: false, fault: { code: "corrupt" } };
  }

  /** From now on the chunk counts as not stored, and a put of it is written again. */
  noteCorrupt(key: Buffer, entry: ChunkEntry): void {
    const now = this.#index.find(key);
    if (now === null || now.damaged) return;
    if (now.segment !== entry.segment || now.offsetBytes !== entry.offsetBytes) return;
    this.#counters.corruptChunks += 1;
    this.#index.markDamaged(key, now);
    this.onDamaged(key);
  }

  /** Whether a chunk that counts as damaged can be read after all; then it counts no more. */
  async recheck(key: Buffer): Promise<boolean> {
    const entry = this.#index.find(key);
    if (entry === null || !entry.damaged) return entry !== null;
    try {
      const bytes = await this.#files.with(entry.segment, (file) =>
        file.read(entry.offsetBytes, entry.lengthBytes),
      );
      if (bytes.length !== entry.lengthBytes || !keyEquals(chunkKey(bytes), key)) return false;
    } catch (error) {
      if (!(error instanceof DiskError)) throw error;
      return false;
    }
    const now = this.#index.find(key);
    if (now?.segment !== entry.segment || now.offsetBytes !== entry.offsetBytes) return false;
    this.#index.markWhole(key, now);
    return true;
  }
}

function isLoss(error: DiskError): boolean {
  return error.code === "EIO" || error.code === "ENOENT";
}
