import type { Host } from "../host.ts";
import type { Calls } from "../rpc/calls.ts";
import { messageType } from "../rpc/message-types.ts";
import type { BrickNumber } from "../units.ts";
import {
  type Asker,
  decodeCopySource,
  decodeForward,
  decodePart,
  encodeForwardFault,
  encodeForwardReply,
  encodeRuns,
  type ForwardFault,
  type ForwardRequest,
} from "./forward-messages.ts";
import { ForwardedReads } from "./forwarded-reads.ts";
import type { Gateway } from "./gateway.ts";
import type { Origin } from "./operation.ts";
import { type VolumeDone, VolumeTask } from "./volume.ts";

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

type Begin = (gateway: Gateway, origin: Origin) => Promise<VolumeDone>;
/** What a change asks of the gateway; null: its data are not what its head says. */
type DecodeChange = (request: ForwardRequest, data: Buffer) => Begin | null;

const changes: readonly (readonly [number, DecodeChange])[] = [
  [
    messageType.volumeWrite,
    ({ offsetBytes }, data) =>
      (gateway, origin) =>
        gateway.write(offsetBytes, [data], origin),
  ],
  [
    messageType.volumeWriteAtomic,
    ({ offsetBytes }, data) =>
      (gateway, origin) =>
        gateway.writeAtomic(offsetBytes, [data], origin),
  ],
  [
    messageType.volumeUnmap,
    ({ offsetBytes, lengthBytes }) =>
      (gateway, origin) =>
        gateway.unmap(offsetBytes, lengthBytes, origin),
  ],
  [
    messageType.volumeCompareAndWrite,
    ({ offsetBytes, lengthBytes }, data) => {
      if (data.length !== 2 * lengthBytes) return null;
      const compare = [data.subarray(0, lengthBytes)];
      const write = [data.subarray(lengthBytes)];
      return (gateway, origin) => gateway.compareAndWrite(offsetBytes, compare, write, origin);
    },
  ],
  [
    messageType.volumeOrWrite,
    ({ offsetBytes }, data) =>
      (gateway, origin) =>
        gateway.orWrite(offsetBytes, [data], origin),
  ],
  [
    messageType.volumeCopy,
    ({ offsetBytes, lengthBytes }, data) => {
      const source = decodeCopySource(data);
      if (source === null) return null;
      return (gateway, origin) => gateway.copyFrom(source, offsetBytes, lengthBytes, origin);
    },
  ],
];

/** The gateway's side: serves other portals' commands, each change once. */
export class ForwardService {
  readonly #gateway: (uuid: string, epoch: number) => Gateway | undefined;
  readonly #senders = new Map<BrickNumber, Sender>();
  readonly longReads: ForwardedReads;

  constructor(
    host: Host,
    calls: Calls,
    gateway: (uuid: string, epoch: number) => Gateway | undefined,
  ) {
    this.#gateway = gateway;
    this.longReads = new ForwardedReads(host, gateway);
    calls.serve(messageType.volumeRead, (from, body, reply, boot) =>
      this.#read({ from, boot }, body, reply),
    );
    calls.serve(messageType.volumeReadPart, (from, body, reply, boot) =>
      this.#readPart({ from, boot }, body, reply),
    );
    calls.serve(messageType.volumeAllocation, (from, body, reply, boot) =>
      this.#allocation({ from, boot }, body, reply),
    );
    for (const [type, decode] of changes) {
      calls.serve(type, (from, body, reply, boot) =>
        this.#change({ from, boot }, body, reply, decode),
      );
    }
    calls.serve(messageType.volumeCancel, (from, body, reply, boot) =>
      this.#cancel({ from, boot }, body, reply),
    );
  }

  #find(body: Buffer, reply: Reply): { request: ForwardRequest; gateway: Gateway } | null {
    const decoded = decodeForward(body);
    if (decoded === null) return null;
    const { request } = decoded;
    const gateway = this.#gateway(request.uuid, request.epoch);
    if (gateway !== undefined) return { request, gateway };
    reply(encodeForwardFault({ code: "elsewhere" }));
    return null;
  }

  #read(asker: Asker, body: Buffer, reply: Reply): void {
    const found = this.#find(body, reply);
    if (found === null) return;
    const { offsetBytes, lengthBytes } = found.request;
    found.gateway.read(offsetBytes, lengthBytes, originOf(asker, found.request)).then((result) => {
      reply(result.ok ? encodeForwardReply(result.buffers) : encodeForwardFault(result.fault));
    });
  }

  #readPart(asker: Asker, body: Buffer, reply: Reply): void {
    const decoded = decodeForward(body);
    const part = decoded === null ? null : decodePart(decoded.data);
    if (decoded === null || part === null) return;
    const { request } = decoded;
    this.longReads.ask(asker, request, originOf(asker, request), part, reply);
  }

  #allocation(asker: Asker, body: Buffer, reply: Reply): void {
    const found = this.#find(body, reply);
    if (found === null) return;
    const { request, gateway } = found;
    const { offsetBytes, lengthBytes, runsMax } = request;
    const origin = originOf(asker, request);
    gateway.allocation(offsetBytes, lengthBytes, runsMax, origin).then((result) => {
      reply(
        result.ok
          ? encodeForwardReply([encodeRuns(result.runs)])
          : encodeForwardFault(result.fault),
      );
    });
  }

  #change(asker: Asker, body: Buffer, reply: Reply, decode: DecodeChange): void {
    const decoded = decodeForward(body);
    if (decoded === null) return;
    const { request, data } = decoded;
    const begin = decode(request, data);
    const sender = begin === null ? null : this.#sender(asker, request);
    if (begin === null || sender === null) return;
    const { sequence, uuid, epoch } = request;
    const known = sender.changes.get(sequence);
    if (known !== undefined) {
      answerWhenDone(known, reply);
      return;
    }
    const origin = originOf(asker, request);
    const change: Change = { task: origin.task, answer: null, waiting: [reply] };
    sender.changes.set(sequence, change);
    const gateway = this.#gateway(uuid, epoch);
    if (gateway === undefined) {
      finish(change, encodeForwardFault({ code: "elsewhere" }));
      return;
    }
    begin(gateway, origin).then((result) =>
      finish(change, result.ok ? encodeForwardReply([]) : encodeForwardFault(result.fault)),
    );
  }

  /** Brings a change to its end; one that has not come yet never will be carried out. */
  #cancel(asker: Asker, body: Buffer, reply: Reply): void {
    const request = decodeForward(body)?.request;
    if (request === undefined) return;
    const sender = this.#sender(asker, request);
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
  #sender({ from, boot }: Asker, request: ForwardRequest): Sender | null {
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

function originOf({ from, boot }: Asker, request: ForwardRequest) {
  const { nexus, noticeNext, absences } = request;
  return { task: new VolumeTask(nexus, noticeNext), portal: { brick: from, boot, absences } };
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
