import { type Cipheriv, createCipheriv, createDecipheriv, type Decipheriv } from "node:crypto";
import { assert } from "../assert.ts";
import { grainBytes, sectorBytes } from "../units.ts";

/**
 * AES-256-XTS (IEEE 1619) over a range of a volume, by data units as dm-crypt has them: the tweak is
 * the number of the unit's first sector, little-endian. Units are the 4 KiB that are aligned in the
 * volume and lie wholly inside the range, and single sectors for what is left at its ends. So the
 * cut follows from the range alone, and a part of it that begins and ends between units is cut alike.
 *
 * It stands on node:crypto's AES in ECB mode, with the tweaks of XTS around it. An object of node's own
 * `aes-256-xts` serves one unit, and costs several times what the unit's encryption does; one of ECB
 * keeps no state between blocks and serves for good. xts.test.ts holds the two against each other.
 */

export const dataKeyBytes = 64;
export const unitSectors = 8;
const blockBytes = 16;
const blockWords = blockBytes / 4;

// Tweaks are worked on as words of the machine, and are little-endian by the standard.
assert(new Uint8Array(new Uint32Array([1]).buffer)[0] === 1, "a little-endian machine is needed");

/** One range at a time: everything here runs to its end within one call. */
const maskWords = new Int32Array(grainBytes / 4);
const maskBytes = Buffer.from(maskWords.buffer);
const workWords = new Int32Array(grainBytes / 4);
const workBytes = Buffer.from(workWords.buffer);
const tweakBytes = Buffer.alloc((grainBytes / sectorBytes) * blockBytes);

export class Xts {
  readonly #encrypts: Cipheriv;
  readonly #decrypts: Decipheriv;
  readonly #tweaks: Cipheriv;

  /** Halves that are equal would make the encryption of a tweak and of data the same (IEEE 1619). */
  constructor(key: Buffer) {
    assert(isDataKey(key));
    const half = dataKeyBytes / 2;
    const forData = key.subarray(0, half);
    this.#encrypts = createCipheriv("aes-256-ecb", forData, null).setAutoPadding(false);
    this.#decrypts = createDecipheriv("aes-256-ecb", forData, null).setAutoPadding(false);
    this.#tweaks = createCipheriv("aes-256-ecb", key.subarray(half), null).setAutoPadding(false);
  }

  /** What is written at sector `firstSector` of the volume; at most a grain, in whole sectors. */
  encrypt(firstSector: number, data: readonly Buffer[]): Buffer {
    return this.#apply(this.#encrypts, firstSector, data);
  }

  decrypt(firstSector: number, stored: Buffer): Buffer {
    return this.#apply(this.#decrypts, firstSector, [stored]);
  }

  #apply(cipher: Cipheriv | Decipheriv, firstSector: number, from: readonly Buffer[]): Buffer {
    let lengthBytes = 0;
    for (const part of from) {
      assert(lengthBytes + part.length <= grainBytes, "a range longer than a grain");
      lengthBytes += part.copy(workBytes, lengthBytes);
    }
    assert(lengthBytes % sectorBytes === 0 && Number.isSafeInteger(firstSector));
    this.#makeMask(firstSector, lengthBytes / sectorBytes);
    const words = lengthBytes / 4;
    for (let at = 0; at < words; at += 1) workWords[at]! ^= maskWords[at]!;
    const made = aligned(cipher.update(workBytes.subarray(0, lengthBytes)));
    const out = new Int32Array(made.buffer, made.byteOffset, words);
    for (let at = 0; at < words; at += 1) out[at]! ^= maskWords[at]!;
    return made;
  }

  /** The tweak of every block of the range: that of its unit, doubled once for each block before it. */
  #makeMask(firstSector: number, sectors: number): void {
    const endSector = firstSector + sectors;
    let units = 0;
    for (let at = firstSector; at < endSector; units += 1) {
      const tweakAt = units * blockBytes;
      tweakBytes.fill(0, tweakAt, tweakAt + blockBytes);
      tweakBytes.writeUInt32LE(at % 2 ** 32, tweakAt);
      tweakBytes.writeUInt32LE(Math.floor(at / 2 ** 32), tweakAt + 4);
      at += sectorsOfUnit(at, endSector);
    }
    const tweaks = this.#tweaks.update(tweakBytes.subarray(0, units * blockBytes));
    let word = 0;
    let unit = 0;
    for (let at = firstSector; at < endSector; unit += 1) {
      const count = sectorsOfUnit(at, endSector);
      tweaks.copy(maskBytes, word * 4, unit * blockBytes, (unit + 1) * blockBytes);
      word = doubleOn(word, (count * sectorBytes) / blockBytes);
      at += count;
    }
  }
}

/** 64 bytes of two different halves. */
export function isDataKey(key: Buffer): boolean {
  const half = dataKeyBytes / 2;
  return key.length === dataKeyBytes && !key.subarray(0, half).equals(key.subarray(half));
}

/** Sectors of the unit that begins at `sector`, in a range that ends before `endSector`. */
function sectorsOfUnit(sector: number, endSector: number): number {
  return sector % unitSectors === 0 && sector + unitSectors <= endSector ? unitSectors : 1;
}

/**
 * Fills in the tweaks behind the one at `word`, for `blocks` blocks in all: each is the one before it
 * times alpha in GF(2^128) (IEEE 1619 §5.2). The word behind the last.
 */
function doubleOn(word: number, blocks: number): number {
  let t0 = maskWords[word]!;
  let t1 = maskWords[word + 1]!;
  let t2 = maskWords[word + 2]!;
  let t3 = maskWords[word + 3]!;
  let at = word + blockWords;
  const end = word + blocks * blockWords;
  for (; at < end; at += blockWords) {
    const carry = (t3 >> 31) & 0x87;
    t3 = (t3 << 1) | (t2 >>> 31);
    t2 = (t2 << 1) | (t1 >>> 31);
    t1 = (t1 << 1) | (t0 >>> 31);
    t0 = (t0 << 1) ^ carry;
    maskWords[at] = t0;
    maskWords[at + 1] = t1;
    maskWords[at + 2] = t2;
    maskWords[at + 3] = t3;
  }
  return end;
}

function aligned(bytes: Buffer): Buffer {
  return bytes.byteOffset % 4 === 0 ? bytes : Buffer.from(new Uint8Array(bytes).buffer);
}

/** The sectors of whole units that [firstSector, endSector) of a range [startSector, stopSector) needs. */
export function wholeUnits(
  range: { readonly startSector: number; readonly stopSector: number },
  firstSector: number,
  endSector: number,
): { firstSector: number; endSector: number } {
  const isUnit = (at: number) => at >= range.startSector && at + unitSectors <= range.stopSector;
  const first = firstSector - (firstSector % unitSectors);
  const last = endSector - 1 - ((endSector - 1) % unitSectors);
  return {
    firstSector: isUnit(first) ? first : firstSector,
    endSector: isUnit(last) ? last + unitSectors : endSector,
  };
}
