import { assert } from "../assert.ts";
import { levelOfMessage } from "../feature-level.ts";
import type { Host, Message, TimerHandle } from "../host.ts";
import { NumberMap } from "../number-map.ts";
import type { BrickNumber } from "../units.ts";

export type CallFault =
  /** No answer in time: the request may or may not have been carried out. */
  | { code: "timeout" }
  /** Too many calls are under way to that brick. */
  | { code: "busy" }
  /** Some brick of the cluster does not know such a message yet. */
  | { code: "level" };

export type CallReply = { ok: true; body: Buffer } | { ok: false; fault: CallFault };

/** Serves one request; `reply` may be called once, now or later, or never. */
export type CallHandler = (
  from: BrickNumber,
  body: Buffer,
  reply: (body: readonly Buffer[]) => void,
  boot: number,
) => void;

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
 * promise per call. A reply is taken only from the brick that was asked.
 */
export class Calls {
  /**
   * The feature level of the cluster, as far as it is known here: what belongs to a later one is not
   * sent. Whatever this build knows is understood, whoever sends it first.
   */
  level = 1;
  readonly #host: Host;
  readonly #handlers = new Map<number, CallHandler>();
  readonly #outstanding = new NumberMap<Outstanding>();
  #requestNext = 1;
  #sweep: TimerHandle | null = null;

  constructor(host: Host) {
    this.#host = host;
    host.network.onMessage((from, message) => this.#receive(from, message));
  }

  /** Registers the one server of a message type (requests and one-way messages alike). */
  serve(type: number, handler: CallHandler): void {
    assert(!this.#handlers.has(type), `message type ${type} has a handler already`);
    this.#handlers.set(type, handler);
  }

  call(
    to: BrickNumber,
    type: number,
    body: readonly Buffer[],
    timeoutMs: number,
    done: (reply: CallReply) => void,
  ): void {
    if (levelOfMessage(type) > this.level) {
      this.#host.clock.soon(() => done({ ok: false, fault: { code: "level" } }));
      return;
    }
    if (this.#outstanding.size >= callsOutstandingMax) {
      this.#host.clock.soon(() => done({ ok: false, fault: { code: "busy" } }));
      return;
    }
    const request = this.#requestNumber();
    const deadlineMs = this.#host.clock.nowMs() + timeoutMs;
    this.#outstanding.set(request, { to, deadlineMs, done });
    this.#sweep ??= this.#host.clock.after(sweepEveryMs, () => this.#expire());
    this.#host.network.send(to, { type, request, reply: false, boot: 0, body });
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
    const body = message.body.length === 1 ? message.body[0]! : Buffer.concat(message.body);
    if (message.reply) {
      const waiting = this.#outstanding.get(message.request);
      if (waiting === undefined || waiting.to !== from) return;
      this.#outstanding.delete(message.request);
      waiting.done({ ok: true, body });
      return;
    }
    const { type, request } = message;
    const reply = (parts: readonly Buffer[]): void => {
      if (request === 0) return;
      this.#host.network.send(from, { type, request, reply: true, boot: 0, body: parts });
    };
    // An unknown type is a newer version's message: ignored, its sender's deadline tells it.
    this.#handlers.get(type)?.(from, body, reply, message.boot);
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
