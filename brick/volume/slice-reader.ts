import { type ChunkCache, outlinePart } from "../chunk/chunk-cache.ts";
import { getStatus } from "../chunk/chunk-messages.ts";
import { areSlicesOf, isOutlineOf, outlineBytes, sliceBytes } from "../chunk/outline.ts";
import {
  decodeSliceReply,
  encodeSliceRequest,
  type SliceResult,
  slicesWishedMax,
} from "../chunk/slice-messages.ts";
import type { TimerHandle } from "../host.ts";
import type { CallReply } from "../rpc/calls.ts";
import { messageType } from "../rpc/message-types.ts";
import { stage } from "../stage-times.ts";
import type { SliceRead } from "../store/slice-reads.ts";
import type { BrickNumber } from "../units.ts";
import { ByBrick } from "./by-brick.ts";
import type { ChunkContext } from "./chunk-context.ts";

const sweepEveryMs = 10;

/** Slices `first`, `first` + 1, ... of a chunk that is so long. */
export interface SlicesWanted {
  readonly key: Buffer;
  readonly chunkBytes: number;
  readonly first: number;
  readonly count: number;
}

interface Wish extends SlicesWanted {
  /** Null: they could not be had this way; the chunk is to be looked for as a whole. */
  readonly done: (bytes: Buffer | null) => void;
  /** Known already, from an earlier wish. */
  readonly outline: Buffer | null;
}

/** The chunks of this brick: slices that are to be had on the spot, with a proven outline; else null. */
export interface OwnSlices {
  readNow(key: Buffer, first: number, count: number): SliceRead | null;
}

interface Frame {
  readonly brick: BrickNumber;
  readonly wishes: readonly Wish[];
  readonly sinceMs: number;
}

/**
 * Fetches parts of chunks from the likeliest holder, and proves them by the chunk's key. It tries
 * once: who is slow, does not have the chunk or sends something else is left to ChunkReader, which
 * knows what to do about it.
 */
export class SliceReader {
  readonly #context: ChunkContext;
  readonly #cache: ChunkCache;
  readonly #own: OwnSlices;
  #frames: Frame[] = [];
  /** To be asked for when `flush` is called. */
  readonly #outgoing = new ByBrick<Wish>();
  #sweep: TimerHandle | null = null;

  constructor(context: ChunkContext, cache: ChunkCache, own: OwnSlices) {
    this.#context = context;
    this.#cache = cache;
    this.#own = own;
  }

  /** `done` runs before `fetch` returns when they are at hand, or there is nobody to ask. */
  fetch(
    wanted: SlicesWanted,
    brick: BrickNumber | null,
    done: (bytes: Buffer | null) => void,
  ): void {
    if (brick === null) {
      done(null);
      return;
    }
    if (brick === this.#context.self) {
      const bytes = this.#ownNow(wanted);
      if (bytes !== null) {
        done(bytes);
        return;
      }
    }
    const outline = this.#cache.get(wanted.key, outlinePart) ?? null;
    const wish: Wish = { ...wanted, done, outline };
    this.#outgoing.add(brick, wish);
  }

  /** Proven like everybody's; what is amiss is left to the way by messages. */
  #ownNow({ key, first, count }: SlicesWanted): Buffer | null {
    const read = this.#own.readNow(key, first, count);
    if (read === null || !read.ok) return null;
    const { stages } = this.#context.stats;
    const sinceMs = stages.since(stage.readVerify);
    const isProven = areSlicesOf(read.outline, first, read.bytes);
    stages.took(stage.readVerify, sinceMs);
    return isProven ? read.bytes : null;
  }

  flush(): void {
    if (this.#outgoing.isEmpty) return;
    for (const { brick, items } of this.#outgoing.take()) {
      for (let at = 0; at < items.length; at += slicesWishedMax) {
        this.#send(brick, items.slice(at, at + slicesWishedMax));
      }
    }
  }

  #send(brick: BrickNumber, wishes: readonly Wish[]): void {
    const { calls, host, options } = this.#context;
    const frame: Frame = { brick, wishes, sinceMs: host.clock.nowMs() };
    this.#frames.push(frame);
    this.#startSweep();
    const body = encodeSliceRequest(
      wishes.map(({ key, first, count, outline }) => {
        return { key, first, count, withOutline: outline === null };
      }),
    );
    calls.call(brick, messageType.chunkSlices, body, options.chunkTimeoutMs, (reply) => {
      this.#answered(frame, reply);
    });
  }

  #answered(frame: Frame, reply: CallReply): void {
    const { health, host } = this.#context;
    const nowMs = host.clock.nowMs();
    if (reply.ok) health.answered(frame.brick, nowMs - frame.sinceMs);
    else health.timedOut(frame.brick, nowMs);
    const at = this.#frames.indexOf(frame);
    if (at < 0) return;
    this.#frames.splice(at, 1);
    const { stages } = this.#context.stats;
    stages.took(stage.readFetch, stages.sample(stage.readFetch, frame.sinceMs));
    const results = reply.ok ? decodeSliceReply(reply.body) : null;
    const fits = results?.length === frame.wishes.length;
    for (const [index, wish] of frame.wishes.entries()) {
      const sinceMs = stages.since(stage.readVerify);
      const proven = fits ? this.#proven(wish, results[index]!) : null;
      stages.took(stage.readVerify, sinceMs);
      wish.done(proven);
    }
  }

  /** The bytes, if they are what was asked for beyond doubt. */
  #proven(wish: Wish, result: SliceResult): Buffer | null {
    if (result.status !== getStatus.found) return null;
    const { key, chunkBytes, first, count } = wish;
    if (result.bytes.length !== count * sliceBytes) return null;
    let { outline } = wish;
    if (outline === null) {
      if (result.outline?.length !== outlineBytes(chunkBytes)) return null;
      if (!isOutlineOf(result.outline, key)) return null;
      outline = result.outline;
      this.#cache.put(key, outline, outlinePart);
    }
    return areSlicesOf(outline, first, result.bytes) ? result.bytes : null;
  }

  #startSweep(): void {
    this.#sweep ??= this.#context.host.clock.after(sweepEveryMs, () => {
      this.#sweep = null;
      const { health, host, stats } = this.#context;
      const nowMs = host.clock.nowMs();
      const isSlow = ({ brick, sinceMs }: Frame) => nowMs - sinceMs >= health.hedgeAfterMs(brick);
      const slow = this.#frames.filter(isSlow);
      this.#frames = this.#frames.filter((frame) => !isSlow(frame));
      for (const frame of slow) {
        stats.readHedges += frame.wishes.length;
        for (const wish of frame.wishes) wish.done(null);
      }
      if (this.#frames.length > 0) this.#startSweep();
    });
  }
}
