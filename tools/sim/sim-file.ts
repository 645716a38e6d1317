import { assert } from "../../brick/assert.ts";
import type { Prng } from "../../brick/prng.ts";
import { KiB, sectorBytes } from "../../brick/units.ts";

/** Content is kept in pages; an absent page reads as zeros and takes no space. */
export const pageBytes = 64 * KiB;

/** A change that the medium may not have yet, with what it replaced. */
interface Unsynced {
  sequence: number;
  offsetBytes: number;
  /** What the range held before, from offsetBytes on; empty for a truncation. */
  before: Buffer;
  sizeBytesBefore: number;
  truncation: { pages: Map<number, Buffer> } | null;
  /** Synced after all, and kept only because an older change never can be. */
  durable: boolean;
  /** A sync failed on it: no later sync brings it to the medium (as with Linux's page cache). */
  doomed: boolean;
}

/** One file's bytes: what reads see, and how to take back what no sync has made durable. */
export class SimFile {
  sizeBytes = 0;
  #pages = new Map<number, Buffer>();
  #unsynced: Unsynced[] = [];
  #sequence = 0;
  /** Sectors that the medium does not give back any more; writing them makes them readable again. */
  readonly #unreadable = new Set<number>();

  get allocatedBytes(): number {
    return this.#pages.size * pageBytes;
  }

