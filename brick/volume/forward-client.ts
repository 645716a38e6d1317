import type { AttachmentRecord } from "../cluster-state.ts";
import type { Host } from "../host.ts";
import type { Calls } from "../rpc/calls.ts";
import { messageType } from "../rpc/message-types.ts";
import {
  decodeForwardReply,
  decodeRuns,
  encodeForward,
  type ForwardReply,
  type ForwardRequest,
  forwardBytesMax,
  forwardRunsMax,
} from "./forward-messages.ts";
import { unavailable } from "./operation.ts";
import type {
  VolumeAllocation,
  VolumeDone,
  VolumeFault,
  VolumeRead,
  VolumeTask,
} from "./volume.ts";

/** Pieces of one command under way at a time. */
const piecesMax = 8;
/** A cancel without an answer is sent again after this. */
const cancelTimeoutMs = 1000;

/** `elsewhere`: nothing was done, and the attachment is to be looked up again. */
export type Forwarded<T> = T | "elsewhere";

interface Piece {
  offsetBytes: number;
  lengthBytes: number;
}

/** The portal's side of a volume that another brick serves. */
export class ForwardClient {
  readonly #host: Host;
  readonly #calls: Calls;
  readonly #timeoutMs: number;
  /** Whether the attachment is still the one that was asked. */
  readonly #stands: (uuid: string, epoch: number) => boolean;
  #sequenceNext = 1;
  readonly #open = new Set<number>();

  constructor(parts: {
    host: Host;
    calls: Calls;
    timeoutMs: number;
    stands: (uuid: string, epoch: number) => boolean;
  }) {
    this.#host = parts.host;
    this.#calls = parts.calls;
    this.#timeoutMs = parts.timeoutMs;
    this.#stands = parts.stands;
  }

  async read(
    at: AttachmentRecord,
    uuid: string,
    offsetBytes: number,
    lengthBytes: number,
  ): Promise<Forwarded<VolumeRead>> {
    const pieces = cut(offsetBytes, lengthBytes);
    const replies = await inTurn(pieces, (piece) =>
      this.#ask(at, messageType.volumeRead, this.#request(at, uuid, piece, 0)),
    );
    const buffers: Buffer[] = [];
    for (const [index, reply] of replies.entries()) {
      if (reply === null) return "elsewhere";
      if (!reply.ok) return reply.fault.code === "elsewhere" ? "elsewhere" : fail(reply.fault);
      if (reply.data.length !== pieces[index]!.lengthBytes) return "elsewhere";
      buffers.push(reply.data);
    }
    return { ok: true, buffers };
  }

  async allocation(
    at: AttachmentRecord,
    uuid: string,
    piece: Piece,
    runsMax: number,
  ): Promise<Forwarded<VolumeAllocation>> {
    const request = {
      ...this.#request(at, uuid, piece, 0),
      runsMax: Math.min(runsMax, forwardRunsMax),
    };
    const reply = await this.#ask(at, messageType.volumeAllocation, request);
    if (reply === null) return "elsewhere";
    if (!reply.ok) return reply.fault.code === "elsewhere" ? "elsewhere" : fail(reply.fault);
    const runs = decodeRuns(reply.data);
    return runs === null ? "elsewhere" : { ok: true, runs };
  }

