import { assert } from "../assert.ts";
import type { Host, TimerHandle } from "../host.ts";
import {
  type Asker,
  encodeForwardFault,
  encodeForwardReply,
  encodeTaking,
  type ForwardRequest,
  forwardBytesMax,
  noPart,
} from "./forward-messages.ts";
import type { Gateway } from "./gateway.ts";
import { heldReadsBytesMax, heldReadsMax, readBytesMax } from "./limits.ts";
import type { Origin } from "./operation.ts";
import { sliceOf } from "./split.ts";
import type { VolumeRead } from "./volume.ts";

/** What nobody has asked for a part of for so long is wanted no more. */
const heldMs = 10_000;
const sweepEveryMs = 1000;
assert(readBytesMax <= heldReadsBytesMax);

type Reply = (parts: readonly Buffer[]) => void;
type FindGateway = (uuid: string, epoch: number) => Gateway | undefined;

/**
 * A read that is too long for one message: taken once, under one lock of its range, and held until
 * its reader has every part.
 *
 *     waiting ──there is room──▶ reading ──taken──▶ held ──the reader has it, or is gone──▶ forgotten
 */
interface LongRead {
  readonly name: string;
  readonly request: ForwardRequest;
  readonly origin: Origin;
  state: "waiting" | "reading" | "held";
  result: VolumeRead | null;
  /** Tells this taking from another one of the same read. */
  taking: number;
  askedAtMs: number;
  /** Who asked for parts before there was a result. */
  readonly asked: { part: number; reply: Reply }[];
}

/** The gateway's side of long reads through other portals. */
export class ForwardedReads {
  readonly #host: Host;
  readonly #gateway: FindGateway;
  /** In order of arrival. */
  readonly #reads = new Map<string, LongRead>();
  /** Of those that are being read or held. */
  #bytes = 0;
  #takingNext = 1;
  #sweep: TimerHandle | null = null;

  constructor(host: Host, gateway: FindGateway) {
    this.#host = host;
    this.#gateway = gateway;
  }

  /** Bytes that are kept for readers, or will be. */
  get bytes(): number {
    return this.#bytes;
  }

  ask({ from, boot }: Asker, request: ForwardRequest, origin: Origin, part: number, reply: Reply) {
    const name = `${from}/${boot}/${request.sequence}`;
    const known = this.#reads.get(name);
    if (part === noPart) {
      if (known?.state === "held") this.#forget(known);
      return;
    }
    if (request.lengthBytes > readBytesMax || part * forwardBytesMax >= request.lengthBytes) return;
    const read = known ?? this.#enter(name, request, origin);
    if (read === null || !isSame(read.request, request)) return;
    read.askedAtMs = this.#host.clock.nowMs();
    if (read.result === null) read.asked.push({ part, reply });
    else answer(read, read.result, part, reply);
  }

  /** null: there are too many, and who asks again later may find room. */
  #enter(name: string, request: ForwardRequest, origin: Origin): LongRead | null {
    if (this.#reads.size >= heldReadsMax) return null;
    const read: LongRead = {
      name,
      request,
      origin,
      state: "waiting",
      result: null,
      taking: 0,
      askedAtMs: this.#host.clock.nowMs(),
      asked: [],
    };
    this.#reads.set(name, read);
    this.#startSweep();
    this.#begin();
    return read;
  }

  /** Begins what waits and fits, in order of arrival. */
  #begin(): void {
    for (const read of this.#reads.values()) {
      if (read.state !== "waiting") continue;
      if (this.#bytes + read.request.lengthBytes > heldReadsBytesMax) return;
      this.#read(read);
    }
  }

  #read(read: LongRead): void {
    const { uuid, epoch, offsetBytes, lengthBytes } = read.request;
    read.state = "reading";
    this.#bytes += lengthBytes;
    read.taking = this.#takingNext;
    this.#takingNext += 1;
    const gateway = this.#gateway(uuid, epoch);
    if (gateway === undefined) {
      // Later, as everything else ends: `#begin` goes through the reads.
      this.#host.clock.soon(() => this.#taken(read, null));
      return;
    }
    gateway.read(offsetBytes, lengthBytes, read.origin).then((result) => this.#taken(read, result));
  }

  /** null: the volume is served elsewhere by now. */
  #taken(read: LongRead, result: VolumeRead | null): void {
    assert(read.state === "reading");
    read.state = "held";
    read.result = result;
    for (const { part, reply } of read.asked.splice(0)) answer(read, result, part, reply);
    if (result === null || !result.ok) this.#forget(read);
  }

  #forget(read: LongRead): void {
    this.#reads.delete(read.name);
    if (read.state !== "waiting") this.#bytes -= read.request.lengthBytes;
    assert(this.#bytes >= 0);
    this.#begin();
  }

  #startSweep(): void {
    this.#sweep ??= this.#host.clock.after(sweepEveryMs, () => {
      this.#sweep = null;
      const lateMs = this.#host.clock.nowMs() - heldMs;
      for (const read of [...this.#reads.values()]) {
        // What is being read ends by its own deadline.
        if (read.state !== "reading" && read.askedAtMs < lateMs) this.#forget(read);
      }
      if (this.#reads.size > 0) this.#startSweep();
    });
  }
}

function answer(read: LongRead, result: VolumeRead | null, part: number, reply: Reply): void {
  if (result === null) reply(encodeForwardFault({ code: "elsewhere" }));
  else if (!result.ok) reply(encodeForwardFault(result.fault));
  else {
    const data = sliceOf(result.buffers, part * forwardBytesMax, forwardBytesMax);
    reply(encodeForwardReply([encodeTaking(read.taking), ...data]));
  }
}

function isSame(a: ForwardRequest, b: ForwardRequest): boolean {
  const sameVolume = a.uuid === b.uuid && a.epoch === b.epoch;
  return sameVolume && a.offsetBytes === b.offsetBytes && a.lengthBytes === b.lengthBytes;
}
