import { assert } from "../brick/assert.ts";
import { lentBytesMin } from "../brick/rpc/lent-memory.ts";
import { crc32c, readDigest } from "./crc32c.ts";
import { ahsBytesMax, loginDataBytesMax, peekBytes, receiveSlabBytes } from "./limits.ts";
import { bhsBytes, common } from "./pdu.ts";

/** A received PDU. All buffers are parts of the received chunks where that was possible. */
export interface Pdu {
  bhs: Buffer;
  ahs: Buffer | null;
  /** The data segment in order, without padding. */
  data: Buffer[];
  dataLength: number;
  /** The data are one buffer, alone in its memory, which may be given back. */
  lent: boolean;
}

export type PduFault =
  /** The header cannot be believed, nor where the next one begins: drop the connection. */
  | { code: "header_digest" }
  /** Reject the PDU, which is whole but for its damaged data. The next one can be read. */
  | { code: "data_digest"; pdu: Pdu }
  /** More than we declared: the connection cannot go on. */
  | { code: "data_too_long"; bhs: Buffer; lengthBytes: number; limitBytes: number }
  | { code: "ahs_too_long"; bhs: Buffer; lengthBytes: number };

export type PduEvent = { ok: true; pdu: Pdu } | { ok: false; fault: PduFault };

const digestBytes = 4;

/**
 * Cuts a byte stream into PDUs, in place: a PDU's data is a list of slices of the chunks it came
 * in. Only a header that straddles two chunks is copied. Long data have memory of their own: what of
 * them came with their header is copied there, and the rest can be received there.
 *
 *     header ──▶ data ──▶ trailer (padding, data digest) ──▶ header
 */
export class PduStream {
  headerDigest = false;
  dataDigest = false;
  /** Our MaxRecvDataSegmentLength, once declared. */
  dataBytesMax = loginDataBytesMax;

  #chunk: Buffer = Buffer.alloc(0);
  #at = 0;
  #phase: "header" | "data" | "trailer" = "header";
  /** A header or trailer that is not whole yet, and how much of it there is. */
  readonly #partial = Buffer.alloc(bhsBytes + ahsBytesMax + digestBytes);
  #partialBytes = 0;
  #pdu: Pdu = { bhs: this.#partial, ahs: null, data: [], dataLength: 0, lent: false };
  #dataMissing = 0;
  /** Memory of long data that are not all here. */
  #long: Buffer | null = null;
  #slab: Buffer = Buffer.alloc(0);
  #slabAt = 0;
  #peeks = false;

