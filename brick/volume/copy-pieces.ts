import { grainsPerShardRun } from "../cluster-state.ts";
import type { CopyCarrier } from "../crypt/copy-carrier.ts";
import type { Extent } from "../map/grain.ts";
import type { MapLookupReply } from "../map/map-messages.ts";
import { grainBytes, sectorBytes } from "../units.ts";
import type { PieceSource } from "./piece-source.ts";
import { type Piece, splitReference, splitUnmap } from "./split.ts";
import type { VolumeFault } from "./volume.ts";

/** Of a copy, looked up before any of it is written; at most one piece a sector of it. */
const stepGrainsMax = 64;

/** Where the extents of what is copied are looked up: at the primaries of its shards. */
export interface CopyLookup {
  /** Why the source may not be read now; null: it may. */
  refusal(): VolumeFault | null;
  /** Calls back with what the map says of a run of grains of one shard run, from its start. */
  look(
    firstGrain: number,
    grainCount: number,
    wanted: () => boolean,
    done: (reply: MapLookupReply | null) => void,
  ): void;
  end(): void;
}

/**
 * The pieces of a copy: for each part of the source that is mapped a reference to its chunk, for
 * the rest an unmap. They come a step at a time, and each step is looked up before any of it is
 * written. Where source and destination overlap, the steps go from that end from which no step
 * writes over what a later one has to look up; both ranges are locked by the command.
 *
 * The references come from the primaries of the source's shards, never from a cache: what they name
 * is in the map at that moment. Before it is named anew its holders are asked to keep it
 * (chunk-guard.ts), and the shard refuses the reference when that was too long ago. If it was rewritten
 * and swept in between, that part of the source is looked up once more, unless the copy itself may
 * have written over it.
 *
 * With a carrier the pieces are a write's: what the source's chunks hold is read and written anew.
 */
export class CopyPieces implements PieceSource {
  readonly #lookup: CopyLookup;
  readonly #fromBytes: number;
  readonly #toBytes: number;
  /** Of the range, from its start: what is still to be done. */
  #startBytes = 0;
  #endBytes: number;
  readonly #lengthBytes: number;
  readonly #sameVolume: boolean;
  readonly #backwards: boolean;
  /** Of a copy that must be of bytes; null: references will do. */
  readonly #carrier: CopyCarrier | null;
  #abandoned = false;

  constructor(
    lookup: CopyLookup,
    range: {
      fromBytes: number;
      toBytes: number;
      lengthBytes: number;
      /** Source and destination are the same volume's. */
      sameVolume: boolean;
    },
    carrier: CopyCarrier | null = null,
  ) {
    this.#carrier = carrier;
    this.#lookup = lookup;
    this.#fromBytes = range.fromBytes;
    this.#toBytes = range.toBytes;
    this.#endBytes = range.lengthBytes;
    this.#lengthBytes = range.lengthBytes;
    this.#sameVolume = range.sameVolume;
    this.#backwards = range.sameVolume && range.toBytes > range.fromBytes;
  }

  get exhausted(): boolean {
    return this.#startBytes === this.#endBytes;
  }

  take(ready: (pieces: Piece[]) => void, failed: (fault: VolumeFault) => void): void {
    const refusal = this.#lookup.refusal();
    if (refusal !== null) failed(refusal);
    else this.#look(this.#step(), ready, failed);
  }

