import type { ChunkCache } from "../chunk/chunk-cache.ts";
import type { Extent } from "../map/grain.ts";
import type { Seat } from "../roster.ts";
import type { LentMemory } from "../rpc/lent-memory.ts";
import { grainBytes, MiB, sectorBytes, sectorsPerGrain } from "../units.ts";
import type { AheadGuest, AheadRoom } from "./ahead-room.ts";
import type { ChunkReader, FetchOutcome } from "./chunk-reader.ts";
import type { MapCache } from "./map-cache.ts";
import type { VolumeStats } from "./stats.ts";

/** Of one volume, fetched or being fetched, and not asked for yet. */
export const aheadBytesMax = 4 * MiB;
/** A stream is read ahead by as many of its reads as it has made, up to so many. */
const aheadReadsMax = 2;

/** What of a gateway it goes by. */
export interface ReadSide {
  readonly map: Pick<MapCache, "has" | "lookup">;
  readonly chunks: Pick<ChunkCache, "has">;
  readonly reader: Pick<ChunkReader, "fetch" | "isSearching">;
  /** What all gateways of the brick share. */
  readonly aheadRoom: AheadRoom;
  readonly context: { readonly stats: VolumeStats };
  nowMs(): number;
}

/** A chunk that the next read of a stream will ask for. */
class Ahead implements AheadGuest {
  readonly key: Buffer;
  readonly lengthBytes: number;
  readonly sinceMs: number;
  /** null: it is on its way. */
  bytes: Buffer | null = null;
  memory: LentMemory | null = null;
  /** null: taken or given up, nobody wants it here any more. */
  seat: Seat<AheadGuest> | null = null;
  readonly #giveUp: (ahead: Ahead) => void;

  constructor(key: Buffer, lengthBytes: number, sinceMs: number, giveUp: (ahead: Ahead) => void) {
    this.key = key;
    this.lengthBytes = lengthBytes;
    this.sinceMs = sinceMs;
    this.#giveUp = giveUp;
  }

  giveUp(): void {
    this.#giveUp(this);
  }
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
  #ended = false;
  readonly #giveUp = (ahead: Ahead) => this.#drop(ahead);

  constructor(gateway: ReadSide) {
    this.#gateway = gateway;
  }

  /**
   * Begins to fetch whole chunks behind a read in sequence, as far as the map cache knows them and there is
   * room; the requests leave with the reader's `flush`.
   */
  follow(read: { offsetBytes: number; lengthBytes: number }, volumeBytes: number): void {
    const { offsetBytes, lengthBytes } = read;
    if (lengthBytes < grainBytes || this.#ended) return;
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
        if (!isWhole || chunks.has(extent.key)) continue;
        // What lies behind is asked for later still.
        if (!this.#want(extent)) return;
      }
    }
  }

  /** The gateway is at its end: nobody will ask for what is here, or on its way. */
  end(): void {
    this.#ended = true;
    while (this.#chunks.length > 0) this.#drop(this.#chunks[0]!);
  }

  /** False when there is no room for it. */
  #want({ key, holders, chunkSectors }: Extent): boolean {
    const { reader, aheadRoom, context } = this.#gateway;
    if (this.#indexOf(key) >= 0 || reader.isSearching(key)) return true;
    const lengthBytes = chunkSectors * sectorBytes;
    // The oldest was not asked for: its stream has ended, or reads elsewhere.
    while (this.#bytes + lengthBytes > aheadBytesMax) this.#drop(this.#chunks[0]!);
    const nowMs = this.#gateway.nowMs();
    if (!aheadRoom.hasRoom(lengthBytes, nowMs)) return false;
    const ahead = new Ahead(key, lengthBytes, nowMs, this.#giveUp);
    ahead.seat = aheadRoom.enter(ahead);
    this.#chunks.push(ahead);
    this.#bytes += lengthBytes;
    context.stats.aheadBytes += lengthBytes;
    reader.fetch(key, holders, (outcome) => this.#fetched(ahead, outcome));
    return true;
  }

  /**
   * The chunk, if it is here, with what it lies in: held for the caller. One that is on its way is the
   * caller's to wait for, by a search of its own, which joins the other.
   */
  take(key: Buffer): { bytes: Buffer; memory: LentMemory | null } | null {
    const index = this.#indexOf(key);
    if (index < 0) return null;
    const ahead = this.#chunks[index]!;
    this.#remove(ahead, index);
    this.#gateway.context.stats.aheadUsedBytes += ahead.lengthBytes;
    const { bytes, memory } = ahead;
    return bytes === null ? null : { bytes, memory };
  }

  #fetched(ahead: Ahead, outcome: FetchOutcome): void {
    if (ahead.seat === null) return;
    if (!outcome.ok) {
      // The stream goes on: the read that asks for it looks again.
      this.#discard(ahead);
      return;
    }
    ahead.bytes = outcome.bytes;
    ahead.memory = outcome.memory;
    ahead.memory?.hold();
  }

  #drop(ahead: Ahead): void {
    this.#discard(ahead);
    this.#streak = 0;
  }

  #discard(ahead: Ahead): void {
    this.#remove(ahead, this.#chunks.indexOf(ahead));
    ahead.memory?.release();
    this.#gateway.context.stats.aheadDroppedBytes += ahead.lengthBytes;
  }

  #remove(ahead: Ahead, index: number): void {
    this.#chunks.splice(index, 1);
    this.#bytes -= ahead.lengthBytes;
    this.#gateway.aheadRoom.leave(ahead.seat!);
    ahead.seat = null;
  }

  #indexOf(key: Buffer): number {
    return this.#chunks.findIndex((ahead) => ahead.key.equals(key));
  }
}