  async write(
    at: AttachmentRecord,
    uuid: string,
    offsetBytes: number,
    data: readonly Buffer[],
    task: VolumeTask | undefined,
  ): Promise<Forwarded<VolumeDone>> {
    let lengthBytes = 0;
    for (const buffer of data) lengthBytes += buffer.length;
    const pieces = cut(offsetBytes, lengthBytes);
    return this.#changes(at, uuid, pieces, task, messageType.volumeWrite, (piece) =>
      slice(data, piece.offsetBytes - offsetBytes, piece.lengthBytes),
    );
  }

  unmap(
    at: AttachmentRecord,
    uuid: string,
    piece: Piece,
    task: VolumeTask | undefined,
  ): Promise<Forwarded<VolumeDone>> {
    const pieces: Piece[] = [];
    for (let done = 0; done < piece.lengthBytes; done += unmapBytesMax) {
      const lengthBytes = Math.min(unmapBytesMax, piece.lengthBytes - done);
      pieces.push({ offsetBytes: piece.offsetBytes + done, lengthBytes });
    }
    return this.#changes(at, uuid, pieces, task, messageType.volumeUnmap, () => []);
  }

  async #changes(
    at: AttachmentRecord,
    uuid: string,
    pieces: readonly Piece[],
    task: VolumeTask | undefined,
    type: number,
    dataOf: (piece: Piece) => readonly Buffer[],
  ): Promise<Forwarded<VolumeDone>> {
    const cancels = new Set<() => void>();
    if (task !== undefined) {
      task.onCancel = () => {
        for (const cancel of [...cancels]) cancel();
      };
    }
    const replies = await inTurn(pieces, (piece) => {
      if (task?.cancelled) return Promise.resolve<ForwardReply>(fail({ code: "cancelled" }));
      return this.#change(at, uuid, piece, type, dataOf(piece), cancels);
    });
    if (task !== undefined) task.onCancel = null;
    const faults = replies.flatMap((reply) => (reply.ok ? [] : [reply.fault]));
    if (faults.length === 0) return { ok: true };
    if (faults.length === replies.length && faults.every((one) => one.code === "elsewhere")) {
      return "elsewhere";
    }
    const worst = faults.find((one) => one.code !== "elsewhere" && one.code !== "cancelled");
    if (worst !== undefined) return fail(worst);
    if (task?.cancelled) return fail({ code: "cancelled" });
    return fail(unavailable("the gateway moved while part of the write was on its way"));
  }

  /** Asks once; when no answer comes, makes sure that the change is over before it says so. */
  async #change(
    at: AttachmentRecord,
    uuid: string,
    piece: Piece,
    type: number,
    data: readonly Buffer[],
    cancels: Set<() => void>,
  ): Promise<ForwardReply> {
    const sequence = this.#sequenceNext;
    this.#sequenceNext += 1;
    this.#open.add(sequence);
    const request = this.#request(at, uuid, piece, sequence);
    const reply = await new Promise<ForwardReply>((resolve) => {
      const cancel = () => this.#cancel(at, request, resolve);
      cancels.add(cancel);
      this.#calls.call(
        at.brick,
        type,
        [encodeForward(request), ...data],
        this.#timeoutMs,
        (answer) => {
          cancels.delete(cancel);
          const decoded = answer.ok ? decodeForwardReply(answer.body) : null;
          if (decoded !== null) resolve(decoded);
          else cancel();
        },
      );
    });
    this.#open.delete(sequence);
    return reply;
  }

  #cancel(
    at: AttachmentRecord,
    request: ForwardRequest,
    resolve: (reply: ForwardReply) => void,
  ): void {
    if (!this.#stands(request.uuid, request.epoch)) {
      resolve(fail(unavailable("the gateway that had the write is gone; it may have landed")));
      return;
    }
    const body = [encodeForward(request)];
    this.#calls.call(at.brick, messageType.volumeCancel, body, cancelTimeoutMs, (answer) => {
      const decoded = answer.ok ? decodeForwardReply(answer.body) : null;
      if (decoded !== null) resolve(decoded);
      else this.#host.clock.after(100, () => this.#cancel(at, request, resolve));
    });
  }

  #ask(at: AttachmentRecord, type: number, request: ForwardRequest): Promise<ForwardReply | null> {
    return new Promise((resolve) => {
      this.#calls.call(at.brick, type, [encodeForward(request)], this.#timeoutMs, (answer) => {
        resolve(answer.ok ? decodeForwardReply(answer.body) : null);
      });
    });
  }

  #request(at: AttachmentRecord, uuid: string, piece: Piece, sequence: number): ForwardRequest {
    let lowWater = this.#sequenceNext;
    for (const open of this.#open) {
      lowWater = open;
      break;
    }
    return { uuid, epoch: at.epoch, ...piece, sequence, lowWater, runsMax: 0 };
  }
}

/** One message's length field bounds an unmap. */
const unmapBytesMax = 1024 * 1024 * 1024;

function fail(fault: VolumeFault): { ok: false; fault: VolumeFault } {
  return { ok: false, fault };
}

function cut(offsetBytes: number, lengthBytes: number): Piece[] {
  const pieces: Piece[] = [];
  for (let done = 0; done < lengthBytes; done += forwardBytesMax) {
    const length = Math.min(forwardBytesMax, lengthBytes - done);
    pieces.push({ offsetBytes: offsetBytes + done, lengthBytes: length });
  }
  return pieces;
}

/** The buffers' bytes [from, from + length), without a copy. */
function slice(buffers: readonly Buffer[], from: number, length: number): Buffer[] {
  const parts: Buffer[] = [];
  let at = 0;
  for (const buffer of buffers) {
    const begin = Math.max(0, from - at);
    const end = Math.min(buffer.length, from + length - at);
    if (begin < end) parts.push(buffer.subarray(begin, end));
    at += buffer.length;
  }
  return parts;
}

/** All pieces, a bounded number at a time; results in order. */
async function inTurn<T>(
  pieces: readonly Piece[],
  run: (piece: Piece) => Promise<T>,
): Promise<T[]> {
  const results = new Array<T>(pieces.length);
  let next = 0;
  const worker = async () => {
    while (next < pieces.length) {
      const index = next;
      next += 1;
      results[index] = await run(pieces[index]!);
    }
  };
  await Promise.all(Array.from({ length: Math.min(piecesMax, pieces.length) }, worker));
  return results;
}
