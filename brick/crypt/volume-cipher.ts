import type { VolumeRecord } from "../cluster-state.ts";
import type { Extent } from "../map/grain.ts";
import { sectorBytes, sectorsPerGrain } from "../units.ts";
import type { Piece } from "../volume/split.ts";
import { wholeUnits, type Xts } from "./xts.ts";

/** Where gateways get the ciphers of their volumes, and a sanitize its new keys. */
export interface CipherSource {
  /** Whether it may begin to be served here: its key is not lacking, and none that is retired is left. */
  isReady(volume: VolumeRecord): boolean;
  /** Whether it may be served on: what is retired meanwhile does not keep it. */
  hasKey(volume: VolumeRecord): boolean;
  /** null: the volume is not encrypted. Of volumes that are ready. */
  cipherOf(volume: VolumeRecord): VolumeCipher | null;
  rekey(volume: VolumeRecord): Promise<boolean>;
  isGone(domain: number): Promise<boolean>;
}

/** Of a brick without keys: it serves what is not encrypted. */
export const noKeys: CipherSource = {
  isReady: ({ keyDomain }) => keyDomain === undefined,
  hasKey: ({ keyDomain }) => keyDomain === undefined,
  cipherOf: () => null,
  rekey: async () => false,
  isGone: async () => false,
};

/** What is wanted of an extent's chunk, in sectors of the grain. */
export interface Wanted {
  readonly firstSector: number;
  readonly endSector: number;
}

/**
 * Encrypts what a gateway writes, before it is hashed, and decrypts what it reads, after it was checked:
 * bricks keep, check and repair what they cannot read. The tweak of every unit is its address in the
 * volume, so equal content is stored as other bytes elsewhere, and only dedups with itself.
 */
export class VolumeCipher {
  readonly domain: number;
  readonly #xts: Xts;

  constructor(domain: number, xts: Xts) {
    this.domain = domain;
    this.#xts = xts;
  }

  /** Pieces of a write with what is stored for them. One without data stays so: zeros are no chunk. */
  seal(pieces: readonly Piece[]): Piece[] {
    return pieces.map((piece) => this.#sealOne(piece));
  }

  #sealOne(piece: Piece): Piece {
    if (piece.group !== undefined) return { ...piece, group: this.seal(piece.group) };
    if (piece.data === null) return piece;
    const firstSector = piece.grain * sectorsPerGrain + piece.firstSector;
    const data = [this.#xts.encrypt(firstSector, piece.data)];
    return { ...piece, data, keyDomain: this.domain };
  }

  /** Sectors [from, to) of an extent's grain, out of `stored`: its chunk from byte `fromBytes` on. */
  open(
    grain: number,
    extent: Extent,
    { firstSector: from, endSector: to }: Wanted,
    stored: Buffer,
    fromBytes: number,
  ): Buffer | null {
    const range = placeOf(extent);
    if (extent.keyDomain !== this.domain || range === null) return null;
    const units = wholeUnits(range, from, to);
    const start = (units.firstSector - range.startSector) * sectorBytes - fromBytes;
    const end = start + (units.endSector - units.firstSector) * sectorBytes;
    if (start < 0 || end > stored.length) return null;
    const firstSector = grain * sectorsPerGrain + units.firstSector;
    const plain = this.#xts.decrypt(firstSector, stored.subarray(start, end));
    const cut = (from - units.firstSector) * sectorBytes;
    return plain.subarray(cut, cut + (to - from) * sectorBytes);
  }
}

/**
 * What must be there of the chunk to decrypt [firstSector, endSector) of its grain: all of their units,
 * also where later writes have cut the extent. The extent as it was before that, and what of it.
 */
export function neededOf(
  extent: Extent,
  firstSector: number,
  endSector: number,
): { extent: Extent; wanted: Wanted } {
  const range = placeOf(extent);
  if (range === null) return { extent, wanted: { firstSector, endSector } };
  const { startSector, stopSector } = range;
  const whole = { ...extent, firstSector: startSector, sectorCount: extent.chunkSectors };
  const from = Math.max(firstSector, extent.firstSector);
  const to = Math.min(endSector, extent.firstSector + extent.sectorCount);
  const wanted = wholeUnits({ startSector, stopSector }, from, to);
  return { extent: { ...whole, chunkSector: 0 }, wanted };
}

/** Where in the grain the extent's chunk was written; null: it cannot have been. */
function placeOf(extent: Extent): { startSector: number; stopSector: number } | null {
  const startSector = extent.firstSector - extent.chunkSector;
  const stopSector = startSector + extent.chunkSectors;
  return startSector < 0 || stopSector > sectorsPerGrain ? null : { startSector, stopSector };
}
