import net from "node:net";
import type { Prng } from "../../brick/prng.ts";
import { ConnectionCheck } from "./connection-check.ts";
import type { Coverage } from "./coverage.ts";
import type { Initiator } from "./initiator.ts";
import { StreamFuzz } from "./stream-fuzz.ts";

/** A fuzzing initiator on a real socket: what it sends is mutated, how it ends is rude. */

/** Those that want nothing but service look for more to do this often. */
const pauseMs = 5;
/** How long the target may take to end its half of a connection. */
const lingerMs = 1000;

export interface SocketClientOptions {
  readonly prng: Prng;
  readonly initiator: Initiator;
  readonly coverage: Coverage;
  readonly port: number;
  readonly localAddress: string;
  readonly temper: number;
  /** Sends no more than a beginning, and stays. */
  readonly halfOpen: boolean;
  /** Called before each sending: the next exchange, if any. False: there is none left. */
  readonly next: () => boolean;
  readonly violated: (error: unknown) => void;
  /** The socket goes when nothing has moved for this long. */
  readonly idleMsMax: number;
}

export class SocketClient {
  readonly closed: Promise<void>;
  readonly check = new ConnectionCheck();
  readonly #options: SocketClientOptions;
  readonly #stream: StreamFuzz;
  readonly #socket: net.Socket;
  #isOver = false;
  #isDue = false;
  #isPausing = false;

  constructor(options: SocketClientOptions) {
    this.#options = options;
    const { prng, temper, port, localAddress, idleMsMax } = options;
    this.#stream = new StreamFuzz(prng, temper);
    this.#socket = net.connect({ host: "127.0.0.1", port, localAddress, noDelay: true });
    this.#socket.setTimeout(idleMsMax, () => this.end());
    this.closed = new Promise((resolve) => {
      this.#socket.once("close", () => {
        this.#isOver = true;
        resolve();
      });
    });
    // A reset is an ordinary end here: "close" follows.
    this.#socket.on("error", () => {});
    this.#socket.on("connect", () => this.#send());
    this.#socket.on("data", (chunk) => this.#receive(chunk));
    this.#socket.on("end", () => this.#socket.end());
  }

  #receive(chunk: Buffer): void {
    const { initiator, coverage, violated } = this.#options;
    try {
      this.check.hearTarget(chunk, (pdu) => {
        coverage.answered(pdu.bhs);
        const before = initiator.phase;
        initiator.hear(pdu);
        if (before === "login" && initiator.phase === "full") coverage.logins += 1;
      });
    } catch (error) {
      violated(error);
      this.#socket.destroy();
      return;
    }
    this.wake();
  }

  /** Sends on in the next turn. */
  wake(): void {
    if (this.#isDue || this.#isOver) return;
    this.#isDue = true;
    setImmediate(() => {
      this.#isDue = false;
      this.#send();
    });
  }

  #send(): void {
    const { prng, initiator, coverage, halfOpen, next, temper } = this.#options;
    if (this.#isOver || this.#socket.connecting) return;
    if (initiator.phase === "over") {
      this.end();
      return;
    }
    const more = initiator.phase === "full" && initiator.queue.length < 4 ? next() : true;
    const login = this.check.phase === "login";
    const sent = this.#stream.next(initiator.queue, this.check.digests, login);
    for (const bhs of sent.headers) coverage.sent(bhs);
    coverage.mutated += sent.mutated;
    for (const chunk of sent.chunks) {
      const part = halfOpen ? chunk.subarray(0, prng.between(0, chunk.length - 1)) : chunk;
      this.check.hearInitiator(Buffer.from(part));
      this.#socket.write(part);
      if (halfOpen) return;
    }
    if (temper > 0 && (!more || prng.chance(0.03))) this.end();
    else if (initiator.queue.length > 0 || (temper > 0 && initiator.phase === "full")) this.wake();
    else if (initiator.phase === "full") this.#pause();
  }

  #pause(): void {
    if (this.#isPausing) return;
    this.#isPausing = true;
    setTimeout(() => {
      this.#isPausing = false;
      this.wake();
    }, pauseMs);
  }

  /** One of the ways in which connections end. */
  end(): void {
    const { prng, temper } = this.#options;
    const how = temper === 0 ? 0 : prng.between(0, 2);
    if (how === 0) this.#socket.end();
    else if (how === 1) this.#socket.destroy();
    else this.#socket.resetAndDestroy();
    if (how === 0) this.#socket.setTimeout(lingerMs, () => this.#socket.destroy());
  }
}
