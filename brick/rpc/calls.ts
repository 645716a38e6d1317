import { assert } from "../assert.ts";
import { levelOfMessage } from "../feature-level.ts";
import type { Host, Message, TimerHandle } from "../host.ts";
import { NumberMap } from "../number-map.ts";
import type { BrickNumber } from "../units.ts";
import { type Wire, Words } from "./words.ts";

export type CallFault =
  /** No answer in time: the request may or may not have been carried out. */
  | { code: "timeout" }
  /** Too many calls are under way to that brick. */
  | { code: "busy" }
  /** Some brick of the cluster does not know such a message yet. */
  | { code: "level" };

/** What came of a message; in parts only when this brick sent it to itself. */
export class Received {
  readonly ok = true;
  /** As of Message. */
  readonly release: (() => void) | null;
  readonly #body: readonly Buffer[];
  readonly #words: Words | null;

  constructor(
    body: readonly Buffer[],
    release: (() => void) | null = null,
    words: Words | null = null,
  ) {
    this.release = release;
    this.#body = body;
    this.#words = words;
  }

  get parts(): readonly Buffer[] {
    return this.#words === null ? this.#body : this.#words.encoded();
  }

  get body(): Buffer {
    const { parts } = this;
    return parts.length === 1 ? parts[0]! : Buffer.concat(parts);
  }

  /** What it says; null when that cannot be read. */
  read<T>(wire: Wire<T>): T | null {
    const words = this.#words;
    return words?.wire === wire ? (words.value as T) : wire.decode(this.body);
  }
}

export type CallReply = Received | { ok: false; fault: CallFault };

/** `release`: as of Message, of the body. */
export type Reply = (body: readonly Buffer[] | Words, release?: () => void) => void;

/** Serves one request; `reply` may be called once, now or later, or never. */
export type CallHandler = (from: BrickNumber, body: Buffer, reply: Reply, boot: number) => void;

/** The same of large requests: their data need not be in one piece, and their memory is given back. */
export type DataHandler = (
  from: BrickNumber,
  received: Received,
  reply: Reply,
  boot: number,
) => void;

const nothing: readonly Buffer[] = [];

/** Calls under way from this brick; more answer `busy` at once. */
export const callsOutstandingMax = 65_536;
/** Deadlines are swept this often, so a call ends at most this much late. */
const sweepEveryMs = 50;

interface Outstanding {
  to: BrickNumber;
  deadlineMs: number;
  done: (reply: CallReply) => void;
}

/**
 * Requests and replies over the network's one-way messages: numbered, with deadlines, without a
 * promise per call. A reply is taken only from the brick that was asked, and only by the start that
 * asked: another one's request may have had the same number.
 */
export class Calls {
  /**
   * The feature level of the cluster, as far as it is known here: what belongs to a later one is not
   * sent. Whatever this build knows is understood, whoever sends it first.
   */
  level = 1;
  readonly #host: Host;
  /** What this brick says to itself need not be bytes. null: it is not known which one it is. */
  readonly #self: BrickNumber | null;
  readonly #handlers = new Map<number, DataHandler>();
  readonly #outstanding = new NumberMap<Outstanding>();
  #requestNext: number;
  /** Per brick the newest start that was heard. */
  readonly #boots = new NumberMap<number>();
  #sweep: TimerHandle | null = null;

