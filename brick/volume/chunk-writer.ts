import { decodeChunkPutReply, encodeChunkPut, putStatus } from "../chunk/chunk-messages.ts";
import { type ClusterState, isReachable } from "../cluster-state.ts";
import type { TimerHandle } from "../host.ts";
import type { ChunkOrigin } from "../log/batch-format.ts";
import type { CallReply } from "../rpc/calls.ts";
import { messageType } from "../rpc/message-types.ts";
import type { BrickNumber } from "../units.ts";
import { type ChunkContext, copiesNeeded, Placements, reachableCount } from "./chunk-context.ts";
import { type Guarded, guardChunk } from "./chunk-guard.ts";

/** Slow requests are looked for this often while any is under way. */
const sweepEveryMs = 10;
const retryEveryMs = 200;

export type StoreOutcome =
  /** `gcEpoch`: no holder had been asked before that epoch of garbage collection had begun. */
  { ok: true; holders: readonly BrickNumber[]; gcEpoch: number } | { ok: false; fault: "no_space" };

interface Copies {
  readonly copies: number;
  readonly degradedWrites: boolean;
}

/** One chunk on its way to the bricks that its key names. */
class Storing {
  readonly key: Buffer;
  readonly body: readonly Buffer[];
  readonly lengthBytes: number;
  readonly gcEpoch: number;
  readonly volume: () => Copies;
  readonly done: (outcome: StoreOutcome) => void;
  readonly stored: BrickNumber[] = [];
  /** Asked and not yet answered, and since when. */
  readonly underWay = new Map<BrickNumber, { sinceMs: number; hedged: boolean }>();
  /** Answered that it cannot (no_space, bad), or not in time. */
  readonly refused = new Set<BrickNumber>();
  readonly late = new Set<BrickNumber>();
  retryAtMs = 0;
  ended = false;

  constructor(
    key: Buffer,
    body: readonly Buffer[],
    lengthBytes: number,
    gcEpoch: number,
    volume: () => Copies,
    done: (outcome: StoreOutcome) => void,
  ) {
    this.key = key;
    this.body = body;
    this.lengthBytes = lengthBytes;
    this.gcEpoch = gcEpoch;
    this.volume = volume;
    this.done = done;
  }
}

export interface StoreHandle {
  /** Nobody wants the chunk any more; `done` is not called. */
  abandon(): void;
}

/**
 * Stores chunks on as many bricks as the volume asks for: the first ones of the key's order, in
 * parallel; who is full, failing or slow is passed over to the next.
 */
export class ChunkWriter {
  readonly #context: ChunkContext;
  readonly #placements = new Placements();
  readonly #active = new Set<Storing>();
  #sweep: TimerHandle | null = null;
  /** The cluster state that the last sweep saw. */
  #stateSeen: ClusterState | null = null;

  constructor(context: ChunkContext) {
    this.#context = context;
  }

  get activeCount(): number {
    return this.#active.size;
  }

