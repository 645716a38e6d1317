import { assert } from "../assert.ts";
import { Roster, type Seat } from "../roster.ts";

/** Commands that may hold or wait for ranges of one volume at a time; more are refused. */
export const rangesMax = 8192;

export interface HeldRange {
  readonly start: number;
  readonly end: number;
  /** Where it stands among the writes, for removal without a search; -1 once released, and of a read. */
  slot: number;
  /** A write that waits for the whole reads before it, too. */
  readonly whole: boolean;
  /** Counts arrivals: only what came earlier blocks. */
  readonly arrival: number;
  /** Earlier overlapping ranges that it waits for and that have not been released. */
  blockers: number;
  granted: (() => void) | null;
  /** Of a whole read, until it is released. */
  reading: Seat<HeldRange> | null;
  /** While it waits. */
  waiting: Seat<HeldRange> | null;
}

/**
 * Orders overlapping commands of one volume. A write waits for every earlier write that overlaps
 * it, granted or still waiting; a read likewise, but an ordinary write waits for no read: chunks never
 * change, so a read that overlaps a later write sees old or new, sector by sector. What is to land as
 * one, a whole write, must be seen as one: a read of several grains looks them up one after the other,
 * and such a write waits for those that came before it.
 */
export class RangeLock {
  readonly #writes: HeldRange[] = [];
  readonly #reads = new Roster<HeldRange>();
  readonly #waiting = new Roster<HeldRange>();
  #arrivals = 0;

  get heldCount(): number {
    return this.#writes.length;
  }

  get waitingCount(): number {
    return this.#waiting.size;
  }

  /**
   * Takes the range for a write. With no conflict it is granted at once: `blockers` is 0 and
   * `granted` never called; else `granted` is called on the turn of the last release. Returns
   * null when rangesMax is reached.
   */
  write(start: number, end: number, granted: () => void, whole = false): HeldRange | null {
    assert(start < end);
    if (this.#writes.length >= rangesMax) return null;
    const range = this.#arrive(start, end, granted, whole);
    range.slot = this.#writes.length;
    this.#writes.push(range);
    return range;
  }

  /**
   * Calls `granted` once no earlier write overlaps. Returns true when that is so now (`granted` is
   * not called then), false when it will be called, null when rangesMax is reached.
   */
  read(start: number, end: number, granted: () => void): boolean | null {
    if (this.#writes.length === 0) return true;
    if (this.#waiting.size >= rangesMax) return null;
    return this.#arrive(start, end, granted).blockers === 0;
  }

  /**
   * As `write`, for a read of more than one grain: until it is released no later whole write that
   * overlaps it is granted.
   */
  readWhole(start: number, end: number, granted: () => void): HeldRange | null {
    if (this.#reads.size >= rangesMax) return null;
    const range = this.#arrive(start, end, granted);
    range.reading = this.#reads.enter(range);
    return range;
  }

  /** Ends what holds or waits for a range, and grants what waited for it alone. */
  release(range: HeldRange): void {
    if (range.reading !== null && this.#reads.leave(range.reading)) {
      this.#waitNoMore(range);
      this.#unblock(range, (other) => other.whole);
      return;
    }
    assert(range.slot >= 0 && this.#writes[range.slot] === range);
    const last = this.#writes.pop()!;
    if (last !== range) {
      this.#writes[range.slot] = last;
      last.slot = range.slot;
    }
    range.slot = -1;
    this.#waitNoMore(range);
    this.#unblock(range, () => true);
  }

  #unblock(range: HeldRange, waitedForIt: (other: HeldRange) => boolean): void {
    if (this.#waiting.size === 0) return;
    const ready: HeldRange[] = [];
    for (const other of this.#waiting) {
      if (other.arrival < range.arrival || !overlaps(other, range.start, range.end)) continue;
      if (!waitedForIt(other)) continue;
      other.blockers -= 1;
      assert(other.blockers >= 0);
      if (other.blockers === 0) ready.push(other);
    }
    for (const other of ready) this.#waitNoMore(other);
    for (const other of ready) {
      const { granted } = other;
      other.granted = null;
      granted?.();
    }
  }

  #waitNoMore(range: HeldRange): void {
    if (range.waiting !== null) this.#waiting.leave(range.waiting);
    range.waiting = null;
  }

  #arrive(start: number, end: number, granted: () => void, whole = false): HeldRange {
    let blockers = 0;
    if (whole) for (const held of this.#reads) if (overlaps(held, start, end)) blockers += 1;
    for (const held of this.#writes) if (overlaps(held, start, end)) blockers += 1;
    this.#arrivals += 1;
    const range: HeldRange = {
      start,
      end,
      slot: -1,
      whole,
      arrival: this.#arrivals,
      blockers,
      granted: blockers > 0 ? granted : null,
      reading: null,
      waiting: null,
    };
    if (blockers > 0) range.waiting = this.#waiting.enter(range);
    return range;
  }
}

function overlaps(range: HeldRange, start: number, end: number): boolean {
  return range.start < end && start < range.end;
}
