import { KeyFilter } from "./key-filter.ts";

/** What an entry costs beyond its bytes: the key string, the map's slot, the buffer object. */
const entryOverheadBytes = 256;
/** A slice of a receive buffer this much larger than itself is copied, not to pin the whole. */
const pinnedRatioMax = 2;
/** When it is full, this part of it is dropped at once: the first of a map is slow to find often. */
const dropPart = 1 / 16;

/** What of a chunk is kept: all of it, its outline, or slices (the first one's number + their count). */
export type ChunkPart = "whole" | "outline" | `${number}+${number}`;

interface Entry {
  readonly bytes: Buffer;
  /** Asked for since it was put, or since it was last spared. */
  used: boolean;
}

/**
 * Chunks and their parts by key; at most `bytesMax`. When it is full the oldest are dropped, but for
 * those that were asked for meanwhile; and from then on it takes only what comes a second time:
 * reads all over a large volume would push out everything, each for a copy that nobody asks for again.
 * Outlines are always taken: they are small, and each serves a whole chunk.
 */
export class ChunkCache {
  /** In order of age; whoever is spared counts as new. */
  readonly #entries = new Map<string, Entry>();
  readonly #bytesMax: number;
  #bytes = 0;
  /** What came once of late; null until the cache has been full. */
  #comers: KeyFilter | null = null;
  hits = 0;
  misses = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Whether the whole chunk is here; asking for that is not asking for it. */
  has(key: Buffer): boolean {
    return this.#entries.has(nameOf(key, "whole"));
  }

  get(key: Buffer, part: ChunkPart = "whole"): Buffer | undefined {
    const entry = this.#entries.get(nameOf(key, part));
    if (entry === undefined) {
      this.misses += 1;
      return undefined;
    }
    this.hits += 1;
    entry.used = true;
    return entry.bytes;
  }

  /**
   * Keeps verified bytes, perhaps; the caller never writes into them again. True when it keeps the very
   * memory that they are in, which must not be given back then.
   */
  put(key: Buffer, bytes: Buffer, part: ChunkPart = "whole"): boolean {
    const costBytes = bytes.length + entryOverheadBytes;
    if (costBytes > this.#bytesMax) return false;
    const name = nameOf(key, part);
    // Equal keys are equal bytes: an entry that is there need not be replaced.
    if (this.#entries.has(name)) return false;
    if (part !== "outline" && !this.#comesAgain(name)) return false;
    const pins = bytes.buffer.byteLength > bytes.length * pinnedRatioMax;
    this.#entries.set(name, { bytes: pins ? copyAlone(bytes) : bytes, used: false });
    this.#bytes += costBytes;
    if (this.#bytes > this.#bytesMax) this.#drop();
    return !pins;
  }

  clear(): void {
    this.#entries.clear();
    this.#bytes = 0;
  }

  #comesAgain(name: string): boolean {
    if (this.#comers === null || this.#comers.mayHave(name)) return true;
    if (this.#comers.isWorn) this.#comers = new KeyFilter(this.#entries.size);
    this.#comers.add(name);
    return false;
  }

  #drop(): void {
    this.#comers ??= new KeyFilter(this.#entries.size);
    const bytesMax = this.#bytesMax * (1 - dropPart);
    for (const [name, entry] of this.#entries) {
      this.#entries.delete(name);
      if (entry.used) {
        entry.used = false;
        this.#entries.set(name, entry);
        continue;
      }
      this.#bytes -= entry.bytes.length + entryOverheadBytes;
      if (this.#bytes <= bytesMax) return;
    }
  }
}

/** The part comes first: a filter looks at the beginning of a name. */
function nameOf(key: Buffer, part: ChunkPart): string {
  const name = key.toString("latin1");
  return part === "whole" ? name : part + name;
}

/** A copy with memory of its own, outside of Node's shared pool. */
function copyAlone(bytes: Buffer): Buffer {
  const copy = Buffer.allocUnsafeSlow(bytes.length);
  bytes.copy(copy);
  return copy;
}
