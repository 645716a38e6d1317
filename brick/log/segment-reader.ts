import { DiskError, type DiskFile } from "../host.ts";
import { batchAlignBytes } from "./batch-format.ts";

/** What one read brings in. */
const windowBytes = 1024 * 1024;
/** Stands in for a page that cannot be read: neither zeros nor anything of ours. */
const unreadable = Buffer.alloc(batchAlignBytes, 0xff);

/** Reads one segment file in large steps; pages the disk refuses to read become garbage. */
export class SegmentReader {
  readonly sizeBytes: number;
  unreadablePages = 0;
  readonly #file: DiskFile;
  #window: Buffer = Buffer.alloc(0);
  #windowFrom = 0;

  constructor(file: DiskFile, sizeBytes: number) {
    this.#file = file;
    this.sizeBytes = sizeBytes;
  }

  /** The bytes of [offset, offset + length) as far as the file goes. */
  async read(offsetBytes: number, lengthBytes: number): Promise<Buffer> {
    const end = Math.min(offsetBytes + lengthBytes, this.sizeBytes);
    if (end <= offsetBytes) return Buffer.alloc(0);
    const windowEnd = this.#windowFrom + this.#window.length;
    if (offsetBytes < this.#windowFrom || end > windowEnd) {
      const wanted = Math.min(Math.max(windowBytes, lengthBytes), this.sizeBytes - offsetBytes);
      this.#window = await this.#readAll(offsetBytes, wanted);
      this.#windowFrom = offsetBytes;
    }
    const from = offsetBytes - this.#windowFrom;
    return this.#window.subarray(from, from + end - offsetBytes);
  }

  async #readAll(offsetBytes: number, lengthBytes: number): Promise<Buffer> {
    try {
      return await this.#file.read(offsetBytes, lengthBytes);
    } catch (error) {
      if (!isReadFailure(error)) throw error;
    }
    const pages: Buffer[] = [];
    for (let at = 0; at < lengthBytes; at += batchAlignBytes) {
      const length = Math.min(batchAlignBytes, lengthBytes - at);
      try {
        pages.push(await this.#file.read(offsetBytes + at, length));
      } catch (error) {
        if (!isReadFailure(error)) throw error;
        this.unreadablePages += 1;
        pages.push(unreadable.subarray(0, length));
      }
    }
    return Buffer.concat(pages);
  }
}

export function isReadFailure(error: unknown): boolean {
  return error instanceof DiskError && error.code === "EIO";
}

export function isZero(bytes: Buffer): boolean {
  const words = bytes.length - (bytes.length % 4096);
  for (let at = 0; at < words; at += 4096) {
    if (!zeroPage.equals(bytes.subarray(at, at + 4096))) return false;
  }
  for (let at = words; at < bytes.length; at += 1) if (bytes[at] !== 0) return false;
  return true;
}

const zeroPage = Buffer.alloc(4096);