  constructor(host: Host, self: BrickNumber | null = null) {
    this.#host = host;
    this.#self = self;
    // What an earlier start of this brick asked may be answered only now: it had other numbers, unless
    // it began within the same 17 minutes and made more than so many calls a millisecond, or the wall
    // clock went back.
    this.#requestNext = (Math.floor(host.clock.wallMs()) % 2 ** 20) * 2 ** 12;
    host.network.onMessage((from, message) => this.#receive(from, message));
  }

  /** Registers the one server of a message type (requests and one-way messages alike). */
  serve(type: number, handler: CallHandler): void {
    this.serveData(type, (from, { body }, reply, boot) => handler(from, body, reply, boot));
  }

  serveData(type: number, handler: DataHandler): void {
    assert(!this.#handlers.has(type), `message type ${type} has a handler already`);
    this.#handlers.set(type, handler);
  }

  call(
    to: BrickNumber,
    type: number,
    body: readonly Buffer[] | Words,
    timeoutMs: number,
    done: (reply: CallReply) => void,
    release?: () => void,
  ): void {
    if (levelOfMessage(type) > this.level) {
      this.#refuse("level", done, release);
      return;
    }
    if (this.#outstanding.size >= callsOutstandingMax) {
      this.#refuse("busy", done, release);
      return;
    }
    const request = this.#requestNumber();
    const deadlineMs = this.#host.clock.nowMs() + timeoutMs;
    this.#outstanding.set(request, { to, deadlineMs, done });
    this.#sweep ??= this.#host.clock.after(sweepEveryMs, () => this.#expire());
    this.#send(to, { type, request, reply: false }, body, release);
  }

  #send(
    to: BrickNumber,
    { type, request, reply }: Pick<Message, "type" | "request" | "reply">,
    body: readonly Buffer[] | Words,
    release: (() => void) | undefined,
  ): void {
    const message: Message = { type, request, reply, boot: 0, body: nothing };
    if (!(body instanceof Words)) message.body = body;
    else if (to === this.#self) message.words = body;
    else message.body = body.encoded();
    if (release !== undefined) message.release = release;
    this.#host.network.send(to, message);
  }

  #refuse(
    code: "level" | "busy",
    done: (reply: CallReply) => void,
    release: (() => void) | undefined,
  ): void {
    release?.();
    this.#host.clock.soon(() => done({ ok: false, fault: { code } }));
  }

  /** A message that wants no answer, or whose answer is a message of its own. */
  tell(to: BrickNumber, type: number, body: readonly Buffer[]): void {
    if (levelOfMessage(type) > this.level) return;
    this.#host.network.send(to, { type, request: 0, reply: false, boot: 0, body });
  }

  #requestNumber(): number {
    do {
      this.#requestNext = this.#requestNext >= 0xffff_ffff ? 1 : this.#requestNext + 1;
    } while (this.#outstanding.has(this.#requestNext));
    return this.#requestNext;
  }

  #receive(from: BrickNumber, message: Message): void {
    const received = new Received(message.body, message.release ?? null, message.words ?? null);
    const { boot } = message;
    if (boot > (this.#boots.get(from) ?? 0)) this.#boots.set(from, boot);
    if (message.reply) {
      const waiting = this.#outstanding.get(message.request);
      if (waiting === undefined || waiting.to !== from) return;
      this.#outstanding.delete(message.request);
      waiting.done(received);
      return;
    }
    const { type, request } = message;
    const reply: Reply = (body, release) => {
      // Whoever asked has started anew since: its successor asks other things under such numbers.
      if (request === 0 || boot < (this.#boots.get(from) ?? 0)) {
        release?.();
        return;
      }
      this.#send(from, { type, request, reply: true }, body, release);
    };
    // An unknown type is a newer version's message: ignored, its sender's deadline tells it.
    this.#handlers.get(type)?.(from, received, reply, boot);
  }

  #expire(): void {
    this.#sweep = null;
    const nowMs = this.#host.clock.nowMs();
    const expired: Outstanding[] = [];
    for (const [request, waiting] of this.#outstanding) {
      if (waiting.deadlineMs > nowMs) continue;
      this.#outstanding.delete(request);
      expired.push(waiting);
    }
    if (this.#outstanding.size > 0) {
      this.#sweep = this.#host.clock.after(sweepEveryMs, () => this.#expire());
    }
    for (const waiting of expired) waiting.done({ ok: false, fault: { code: "timeout" } });
  }
}
