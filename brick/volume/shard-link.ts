import { assert } from "../assert.ts";
import { isReachable, replicasOf, type ShardRecord } from "../cluster-state.ts";
import type { TimerHandle } from "../host.ts";
import { spaceInView } from "../map/full-bricks.ts";
import type { GroupPart } from "../map/group.ts";
import { encodeMapGroup } from "../map/group-messages.ts";
import {
  decodeLookupReply,
  encodeMapCancel,
  encodeMapFence,
  encodeMapLookup,
  type MapLookupReply,
  type MapReply,
  mapReplyWire,
  mapWriteWire,
} from "../map/map-messages.ts";
import { windowSpanMax } from "../map/windows.ts";
import type { CallReply } from "../rpc/calls.ts";
import { messageType } from "../rpc/message-types.ts";
import { Words } from "../rpc/words.ts";
import type { BrickNumber } from "../units.ts";
import type { AttachmentContext } from "./attachment-context.ts";
import type { Piece } from "./split.ts";

const retryMsFirst = 5;
const retryMsMax = 250;

export type MapOutcome =
  | { code: "done"; holders: readonly BrickNumber[] }
  | { code: "no_space" }
  /** It did not land, and never will: its chunk must be stored again first. */
  | { code: "stale" }
  | { code: "cancelled" }
  /** The attachment's epoch is over; whether it landed is not known. */
  | { code: "ended" };

/**
 * One map operation on its way to a shard.
 *
 *     queued ──window open──▶ sent ──committed──▶ settled
 *        │                     └──cancel, no space──▶ cancelling ──logged, or landed──▶ settled
 *        └──cancel──▶ settled
 */
export class MapOperation {
  readonly piece: Piece;
  readonly key: Buffer | null;
  /** Hints of a chunk that was stored before. */
  readonly holders: readonly BrickNumber[];
  readonly inline: readonly Buffer[] | null;
  /** Of a chunk that was stored before: the epoch in which that was begun. */
  readonly gcEpoch: number;
  /** Of a group; else none. */
  readonly parts: readonly GroupPart[];
  readonly settled: (outcome: MapOutcome) => void;
  state: "queued" | "sent" | "cancelling" | "settled" = "queued";
  sequence = 0;
  /** Counts sendings: only the newest one is followed by another. */
  attempt = 0;
  /** What a logged cancel means for the command. */
  cancelOutcome: MapOutcome = { code: "cancelled" };

  constructor(
    piece: Piece,
    chunk: {
      key: Buffer | null;
      holders: readonly BrickNumber[];
      inline: readonly Buffer[] | null;
      gcEpoch: number;
      parts?: readonly GroupPart[];
    } | null,
    settled: (outcome: MapOutcome) => void,
  ) {
    this.piece = piece;
    this.key = chunk === null ? null : chunk.key;
    this.holders = chunk === null ? [] : chunk.holders;
    this.inline = chunk === null ? null : chunk.inline;
    this.gcEpoch = chunk === null ? 0 : chunk.gcEpoch;
    this.parts = chunk?.parts ?? [];
    this.settled = settled;
  }
}

/** A look-up under way; `wanted` says whether anyone still waits for it. */
export class Lookup {
  readonly firstGrain: number;
  readonly grainCount: number;
  readonly wanted: () => boolean;
  readonly done: (reply: MapLookupReply | null) => void;
  /** Of what the shard owes to another one. */
  readonly owed: boolean;
  attempt = 0;
  finished = false;

  constructor(
    firstGrain: number,
    grainCount: number,
    wanted: () => boolean,
    done: (reply: MapLookupReply | null) => void,
    owed = false,
  ) {
    this.owed = owed;
    this.firstGrain = firstGrain;
    this.grainCount = grainCount;
    this.wanted = wanted;
    this.done = done;
  }
}

/**
 * One attachment's talk with the primary of one shard: fence first, then operations under dense
 * sequences. Everything is sent again, by the same sequence, until the shard has said what became
 * of it; whoever leads the shard by then recognises it.
 */
