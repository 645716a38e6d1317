import type { AttachmentRecord } from "../cluster-state.ts";
import { levelOfMessage } from "../feature-level.ts";
import type { Host } from "../host.ts";
import { askAgain } from "../rpc/ask-again.ts";
import type { CallReply, Calls } from "../rpc/calls.ts";
import { messageType } from "../rpc/message-types.ts";
import type { BrickNumber } from "../units.ts";
import {
  type CopySource,
  decodeForwardReply,
  decodeRuns,
  decodeTaken,
  encodeCopySource,
  encodeForward,
  encodePart,
  type ForwardReply,
  type ForwardRequest,
  forwardBytesMax,
  forwardRunsMax,
  noPart,
} from "./forward-messages.ts";
import {
  atomicBytesMax,
  compareBytesMax,
  copyBytesMax,
  orBytesMax,
  readBytesMax,
} from "./limits.ts";
import { unavailable } from "./operation.ts";
import { lengthOf, sliceOf } from "./split.ts";
import type {
  VolumeAllocation,
  VolumeDone,
  VolumeFault,
  VolumeRead,
  VolumeTask,
} from "./volume.ts";

/** Pieces of one command under way at a time. */
const piecesMax = 8;
/** How often a long read is begun again when its gateway had forgotten it before all of it was fetched. */
const takingsMax = 4;
/** A cancel without an answer is sent again after this. */
const cancelTimeoutMs = 1000;

/** `elsewhere`: nothing was done, and the attachment is to be looked up again. */
export type Forwarded<T> = T | "elsewhere";

/** Which volume is asked, where it is served, and for whom. */
export interface Asked {
  readonly at: AttachmentRecord;
  readonly uuid: string;
  readonly task: VolumeTask | undefined;
  /** Of this brick, when the command began. */
  readonly absences: number;
}

