import { connect, type Socket } from "node:net";
import { type Digests, PduCutter, type ReceivedPdu, withDigests } from "../../tools/load/pdus.ts";

/** A connection to a portal, PDU by PDU. */

/** Nothing in a story takes longer; only a target that does not answer is caught by it. */
const answerMsMax = 30_000;

export class Wire {
  readonly #socket: Socket;
  readonly #cutter = new PduCutter();
  readonly #pdus: ReceivedPdu[] = [];
  #ended: string | null = null;
  #wake: () => void = () => {};

  constructor(host: string, port: number) {
    this.#socket = connect({ host, port, noDelay: true });
    this.#socket.on("data", (bytes) => {
      this.#cutter.push(bytes, (pdu) => this.#pdus.push(pdu));
      this.#wake();
    });
    this.#socket.on("error", (error) => this.#end(error.message));
    this.#socket.on("close", () => this.#end("the connection was closed"));
  }

  set digests(digests: Digests) {
    this.#cutter.digests = digests;
  }

  send(parts: readonly Buffer[]): void {
    this.#socket.write(Buffer.concat(withDigests(parts, this.#cutter.digests)));
  }

  sendRaw(bytes: Buffer): void {
    this.#socket.write(bytes);
  }

  /** The next PDU of the target; throws when the connection ends or nothing comes. */
  async next(): Promise<ReceivedPdu> {
    await this.#until(() => this.#pdus.length > 0, "no answer");
    const pdu = this.#pdus.shift();
    if (pdu === undefined) throw new Error(this.#ended ?? "no answer");
    if (!pdu.intact) throw new Error("a digest of the target is wrong");
    return pdu;
  }

  /** Resolves when the target has closed; throws when it says something else first. */
  async closed(): Promise<void> {
    await this.#until(() => this.#pdus.length > 0, "the connection stays open");
    const pdu = this.#pdus[0];
    if (pdu !== undefined) throw new Error(`opcode 0x${(pdu.header[0]! & 0x3f).toString(16)}`);
  }

  destroy(): void {
    this.#socket.destroy();
  }

  #end(why: string): void {
    this.#ended ??= why;
    this.#wake();
  }

  async #until(holds: () => boolean, otherwise: string): Promise<void> {
    const timer = setTimeout(() => this.#end(otherwise), answerMsMax);
    while (!holds() && this.#ended === null) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    clearTimeout(timer);
    if (!holds() && this.#ended === otherwise) throw new Error(otherwise);
  }
}
