import type { ChunkCache } from "../chunk/chunk-cache.ts";
import type { Extent } from "../map/grain.ts";
import type { LentMemory } from "../rpc/lent-memory.ts";
import { grainBytes, MiB, sectorBytes, sectorsPerGrain } from "../units.ts";
import type { ChunkReader, FetchOutcome } from "./chunk-reader.ts";
import type { MapCache } from "./map-cache.ts";

/** Of one volume, fetched or being fetched, and not asked for yet. */
export const aheadBytesMax = 4 * MiB;
/** A stream is read ahead by as many of its reads as it has made, up to so many. */
const aheadReadsMax = 2;

/** What of a gateway it goes by. */
interface ReadSide {
  readonly map: MapCache;
  readonly chunks: ChunkCache;
  readonly reader: ChunkReader;
}

/** A chunk that the next read of a stream will ask for. */
interface Ahead {
  readonly key: Buffer;
  readonly lengthBytes: number;
  /** null: it is on its way, or was not found. */
  bytes: Buffer | null;
  memory: LentMemory | null;
  /** Taken or given up: nobody wants it here any more. */
  ended: boolean;
}

/**
 * What the reads of a stream will ask for next, fetched before they do: an initiator that reads in sequence,
 * one command at a time, would wait for each chunk from its request on. Chunks never change, so that
 * one that is here is what the map means whenever it names it. It is kept apart from the chunk cache:
 * each is asked for once and is gone.
 */
export class ReadAhead {
  readonly #gateway: ReadSide;
  /** In the order in which they were asked for. */
  readonly #chunks: Ahead[] = [];
  #bytes = 0;
  /** Reads in sequence, since what was fetched ahead was last given up unread. */
  #streak = 0;

  constructor(gateway: ReadSide) {
    this.#gateway = gateway;
  }

  /**
   * Begins to fetch whole chunks behind a read in sequence, as far as the map cache knows them; the requests
   * leave with the reader's `flush`.
   */
  follow(read: { offsetBytes: number; lengthBytes: number }, volumeBytes: number): void {
    const { offsetBytes, lengthBytes } = read;
    if (lengthBytes < grainBytes) return;
    this.#streak += 1;
    const reads = Math.min(this.#streak, aheadReadsMax);
    const windowBytes = Math.min(aheadBytesMax / 2, lengthBytes * reads);
    const fromBytes = offsetBytes + lengthBytes;
    const endBytes = Math.min(fromBytes + windowBytes, volumeBytes);
    const { map, chunks } = this.#gateway;
    for (let grain = Math.ceil(fromBytes / grainBytes); grain * grainBytes < endBytes; grain += 1) {
      if (!map.has(grain)) break;
      for (const extent of map.lookup(grain, 0, sectorsPerGrain) ?? []) {
        const isWhole = extent.sectorCount === extent.chunkSectors;
        if (isWhole && !chunks.has(extent.key)) this.#want(extent);
      }
    }
  }

  #want({ key, holders, chunkSectors }: Extent): void {
    const { reader } = this.#gateway;
    if (this.#indexOf(key) >= 0 || reader.isSearching(key)) return;
    const lengthBytes = chunkSectors * sectorBytes;
    const ahead: Ahead = { key, lengthBytes, bytes: null, memory: null, ended: false };
    this.#chunks.push(ahead);
    this.#bytes += lengthBytes;
    while (this.#bytes > aheadBytesMax) this.#giveUp();
    reader.fetch(key, holders, (outcome) => this.#fetched(ahead, outcome));
  }

  /**
   * The chunk, if it is here, with what it lies in: held for the caller. One that is on its way is the
   * caller's to wait for, by a search of its own, which joins the other.
   */
  take(key: Buffer): { bytes: Buffer; memory: LentMemory | null } | null {
    const index = this.#indexOf(key);
    if (index < 0) return null;
    const { bytes, memory } = this.#remove(index);
    return bytes === null ? null : { bytes, memory };
  }

  #fetched(ahead: Ahead, outcome: FetchOutcome): void {
    if (ahead.ended || !outcome.ok) return;
    ahead.bytes = outcome.bytes;
    ahead.memory = outcome.memory;
    ahead.memory?.hold();
  }

  /** The oldest was not asked for: its stream has ended, or reads elsewhere. */
  #giveUp(): void {
    const { memory } = this.#remove(0);
    memory?.release();
    this.#streak = 0;
  }

  #remove(index: number): Ahead {
    const ahead = this.#chunks.splice(index, 1)[0]!;
    ahead.ended = true;
    this.#bytes -= ahead.lengthBytes;
    return ahead;
  }

  #indexOf(key: Buffer): number {
    return this.#chunks.findIndex((ahead) => ahead.key.equals(key));
  }
}
