import type { Calls } from "../rpc/calls.ts";
import { messageType } from "../rpc/message-types.ts";
import type { BrickNumber } from "../units.ts";
import {
  decodeForward,
  encodeForwardFault,
  encodeForwardReply,
  encodeRuns,
  type ForwardFault,
  type ForwardRequest,
  forwardHeadBytes,
} from "./forward-messages.ts";
import type { Gateway } from "./gateway.ts";
import { VolumeTask } from "./volume.ts";

/** Commands of one brick remembered beyond its low-water mark; more are refused. */
const rememberedMax = 65_536;

type Reply = (parts: readonly Buffer[]) => void;

/** A change that a brick has asked for: under way, or ended with this answer. */
interface Change {
  task: VolumeTask;
  answer: readonly Buffer[] | null;
  waiting: Reply[];
}

/** What one boot of another brick has asked for. */
interface Sender {
  boot: number;
  lowWater: number;
  readonly changes: Map<number, Change>;
}

/** The gateway's side: serves other portals' commands, each change once. */
export class ForwardService {
  readonly #gateway: (uuid: string, epoch: number) => Gateway | undefined;
  readonly #senders = new Map<BrickNumber, Sender>();

  constructor(calls: Calls, gateway: (uuid: string, epoch: number) => Gateway | undefined) {
    this.#gateway = gateway;
    calls.serve(messageType.volumeRead, (_from, body, reply) => this.#read(body, reply));
    calls.serve(messageType.volumeAllocation, (_from, body, reply) =>
      this.#allocation(body, reply),
    );
    calls.serve(messageType.volumeWrite, (from, body, reply, boot) =>
      this.#change(from, boot, body, reply, "write"),
    );
    calls.serve(messageType.volumeUnmap, (from, body, reply, boot) =>
      this.#change(from, boot, body, reply, "unmap"),
    );
    calls.serve(messageType.volumeCancel, (from, body, reply, boot) =>
      this.#cancel(from, boot, body, reply),
    );
  }

  #find(body: Buffer, reply: Reply): { request: ForwardRequest; gateway: Gateway } | null {
    const request = decodeForward(body);
    if (request === null) return null;
    const gateway = this.#gateway(request.uuid, request.epoch);
    if (gateway !== undefined) return { request, gateway };
    reply(encodeForwardFault({ code: "elsewhere" }));
    return null;
  }

  #read(body: Buffer, reply: Reply): void {
    const found = this.#find(body, reply);
    if (found === null) return;
    const { offsetBytes, lengthBytes } = found.request;
    found.gateway.read(offsetBytes, lengthBytes).then((result) => {
      reply(result.ok ? encodeForwardReply(result.buffers) : encodeForwardFault(result.fault));
    });
  }

  #allocation(body: Buffer, reply: Reply): void {
    const found = this.#find(body, reply);
    if (found === null) return;
    const { offsetBytes, lengthBytes, runsMax } = found.request;
    found.gateway.allocation(offsetBytes, lengthBytes, runsMax).then((result) => {
      reply(
        result.ok
          ? encodeForwardReply([encodeRuns(result.runs)])
          : encodeForwardFault(result.fault),
      );
    });
  }

  #change(
    from: BrickNumber,
    boot: number,
    body: Buffer,
    reply: Reply,
    kind: "write" | "unmap",
  ): void {
    const request = decodeForward(body);
    if (request === null) return;
    const sender = this.#sender(from, boot, request);
    if (sender === null) return;
    const { sequence, uuid, epoch, offsetBytes, lengthBytes } = request;
    const known = sender.changes.get(sequence);
    if (known !== undefined) {
      answerWhenDone(known, reply);
      return;
    }
    const change: Change = { task: new VolumeTask(), answer: null, waiting: [reply] };
    sender.changes.set(sequence, change);
    const gateway = this.#gateway(uuid, epoch);
    if (gateway === undefined) {
      finish(change, encodeForwardFault({ code: "elsewhere" }));
      return;
    }
    const data = body.subarray(forwardHeadBytes);
    const done =
      kind === "write"
        ? gateway.write(offsetBytes, [data], change.task)
        : gateway.unmap(offsetBytes, lengthBytes, change.task);
    done.then((result) =>
      finish(change, result.ok ? encodeForwardReply([]) : encodeForwardFault(result.fault)),
    );
  }

  /** Brings a change to its end; one that has not come yet never will be carried out. */
  #cancel(from: BrickNumber, boot: number, body: Buffer, reply: Reply): void {
    const request = decodeForward(body);
    if (request === null) return;
    const sender = this.#sender(from, boot, request);
    if (sender === null) return;
    const change = sender.changes.get(request.sequence);
    if (change === undefined) {
      const fault: ForwardFault = { code: "cancelled" };
      const answer = encodeForwardFault(fault);
      sender.changes.set(request.sequence, { task: new VolumeTask(), answer, waiting: [] });
      reply(answer);
      return;
    }
    change.task.cancel();
    answerWhenDone(change, reply);
  }

  /** The sender's book; null for what is old or too much, which gets no answer. */
  #sender(from: BrickNumber, boot: number, request: ForwardRequest): Sender | null {
    let sender = this.#senders.get(from);
    if (sender === undefined || boot > sender.boot) {
      sender = { boot, lowWater: 1, changes: new Map() };
      this.#senders.set(from, sender);
    }
    if (boot < sender.boot || request.sequence < sender.lowWater) return null;
    for (; sender.lowWater < request.lowWater && sender.changes.size > 0; sender.lowWater += 1) {
      sender.changes.delete(sender.lowWater);
    }
    sender.lowWater = Math.max(sender.lowWater, request.lowWater);
    return sender.changes.size < rememberedMax ? sender : null;
  }
}

function answerWhenDone(change: Change, reply: Reply): void {
  if (change.answer !== null) reply(change.answer);
  else change.waiting.push(reply);
}

function finish(change: Change, answer: readonly Buffer[]): void {
  change.answer = answer;
  const { waiting } = change;
  change.waiting = [];
  for (const reply of waiting) reply(answer);
}
