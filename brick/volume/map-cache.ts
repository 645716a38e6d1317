import { assert } from "../assert.ts";
import { type Extent, holdersMax, withKeyDomain } from "../map/grain.ts";
import { sectorsPerGrain } from "../units.ts";

/** A fetch of map records under way: a commit in its range makes its answer for that grain stale. */
export interface MapFill {
  readonly firstGrain: number;
  readonly grainCount: number;
  voided: Set<number> | null;
  /** The cache was cleared since. */
  ended: boolean;
}

const cellBytes = 64;
const cellsPerPage = 4096;
const slotsMin = 1024;
const noGrain = -1;

/**
 * What one attached volume's gateway knows of its map: grain -> extents, in typed arrays that the
 * garbage collector does not walk. Grains live in an open-addressed table; each has a chain of
 * cells, in order of sectors:
 *
 *     next[4] firstSector[1] sectorCount[1] chunkSector[1] holderCount[1] holders[8 x 2] chunkSectors[1] zero[1] keyDomain[2] zero[4] key[32]
 *
 * `next` is the index of the next cell plus one. A known grain without cells reads as zeros. When
 * it is full, grains not used lately go (the clock algorithm).
 */
export class MapCache {
  readonly #grainsMax: number;
  readonly #cellsMax: number;
  #slotBits = Math.log2(slotsMin);
  #grains = new Float64Array(slotsMin).fill(noGrain);
  #heads = new Uint32Array(slotsMin);
  #used = new Uint8Array(slotsMin);
  #grainCount = 0;
  #hand = 0;
  #pages: Buffer[] = [];
  #cellsMade = 0;
  #cellsFree = 0;
  #freeHead = 0;
  #fills: MapFill[] = [];
  hits = 0;
  misses = 0;

  constructor(options: { grainsMax: number; cellsMax: number }) {
    assert(options.grainsMax >= 1 && options.cellsMax >= 2 * sectorsPerGrain);
    this.#grainsMax = options.grainsMax;
    this.#cellsMax = options.cellsMax;
  }

  get grainCount(): number {
    return this.#grainCount;
  }

  get cellCount(): number {
    return this.#cellsMade - this.#cellsFree;
  }

  has(grain: number): boolean {
    return this.#slotOf(grain) >= 0;
  }

  /** The extents that overlap [firstSector, endSector), uncut; undefined when not known. */
  lookup(grain: number, firstSector: number, endSector: number): Extent[] | undefined {
    const slot = this.#slotOf(grain);
    if (slot < 0) {
      this.misses += 1;
      return undefined;
    }
    this.hits += 1;
    this.#used[slot] = 1;
    const extents: Extent[] = [];
    for (let cell = this.#heads[slot]!; cell !== 0; cell = this.#next(cell)) {
      const page = this.#page(cell);
      const at = offsetOf(cell);
      const first = page[at + 4]!;
      if (first >= endSector) break;
      if (first + page[at + 5]! > firstSector) extents.push(readCell(page, at));
    }
    return extents;
  }

  beginFill(firstGrain: number, grainCount: number): MapFill {
    const fill: MapFill = { firstGrain, grainCount, voided: null, ended: false };
    this.#fills.push(fill);
    return fill;
  }

  /**
   * Keeps the fetched extents of the first `coveredCount` grains of the fill's range, except where
   * a commit has passed it; null when nothing was fetched. `extentsOf` gives the extents in order
   * of sectors.
   */
  endFill(
    fill: MapFill,
    extentsOf: ((grain: number) => readonly Extent[]) | null,
    coveredCount: number = fill.grainCount,
  ): void {
    const at = this.#fills.indexOf(fill);
    if (at >= 0) this.#fills.splice(at, 1);
    if (extentsOf === null || fill.ended) return;
    for (let index = 0; index < coveredCount; index += 1) {
      const grain = fill.firstGrain + index;
      if (fill.voided?.has(grain)) continue;
      this.#replace(grain, extentsOf(grain));
    }
  }

  /** A write of part of a grain (or an unmap of it, with null) has been committed. */
  commit(grain: number, firstSector: number, sectorCount: number, extent: Extent | null): void {
    this.#voidFills(grain, 1);
    const whole = firstSector === 0 && sectorCount === sectorsPerGrain;
    if (whole) {
      this.#replace(grain, extent === null ? [] : [extent]);
      return;
    }
    const slot = this.#slotOf(grain);
    if (slot < 0) return;
    // One cell for the extent, one for a cell that is cut in two.
    if (!this.#reserveCells(2, grain)) {
      this.#remove(this.#slotOf(grain));
      return;
    }
    this.#carve(this.#slotOf(grain), firstSector, firstSector + sectorCount, extent);
  }

  /** Whole grains have been unmapped. */
  commitUnmapRun(firstGrain: number, grainCount: number): void {
    this.#voidFills(firstGrain, grainCount);
    for (let index = 0; index < grainCount; index += 1) {
      const slot = this.#slotOf(firstGrain + index);
      if (slot >= 0) this.#freeChain(slot);
    }
  }

