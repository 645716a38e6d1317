import { GiB } from "../units.ts";
import { type Piece, splitUnmap } from "./split.ts";
import type { VolumeFault } from "./volume.ts";

/** Where the pieces of a change come from: all at once, bit by bit, or only after a look. */
export interface PieceSource {
  /** Whether every piece has been handed out. */
  readonly exhausted: boolean;
  /** Calls back once, now or later, with more pieces, or with why there are none. */
  take(ready: (pieces: Piece[]) => void, failed: (fault: VolumeFault) => void): void;
  /**
   * Calls back once with the pieces to be written in the place of one that names a chunk which is gone;
   * false: nobody can tell any more what they are.
   */
  renew?(
    piece: Piece,
    ready: (pieces: Piece[]) => void,
    failed: (fault: VolumeFault) => void,
  ): boolean;
  /** Nobody wants the rest: what is under way calls back no more. */
  abandon(): void;
}

/** Of an unmap, cut into pieces at a time: some thousand whole runs of grains. */
const unmapCutBytes = 64 * GiB;

export class WritePieces implements PieceSource {
  exhausted = false;
  readonly #offsetBytes: number;
  readonly #data: readonly Buffer[];
  readonly #split: (offsetBytes: number, data: readonly Buffer[]) => Piece[];

  constructor(
    offsetBytes: number,
    data: readonly Buffer[],
    split: (offsetBytes: number, data: readonly Buffer[]) => Piece[],
  ) {
    this.#offsetBytes = offsetBytes;
    this.#data = data;
    this.#split = split;
  }

  take(ready: (pieces: Piece[]) => void): void {
    this.exhausted = true;
    ready(this.#split(this.#offsetBytes, this.#data));
  }

  abandon(): void {}
}

export class UnmapPieces implements PieceSource {
  #atBytes: number;
  readonly #endBytes: number;

  constructor(offsetBytes: number, lengthBytes: number) {
    this.#atBytes = offsetBytes;
    this.#endBytes = offsetBytes + lengthBytes;
  }

  get exhausted(): boolean {
    return this.#atBytes === this.#endBytes;
  }

  take(ready: (pieces: Piece[]) => void): void {
    const fromBytes = this.#atBytes;
    const takeBytes = Math.min(unmapCutBytes, this.#endBytes - fromBytes);
    this.#atBytes += takeBytes;
    ready(splitUnmap(fromBytes, takeBytes));
  }

  abandon(): void {}
}
