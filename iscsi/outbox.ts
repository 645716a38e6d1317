import { crc32c, writeDigest } from "./crc32c.ts";
import { bhsBytes, common, encode, type Field, type Layout, type Values } from "./pdu.ts";

const slabBytes = 16 * 1024;
/** The most that one PDU needs in the slab: header, padding, two digests. */
const reserveBytes = bhsBytes + 12;
/** Data up to this is copied behind its header: a gathered write's slice costs more. */
const copyBytesMax = 256;

/**
 * What is owed to the initiator, as one gathered write: headers are laid one behind the other in
 * a slab, so that a tick's answers without data are one buffer; data goes out uncopied.
 */
export class Outbox {
  headerDigest = false;
  dataDigest = false;
  /** Of the data not yet taken out. */
  bytes = 0;
  #buffers: Buffer[] = [];
  #whenSent: (() => void)[] = [];
  #slab = Buffer.alloc(slabBytes);
  #sliceStart = 0;
  #at = 0;

  /** Queues a PDU; `dataLength` bytes of `data` follow its header. */
  // biome-ignore lint/suspicious/noExplicitAny: a table's fields differ in type
  pdu<F extends Record<string, Field<any>>>(
    layout: Layout<F>,
    values: Partial<Values<F>>,
    data: readonly Buffer[] = [],
    dataLength = 0,
  ): void {
    if (this.#at + reserveBytes + copyBytesMax > this.#slab.length) this.#nextSlab();
    const bhs = this.#slab.subarray(this.#at, this.#at + bhsBytes);
    encode(layout, values, bhs);
    common.dataLength.set(bhs, dataLength);
    this.#at += bhsBytes;
    if (this.headerDigest) this.#digest(crc32c(bhs));
    if (dataLength > 0) this.#data(data, dataLength);
    this.bytes += bhsBytes + dataLength;
  }

  /** Calls back when what has been queued so far has been sent. */
  whenSent(action: () => void): void {
    this.#whenSent.push(action);
  }

  /** Everything queued, in order. */
  take(): Buffer[] {
    this.#cutSlice();
    const taken = this.#buffers;
    this.#buffers = [];
    this.bytes = 0;
    return taken;
  }

  /** What is to be called when that which was taken last has been sent. */
  takeWhenSent(): (() => void)[] {
    const taken = this.#whenSent;
    this.#whenSent = [];
    return taken;
  }

  #data(data: readonly Buffer[], dataLength: number): void {
    if (dataLength <= copyBytesMax) {
      for (const slice of data) this.#at += slice.copy(this.#slab, this.#at);
    } else {
      this.#cutSlice();
      for (const slice of data) this.#buffers.push(slice);
    }
    const padding = -dataLength & 3;
    this.#slab.fill(0, this.#at, this.#at + padding);
    this.#at += padding;
    if (!this.dataDigest) return;
    let sum = 0;
    for (const slice of data) sum = crc32c(slice, sum);
    this.#digest(crc32c(this.#slab.subarray(this.#at - padding, this.#at), sum));
  }

  #digest(crc: number): void {
    writeDigest(this.#slab, this.#at, crc);
    this.#at += 4;
  }

  #cutSlice(): void {
    if (this.#at === this.#sliceStart) return;
    this.#buffers.push(this.#slab.subarray(this.#sliceStart, this.#at));
    this.#sliceStart = this.#at;
  }

  #nextSlab(): void {
    this.#cutSlice();
    this.#slab = Buffer.alloc(slabBytes);
    this.#sliceStart = 0;
    this.#at = 0;
  }
}
