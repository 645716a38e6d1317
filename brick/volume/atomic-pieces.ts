import type { Abandonable, Reads } from "./gateway-reads.ts";
import type { PieceSource } from "./piece-source.ts";
import { type Piece, splitAtomic } from "./split.ts";
import type { VolumeFault } from "./volume.ts";

/**
 * The pieces of a change that depends on what is there. The command holds its range as a write, so
 * between this look and what lands nothing of another command comes.
 */
export class AtomicPieces implements PieceSource {
  exhausted = false;
  readonly #reads: Reads;
  readonly #offsetBytes: number;
  readonly #lengthBytes: number;
  readonly #decide: AtomicDecision;
  #reading: Abandonable | null = null;

  constructor(reads: Reads, offsetBytes: number, lengthBytes: number, decide: AtomicDecision) {
    this.#reads = reads;
    this.#offsetBytes = offsetBytes;
    this.#lengthBytes = lengthBytes;
    this.#decide = decide;
  }

  take(ready: (pieces: Piece[]) => void, failed: (fault: VolumeFault) => void): void {
    this.#reading = this.#reads.runLocked(this.#offsetBytes, this.#lengthBytes, (found) => {
      this.#reading = null;
      const decided = found.ok ? this.#decide(found.buffers) : found;
      if (!decided.ok) {
        failed(decided.fault);
        return;
      }
      this.exhausted = true;
      ready(splitAtomic(this.#offsetBytes, decided.data));
    });
  }

  abandon(): void {
    this.#reading?.abandon();
    this.#reading = null;
  }
}

/** What to write in place of what was found (which may be shared: it is not written into). */
export type AtomicDecision = (
  found: readonly Buffer[],
) => { ok: true; data: readonly Buffer[] } | { ok: false; fault: VolumeFault };

/** COMPARE AND WRITE (SBC-3 §5.2): writes when the range reads as `compare`, else tells the first byte that differs. */
export function compareThenWrite(
  compare: readonly Buffer[],
  data: readonly Buffer[],
): AtomicDecision {
  return (found) => {
    const offsetBytes = firstDifference(found, compare);
    if (offsetBytes === null) return { ok: true, data };
    return { ok: false, fault: { code: "miscompare", offsetBytes } };
  };
}

/** ORWRITE (SBC-3 §5.5): sets the bits that are set in `data`. */
export function setBits(data: readonly Buffer[]): AtomicDecision {
  return (found) => {
    const result = Buffer.concat(data);
    let at = 0;
    for (const buffer of found) {
      for (const byte of buffer) {
        result[at]! |= byte;
        at += 1;
      }
    }
    return { ok: true, data: [result] };
  };
}

/** Of two equally long strings of bytes, however they are cut; null when they are the same. */
export function firstDifference(a: readonly Buffer[], b: readonly Buffer[]): number | null {
  let at = 0;
  let index = 0;
  let inside = 0;
  for (const left of a) {
    for (let from = 0; from < left.length; ) {
      const right = b[index]!;
      const count = Math.min(left.length - from, right.length - inside);
      if (left.compare(right, inside, inside + count, from, from + count) !== 0) {
        while (left[from] === right[inside]) {
          from += 1;
          inside += 1;
          at += 1;
        }
        return at;
      }
      from += count;
      inside += count;
      at += count;
      if (inside === right.length) {
        index += 1;
        inside = 0;
      }
    }
  }
  return null;
}