  store(
    key: Buffer,
    origin: ChunkOrigin,
    data: readonly Buffer[],
    lengthBytes: number,
    volume: () => Copies,
    done: (outcome: StoreOutcome) => void,
  ): StoreHandle {
    const { gcEpoch } = this.#context.state();
    const body = encodeChunkPut(key, origin, data, gcEpoch);
    const storing = new Storing(key, body, lengthBytes, gcEpoch, volume, done);
    this.#active.add(storing);
    this.#advance(storing);
    if (!storing.ended) this.#startSweep();
    return { abandon: () => this.#end(storing) };
  }

  /** For another reference to a chunk that is stored already; see guardChunk. */
  guard(
    key: Buffer,
    holders: readonly BrickNumber[],
    done: (guarded: Guarded) => void,
  ): StoreHandle {
    return guardChunk(this.#context, key, holders, done);
  }

  close(): void {
    for (const storing of this.#active) storing.ended = true;
    this.#active.clear();
    this.#sweep?.cancel();
    this.#sweep = null;
  }

  /** Finishes when there are enough copies, else asks as many more bricks as are lacking. */
  #advance(storing: Storing): void {
    if (storing.ended) return;
    const state = this.#context.state();
    const needed = copiesNeeded(state, storing.volume());
    if (storing.stored.length >= needed) {
      this.#end(storing);
      storing.done({ ok: true, holders: storing.stored, gcEpoch: storing.gcEpoch });
      return;
    }
    // A hedged request counts no longer: another brick is asked in its place.
    let expected = storing.stored.length;
    for (const [brick, { hedged }] of storing.underWay) {
      if (!hedged && isReachable(state.bricks[String(brick)])) expected += 1;
    }
    while (expected < needed) {
      const next = this.#nextBrick(storing);
      if (next === null) break;
      this.#ask(storing, next);
      expected += 1;
    }
    if (expected < needed) this.#exhausted(storing, needed);
  }

  #nextBrick(storing: Storing): BrickNumber | null {
    const { health, host } = this.#context;
    const nowMs = host.clock.nowMs();
    let slow: BrickNumber | null = null;
    for (const brick of this.#placements.forWrite(this.#context.state()).order(storing.key)) {
      if (storing.stored.includes(brick) || storing.underWay.has(brick)) continue;
      if (storing.refused.has(brick) || storing.late.has(brick)) continue;
      if (!health.isSlow(brick, nowMs)) return brick;
      slow ??= brick;
    }
    return slow;
  }

  /** Nobody is left to ask: full, or some are away and may come back. */
  #exhausted(storing: Storing, needed: number): void {
    const nowMs = this.#context.host.clock.nowMs();
    if (storing.underWay.size > 0) return;
    if (storing.late.size > 0) {
      storing.retryAtMs ||= nowMs + retryEveryMs;
      return;
    }
    if (reachableCount(this.#context.state()) < needed) {
      storing.refused.clear();
      storing.retryAtMs ||= nowMs + retryEveryMs;
      return;
    }
    this.#end(storing);
    storing.done({ ok: false, fault: "no_space" });
  }

  #ask(storing: Storing, brick: BrickNumber): void {
    const { calls, host, options } = this.#context;
    const sinceMs = host.clock.nowMs();
    storing.underWay.set(brick, { sinceMs, hedged: false });
    calls.call(brick, messageType.chunkPut, storing.body, options.chunkTimeoutMs, (reply) => {
      this.#answered(storing, brick, sinceMs, reply);
    });
  }

  #answered(storing: Storing, brick: BrickNumber, sinceMs: number, reply: CallReply): void {
    const { health, host, stats } = this.#context;
    const nowMs = host.clock.nowMs();
    if (!reply.ok) health.timedOut(brick, nowMs);
    else health.answered(brick, nowMs - sinceMs);
    if (storing.ended) return;
    storing.underWay.delete(brick);
    const status = reply.ok ? decodeChunkPutReply(reply.body) : null;
    if (status === putStatus.stored || status === putStatus.deduplicated) {
      storing.stored.push(brick);
      if (status === putStatus.deduplicated) {
        stats.deduplicatedCopies += 1;
        stats.deduplicatedBytes += storing.lengthBytes;
      }
    } else if (!reply.ok || status === putStatus.busy) storing.late.add(brick);
    else storing.refused.add(brick);
    this.#advance(storing);
  }

  #end(storing: Storing): void {
    storing.ended = true;
    this.#active.delete(storing);
  }

  #startSweep(): void {
    this.#sweep ??= this.#context.host.clock.after(sweepEveryMs, () => {
      this.#sweep = null;
      this.#lookForSlow();
      if (this.#active.size > 0) this.#startSweep();
    });
  }

  #lookForSlow(): void {
    const nowMs = this.#context.host.clock.nowMs();
    const state = this.#context.state();
    // A brick that went down may make fewer copies enough, one that came up may take one.
    const stateIsNew = state !== this.#stateSeen;
    this.#stateSeen = state;
    for (const storing of this.#active) {
      let look = stateIsNew;
      for (const [brick, asked] of storing.underWay) {
        if (asked.hedged) continue;
        if (nowMs - asked.sinceMs < this.#context.health.writeHedgeAfterMs(brick)) continue;
        // Only when there is another brick to ask; else its answer is waited for.
        if (this.#nextBrick(storing) === null) break;
        asked.hedged = true;
        this.#context.stats.writeHedges += 1;
        look = true;
      }
      if (storing.retryAtMs > 0 && storing.retryAtMs <= nowMs) {
        storing.retryAtMs = 0;
        storing.late.clear();
        look = true;
      }
      if (look) this.#advance(storing);
    }
  }
}
