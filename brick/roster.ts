/** A member's place in a roster; belongs to whoever entered it. */
export interface Seat<T> {
  readonly value: T;
  before: Seat<T> | null;
  after: Seat<T> | null;
  /** null once left. */
  roster: Roster<T> | null;
}

/**
 * A Set, in the order of entering, for what comes and goes with every command; it leaves no trail in the
 * heap, for the reason that `NumberMap` gives. A seat that was left names no other.
 */
export class Roster<T> {
  size = 0;
  #first: Seat<T> | null = null;
  #last: Seat<T> | null = null;

  get first(): T | null {
    return this.#first === null ? null : this.#first.value;
  }

  enter(value: T): Seat<T> {
    const seat: Seat<T> = { value, before: this.#last, after: null, roster: this };
    if (this.#last === null) this.#first = seat;
    else this.#last.after = seat;
    this.#last = seat;
    this.size += 1;
    return seat;
  }

  /** False when the seat was left before. */
  leave(seat: Seat<T>): boolean {
    if (seat.roster !== this) return false;
    const { before, after } = seat;
    if (before === null) this.#first = after;
    else before.after = after;
    if (after === null) this.#last = before;
    else after.before = before;
    seat.before = seat.after = seat.roster = null;
    this.size -= 1;
    return true;
  }

  clear(): void {
    while (this.#first !== null) this.leave(this.#first);
  }

  /** The members as they are now; who leaves meanwhile is still among them. */
  members(): T[] {
    const all: T[] = [];
    for (let seat = this.#first; seat !== null; seat = seat.after) all.push(seat.value);
    return all;
  }

  /** Nobody may leave meanwhile. */
  *[Symbol.iterator](): IterableIterator<T> {
    for (let seat = this.#first; seat !== null; seat = seat.after) yield seat.value;
  }
}
