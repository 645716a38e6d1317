import { assert } from "../assert.ts";
import { crc32 } from "../crc32.ts";
import type { Message } from "../host.ts";
import { KiB, MiB } from "../units.ts";
import { lentBytesMin } from "./lent-memory.ts";

/**
 * What travels between two bricks once they have shaken hands: frames, back to back.
 *
 * Frame, version 1, big-endian; the header is 48 bytes, the body follows at once:
 *
 *     offset  bytes  field
 *          0      4  magic "ENDf"
 *          4      1  version = 1
 *          5      1  flags: bit 0 = reply; the others zero
 *          6      2  type of message; 0 = keepalive, without a body
 *          8      4  request number; 0 when neither request nor reply
 *         12      2  number of the sending brick
 *         14      2  zero
 *         16      8  boot number of the sender, below 2^53
 *         24      4  body length, at most messageBodyBytesMax
 *         28      4  CRC-32 of the body
 *         32     12  zero
 *         44      4  CRC-32 of the bytes 0 to 43
 */
export const frameHeaderBytes = 48;
/** A mebibyte of data and the words around it. */
export const messageBodyBytesMax = 1 * MiB + 64 * KiB;
export const keepaliveType = 0;
export const messageTypeMax = 0xffff;

const frameMagic = 0x454e4466;
const frameVersion = 1;
const replyFlag = 1;

/** A peer that sends this is not speaking our protocol: the connection must be closed. */
export type FrameFault =
  | { code: "frame_magic" }
  | { code: "frame_version"; version: number }
  | { code: "frame_header_checksum" }
  | { code: "frame_reserve" }
  | { code: "frame_boot" }
  | { code: "frame_too_long"; lengthBytes: number }
  | { code: "frame_body_checksum" };

export interface FrameHeader {
  type: number;
  request: number;
  reply: boolean;
  from: number;
  boot: number;
  bodyBytes: number;
  bodyCrc: number;
}

export function messageBodyBytes(message: Message): number {
  let sum = 0;
  for (const part of message.body) sum += part.length;
  return sum;
}

/** Writes the header of the message, as sent by brick `from`, at `at` in `out`. */
export function encodeFrameHeader(message: Message, from: number, out: Buffer, at: number): void {
  let bodyBytes = 0;
  let bodyCrc = 0;
  for (const part of message.body) {
    bodyBytes += part.length;
    bodyCrc = crc32(part, bodyCrc);
  }
  assert(bodyBytes <= messageBodyBytesMax, "the message is too long");
  out.writeUInt32BE(frameMagic, at);
  out[at + 4] = frameVersion;
  out[at + 5] = message.reply ? replyFlag : 0;
  out.writeUInt16BE(message.type, at + 6);
  out.writeUInt32BE(message.request, at + 8);
  out.writeUInt16BE(from, at + 12);
  out.writeUInt16BE(0, at + 14);
  out.writeUInt32BE(Math.floor(message.boot / 2 ** 32), at + 16);
  out.writeUInt32BE(message.boot >>> 0, at + 20);
  out.writeUInt32BE(bodyBytes, at + 24);
  out.writeUInt32BE(bodyCrc, at + 28);
  out.fill(0, at + 32, at + 44);
  out.writeUInt32BE(crc32(out.subarray(at, at + 44)), at + 44);
}

/** Reads the header at `at`; the caller has checked that 48 bytes are there. */
export function decodeFrameHeader(bytes: Buffer, at: number): FrameHeader | FrameFault {
  if (bytes.readUInt32BE(at) !== frameMagic) return { code: "frame_magic" };
  if (bytes[at + 4] !== frameVersion) return { code: "frame_version", version: bytes[at + 4]! };
  if (crc32(bytes.subarray(at, at + 44)) !== bytes.readUInt32BE(at + 44)) {
    return { code: "frame_header_checksum" };
  }
  const flags = bytes[at + 5]!;
  const zeros =
    bytes.readUInt16BE(at + 14) |
    bytes.readUInt32BE(at + 32) |
    bytes.readUInt32BE(at + 36) |
    bytes.readUInt32BE(at + 40);
  if ((flags & ~replyFlag) !== 0 || zeros !== 0) return { code: "frame_reserve" };
  const bootHigh = bytes.readUInt32BE(at + 16);
  if (bootHigh >= 2 ** 21) return { code: "frame_boot" };
  const bodyBytes = bytes.readUInt32BE(at + 24);
  if (bodyBytes > messageBodyBytesMax) return { code: "frame_too_long", lengthBytes: bodyBytes };
  return {
    type: bytes.readUInt16BE(at + 6),
    request: bytes.readUInt32BE(at + 8),
    reply: (flags & replyFlag) !== 0,
    from: bytes.readUInt16BE(at + 12),
    boot: bootHigh * 2 ** 32 + bytes.readUInt32BE(at + 20),
    bodyBytes,
    bodyCrc: bytes.readUInt32BE(at + 28),
  };
}