  /** Forgets one grain, so that the next look-up fetches its record anew. */
  forget(grain: number): void {
    const slot = this.#slotOf(grain);
    if (slot >= 0) this.#remove(slot);
  }

  clear(): void {
    for (const fill of this.#fills) fill.ended = true;
    this.#fills = [];
    this.#slotBits = Math.log2(slotsMin);
    this.#grains = new Float64Array(slotsMin).fill(noGrain);
    this.#heads = new Uint32Array(slotsMin);
    this.#used = new Uint8Array(slotsMin);
    this.#pages = [];
    this.#grainCount = this.#cellsMade = this.#cellsFree = this.#freeHead = this.#hand = 0;
  }

  #voidFills(firstGrain: number, grainCount: number): void {
    for (const fill of this.#fills) {
      const from = Math.max(firstGrain, fill.firstGrain);
      const to = Math.min(firstGrain + grainCount, fill.firstGrain + fill.grainCount);
      for (let grain = from; grain < to; grain += 1) (fill.voided ??= new Set()).add(grain);
    }
  }

  #replace(grain: number, extents: readonly Extent[]): void {
    const known = this.#slotOf(grain);
    if (known >= 0) this.#freeChain(known);
    if (!this.#reserveCells(extents.length, grain)) {
      this.forget(grain);
      return;
    }
    const slot = this.#slotOf(grain) >= 0 ? this.#slotOf(grain) : this.#insert(grain);
    this.#used[slot] = 1;
    for (let index = extents.length - 1; index >= 0; index -= 1) {
      this.#heads[slot] = this.#makeCell(extents[index]!, this.#heads[slot]!);
    }
  }

  /** Removes [first, end) from the grain's cells and puts `extent` in its place. */
  #carve(slot: number, first: number, end: number, extent: Extent | null): void {
    let before = 0;
    let cell = this.#heads[slot]!;
    while (cell !== 0) {
      const page = this.#page(cell);
      const at = offsetOf(cell);
      const cellFirst = page[at + 4]!;
      const cellEnd = cellFirst + page[at + 5]!;
      const next = this.#next(cell);
      if (cellFirst >= end) break;
      if (cellEnd > first && cellFirst >= first && cellEnd <= end) {
        this.#link(slot, before, next);
        this.#freeCell(cell);
        cell = next;
        continue;
      }
      if (cellEnd > end) {
        // The part behind stays; when the part before does too, the cell becomes two.
        if (cellFirst >= first) {
          this.#cutFront(page, at, end);
          break;
        }
        const behind = this.#copyCell(cell);
        this.#cutFront(this.#page(behind), offsetOf(behind), end);
        this.#setNext(cell, behind);
      }
      if (cellEnd > first) page[at + 5] = first - cellFirst;
      before = cell;
      cell = this.#next(cell);
      if (cellEnd > end) break;
    }
    if (extent === null) return;
    const following = before === 0 ? this.#heads[slot]! : this.#next(before);
    this.#link(slot, before, this.#makeCell(extent, following));
  }

  #cutFront(page: Buffer, at: number, end: number): void {
    const cut = end - page[at + 4]!;
    page[at + 4] = end;
    page[at + 5] = page[at + 5]! - cut;
    page[at + 6] = page[at + 6]! + cut;
  }

  #link(slot: number, before: number, cell: number): void {
    if (before === 0) this.#heads[slot] = cell;
    else this.#setNext(before, cell);
  }

  // The cells.

  #page(cell: number): Buffer {
    return this.#pages[Math.floor((cell - 1) / cellsPerPage)]!;
  }

  #next(cell: number): number {
    return this.#page(cell).readUInt32BE(offsetOf(cell));
  }

  #setNext(cell: number, next: number): void {
    this.#page(cell).writeUInt32BE(next, offsetOf(cell));
  }

  #takeCell(): number {
    if (this.#freeHead !== 0) {
      const cell = this.#freeHead;
      this.#freeHead = this.#next(cell);
      this.#cellsFree -= 1;
      return cell;
    }
    assert(this.#cellsMade < this.#cellsMax, "cells were not reserved");
    if (this.#cellsMade % cellsPerPage === 0) {
      this.#pages.push(Buffer.allocUnsafeSlow(cellsPerPage * cellBytes));
    }
    this.#cellsMade += 1;
    return this.#cellsMade;
  }

  #makeCell(extent: Extent, next: number): number {
    const { firstSector, sectorCount, chunkSector, holders } = extent;
    assert(sectorCount > 0 && firstSector + sectorCount <= sectorsPerGrain);
    const cell = this.#takeCell();
    const page = this.#page(cell);
    const at = offsetOf(cell);
    page.fill(0, at, at + 32);
    page.writeUInt32BE(next, at);
    page[at + 4] = firstSector;
    page[at + 5] = sectorCount;
    page[at + 6] = chunkSector;
    const holderCount = Math.min(holders.length, holdersMax);
    page[at + 7] = holderCount;
    for (let index = 0; index < holderCount; index += 1) {
      page.writeUInt16BE(holders[index]!, at + 8 + 2 * index);
    }
    page[at + 24] = extent.chunkSectors;
    if (extent.keyDomain !== undefined) page.writeUInt16BE(extent.keyDomain, at + 26);
    extent.key.copy(page, at + 32);
    return cell;
  }

  #copyCell(cell: number): number {
    const copy = this.#takeCell();
    const from = this.#page(cell);
    const at = offsetOf(cell);
    from.copy(this.#page(copy), offsetOf(copy), at, at + cellBytes);
    return copy;
  }

  #freeCell(cell: number): void {
    this.#setNext(cell, this.#freeHead);
    this.#freeHead = cell;
    this.#cellsFree += 1;
  }

  #freeChain(slot: number): void {
    let cell = this.#heads[slot]!;
    while (cell !== 0) {
      const next = this.#next(cell);
      this.#freeCell(cell);
      cell = next;
    }
    this.#heads[slot] = 0;
  }

  /** Evicts other grains until `count` cells are free; false when that cannot be. */
  #reserveCells(count: number, keptGrain: number): boolean {
    while (this.#cellsFree + this.#cellsMax - this.#cellsMade < count) {
      if (!this.#evict(keptGrain)) return false;
    }
    return true;
  }

  // The table of grains.

  #home(grain: number): number {
    const high = Math.floor(grain / 2 ** 32);
    const mixed = Math.imul((grain >>> 0) ^ Math.imul(high, 0x85ebca6b), 0x9e3779b1);
    return mixed >>> (32 - this.#slotBits);
  }

  #slotOf(grain: number): number {
    const mask = this.#grains.length - 1;
    let slot = this.#home(grain);
    for (;;) {
      const there = this.#grains[slot]!;
      if (there === grain) return slot;
      if (there === noGrain) return -1;
      slot = (slot + 1) & mask;
    }
  }

  #insert(grain: number): number {
    while (this.#grainCount >= this.#grainsMax) this.#evict(grain);
    if (this.#grainCount * 2 >= this.#grains.length) this.#grow();
    this.#grainCount += 1;
    return this.#place(grain, 0, 1);
  }

  #place(grain: number, head: number, used: number): number {
    const mask = this.#grains.length - 1;
    let slot = this.#home(grain);
    while (this.#grains[slot] !== noGrain) slot = (slot + 1) & mask;
    this.#grains[slot] = grain;
    this.#heads[slot] = head;
    this.#used[slot] = used;
    return slot;
  }

  #grow(): void {
    const grains = this.#grains;
    const heads = this.#heads;
    const used = this.#used;
    this.#slotBits += 1;
    this.#grains = new Float64Array(grains.length * 2).fill(noGrain);
    this.#heads = new Uint32Array(grains.length * 2);
    this.#used = new Uint8Array(grains.length * 2);
    this.#hand = 0;
    for (let slot = 0; slot < grains.length; slot += 1) {
      if (grains[slot] !== noGrain) this.#place(grains[slot]!, heads[slot]!, used[slot]!);
    }
  }

  /** Drops the next grain that was not used since the hand last passed; false when there is none. */
  #evict(keptGrain: number): boolean {
    const slots = this.#grains.length;
    for (let steps = 0; steps < 2 * slots + 1; steps += 1) {
      const slot = this.#hand;
      const grain = this.#grains[slot]!;
      if (grain === noGrain || grain === keptGrain || this.#used[slot] === 1) {
        this.#used[slot] = 0;
        this.#hand = (slot + 1) & (slots - 1);
        continue;
      }
      this.#remove(slot);
      return true;
    }
    return false;
  }

  #remove(slot: number): void {
    this.#freeChain(slot);
    this.#grainCount -= 1;
    // Linear probing without tombstones: what would no longer be found moves into the gap.
    const mask = this.#grains.length - 1;
    let gap = slot;
    let at = slot;
    for (;;) {
      at = (at + 1) & mask;
      const grain = this.#grains[at]!;
      if (grain === noGrain) break;
      const distanceFromHome = (at - this.#home(grain)) & mask;
      if (distanceFromHome < ((at - gap) & mask)) continue;
      this.#grains[gap] = grain;
      this.#heads[gap] = this.#heads[at]!;
      this.#used[gap] = this.#used[at]!;
      gap = at;
    }
    this.#grains[gap] = noGrain;
    this.#heads[gap] = 0;
    this.#used[gap] = 0;
  }
}

function offsetOf(cell: number): number {
  return ((cell - 1) % cellsPerPage) * cellBytes;
}

function readCell(page: Buffer, at: number): Extent {
  const holderCount = page[at + 7]!;
  const holders: number[] = [];
  for (let index = 0; index < holderCount; index += 1) {
    holders.push(page.readUInt16BE(at + 8 + 2 * index));
  }
  const key = Buffer.allocUnsafe(32);
  page.copy(key, 0, at + 32, at + 64);
  const extent = {
    firstSector: page[at + 4]!,
    sectorCount: page[at + 5]!,
    key,
    chunkSector: page[at + 6]!,
    chunkSectors: page[at + 24]!,
    holders,
  };
  return withKeyDomain(extent, page.readUInt16BE(at + 26));
}