interface Asking {
  readonly uuid: string;
  readonly epoch: number;
  readonly gone: () => void;
}

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
  /** Numbers the long reads. */
  #readNext = 1;
  readonly #open = new Set<number>();
  /** What is under way, to be told when its gateway is gone. */
  readonly #asking = new Set<Asking>();

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

  /** A gateway that is gone does not answer any more: whoever waits for it need not wait longer. */
  onState(): void {
    for (const asking of [...this.#asking]) {
      if (this.#stands(asking.uuid, asking.epoch)) continue;
      this.#asking.delete(asking);
      asking.gone();
    }
  }

  async read(
    asked: Asked,
    offsetBytes: number,
    lengthBytes: number,
  ): Promise<Forwarded<VolumeRead>> {
    const range = { offsetBytes, lengthBytes };
    if (lengthBytes > readBytesMax) return tooLong;
    if (lengthBytes <= forwardBytesMax) return this.#readShort(asked, range);
    const isOneReading = this.#calls.level >= levelOfMessage(messageType.volumeReadPart);
    return isOneReading ? this.#readLong(asked, range) : this.#readApart(asked, range);
  }

  async #readShort(asked: Asked, range: Piece): Promise<Forwarded<VolumeRead>> {
    const reply = await this.#ask(asked, messageType.volumeRead, this.#request(asked, range, 0));
    if (reply === null) return "elsewhere";
    if (!reply.ok) return faultOf(reply);
    const isWhole = reply.data.length === range.lengthBytes;
    return isWhole ? { ok: true, buffers: [reply.data] } : "elsewhere";
  }

  /** While there may be older bricks: each piece is read by itself, at a time of its own. */
  async #readApart(
    asked: Asked,
    { offsetBytes, lengthBytes }: Piece,
  ): Promise<Forwarded<VolumeRead>> {
    const pieces = cut(offsetBytes, lengthBytes, forwardBytesMax);
    const results = await inTurn(pieces, (piece) => this.#readShort(asked, piece));
    const buffers: Buffer[] = [];
    for (const result of results) {
      if (result === "elsewhere" || !result.ok) return result;
      buffers.push(...result.buffers);
    }
    return { ok: true, buffers };
  }

  /** The gateway reads it at once, as one; its parts are fetched message by message. */
  async #readLong(asked: Asked, range: Piece): Promise<Forwarded<VolumeRead>> {
    for (let takings = 0; takings < takingsMax; takings += 1) {
      const result = await this.#take(asked, range);
      if (result !== "torn") return result;
    }
    return fail(unavailable("the gateway did not keep what it had read"));
  }

  /** `torn`: the parts that came are not all of one reading. */
  async #take(asked: Asked, range: Piece): Promise<Forwarded<VolumeRead> | "torn"> {
    const request = this.#request(asked, range, this.#readNext);
    this.#readNext += 1;
    const buffers: Buffer[] = [];
    let taking: number | null = null;
    let end: Forwarded<VolumeRead> | "torn" | null = null;
    const parts = cut(0, range.lengthBytes, forwardBytesMax);
    await inTurn(parts, async ({ offsetBytes, lengthBytes }) => {
      if (end !== null) return;
      const part = offsetBytes / forwardBytesMax;
      const type = messageType.volumeReadPart;
      const reply = await this.#ask(asked, type, request, [encodePart(part)]);
      const taken = reply?.ok ? decodeTaken(reply.data) : null;
      if (reply !== null && !reply.ok) end ??= faultOf(reply);
      else if (taken === null || taken.data.length !== lengthBytes) end ??= "elsewhere";
      else if (taken.taking !== (taking ??= taken.taking)) end ??= "torn";
      else buffers[part] = taken.data;
    });
    const over = [encodeForward(request), encodePart(noPart)];
    this.#calls.tell(asked.at.brick, messageType.volumeReadPart, over);
    return end ?? { ok: true, buffers };
  }

  async allocation(
    asked: Asked,
    piece: Piece,
    runsMax: number,
  ): Promise<Forwarded<VolumeAllocation>> {
    const request = {
      ...this.#request(asked, piece, 0),
      runsMax: Math.min(runsMax, forwardRunsMax),
    };
    const reply = await this.#ask(asked, messageType.volumeAllocation, request);
    if (reply === null) return "elsewhere";
    if (!reply.ok) return faultOf(reply);
    const runs = decodeRuns(reply.data);
    return runs === null ? "elsewhere" : { ok: true, runs };
  }

  write(
    asked: Asked,
    offsetBytes: number,
    data: readonly Buffer[],
  ): Promise<Forwarded<VolumeDone>> {
    const pieces = cut(offsetBytes, lengthOf(data), forwardBytesMax);
    return this.#changes(asked, pieces, messageType.volumeWrite, (piece) =>
      sliceOf(data, piece.offsetBytes - offsetBytes, piece.lengthBytes),
    );
  }

  unmap(asked: Asked, { offsetBytes, lengthBytes }: Piece): Promise<Forwarded<VolumeDone>> {
    const pieces = cut(offsetBytes, lengthBytes, unmapBytesMax);
    return this.#changes(asked, pieces, messageType.volumeUnmap, () => []);
  }

  /** In one message: what is atomic is not cut. At most `compareBytesMax`. */
  compareAndWrite(
    asked: Asked,
    offsetBytes: number,
    compare: readonly Buffer[],
    data: readonly Buffer[],
  ): Promise<Forwarded<VolumeDone>> {
    const lengthBytes = lengthOf(data);
    if (lengthOf(compare) !== lengthBytes || lengthBytes > compareBytesMax) return tooLong;
    const pieces = [{ offsetBytes, lengthBytes }];
    const both = [...compare, ...data];
    return this.#changes(asked, pieces, messageType.volumeCompareAndWrite, () => both);
  }

  /** In one message; at most `orBytesMax`. */
  orWrite(
    asked: Asked,
    offsetBytes: number,
    data: readonly Buffer[],
  ): Promise<Forwarded<VolumeDone>> {
    const lengthBytes = lengthOf(data);
    if (lengthBytes > orBytesMax) return tooLong;
    const pieces = [{ offsetBytes, lengthBytes }];
    return this.#changes(asked, pieces, messageType.volumeOrWrite, () => data);
  }

  /** In one message; at most `atomicBytesMax`. */
  writeAtomic(
    asked: Asked,
    offsetBytes: number,
    data: readonly Buffer[],
  ): Promise<Forwarded<VolumeDone>> {
    const lengthBytes = lengthOf(data);
    if (lengthBytes > atomicBytesMax) return tooLong;
    const pieces = [{ offsetBytes, lengthBytes }];
    return this.#changes(asked, pieces, messageType.volumeWriteAtomic, () => data);
  }

  /** In one message: overlapping ranges must not be copied in pieces. At most `copyBytesMax`. */
  copyFrom(
    asked: Asked,
    source: CopySource,
    { offsetBytes, lengthBytes }: Piece,
  ): Promise<Forwarded<VolumeDone>> {
    if (lengthBytes > copyBytesMax) return tooLong;
    const pieces = [{ offsetBytes, lengthBytes }];
    return this.#changes(asked, pieces, messageType.volumeCopy, () => [encodeCopySource(source)]);
  }

  async #changes(
    asked: Asked,
    pieces: readonly Piece[],
    type: number,
    dataOf: (piece: Piece) => readonly Buffer[],
  ): Promise<Forwarded<VolumeDone>> {
    const { task } = asked;
    const cancels = new Set<() => void>();
    if (task !== undefined) {
      task.onCancel = () => {
        for (const cancel of [...cancels]) cancel();
      };
    }
    const replies = await inTurn(pieces, (piece) => {
      if (task?.cancelled) return Promise.resolve<ForwardReply>(fail({ code: "cancelled" }));
      return this.#change(asked, piece, type, dataOf(piece), cancels);
    });
    if (task !== undefined) task.onCancel = null;
    const faults = replies.flatMap((reply) => (reply.ok ? [] : [reply.fault]));
    if (faults.length === 0) return { ok: true };
    if (faults.length === replies.length && faults.every((one) => one.code === "elsewhere")) {
      return "elsewhere";
    }
    const worst = faults.find((one) => one.code !== "elsewhere" && one.code !== "cancelled");
    if (worst !== undefined) return fail(worst);
    if (faults.some((one) => one.code === "cancelled")) return fail({ code: "cancelled" });
    return fail(unavailable("the gateway moved while part of the write was on its way"));
  }

  /**
   * Asks until there is an answer: the gateway knows a change by its sequence. When none comes in time,
   * makes sure that the change is over before it says so.
   */
  async #change(
    asked: Asked,
    piece: Piece,
    type: number,
    data: readonly Buffer[],
    cancels: Set<() => void>,
  ): Promise<ForwardReply> {
    const sequence = this.#sequenceNext;
    this.#sequenceNext += 1;
    this.#open.add(sequence);
    const request = this.#request(asked, piece, sequence);
    const { brick } = asked.at;
    const reply = await new Promise<ForwardReply>((resolve) => {
      const cancel = () => {
        sending.stop();
        end();
        this.#cancel(brick, request, resolve);
      };
      const end = () => {
        cancels.delete(cancel);
        this.#asking.delete(asking);
      };
      cancels.add(cancel);
      const asking = this.#begin(request, cancel);
      const body = [encodeForward(request), ...data];
      const sending = this.#send(brick, type, body, (answer, sendings) => {
        end();
        const decoded = answer.ok ? decodeForwardReply(answer.body) : null;
        if (decoded !== null) resolve(sendings > 1 ? unlessGone(decoded) : decoded);
        else this.#cancel(brick, request, (ended) => resolve(unasked(ended, asked.task)));
      });
    });
    this.#open.delete(sequence);
    return reply;
  }

  #cancel(
    brick: BrickNumber,
    request: ForwardRequest,
    resolve: (reply: ForwardReply) => void,
  ): void {
    if (!this.#stands(request.uuid, request.epoch)) {
      resolve(fail(unavailable("the gateway that had the write is gone; it may have landed")));
      return;
    }
    const body = [encodeForward(request)];
    this.#calls.call(brick, messageType.volumeCancel, body, cancelTimeoutMs, (answer) => {
      const decoded = answer.ok ? decodeForwardReply(answer.body) : null;
      if (decoded !== null) resolve(decoded);
      else this.#host.clock.after(100, () => this.#cancel(brick, request, resolve));
    });
  }

  #ask(
    { at }: Asked,
    type: number,
    request: ForwardRequest,
    data: readonly Buffer[] = [],
  ): Promise<ForwardReply | null> {
    return new Promise((resolve) => {
      const asking = this.#begin(request, () => {
        sending.stop();
        resolve(null);
      });
      const body = [encodeForward(request), ...data];
      const sending = this.#send(at.brick, type, body, (answer) => {
        this.#asking.delete(asking);
        resolve(answer.ok ? decodeForwardReply(answer.body) : null);
      });
    });
  }

  #send(
    to: BrickNumber,
    type: number,
    body: readonly Buffer[],
    done: (reply: CallReply, sendings: number) => void,
  ) {
    return askAgain(this.#host, this.#calls, { to, type, body, timeoutMs: this.#timeoutMs }, done);
  }

  #begin({ uuid, epoch }: ForwardRequest, gone: () => void): Asking {
    const asking = { uuid, epoch, gone };
    this.#asking.add(asking);
    return asking;
  }

  #request({ at, uuid, task, absences }: Asked, piece: Piece, sequence: number): ForwardRequest {
    let lowWater = this.#sequenceNext;
    for (const open of this.#open) {
      lowWater = open;
      break;
    }
    const who = { nexus: task?.nexus ?? null, noticeNext: task?.noticeNext ?? 0, absences };
    return { uuid, epoch: at.epoch, ...piece, sequence, lowWater, runsMax: 0, ...who };
  }
}