  /** Bytes in pages that a write to the range would have to add. */
  missingBytes(offsetBytes: number, lengthBytes: number): number {
    let missing = 0;
    const last = Math.floor((offsetBytes + lengthBytes - 1) / pageBytes);
    for (let page = Math.floor(offsetBytes / pageBytes); page <= last; page += 1) {
      if (!this.#pages.has(page)) missing += pageBytes;
    }
    return lengthBytes === 0 ? 0 : missing;
  }

  read(offsetBytes: number, lengthBytes: number): Buffer {
    const length = Math.max(0, Math.min(lengthBytes, this.sizeBytes - offsetBytes));
    const bytes = Buffer.allocUnsafe(length);
    eachPage(offsetBytes, length, (page, from, at, count) => {
      const content = this.#pages.get(page);
      if (content === undefined) bytes.fill(0, at, at + count);
      else content.copy(bytes, at, from, from + count);
    });
    return bytes;
  }

  write(offsetBytes: number, buffers: readonly Buffer[]): void {
    let lengthBytes = 0;
    for (const buffer of buffers) lengthBytes += buffer.length;
    if (lengthBytes === 0) return;
    this.#remember(offsetBytes, this.#before(offsetBytes, lengthBytes), null);
    if (this.#unreadable.size > 0) this.#remap(offsetBytes, lengthBytes);
    let at = offsetBytes;
    for (const buffer of buffers) {
      this.#put(at, buffer);
      at += buffer.length;
    }
    this.sizeBytes = Math.max(this.sizeBytes, at);
  }

  /** The file is as long as if it had been written; the range holds what it held. */
  loseWrite(offsetBytes: number, lengthBytes: number): void {
    this.write(offsetBytes, [this.#before(offsetBytes, lengthBytes)]);
  }

  /** What the range holds; zeros behind the end. */
  #before(offsetBytes: number, lengthBytes: number): Buffer {
    const held = this.read(offsetBytes, lengthBytes);
    if (held.length === lengthBytes) return held;
    const before = Buffer.alloc(lengthBytes);
    held.copy(before);
    return before;
  }

  truncate(sizeBytes: number): void {
    const pages = new Map<number, Buffer>();
    const firstGone = Math.ceil(sizeBytes / pageBytes);
    // The page that is cut in two is kept as it was, so that the cut can be taken back.
    const cutPage = sizeBytes % pageBytes === 0 ? -1 : firstGone - 1;
    for (const [page, content] of this.#pages) {
      if (page >= firstGone) pages.set(page, content);
      if (page === cutPage) pages.set(page, Buffer.from(content));
    }
    this.#remember(sizeBytes, Buffer.alloc(0), { pages });
    for (const page of pages.keys()) if (page !== cutPage) this.#pages.delete(page);
    this.#pages.get(cutPage)?.fill(0, sizeBytes % pageBytes);
    this.sizeBytes = sizeBytes;
  }

  /** A sync covers what was written before it began. */
  beginSync(): number {
    return this.#sequence;
  }

  endSync(upTo: number): void {
    let firstDoomed = this.#unsynced.findIndex((change) => change.doomed);
    if (firstDoomed < 0) firstDoomed = Number.POSITIVE_INFINITY;
    this.#unsynced = this.#unsynced.filter((change, at) => {
      if (change.sequence > upTo || change.doomed) return true;
      change.durable = true;
      return at > firstDoomed;
    });
  }

  failSync(upTo: number): void {
    for (const change of this.#unsynced) {
      if (change.sequence <= upTo && !change.durable) change.doomed = true;
    }
  }

  makeUnreadable(offsetBytes: number, lengthBytes: number): void {
    for (let at = offsetBytes; at < offsetBytes + lengthBytes; at += sectorBytes) {
      this.#unreadable.add(Math.floor(at / sectorBytes));
    }
  }

  isReadable(offsetBytes: number, lengthBytes: number): boolean {
    if (this.#unreadable.size === 0 || lengthBytes === 0) return true;
    const last = Math.floor((offsetBytes + lengthBytes - 1) / sectorBytes);
    for (let sector = Math.floor(offsetBytes / sectorBytes); sector <= last; sector += 1) {
      if (this.#unreadable.has(sector)) return false;
    }
    return true;
  }

  flipBit(bitAt: number): void {
    const byteAt = Math.floor(bitAt / 8);
    assert(byteAt < this.sizeBytes);
    const content = this.#page(Math.floor(byteAt / pageBytes));
    content[byteAt % pageBytes]! ^= 1 << (bitAt % 8);
  }

  /**
   * A power cut. Each 512-byte unit that was written since the last sync holds, afterwards, any of
   * the versions it had since: all old, all new, a prefix of the writes, or any mixture.
   */
  crash(prng: Prng): void {
    const keepChance = prng.pick([0, 0, 1, 0.5, 0.9, 0.1]);
    const inOrder = prng.chance(0.4);
    const cut = prng.between(0, this.#unsynced.length);
    // Sectors of which a newer version than the one at hand was kept.
    const settled = new Set<number>();
    const keepLength = prng.chance(0.5);
    for (let at = this.#unsynced.length - 1; at >= 0; at -= 1) {
      const change = this.#unsynced[at]!;
      if (change.truncation !== null) {
        // Sizes change in order: with a truncation, all after it is taken back.
        if (change.durable || settled.size > 0 || prng.chance(0.5)) break;
        this.sizeBytes = change.sizeBytesBefore;
        for (const [page, content] of change.truncation.pages) this.#pages.set(page, content);
        continue;
      }
      const chance = change.durable
        ? 1
        : inOrder
          ? at < cut
            ? 1
            : at === cut
              ? 0.5
              : 0
          : keepChance;
      this.#takeBack(change, chance, settled, prng, keepLength);
    }
    this.#unsynced = [];
  }

  /** Takes back each sector of the write with 1 - keepChance, where nothing newer was kept. */
  #takeBack(
    change: Unsynced,
    keepChance: number,
    settled: Set<number>,
    prng: Prng,
    keepLength: boolean,
  ): void {
    const { offsetBytes, before, sizeBytesBefore } = change;
    const end = offsetBytes + before.length;
    let keptEnd = sizeBytesBefore;
    for (
      let sector = Math.floor(offsetBytes / sectorBytes);
      sector * sectorBytes < end;
      sector += 1
    ) {
      const from = Math.max(offsetBytes, sector * sectorBytes);
      const to = Math.min(end, (sector + 1) * sectorBytes);
      if (settled.has(sector) || prng.chance(keepChance)) {
        settled.add(sector);
        keptEnd = Math.max(keptEnd, to);
        continue;
      }
      this.#put(from, before.subarray(from - offsetBytes, to - offsetBytes));
    }
    if (end > sizeBytesBefore && end === this.sizeBytes && !keepLength) this.sizeBytes = keptEnd;
  }

  #remember(offsetBytes: number, before: Buffer, truncation: Unsynced["truncation"]): void {
    this.#unsynced.push({
      sequence: (this.#sequence += 1),
      offsetBytes,
      before,
      sizeBytesBefore: this.sizeBytes,
      truncation,
      durable: false,
      doomed: false,
    });
  }

  #remap(offsetBytes: number, lengthBytes: number): void {
    const last = Math.floor((offsetBytes + lengthBytes - 1) / sectorBytes);
    for (let sector = Math.floor(offsetBytes / sectorBytes); sector <= last; sector += 1) {
      this.#unreadable.delete(sector);
    }
  }

  #page(page: number): Buffer {
    let content = this.#pages.get(page);
    if (content === undefined) this.#pages.set(page, (content = Buffer.alloc(pageBytes)));
    return content;
  }

  #put(offsetBytes: number, bytes: Buffer): void {
    eachPage(offsetBytes, bytes.length, (page, from, at, count) => {
      bytes.copy(this.#page(page), from, at, at + count);
    });
  }
}

/** Calls `visit(page, offset in the page, offset in the range, count)` for each page touched. */
function eachPage(
  offsetBytes: number,
  lengthBytes: number,
  visit: (page: number, from: number, at: number, count: number) => void,
): void {
  for (let at = 0; at < lengthBytes; ) {
    const page = Math.floor((offsetBytes + at) / pageBytes);
    const from = (offsetBytes + at) % pageBytes;
    const count = Math.min(pageBytes - from, lengthBytes - at);
    visit(page, from, at, count);
    at += count;
  }
}