/** Memory that bytes are received into; bodies are slices of it and may be kept. */
export const receiveSlabBytes = 512 * KiB;
/** Less room than this left in a slab: go on in a fresh one, rather than read in crumbs. */
const receiveRoomBytesMin = 16 * KiB;
/** What is read behind a long body: the next header, to see whether another one follows. */
const peekBytes = 4 * KiB;

export interface Frame {
  header: FrameHeader;
  body: Buffer;
  /** The body is alone in its memory, which may be given back. */
  lent: boolean;
}

/**
 * Cuts a stream of bytes into frames without copying bodies. Bytes are put straight into slabs; a
 * slab is never written twice, so that a body may be kept by whoever received it (and keeps its
 * whole slab alive: what is to be kept for long and is small should be copied). Only a frame that
 * crosses from one slab into the next has its first part copied.
 *
 *     slab: | handed up .. | #parsedAt: part of a frame | #filledAt: room |
 *
 * A long body has memory of its own, to be given back: what came of it with its header is copied
 * there, the rest is received there. As long bodies seldom come alone, little is read behind one.
 */
export class FrameReader {
  #slab: Buffer = Buffer.allocUnsafeSlow(receiveSlabBytes);
  #parsedAt = 0;
  #filledAt = 0;
  /** The header at #parsedAt, when it has been read and its body is still missing. */
  #header: FrameHeader | null = null;
  /** Memory of a long body, and how much of it is there. */
  #long: Buffer | null = null;
  #longBytes = 0;
  #peeks = false;

  /** Where the next bytes from the socket belong. Never empty. */
  room(): Buffer {
    if (this.#long !== null) return this.#long.subarray(this.#longBytes);
    const frameBytes = frameHeaderBytes + (this.#header?.bodyBytes ?? 0);
    const room = this.#slab.length - this.#filledAt;
    if (room < receiveRoomBytesMin || this.#parsedAt + frameBytes > this.#slab.length) {
      const fresh = Buffer.allocUnsafeSlow(
        Math.max(receiveSlabBytes, frameBytes + receiveRoomBytesMin),
      );
      this.#filledAt = this.#slab.copy(fresh, 0, this.#parsedAt, this.#filledAt);
      this.#parsedAt = 0;
      this.#slab = fresh;
    }
    const end = this.#peeks ? this.#filledAt + peekBytes : this.#slab.length;
    this.#peeks = false;
    return this.#slab.subarray(this.#filledAt, end);
  }

  /** `count` bytes have arrived in the room given last. */
  filled(count: number): void {
    if (this.#long !== null) {
      this.#longBytes += count;
      return;
    }
    this.#filledAt += count;
    assert(this.#filledAt <= this.#slab.length);
  }

  /** Takes `count` bytes that are no frame (the handshake's); null until they have all arrived. */
  take(count: number): Buffer | null {
    assert(this.#header === null);
    if (this.#filledAt - this.#parsedAt < count) return null;
    const bytes = this.#slab.subarray(this.#parsedAt, this.#parsedAt + count);
    this.#parsedAt += count;
    return bytes;
  }

  /** The next whole frame, null when more bytes are needed, or what is wrong with them. */
  next(): Frame | FrameFault | null {
    if (this.#header === null) {
      if (this.#filledAt - this.#parsedAt < frameHeaderBytes) return null;
      const header = decodeFrameHeader(this.#slab, this.#parsedAt);
      if ("code" in header) return header;
      this.#header = header;
      if (header.bodyBytes >= lentBytesMin) this.#beginLong(header);
    }
    const header = this.#header;
    const body = this.#body(header);
    if (body === null) return null;
    if (crc32(body) !== header.bodyCrc) return { code: "frame_body_checksum" };
    this.#header = null;
    const lent = this.#long !== null;
    this.#long = null;
    return { header, body, lent };
  }

  /** Gives the body memory of its own, and moves there what has come of it. */
  #beginLong({ bodyBytes }: FrameHeader): void {
    const from = this.#parsedAt + frameHeaderBytes;
    this.#long = Buffer.allocUnsafeSlow(bodyBytes);
    this.#longBytes = this.#slab.copy(
      this.#long,
      0,
      from,
      Math.min(from + bodyBytes, this.#filledAt),
    );
    this.#parsedAt = from + this.#longBytes;
    this.#peeks = true;
  }

  #body({ bodyBytes }: FrameHeader): Buffer | null {
    if (this.#long !== null) return this.#longBytes < bodyBytes ? null : this.#long;
    const from = this.#parsedAt + frameHeaderBytes;
    if (this.#filledAt - from < bodyBytes) return null;
    this.#parsedAt = from + bodyBytes;
    return this.#slab.subarray(from, from + bodyBytes);
  }
}
