import { TaskCheck } from "./task-check.ts";
import { demand } from "./violation.ts";
import { isImmediate, noTag, opcodeOf, requestOpcode, tagOf, type WirePdu } from "./wire.ts";

/** What an initiator has sent on a connection, read from the bytes: what may still be answered. */

/** Requests that carry a CmdSN unless they are immediate. */
const unnumbered: ReadonlySet<number> = new Set([
  requestOpcode.login,
  requestOpcode.dataOut,
  requestOpcode.snack,
]);

/** Kinds that are answered once each, by task tag alone. */
const simpleKinds = ["ping", "text", "management", "logout", "login"] as const;
export type SimpleKind = (typeof simpleKinds)[number];

const kindOf: ReadonlyMap<number, SimpleKind> = new Map([
  [requestOpcode.nopOut, "ping"],
  [requestOpcode.text, "text"],
  [requestOpcode.taskManagement, "management"],
  [requestOpcode.logout, "logout"],
  [requestOpcode.login, "login"],
]);

/** Requests of one kind and tag. Which of several an answer is meant for cannot be told. */
interface Asked {
  readonly pdus: WirePdu[];
  answersLeft: number;
  /** The command that an ABORT TASK is meant for, if that can be told. */
  aborts: TaskCheck | null;
}

const abortTask = 1;

/** RFC 7143 §11.17.1. */
const dataDigestReason = 0x02;

export class SentRequests {
  readonly tasks = new Map<number, TaskCheck>();
  /** Requests that carry a CmdSN: ExpCmdSN can have moved no further than this. */
  numbered = 0;
  readonly #open = new Map<SimpleKind, Map<number, Asked>>(
    simpleKinds.map((kind) => [kind, new Map()]),
  );
  /** Headers that may come back in a Reject, and how often. */
  readonly #headers = new Map<string, number>();

  /** A PDU whose data came damaged: it is rejected, and discarded but for its place (§7.8). */
  addDamaged(bhs: Buffer): void {
    this.#mayComeBack(bhs);
    if (opcodeOf(bhs) === requestOpcode.dataOut) this.#addDataOut(bhs);
  }

  #mayComeBack(bhs: Buffer): void {
    const header = bhs.toString("latin1");
    this.#headers.set(header, (this.#headers.get(header) ?? 0) + 1);
  }

  add(pdu: WirePdu): void {
    const { bhs } = pdu;
    this.#mayComeBack(bhs);
    const opcode = opcodeOf(bhs);
    if (!unnumbered.has(opcode) && !isImmediate(bhs)) this.numbered += 1;
    // §11.6.1: what ABORT TASK names may count as received, though it never came.
    if (opcode === requestOpcode.taskManagement) this.numbered += 1;
    if (opcode === requestOpcode.scsiCommand) this.#addCommand(bhs);
    else if (opcode === requestOpcode.dataOut) this.#addDataOut(bhs);
    const kind = kindOf.get(opcode);
    // §11.18: a NOP-Out without a task tag asks for no answer.
    if (kind === undefined || (kind === "ping" && tagOf(bhs) === noTag)) return;
    const byTag = this.#open.get(kind)!;
    const asked = byTag.get(tagOf(bhs));
    if (asked === undefined) {
      const aborts = kind === "management" ? this.#abortedBy(bhs) : null;
      byTag.set(tagOf(bhs), { pdus: [pdu], answersLeft: 1, aborts });
    } else {
      asked.pdus.push(pdu);
      asked.answersLeft += 1;
      asked.aborts = null;
    }
  }

  #abortedBy(bhs: Buffer): TaskCheck | null {
    if ((bhs[1]! & 0x7f) !== abortTask) return null;
    const task = this.tasks.get(bhs.readUInt32BE(20));
    const only = task?.candidates.length === 1 ? task.candidates[0]! : null;
    // With another LUN it names a task that is not there.
    return only?.bhs.subarray(8, 16).equals(bhs.subarray(8, 16)) ? task! : null;
  }

  /** §11.6.1: "function complete"; an aborted command is not answered any more. */
  managed(tag: number, complete: boolean): void {
    const aborts = this.#open.get("management")!.get(tag)?.aborts ?? null;
    this.answered("management", tag);
    if (aborts === null || !complete || aborts.candidates.length !== 1) return;
    const aborted = tagOf(aborts.candidates[0]!.bhs);
    if (this.tasks.get(aborted) === aborts) this.tasks.delete(aborted);
  }

  #addCommand(bhs: Buffer): void {
    const reads = (bhs[1]! & 0x40) !== 0;
    const writes = (bhs[1]! & 0x20) !== 0;
    const expectedBytes = reads || writes ? bhs.readUInt32BE(20) : 0;
    const tag = tagOf(bhs);
    let task = this.tasks.get(tag);
    if (task === undefined) {
      task = new TaskCheck();
      this.tasks.set(tag, task);
    }
    task.add({ bhs, reads, writes, expectedBytes });
  }

  #addDataOut(bhs: Buffer): void {
    const final = (bhs[1]! & 0x80) !== 0;
    if (final) this.tasks.get(tagOf(bhs))?.sequenceSent(bhs.readUInt32BE(20));
  }

  /** The requests that an answer of this kind and tag may belong to. */
  answered(kind: SimpleKind, tag: number): readonly WirePdu[] {
    const byTag = this.#open.get(kind)!;
    const asked = byTag.get(tag);
    demand(asked !== undefined, `an answer to a ${kind} request that was not made`);
    asked!.answersLeft -= 1;
    if (asked!.answersLeft === 0) byTag.delete(tag);
    return asked!.pdus;
  }

  /** A command's answer is complete. */
  taskAnswered(tag: number): void {
    if (this.tasks.get(tag)!.answersLeft === 0) this.tasks.delete(tag);
  }

  rejected(bhs: Buffer, reason: number): void {
    const header = bhs.toString("latin1");
    const count = this.#headers.get(header) ?? 0;
    demand(count > 0, "Reject of a header that was not sent");
    if (count === 1) this.#headers.delete(header);
    else this.#headers.set(header, count - 1);
    // What came damaged was never a request.
    if (reason === dataDigestReason) return;
    const opcode = opcodeOf(bhs);
    if (opcode === requestOpcode.scsiCommand) {
      const tag = tagOf(bhs);
      this.tasks.get(tag)?.reject(bhs);
      if (this.tasks.has(tag)) this.taskAnswered(tag);
    }
    const kind = kindOf.get(opcode);
    if (kind !== undefined && this.#open.get(kind)!.has(tagOf(bhs))) {
      this.answered(kind, tagOf(bhs));
    }
  }

  /** Commands and other requests that nothing has answered. */
  get openCount(): number {
    let count = this.tasks.size;
    for (const byTag of this.#open.values()) count += byTag.size;
    return count;
  }
}
