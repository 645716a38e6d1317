import { randomBytes } from "node:crypto";
import net from "node:net";
import { assert } from "../assert.ts";
import type { Message } from "../host.ts";
import { type BrickNumber, KiB } from "../units.ts";
import {
  encodeFrameHeader,
  type FrameFault,
  FrameReader,
  frameHeaderBytes,
  keepaliveType,
} from "./frame.ts";
import {
  Handshake,
  type HandshakeIdentity,
  handshakeRecordBytes,
  nonceBytes,
  type RefusalReason,
} from "./handshake.ts";
import { giveBack } from "./lent-memory.ts";
import { takeOver } from "./take-over-io.ts";

/** From the first packet to the last record of the handshake. */
export const handshakeDeadlineMs = 2000;
/** Parts up to this size are copied beside their header: cheaper than an entry of the writev. */
const copiedPartBytesMax = 2 * KiB;
/** Headers and copied parts are laid out in slabs of this size, never written twice. */
const sendSlabBytes = 64 * KiB;

export interface ConnectionEvents {
  authenticated(connection: Connection): void;
  message(connection: Connection, message: Message): void;
  closed(connection: Connection, why: CloseReason): void;
}

export type CloseReason =
  | { code: "closed"; detail: string }
  | { code: "deadline" }
  | { code: "refused"; reason: RefusalReason }
  | { code: "fault"; fault: FrameFault | { code: "frame_from"; from: BrickNumber } };

/** One TCP connection to a peer: first the handshake, then frames both ways. */
export class Connection {
  /** 0 until the peer has proved itself, unless we dialed it. */
  peer: BrickNumber;
  readonly dialed: boolean;
  authenticated = false;
  lastReceivedMs = performance.now();
  lastSentMs = performance.now();
  readonly #identity: HandshakeIdentity;
  readonly #events: ConnectionEvents;
  readonly #reader = new FrameReader();
  readonly #socket: net.Socket;
  readonly #deadline: NodeJS.Timeout;
  #handshake: Handshake | null;
  #closed = false;
  #ending = false;
  #why: CloseReason = { code: "closed", detail: "by the peer" };
  #sendSlab = Buffer.allocUnsafeSlow(sendSlabBytes);
  #sendAt = 0;