  /** Where to receive the next bytes, for `filled`. Never empty. */
  room(): Buffer {
    if (this.#long !== null) return this.#long.subarray(this.#long.length - this.#dataMissing);
    if (this.#slab.length - this.#slabAt < peekBytes) {
      this.#slab = Buffer.allocUnsafeSlow(receiveSlabBytes);
      this.#slabAt = 0;
    }
    const end = this.#peeks ? this.#slabAt + peekBytes : this.#slab.length;
    this.#peeks = false;
    return this.#slab.subarray(this.#slabAt, end);
  }

  /** `count` bytes have come into the room given last; otherwise as `push`. */
  filled(count: number): void {
    if (this.#long !== null) {
      assert(count <= this.#dataMissing, "more came than there was room for");
      this.#dataMissing -= count;
      return;
    }
    this.#slabAt += count;
    this.push(this.#slab.subarray(this.#slabAt - count, this.#slabAt));
  }

  /** Gives the next chunk; every PDU of the last one must have been taken out by `next`. */
  push(chunk: Buffer): void {
    this.#chunk = chunk;
    this.#at = 0;
  }

  /** The next whole PDU, or null when more bytes are needed. After most faults it is dead. */
  next(): PduEvent | null {
    for (;;) {
      if (this.#phase === "header") {
        const fault = this.#header();
        if (fault === null) return null;
        if (fault !== undefined) return { ok: false, fault };
      }
      if (this.#phase === "data" && !this.#data()) return null;
      if (this.#phase === "trailer") {
        const event = this.#trailer();
        if (event === null) return null;
        return event;
      }
    }
  }

  /** null: more bytes are needed; undefined: the header is whole. */
  #header(): PduFault | null | undefined {
    const bhs = this.#take(bhsBytes);
    if (bhs === null) return null;
    const ahsLength = common.ahsWords.get(bhs) * 4;
    if (ahsLength > ahsBytesMax) return { code: "ahs_too_long", bhs, lengthBytes: ahsLength };
    const dataLength = common.dataLength.get(bhs);
    if (dataLength > this.dataBytesMax) {
      const limitBytes = this.dataBytesMax;
      return { code: "data_too_long", bhs, lengthBytes: dataLength, limitBytes };
    }
    const headerLength = bhsBytes + ahsLength;
    const whole = this.#take(headerLength + (this.headerDigest ? digestBytes : 0));
    if (whole === null) return null;
    if (this.headerDigest) {
      const sum = crc32c(whole.subarray(0, headerLength));
      if (sum !== readDigest(whole, headerLength)) return { code: "header_digest" };
    }
    // What was gathered in #partial is overwritten by the next header.
    const kept = this.#partialBytes > 0 ? Buffer.from(whole) : whole;
    this.#consume(whole.length);
    this.#pdu = {
      bhs: kept.subarray(0, bhsBytes),
      ahs: ahsLength > 0 ? kept.subarray(bhsBytes, headerLength) : null,
      data: [],
      dataLength,
      lent: dataLength >= lentBytesMin,
    };
    this.#dataMissing = dataLength;
    if (this.#pdu.lent) {
      this.#long = Buffer.allocUnsafeSlow(dataLength);
      this.#pdu.data.push(this.#long);
    }
    this.#phase = "data";
    return undefined;
  }

  #data(): boolean {
    if (this.#dataMissing > 0) {
      const end = Math.min(this.#at + this.#dataMissing, this.#chunk.length);
      if (this.#long !== null) {
        this.#chunk.copy(this.#long, this.#long.length - this.#dataMissing, this.#at, end);
      } else if (end > this.#at) this.#pdu.data.push(this.#chunk.subarray(this.#at, end));
      this.#dataMissing -= end - this.#at;
      this.#at = end;
    }
    if (this.#dataMissing > 0) return false;
    // Long data seldom come alone: little is read behind them, so that little is copied.
    this.#peeks = this.#long !== null;
    this.#long = null;
    this.#phase = "trailer";
    return true;
  }

  #trailer(): PduEvent | null {
    const { dataLength, data } = this.#pdu;
    const padding = -dataLength & 3;
    const length = padding + (this.dataDigest && dataLength > 0 ? digestBytes : 0);
    if (length > 0) {
      const trailer = this.#take(length);
      if (trailer === null) return null;
      this.#consume(length);
      if (length > padding) {
        let sum = 0;
        for (const slice of data) sum = crc32c(slice, sum);
        sum = crc32c(trailer.subarray(0, padding), sum);
        if (sum !== readDigest(trailer, padding)) {
          this.#phase = "header";
          return { ok: false, fault: { code: "data_digest", pdu: this.#pdu } };
        }
      }
    }
    this.#phase = "header";
    return { ok: true, pdu: this.#pdu };
  }

  /** The next `length` bytes in one piece, not consumed; null (and gathered) when not all here. */
  #take(length: number): Buffer | null {
    const here = this.#chunk.length - this.#at;
    if (this.#partialBytes === 0 && here >= length) {
      return this.#chunk.subarray(this.#at, this.#at + length);
    }
    if (this.#partialBytes < length) {
      const end = Math.min(this.#at + length - this.#partialBytes, this.#chunk.length);
      this.#partialBytes += this.#chunk.copy(this.#partial, this.#partialBytes, this.#at, end);
      this.#at = end;
    }
    return this.#partialBytes >= length ? this.#partial.subarray(0, length) : null;
  }

  #consume(length: number): void {
    if (this.#partialBytes > 0) this.#partialBytes = 0;
    else this.#at += length;
  }
}