export class ShardLink {
  readonly #context: AttachmentContext;
  readonly #shard: number;
  #fence: "none" | "asked" | "fenced" = "none";
  #ended = false;
  #viewNewest = 0;
  /** Below it every sequence is settled. */
  #lowWater = 1;
  #sequenceNext = 1;
  /** Sent and not settled, by sequence modulo the window. */
  readonly #window: (MapOperation | null)[];
  #queued: MapOperation[] = [];
  /** Asked for and not answered, sent or waiting for the fence. */
  readonly #lookups = new Set<Lookup>();
  #retries: (() => void)[] = [];
  #retryTimer: TimerHandle | null = null;
  #retryMs = retryMsFirst;

  constructor(context: AttachmentContext, shard: number) {
    this.#context = context;
    this.#shard = shard;
    // A shard's own mark may lag by one window behind what the gateway has settled.
    assert(2 * context.options.shardWindowMax <= windowSpanMax);
    this.#window = new Array<MapOperation | null>(context.options.shardWindowMax).fill(null);
  }

  submit(operation: MapOperation): void {
    assert(operation.state === "queued");
    if (this.#ended) {
      this.#finish(operation, { code: "ended" });
      return;
    }
    if (this.#fence !== "fenced" || this.#queued.length > 0 || !this.#windowOpen()) {
      this.#queued.push(operation);
      this.#fenceFirst();
      return;
    }
    this.#begin(operation);
  }

  /** Brings the operation to its end: landed, or logged never to land. */
  cancel(operation: MapOperation, outcome: MapOutcome = { code: "cancelled" }): void {
    if (operation.state === "queued") {
      const at = this.#queued.indexOf(operation);
      if (at >= 0) this.#queued.splice(at, 1);
      this.#finish(operation, outcome);
    } else if (operation.state === "sent") {
      operation.state = "cancelling";
      operation.cancelOutcome = outcome;
      this.#sendCancel(operation);
    }
  }