  renew(
    { grain, firstSector, lengthBytes }: Piece,
    ready: (pieces: Piece[]) => void,
    failed: (fault: VolumeFault) => void,
  ): boolean {
    const toBytes = grain * grainBytes + firstSector * sectorBytes;
    const fromBytes = toBytes - this.#toBytes + this.#fromBytes;
    const isBefore = fromBytes + lengthBytes <= this.#toBytes;
    const isBehind = fromBytes >= this.#toBytes + this.#lengthBytes;
    if (this.#sameVolume && !isBefore && !isBehind) return false;
    const refusal = this.#lookup.refusal();
    if (refusal !== null) failed(refusal);
    else this.#look({ fromBytes, lengthBytes }, ready, failed);
    return true;
  }

  #look(
    part: { fromBytes: number; lengthBytes: number },
    ready: (pieces: Piece[]) => void,
    failed: (fault: VolumeFault) => void,
  ): void {
    const { fromBytes, lengthBytes } = part;
    const firstGrain = Math.floor(fromBytes / grainBytes);
    const endGrain = Math.ceil((fromBytes + lengthBytes) / grainBytes);
    const found = new Map<number, readonly Extent[]>();
    const wanted = () => !this.#abandoned;
    const look = (grain: number): void => {
      this.#lookup.look(grain, endGrain - grain, wanted, (reply) => {
        if (this.#abandoned) return;
        // The command's time, or its attachment's end, tells when it is enough.
        if (reply === null) return;
        for (const [at, extents] of reply.grains) found.set(at, extents);
        const next = grain + reply.coveredCount;
        if (next < endGrain) look(next);
        else if (this.#carrier === null) ready(this.#pieces(fromBytes, lengthBytes, found));
        else {
          const toBytes = this.#toBytes + fromBytes - this.#fromBytes;
          const again = () => this.#look(part, ready, failed);
          this.#carrier.carry({ fromBytes, toBytes, lengthBytes, found }, { ready, again, failed });
        }
      });
    };
    look(firstGrain);
  }

  abandon(): void {
    this.#abandoned = true;
    this.#carrier?.abandon();
    this.#lookup.end();
  }

  /** The next part of the source: within one shard run, and not long. */
  #step(): { fromBytes: number; lengthBytes: number } {
    const runBytes = grainsPerShardRun * grainBytes;
    const stepBytes = stepGrainsMax * grainBytes;
    const restBytes = this.#endBytes - this.#startBytes;
    if (!this.#backwards) {
      const fromBytes = this.#fromBytes + this.#startBytes;
      const toRunEnd = runBytes - (fromBytes % runBytes);
      const lengthBytes = Math.min(restBytes, toRunEnd, stepBytes - (fromBytes % grainBytes));
      this.#startBytes += lengthBytes;
      return { fromBytes, lengthBytes };
    }
    const endBytes = this.#fromBytes + this.#endBytes;
    const intoRun = endBytes % runBytes === 0 ? runBytes : endBytes % runBytes;
    const intoGrain = endBytes % grainBytes;
    const inStep = intoGrain === 0 ? stepBytes : stepBytes - grainBytes + intoGrain;
    const lengthBytes = Math.min(restBytes, intoRun, inStep);
    this.#endBytes -= lengthBytes;
    return { fromBytes: endBytes - lengthBytes, lengthBytes };
  }

  #pieces(
    fromBytes: number,
    lengthBytes: number,
    found: ReadonlyMap<number, readonly Extent[]>,
  ): Piece[] {
    const shiftBytes = this.#toBytes - this.#fromBytes;
    const endBytes = fromBytes + lengthBytes;
    const pieces: Piece[] = [];
    let at = fromBytes;
    const unmapTo = (to: number) => {
      if (to > at) pieces.push(...splitUnmap(at + shiftBytes, to - at));
    };
    for (const [grain, extents] of found) {
      for (const extent of extents) {
        const start = grain * grainBytes + extent.firstSector * sectorBytes;
        const from = Math.max(at, start);
        const to = Math.min(endBytes, start + extent.sectorCount * sectorBytes);
        if (to <= from) continue;
        unmapTo(from);
        const { key, holders, chunkSectors } = extent;
        const chunkSector = extent.chunkSector + (from - start) / sectorBytes;
        const part = { key, holders, chunkSector, chunkSectors };
        pieces.push(...splitReference(from + shiftBytes, to - from, part));
        at = to;
      }
    }
    unmapTo(endBytes);
    return pieces;
  }
}