/** One message's length field bounds an unmap. */
const unmapBytesMax = 1024 * 1024 * 1024;

function faultOf({ fault }: Extract<ForwardReply, { ok: false }>) {
  return fault.code === "elsewhere" ? "elsewhere" : fail(fault);
}

function fail(fault: VolumeFault): { ok: false; fault: VolumeFault } {
  return { ok: false, fault };
}

/**
 * A gateway that has been started anew knows nothing of what it was sent before, and may have carried
 * out: only of what was sent once does `elsewhere` say that it was not done.
 */
function unlessGone(reply: ForwardReply): ForwardReply {
  if (reply.ok || reply.fault.code !== "elsewhere") return reply;
  return fail(unavailable("the gateway is gone, or has moved; the write may have landed"));
}

/** A cancel that nobody asked for: no answer came in time. */
function unasked(reply: ForwardReply, task: VolumeTask | undefined): ForwardReply {
  if (reply.ok || reply.fault.code !== "cancelled" || task?.cancelled) return reply;
  return fail(unavailable("the gateway did not answer in time"));
}

const tooLong = Promise.resolve(fail(unavailable("longer than one command may be")));

function cut(offsetBytes: number, lengthBytes: number, bytesMax: number): Piece[] {
  const pieces: Piece[] = [];
  for (let done = 0; done < lengthBytes; done += bytesMax) {
    const length = Math.min(bytesMax, lengthBytes - done);
    pieces.push({ offsetBytes: offsetBytes + done, lengthBytes: length });
  }
  return pieces;
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
