import type { Prng } from "../../brick/prng.ts";
import { connectionLost, receiveChunk } from "../../iscsi/connection.ts";
import { unsentBytesMax } from "../../iscsi/limits.ts";
import { admitTasks } from "../../iscsi/scsi-task.ts";
import type { Connection } from "../../iscsi/session-state.ts";
import { ConnectionCheck } from "./connection-check.ts";
import type { Coverage } from "./coverage.ts";
import type { Initiator } from "./initiator.ts";
import { StreamFuzz } from "./stream-fuzz.ts";
import { answerOpcode, opcodeOf, type WirePdu } from "./wire.ts";

/**
 * One connection between an initiator and the target, in place of a socket: bytes one way, in
 * chunks cut anywhere, answers the other way, read late by some; all of it heard by a strict ear.
 */

const transcriptLines = 40;

export class Link {
  readonly check = new ConnectionCheck();
  readonly initiator: Initiator;
  readonly connection: Connection;
  readonly stream: StreamFuzz;
  readonly #coverage: Coverage;
  readonly #transcript: { direction: string; bhs: Buffer }[] = [];
  /** Sent by the target and not read yet, by an initiator that takes its time. */
  #unread: Buffer[] = [];
  #unreadBytes = 0;
  readsSlowly = false;
  over = false;

  constructor(options: {
    initiator: Initiator;
    connection: Connection;
    coverage: Coverage;
    prng: Prng;
    temper: number;
  }) {
    this.initiator = options.initiator;
    this.connection = options.connection;
    this.#coverage = options.coverage;
    this.stream = new StreamFuzz(options.prng, options.temper);
  }

  /** Sends what the initiator has ready, or some of it. */
  deliver(timed: (act: () => void) => void): void {
    if (this.over || this.#unreadBytes > unsentBytesMax) return;
    const { queue } = this.initiator;
    const sent = this.stream.next(queue, this.check.digests, this.check.phase === "login");
    for (const bhs of sent.headers) {
      this.#coverage.sent(bhs);
      this.#note(">", bhs);
    }
    this.#coverage.mutated += sent.mutated;
    for (const chunk of sent.chunks) {
      if (this.connection.closing !== null) break;
      this.check.hearInitiator(Buffer.from(chunk));
      timed(() => receiveChunk(this.connection, chunk));
    }
  }

  /** What a socket's driver does after each turn: send what is owed, close what is to be closed. */
  flush(): void {
    const { connection } = this;
    if (this.over) return;
    if (connection.closing === "now") {
      this.lose();
      return;
    }
    for (const buffer of connection.outbox.take()) {
      this.#unread.push(buffer);
      this.#unreadBytes += buffer.length;
    }
    connection.unsentBytes = this.#unreadBytes;
    if (!this.readsSlowly || connection.closing !== null) this.readAll();
    if (connection.closing === "afterFlush") {
      this.check.ended();
      this.lose();
    }
  }

  /** The initiator takes what has come. */
  readAll(): void {
    if (this.#unreadBytes === 0) return;
    const bytes = Buffer.concat(this.#unread);
    this.#unread = [];
    this.#unreadBytes = 0;
    this.check.hearTarget(bytes, (pdu) => this.#hear(pdu));
    const { connection } = this;
    const waited = connection.unsentBytes > unsentBytesMax;
    connection.unsentBytes = 0;
    const { session } = connection;
    if (waited && session !== null && !session.ended) admitTasks(session);
  }

  #hear(pdu: WirePdu): void {
    const opcode = opcodeOf(pdu.bhs);
    this.#note("<", pdu.bhs);
    this.#coverage.answered(pdu.bhs);
    const before = this.initiator.phase;
    this.initiator.hear(pdu);
    const loggedIn = opcode === answerOpcode.login && before !== this.initiator.phase;
    if (loggedIn && this.initiator.phase === "full") this.#coverage.logins += 1;
  }

  /** The socket is gone. */
  lose(): void {
    if (this.over) return;
    this.over = true;
    this.#coverage.closes += 1;
    connectionLost(this.connection);
  }

  #note(direction: string, bhs: Buffer): void {
    this.#transcript.push({ direction, bhs });
    if (this.#transcript.length > transcriptLines) this.#transcript.shift();
  }

  get transcript(): string {
    return this.#transcript
      .map(({ direction, bhs }) => `${direction} ${bhs.toString("hex")}`)
      .join("\n");
  }
}