  lookup(lookup: Lookup): void {
    if (this.#ended) {
      lookup.done(null);
      return;
    }
    this.#lookups.add(lookup);
    if (this.#fence === "fenced") this.#sendLookup(lookup);
    else this.#fenceFirst();
  }

  /** The cluster state has changed: what waits may find a primary now. */
  onState(): void {
    const { view } = this.#record();
    if (view <= this.#viewNewest) return;
    this.#viewNewest = view;
    this.#retryMs = retryMsFirst;
    // What was sent to the old primary need not wait for its deadline.
    for (let sequence = this.#lowWater; sequence < this.#sequenceNext; sequence += 1) {
      const operation = this.#window[sequence % this.#window.length];
      if (operation) this.#again(operation);
    }
    if (this.#fence === "fenced") for (const lookup of this.#lookups) this.#sendLookup(lookup);
    this.#retryNow();
  }

  /** The attachment's epoch is over: nothing more is sent, and nothing waits any longer. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#retryTimer?.cancel();
    this.#retryTimer = null;
    this.#retries = [];
    const waiting = this.#window.filter((operation) => operation !== null);
    const operations = [...waiting, ...this.#queued];
    this.#window.fill(null);
    this.#queued = [];
    for (const operation of operations) this.#finish(operation, { code: "ended" });
    for (const lookup of this.#lookups) this.#endLookup(lookup, null);
  }

  #record(): ShardRecord {
    return this.#context.state().shards[this.#shard]!;
  }

  #windowOpen(): boolean {
    return this.#sequenceNext - this.#lowWater < this.#window.length;
  }

  #begin(operation: MapOperation): void {
    // Before it has a sequence: else the shard has to log that it never lands, where nothing more
    // may be logged than must be.
    if (takesSpace(operation) && this.#isFull()) {
      this.#finish(operation, { code: "no_space" });
      return;
    }
    operation.sequence = this.#sequenceNext;
    this.#sequenceNext += 1;
    operation.state = "sent";
    this.#window[operation.sequence % this.#window.length] = operation;
    this.#sendWrite(operation);
  }

  #isFull(): boolean {
    return spaceInView(this.#context.state(), replicasOf(this.#record())) === "none";
  }

  #drain(): void {
    while (this.#fence === "fenced" && this.#queued.length > 0 && this.#windowOpen()) {
      this.#begin(this.#queued.shift()!);
    }
  }

  #finish(operation: MapOperation, outcome: MapOutcome): void {
    operation.state = "settled";
    operation.settled(outcome);
  }

  #settle(operation: MapOperation, outcome: MapOutcome): void {
    const size = this.#window.length;
    assert(this.#window[operation.sequence % size] === operation);
    this.#window[operation.sequence % size] = null;
    while (this.#lowWater < this.#sequenceNext && this.#window[this.#lowWater % size] === null) {
      this.#lowWater += 1;
    }
    this.#finish(operation, outcome);
    this.#drain();
  }

  // Requests. Each is sent until it is answered; the answer of any sending counts.

  #fenceFirst(): void {
    if (this.#fence !== "none") return;
    this.#fence = "asked";
    this.#sendFence();
  }

  #sendFence(): void {
    const { branch, epoch } = this.#context;
    const body = encodeMapFence({ shard: this.#shard, view: this.#viewNewest, branch, epoch });
    const again = () => this.#sendFence();
    this.#send(messageType.mapFence, body, again, (reply) => {
      if (this.#fence === "fenced") return;
      const answer = this.#answer(reply, again);
      if (answer === null || answer.status !== "ok") return;
      this.#fence = "fenced";
      this.#drain();
      for (const lookup of this.#lookups) this.#sendLookup(lookup);
    });
  }

  #again(operation: MapOperation): void {
    if (this.#ended || operation.state === "settled") return;
    this.#context.stats.mapResends += 1;
    if (operation.state === "sent") this.#sendWrite(operation);
    else this.#sendCancel(operation);
  }

  #sendWrite(operation: MapOperation): void {
    const { branch, epoch } = this.#context;
    const { piece, key, holders, inline, parts, gcEpoch } = operation;
    const shard = this.#shard;
    const view = this.#viewNewest;
    const generation = this.#context.generation();
    const { sequence } = operation;
    const lowWater = this.#lowWater;
    if (parts.length > 0) {
      const named = { shard, view, branch, epoch, generation, sequence, lowWater, gcEpoch };
      this.#sendChange(operation, messageType.mapGroup, encodeMapGroup({ ...named, parts }));
      return;
    }
    const body = new Words(mapWriteWire, {
      shard,
      view,
      branch,
      epoch,
      generation,
      sequence,
      lowWater,
      gcEpoch,
      grain: piece.grain,
      grainCount: piece.grainCount,
      firstSector: piece.firstSector,
      sectorCount: piece.sectorCount,
      part: piece.part ?? null,
      key,
      holders,
      keyDomain: piece.keyDomain,
      inline,
    });
    this.#sendChange(operation, messageType.mapWrite, body);
  }

  #sendChange(operation: MapOperation, type: number, body: readonly Buffer[] | Words): void {
    const { holders, inline } = operation;
    const attempt = (operation.attempt += 1);
    const again = () => {
      if (operation.attempt === attempt) this.#again(operation);
    };
    this.#send(type, body, again, (reply) => {
      if (operation.state !== "sent" && operation.state !== "cancelling") return;
      const answer = this.#answer(reply, again);
      if (answer === null) return;
      if (answer.status === "ok") {
        const named = inline === null ? holders : answer.holders;
        this.#settle(operation, { code: "done", holders: named });
      } else if (answer.status === "cancelled") {
        this.#settle(operation, operation.cancelOutcome);
      } else if (answer.status === "no_space") {
        // A copy of the request may still be under way: only a logged cancel makes it sure.
        this.cancel(operation, { code: "no_space" });
      } else if (answer.status === "stale") this.cancel(operation, { code: "stale" });
    });
  }

  #sendCancel(operation: MapOperation): void {
    const { branch, epoch } = this.#context;
    const { sequence } = operation;
    const shard = this.#shard;
    const view = this.#viewNewest;
    const lowWater = this.#lowWater;
    const body = encodeMapCancel({ shard, view, branch, epoch, sequence, lowWater });
    const attempt = (operation.attempt += 1);
    const again = () => {
      if (operation.attempt === attempt) this.#again(operation);
    };
    this.#send(messageType.mapCancel, body, again, (reply) => {
      if (operation.state !== "cancelling") return;
      const answer = this.#answer(reply, again);
      if (answer === null) return;
      if (answer.status === "ok") {
        const holders = operation.inline === null ? operation.holders : answer.holders;
        this.#settle(operation, { code: "done", holders });
      } else if (answer.status === "cancelled") {
        this.#settle(operation, operation.cancelOutcome);
      }
    });
  }

  #sendLookup(lookup: Lookup): void {
    if (this.#ended || !lookup.wanted()) {
      this.#endLookup(lookup, null);
      return;
    }
    const { branch, epoch } = this.#context;
    const { firstGrain, grainCount, owed } = lookup;
    this.#context.stats.lookups += 1;
    const shard = this.#shard;
    const view = this.#viewNewest;
    const body = encodeMapLookup({ shard, view, branch, epoch, firstGrain, grainCount, owed });
    const attempt = (lookup.attempt += 1);
    const again = () => {
      if (lookup.attempt === attempt && !lookup.finished) this.#sendLookup(lookup);
    };
    this.#send(messageType.mapLookup, body, again, (reply) => {
      if (lookup.finished) return;
      const answer = reply.ok ? decodeLookupReply(reply.body) : null;
      if (!this.#accept(answer, again, reply)) return;
      const covered = answer!.coveredCount;
      if (answer!.status !== "ok" || covered < 1 || covered > grainCount) this.#later(again);
      else this.#endLookup(lookup, answer);
    });
  }

  #endLookup(lookup: Lookup, reply: MapLookupReply | null): void {
    if (lookup.finished) return;
    lookup.finished = true;
    this.#lookups.delete(lookup);
    lookup.done(reply);
  }

  #send(
    type: number,
    body: readonly Buffer[] | Words,
    again: () => void,
    done: (reply: CallReply) => void,
  ): void {
    const { primary, view } = this.#record();
    if (view > this.#viewNewest) this.#viewNewest = view;
    const { calls, options } = this.#context;
    if (!isReachable(this.#context.state().bricks[String(primary)])) {
      this.#later(again);
      return;
    }
    calls.call(primary, type, body, options.mapTimeoutMs, done);
  }

  /** The reply to act on; null when there is none and the request goes out again. */
  #answer(reply: CallReply, again: () => void): MapReply | null {
    const answer = reply.ok ? reply.read(mapReplyWire) : null;
    return this.#accept(answer, again, reply) ? answer : null;
  }

  #accept(
    answer: { status: string; view: number } | null,
    again: () => void,
    reply: CallReply,
  ): boolean {
    if (this.#ended) return false;
    if (!reply.ok && reply.fault.code === "timeout") {
      again();
      return false;
    }
    // An answer of an older view may be of a primary that no longer counts.
    if (answer === null || answer.view < this.#viewNewest || answer.status === "not_now") {
      this.#later(again);
      return false;
    }
    if (answer.view > this.#viewNewest) this.#viewNewest = answer.view;
    if (answer.status === "fenced") {
      this.#context.fenced();
      return false;
    }
    if (answer.status === "refused") {
      this.#later(again);
      return false;
    }
    this.#retryMs = retryMsFirst;
    return true;
  }

  #later(again: () => void): void {
    if (this.#ended) return;
    this.#retries.push(again);
    this.#retryTimer ??= this.#context.host.clock.after(this.#retryMs, () => {
      this.#retryTimer = null;
      this.#retryMs = Math.min(retryMsMax, this.#retryMs * 2);
      this.#retryNow();
    });
  }

  #retryNow(): void {
    const retries = this.#retries;
    this.#retries = [];
    for (const again of retries) again();
  }
}

/** It names chunks, so that it can be refused for want of space. */
function takesSpace({ key, parts }: MapOperation): boolean {
  return key !== null || parts.some((part) => part.key !== null);
}
