/**
 * A Map from safe integers, zero or above, for what comes and goes with every command.
 *
 * V8's own Map leaves a trail: whenever one outgrows its table, or has it cleaned of removed keys, the
 * old table keeps a link to the new one, for iterators. Once one of those old tables is in the old
 * generation of the heap, every later one hangs on it, dead or not, and with them all that they ever
 * held: each scavenge copies it, until the next full collection. On the path of a command that cost a
 * fifth of all CPU time and pauses of 50 ms. Here a table is cleaned in place, and nothing links an old
 * one to a new one.
 *
 * Iteration is in the order of insertion. Keys may be deleted meanwhile; what is set meanwhile may or may
 * not be seen.
 */
export class NumberMap<V> {
  size = 0;
  /** Slots by hash, open addressing; 0 is empty, else a slot's number + 1. Twice as long as the slots. */
  #places: Int32Array;
  #keys: Float64Array;
  #values: (V | undefined)[];
  /** Slots in use or with a hole. */
  #filled = 0;

  constructor(entries?: Iterable<readonly [number, V]>) {
    this.#places = new Int32Array(2 * slotsMin);
    this.#keys = new Float64Array(slotsMin);
    this.#values = new Array<V | undefined>(slotsMin).fill(undefined);
    if (entries !== undefined) for (const [key, value] of entries) this.set(key, value);
  }

  get(key: number): V | undefined {
    const place = this.#find(key);
    return place < 0 ? undefined : this.#values[this.#places[place]! - 1];
  }

  has(key: number): boolean {
    return this.#find(key) >= 0;
  }

  set(key: number, value: V): this {
    const found = this.#find(key);
    if (found >= 0) {
      this.#values[this.#places[found]! - 1] = value;
      return this;
    }
    if (this.#filled === this.#keys.length) this.#makeRoom();
    const slot = this.#filled;
    this.#filled += 1;
    this.size += 1;
    this.#keys[slot] = key;
    this.#values[slot] = value;
    this.#put(slot, key);
    return this;
  }

  delete(key: number): boolean {
    const found = this.#find(key);
    if (found < 0) return false;
    const slot = this.#places[found]! - 1;
    this.#keys[slot] = hole;
    this.#values[slot] = undefined;
    this.size -= 1;
    this.#close(found);
    if (this.size === 0) this.#filled = 0;
    return true;
  }

  clear(): void {
    if (this.#filled === 0) return;
    this.#places.fill(0);
    this.#values.fill(undefined);
    this.#filled = 0;
    this.size = 0;
  }

  *keys(): IterableIterator<number> {
    for (let slot = 0; slot < this.#filled; slot += 1) {
      if (this.#keys[slot] !== hole) yield this.#keys[slot]!;
    }
  }

  *values(): IterableIterator<V> {
    for (let slot = 0; slot < this.#filled; slot += 1) {
      if (this.#keys[slot] !== hole) yield this.#values[slot] as V;
    }
  }

  *[Symbol.iterator](): IterableIterator<[number, V]> {
    for (let slot = 0; slot < this.#filled; slot += 1) {
      if (this.#keys[slot] !== hole) yield [this.#keys[slot]!, this.#values[slot] as V];
    }
  }

  /** Where the key's slot is named, or -1. */
  #find(key: number): number {
    const places = this.#places;
    const mask = places.length - 1;
    for (let place = hashOf(key) & mask; ; place = (place + 1) & mask) {
      const slot = places[place]!;
      if (slot === 0) return -1;
      if (this.#keys[slot - 1] === key) return place;
    }
  }

  #put(slot: number, key: number): void {
    const places = this.#places;
    const mask = places.length - 1;
    let place = hashOf(key) & mask;
    while (places[place] !== 0) place = (place + 1) & mask;
    places[place] = slot + 1;
  }

  /** Empties a place and moves up those behind it that were put there for want of it. */
  #close(place: number): void {
    const places = this.#places;
    const mask = places.length - 1;
    let empty = place;
    for (let next = (place + 1) & mask; ; next = (next + 1) & mask) {
      const slot = places[next]!;
      if (slot === 0) break;
      const home = hashOf(this.#keys[slot - 1]!) & mask;
      // It stays when its home lies between the empty place and itself, going round.
      if (((next - home) & mask) < ((next - empty) & mask)) continue;
      places[empty] = slot;
      empty = next;
    }
    places[empty] = 0;
  }

  /** The slots are used up: doubles them, or closes up the holes when those are many. */
  #makeRoom(): void {
    const keys = this.#keys;
    const values = this.#values;
    const slots = keys.length;
    if (2 * this.size > slots) {
      this.#keys = new Float64Array(2 * slots);
      this.#values = new Array<V | undefined>(2 * slots).fill(undefined);
      this.#places = new Int32Array(4 * slots);
    } else this.#places.fill(0);
    let to = 0;
    for (let slot = 0; slot < slots; slot += 1) {
      const key = keys[slot]!;
      if (key === hole) continue;
      const value = values[slot];
      values[slot] = undefined;
      this.#keys[to] = key;
      this.#values[to] = value;
      this.#put(to, key);
      to += 1;
    }
    this.#filled = to;
  }
}

const slotsMin = 8;
/** The key of a slot whose entry was deleted. */
const hole = -1;

/** Keys mostly count up, or are chosen by others: neighbours stay apart, and high bits count. */
function hashOf(key: number): number {
  const low = key | 0;
  const mixed = Math.imul(low ^ ((key / 2 ** 32) | 0), 0x9e3779b1);
  return mixed ^ (mixed >>> 15);
}