  /** Dials `peer` at the address, or takes over an accepted socket that has not been read yet. */
  constructor(
    identity: HandshakeIdentity,
    events: ConnectionEvents,
    end: { peer: BrickNumber; host: string; port: number } | { accepted: net.Socket },
  ) {
    this.#identity = identity;
    this.#events = events;
    this.dialed = "peer" in end;
    this.peer = "peer" in end ? end.peer : 0;
    this.#handshake = new Handshake(
      identity,
      randomBytes(nonceBytes),
      "peer" in end ? end.peer : null,
    );
    const onread = {
      buffer: () => this.#reader.room(),
      callback: (count: number) => {
        this.#received(count);
        return true;
      },
    };
    this.#socket =
      "peer" in end
        ? net.connect({ host: end.host, port: end.port, noDelay: true, onread })
        : takeOver(end.accepted, onread);
    this.#deadline = setTimeout(() => this.close({ code: "deadline" }), handshakeDeadlineMs);
    this.#socket.on("error", (error) => {
      if (this.#why.code === "closed") this.#why = { code: "closed", detail: error.message };
    });
    this.#socket.on("close", () => this.#ended());
    if (this.dialed) {
      const handshake = this.#handshake;
      this.#socket.on("connect", () => this.#socket.write(handshake.hello()));
    } else {
      this.#socket.setNoDelay(true);
      this.#socket.resume();
    }
    this.#socket.setKeepAlive(true, 10_000);
  }

  get usable(): boolean {
    return this.authenticated && !this.#closed && !this.#ending;
  }

  /** Bytes handed to the socket that the kernel has not taken. */
  get waitingBytes(): number {
    return this.#socket.writableLength;
  }

  get remoteAddress(): string {
    return `${this.#socket.remoteAddress ?? "?"}:${this.#socket.remotePort ?? "?"}`;
  }

  /** Sends the messages in one write; when it is over, well or not, their memory is released. */
  send(messages: readonly Message[]): void {
    assert(this.usable);
    const buffers = this.#layOut(messages);
    this.lastSentMs = performance.now();
    const released = messages.filter((message) => message.release !== undefined);
    const written = () => {
      for (const message of released) message.release?.();
    };
    if (buffers.length > 1) this.#socket.cork();
    const last = buffers.pop()!;
    for (const buffer of buffers) this.#socket.write(buffer);
    this.#socket.write(last, released.length > 0 ? written : undefined);
    this.#socket.uncork();
  }

  keepalive(): void {
    this.send([{ type: keepaliveType, request: 0, reply: false, boot: 0, body: [] }]);
  }

  /** Closes when what was sent has left; receives until the peer closes too. */
  end(): void {
    if (this.#ending || this.#closed) return;
    this.#ending = true;
    this.#why = { code: "closed", detail: "another connection took over" };
    this.#socket.end();
  }

  close(why: CloseReason): void {
    if (this.#closed) return;
    this.#why = why;
    this.#socket.destroy();
    this.#ended();
  }

  #ended(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#deadline);
    this.#events.closed(this, this.#why);
  }

  #received(count: number): void {
    if (this.#closed) return;
    this.lastReceivedMs = performance.now();
    this.#reader.filled(count);
    while (this.#handshake !== null) {
      const record = this.#reader.take(handshakeRecordBytes);
      if (record === null) return;
      if (!this.#shake(this.#handshake, record)) return;
    }
    while (!this.#closed) {
      const frame = this.#reader.next();
      if (frame === null) return;
      if ("code" in frame) {
        this.close({ code: "fault", fault: frame });
        return;
      }
      const { type, request, reply, boot, from } = frame.header;
      if (from !== this.peer) {
        this.close({ code: "fault", fault: { code: "frame_from", from } });
        return;
      }
      if (type === keepaliveType) continue;
      const { body, lent } = frame;
      const message: Message = { type, request, reply, boot, body: [body] };
      if (lent) message.release = () => giveBack(body);
      this.#events.message(this, message);
    }
  }

  /** One step of the handshake; false when there is nothing more to read. */
  #shake(handshake: Handshake, record: Buffer): boolean {
    const next = handshake.receive(record);
    if (next.type === "refused") {
      this.#why = { code: "refused", reason: next.reason };
      // A stranger gets this one word and a closed socket.
      if (next.record !== null) this.#socket.write(next.record);
      this.#handshake = null;
      this.#socket.destroySoon();
      this.#ended();
      return false;
    }
    if (next.record !== null) this.#socket.write(next.record);
    if (next.type === "done") {
      clearTimeout(this.#deadline);
      this.peer = next.peer;
      this.authenticated = true;
      this.#handshake = null;
      this.#events.authenticated(this);
    }
    return true;
  }

  /** The messages' bytes in order, without copying large parts. */
  #layOut(messages: readonly Message[]): Buffer[] {
    const buffers: Buffer[] = [];
    let runAt = this.#sendAt;
    const endRun = () => {
      if (this.#sendAt > runAt) buffers.push(this.#sendSlab.subarray(runAt, this.#sendAt));
      runAt = this.#sendAt;
    };
    const reserve = (bytes: number) => {
      if (this.#sendAt + bytes <= sendSlabBytes) return;
      endRun();
      this.#sendSlab = Buffer.allocUnsafeSlow(sendSlabBytes);
      this.#sendAt = runAt = 0;
    };
    for (const message of messages) {
      reserve(frameHeaderBytes);
      encodeFrameHeader(message, this.#identity.self, this.#sendSlab, this.#sendAt);
      this.#sendAt += frameHeaderBytes;
      for (const part of message.body) {
        if (part.length > copiedPartBytesMax) {
          endRun();
          buffers.push(part);
        } else {
          reserve(part.length);
          this.#sendAt += part.copy(this.#sendSlab, this.#sendAt);
        }
      }
    }
    endRun();
    return buffers;
  }
}
