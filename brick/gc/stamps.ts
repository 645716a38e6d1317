import { assert } from "../assert.ts";

/**
 * Two chunks of one segment never begin in the same slot: a record is at least a header and one
 * sector long, which is more. Where memory is short slots are longer: then small chunks share one,
 * and each is protected as long as the one of them that was protected last.
 */
export const slotBytes = 512;
/** Whatever memory there is: longer slots would keep the garbage of a random load beside what lives. */
export const slotBytesMax = 4096;
/** Epochs that a stamp tells apart: the present one and the two before it. */
export const epochsKept = 3;
const slotsPerByte = 4;

/** Slots as short as `memoryBytesMax` allows when all of the capacity is stamped. */
export function slotBytesFor(capacityBytes: number, memoryBytesMax: number): number {
  let bytes = slotBytes;
  while (bytes < slotBytesMax && capacityBytes / bytes / slotsPerByte > memoryBytesMax) bytes *= 2;
  return bytes;
}

/** Where a chunk lies: a place of an older use of the segment is another place. */
export interface StampPlace {
  readonly segment: number;
  readonly epoch: number;
  readonly offsetBytes: number;
}

/** The stamps of one segment: two bits a slot, 0 or 1 + (epoch modulo 3). */
interface Page {
  readonly segmentEpoch: number;
  /** The epoch as of which the bits are to be read. */
  atEpoch: number;
  readonly bits: Uint8Array;
}

/**
 * In which epoch of garbage collection each chunk of this brick was protected last: written, hit by
 * a put of the same bytes, or marked by a shard. Kept in memory alone, 1/2048 of the log's size or less: a
 * new boot begins without stamps, and without the right to sweep (docs/garbage.md).
 *
 * The clock is the newest epoch that this brick has heard of, by the cluster state or from a peer
 * that knew it sooner; every stamp made is of that epoch. So nothing is stamped too old because the
 * brick's own state lags.
 */
export class Stamps {
  readonly #segmentBytes: number;
  readonly #slotBytes: number;
  readonly #pages = new Map<number, Page>();
  #clock = 0;

  /** `slotBytes`: see `slotBytesFor`. */
  constructor(segmentBytes: number, ofSlotBytes = slotBytes) {
    this.#segmentBytes = segmentBytes;
    this.#slotBytes = ofSlotBytes;
  }

  get clock(): number {
    return this.#clock;
  }

  /** Bytes of memory that the stamps take. */
  get memoryBytes(): number {
    return this.#pages.size * this.#pageBytes;
  }

  /** Somebody knows of this epoch: stamps made from now on are not older. */
  reach(epoch: number): void {
    this.#clock = Math.max(this.#clock, epoch);
  }

  stamp(place: StampPlace): void {
    this.#write(place, this.#clock);
  }

  /** The chunk has been copied to another place of this brick: it is as well protected there. */
  carry(from: StampPlace, to: StampPlace): void {
    const epoch = this.epochOf(from);
    if (epoch !== null) this.#write(to, epoch);
  }

  /** The epoch of the last stamp, if it is among the last three; else null. */
  epochOf({ segment, epoch, offsetBytes }: StampPlace): number | null {
    const page = this.#pages.get(segment);
    if (page === undefined || page.segmentEpoch !== epoch) return null;
    this.#age(page);
    const slot = Math.floor(offsetBytes / this.#slotBytes);
    const value = (page.bits[slot >> 2]! >> (2 * (slot & 3))) & 3;
    if (value === 0) return null;
    for (let back = 0; back < epochsKept; back += 1) {
      if (stampOf(this.#clock - back) === value) return this.#clock - back;
    }
    return null;
  }

  /** The segment is used anew: nothing of before counts. */
  forget(segment: number): void {
    this.#pages.delete(segment);
  }

  get #pageBytes(): number {
    return Math.ceil(this.#segmentBytes / this.#slotBytes / slotsPerByte);
  }

  #write({ segment, epoch, offsetBytes }: StampPlace, gcEpoch: number): void {
    let page = this.#pages.get(segment);
    if (page === undefined || page.segmentEpoch !== epoch) {
      const bits = new Uint8Array(this.#pageBytes);
      page = { segmentEpoch: epoch, atEpoch: this.#clock, bits };
      this.#pages.set(segment, page);
    }
    this.#age(page);
    const slot = Math.floor(offsetBytes / this.#slotBytes);
    assert(slot >> 2 < page.bits.length, "a chunk beyond the end of its segment");
    const shift = 2 * (slot & 3);
    page.bits[slot >> 2] = (page.bits[slot >> 2]! & ~(3 << shift)) | (stampOf(gcEpoch) << shift);
  }

  /** Clears what would be taken for an epoch that has come since the page was used last. */
  #age(page: Page): void {
    const passed = this.#clock - page.atEpoch;
    if (passed === 0) return;
    if (passed >= epochsKept) page.bits.fill(0);
    else {
      const keep = keepTables[passed === 1 ? stampOf(this.#clock) : 3 + onlyKept(this.#clock)]!;
      for (let at = 0; at < page.bits.length; at += 1) page.bits[at] = keep[page.bits[at]!]!;
    }
    page.atEpoch = this.#clock;
  }
}

function stampOf(epoch: number): number {
  return 1 + (((epoch % epochsKept) + epochsKept) % epochsKept);
}

/** After two epochs only what was stamped two before the present one is left. */
function onlyKept(clock: number): number {
  return stampOf(clock - 2);
}

/** 1 to 3: clears the slots of that value; 4 to 6: clears all others. */
const keepTables: readonly (Uint8Array | null)[] = [
  null,
  ...[1, 2, 3].map((value) => tableKeeping((one) => one !== value)),
  ...[1, 2, 3].map((value) => tableKeeping((one) => one === value)),
];

function tableKeeping(keeps: (value: number) => boolean): Uint8Array {
  const table = new Uint8Array(256);
  for (let byte = 0; byte < 256; byte += 1) {
    for (let slot = 0; slot < slotsPerByte; slot += 1) {
      const value = (byte >> (2 * slot)) & 3;
      if (keeps(value)) table[byte]! |= value << (2 * slot);
    }
  }
  return table;
}
