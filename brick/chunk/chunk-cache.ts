/** What an entry costs beyond its bytes: the key string, the map's slot, the buffer object. */
const entryOverheadBytes = 256;
/** A slice of a receive buffer this much larger than itself is copied, not to pin the whole. */
const pinnedRatioMax = 2;

/** What of a chunk is kept: all of it, its outline, or slices (the first one's number + their count). */
export type ChunkPart = "whole" | "outline" | `${number}+${number}`;

/** Chunks and their parts by key, the least recently used dropped first; at most `bytesMax`. */
export class ChunkCache {
  /** From the least to the most recently used. */
  readonly #chunks = new Map<string, Buffer>();
  readonly #bytesMax: number;
  #bytes = 0;
  hits = 0;
  misses = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get(key: Buffer, part: ChunkPart = "whole"): Buffer | undefined {
    const name = nameOf(key, part);
    const bytes = this.#chunks.get(name);
    if (bytes === undefined) {
      this.misses += 1;
      return undefined;
    }
    this.hits += 1;
    this.#chunks.delete(name);
    this.#chunks.set(name, bytes);
    return bytes;
  }

  /** Keeps verified bytes; the caller never writes into them again. */
  put(key: Buffer, bytes: Buffer, part: ChunkPart = "whole"): void {
    const costBytes = bytes.length + entryOverheadBytes;
    if (costBytes > this.#bytesMax) return;
    const name = nameOf(key, part);
    // Equal keys are equal bytes: an entry that is there need not be replaced.
    if (this.#chunks.has(name)) return;
    const pins = bytes.buffer.byteLength > bytes.length * pinnedRatioMax;
    this.#chunks.set(name, pins ? copyAlone(bytes) : bytes);
    this.#bytes += costBytes;
    this.#evict();
  }

  clear(): void {
    this.#chunks.clear();
    this.#bytes = 0;
  }

  #evict(): void {
    if (this.#bytes <= this.#bytesMax) return;
    for (const [name, bytes] of this.#chunks) {
      this.#chunks.delete(name);
      this.#bytes -= bytes.length + entryOverheadBytes;
      if (this.#bytes <= this.#bytesMax) return;
    }
  }
}

function nameOf(key: Buffer, part: ChunkPart): string {
  const name = key.toString("latin1");
  return part === "whole" ? name : name + part;
}

/** A copy with memory of its own, outside of Node's shared pool. */
function copyAlone(bytes: Buffer): Buffer {
  const copy = Buffer.allocUnsafeSlow(bytes.length);
  bytes.copy(copy);
  return copy;
}
