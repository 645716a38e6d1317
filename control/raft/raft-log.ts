import { assert } from "../../brick/assert.ts";
import type { Entry, Hole } from "./raft-types.ts";

/**
 * The log in memory, after the entries that a snapshot made superfluous. A hole is an entry whose
 * content this server lost but whose index and term it still knows, so that positions and votes
 * are judged as if it were whole; its content comes back from any peer.
 */
export class RaftLog {
  #baseIndex: number;
  #baseTerm: number;
  #entries: (Entry | Hole)[] = [];
  /** Sorted; nearly always empty. */
  #holes: number[] = [];
  #bytes = 0;

  /** The entry just before the first one kept. */
  constructor(baseIndex: number, baseTerm: number) {
    this.#baseIndex = baseIndex;
    this.#baseTerm = baseTerm;
  }

  get baseIndex(): number {
    return this.#baseIndex;
  }

  get lastIndex(): number {
    return this.#baseIndex + this.#entries.length;
  }

  get lastTerm(): number {
    return this.#entries.at(-1)?.term ?? this.#baseTerm;
  }

  /** Payload bytes held. */
  get bytes(): number {
    return this.#bytes;
  }

  get holes(): readonly number[] {
    return this.#holes;
  }

  /** Everything up to here is present in content. */
  get wholeThroughIndex(): number {
    return this.#holes.length > 0 ? this.#holes[0]! - 1 : this.lastIndex;
  }

  /** null outside [baseIndex, lastIndex]. */
  termAt(index: number): number | null {
    if (index === this.#baseIndex) return this.#baseTerm;
    return this.#entries[index - this.#baseIndex - 1]?.term ?? null;
  }

  /** null for a hole and outside the log. */
  entryAt(index: number): Entry | null {
    const entry = this.#entries[index - this.#baseIndex - 1];
    return entry === undefined || !("payload" in entry) ? null : entry;
  }

  isHole(index: number): boolean {
    return this.#holes.includes(index);
  }

  append(entry: Entry | Hole): void {
    assert(entry.index === this.lastIndex + 1, "entries of a log are dense");
    assert(entry.term >= this.lastTerm, "terms of a log do not go down");
    this.#entries.push(entry);
    if ("payload" in entry) this.#bytes += entry.payload.length;
    else this.#holes.push(entry.index);
  }

  /** Voids everything after `index`. */
  cutAfter(index: number): void {
    assert(index >= this.#baseIndex && index <= this.lastIndex);
    this.#forget(this.#entries.splice(index - this.#baseIndex));
    this.#holes = this.#holes.filter((hole) => hole <= index);
  }

  fill(entry: Entry): void {
    assert(this.isHole(entry.index) && this.termAt(entry.index) === entry.term);
    this.#entries[entry.index - this.#baseIndex - 1] = entry;
    this.#bytes += entry.payload.length;
    this.#holes = this.#holes.filter((hole) => hole !== entry.index);
  }

  /** Forgets everything up to `index`. */
  compactThrough(index: number): void {
    if (index <= this.#baseIndex) return;
    const term = this.termAt(index);
    assert(term !== null, "a log is compacted within itself");
    this.#forget(this.#entries.splice(0, index - this.#baseIndex));
    this.#baseIndex = index;
    this.#baseTerm = term;
    this.#holes = this.#holes.filter((hole) => hole > index);
  }

  /** Begins anew after an entry that is not in the log. */
  reset(baseIndex: number, baseTerm: number): void {
    this.#baseIndex = baseIndex;
    this.#baseTerm = baseTerm;
    this.#entries = [];
    this.#holes = [];
    this.#bytes = 0;
  }

  /** Entries from `fromIndex` on, within the bounds but at least one if any; ends at a hole. */
  slice(
    fromIndex: number,
    limits: { toIndex: number; bytesMax: number; countMax: number },
  ): Entry[] {
    const out: Entry[] = [];
    let bytes = 0;
    for (let index = fromIndex; index <= limits.toIndex; index += 1) {
      const entry = this.entryAt(index);
      if (entry === null || out.length >= limits.countMax) break;
      bytes += entry.payload.length;
      if (bytes > limits.bytesMax && out.length > 0) break;
      out.push(entry);
    }
    return out;
  }

  #forget(entries: readonly (Entry | Hole)[]): void {
    for (const entry of entries) if ("payload" in entry) this.#bytes -= entry.payload.length;
  }
}
