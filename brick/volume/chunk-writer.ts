import {
  decodeChunkPutReply,
  encodeChunkPut,
  type PutStatus,
  putStatus,
} from "../chunk/chunk-messages.ts";
import {
  decodeChunkPutsReply,
  encodeChunkPuts,
  putsBytesMax,
  putsMax,
} from "../chunk/puts-messages.ts";
import { type ClusterState, isReachable } from "../cluster-state.ts";
import type { TimerHandle } from "../host.ts";
import type { ChunkOrigin } from "../log/batch-format.ts";
import type { CallReply } from "../rpc/calls.ts";
import type { LentMemory } from "../rpc/lent-memory.ts";
import { messageType } from "../rpc/message-types.ts";
import type { BrickNumber } from "../units.ts";
import { ByBrick } from "./by-brick.ts";
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

/**
 * One brick that was asked to take a chunk:
 *
 *     waiting ──slow──▶ hedged      another brick is asked in its place; it may still answer
 *        └───────┬────────┘
 *                ├──▶ refused       it cannot: no_space, bad
 *                └──▶ late          it did not answer, or is busy: asked again after a while
 */
interface Asked {
  readonly brick: BrickNumber;
  readonly sinceMs: number;
  state: "waiting" | "hedged" | "refused" | "late";
}

export interface ChunkToStore {
  readonly key: Buffer;
  readonly origin: ChunkOrigin;
  readonly data: readonly Buffer[];
  readonly lengthBytes: number;
  /** Given back when nobody holds it: whoever stores the chunk does until it is stored, or abandoned. */
  readonly memory: LentMemory | null;
}

/** One chunk on its way to the bricks that its key names. */
class Storing {
  readonly key: Buffer;
  readonly origin: ChunkOrigin;
  readonly data: readonly Buffer[];
  readonly lengthBytes: number;
  /** What the data lie in, held by each message that carries them. */
  readonly memory: LentMemory | null;
  readonly gcEpoch: number;
  readonly volume: () => Copies;
  readonly done: (outcome: StoreOutcome) => void;
  readonly stored: BrickNumber[] = [];
  asked: Asked[] = [];
  retryAtMs = 0;
  ended = false;
  /** Its place among the active ones. */
  activeAt = -1;

  constructor(
    { key, origin, data, lengthBytes, memory }: ChunkToStore,
    gcEpoch: number,
    volume: () => Copies,
    done: (outcome: StoreOutcome) => void,
  ) {
    this.key = key;
    this.origin = origin;
    this.data = data;
    this.lengthBytes = lengthBytes;
    this.memory = memory;
    this.gcEpoch = gcEpoch;
    this.volume = volume;
    this.done = done;
  }

  get isUnderWay(): boolean {
    return this.asked.some(({ state }) => state === "waiting" || state === "hedged");
  }

  isLate(): boolean {
    return this.asked.some(({ state }) => state === "late");
  }

  forget(state: Asked["state"]): void {
    this.asked = this.asked.filter((asked) => asked.state !== state);
  }
}

interface Put {
  readonly storing: Storing;
  readonly asked: Asked;
}

export interface StoreHandle {
  /** Nobody wants the chunk any more; `done` is not called. */
  abandon(): void;
}

/**
 * Stores chunks on as many bricks as the volume asks for: the first ones of the key's order, in
 * parallel; who is full, failing or slow is passed over to the next. What is begun in one turn of the
 * event loop and goes to the same brick goes in one message; each chunk of it has an answer of its own.
 */
export class ChunkWriter {
  readonly #context: ChunkContext;
  readonly #placements = new Placements();
  readonly #active: Storing[] = [];
  readonly #outgoing = new ByBrick<Put>();
  #sweep: TimerHandle | null = null;
  /** The cluster state that the last sweep saw. */
  #stateSeen: ClusterState | null = null;
  #closed = false;

  constructor(context: ChunkContext) {
    this.#context = context;
  }

  get activeCount(): number {
    return this.#active.length;
  }

  store(
    chunk: ChunkToStore,
    volume: () => Copies,
    done: (outcome: StoreOutcome) => void,
  ): StoreHandle {
    const { gcEpoch } = this.#context.state();
    const storing = new Storing(chunk, gcEpoch, volume, done);
    storing.activeAt = this.#active.length;
    this.#active.push(storing);
    this.#advance(storing);
    if (!storing.ended) this.#startSweep();
    return { abandon: () => this.#end(storing) };
  }

  /** For another reference to a chunk that is stored already; see guardChunk. */
  guard(
    key: Buffer,
    holders: readonly BrickNumber[],
    done: (guarded: Guarded) => void,
    missed?: () => boolean,
  ): StoreHandle {
    return guardChunk(this.#context, key, holders, done, missed);
  }

  close(): void {
    this.#closed = true;
    for (const storing of this.#active) storing.ended = true;
    this.#active.length = 0;
    this.#outgoing.take();
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
    for (const asked of storing.asked) {
      if (asked.state === "waiting" && isReachable(state.bricks[String(asked.brick)])) {
        expected += 1;
      }
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
      if (storing.stored.includes(brick)) continue;
      if (storing.asked.some((asked) => asked.brick === brick)) continue;
      if (!health.isSlow(brick, nowMs)) return brick;
      slow ??= brick;
    }
    return slow;
  }

  /** Nobody is left to ask: full, or some are away and may come back. */
  #exhausted(storing: Storing, needed: number): void {
    const nowMs = this.#context.host.clock.nowMs();
    if (storing.isUnderWay) return;
    if (storing.isLate()) {
      storing.retryAtMs ||= nowMs + retryEveryMs;
      return;
    }
    if (reachableCount(this.#context.state()) < needed) {
      storing.forget("refused");
      storing.retryAtMs ||= nowMs + retryEveryMs;
      return;
    }
    this.#end(storing);
    storing.done({ ok: false, fault: "no_space" });
  }

  #ask(storing: Storing, brick: BrickNumber): void {
    const { clock } = this.#context.host;
    const asked: Asked = { brick, sinceMs: clock.nowMs(), state: "waiting" };
    storing.asked.push(asked);
    if (this.#outgoing.isEmpty) clock.soon(() => this.#flush());
    this.#outgoing.add(brick, { storing, asked });
  }

  /** As few messages as hold what is to be sent. */
  #flush(): void {
    for (const { brick, items } of this.#outgoing.take()) {
      // The memory of what nobody wants any more may be gone.
      const puts = items.filter(({ storing }) => !storing.ended);
      if (puts.length === 0) continue;
      let from = 0;
      let bytes = 0;
      for (const [at, { storing }] of puts.entries()) {
        bytes += storing.lengthBytes;
        if (at - from < putsMax && bytes <= putsBytesMax) continue;
        this.#send(brick, puts.slice(from, at));
        from = at;
        bytes = storing.lengthBytes;
      }
      this.#send(brick, puts.slice(from));
    }
  }

  #send(brick: BrickNumber, puts: readonly Put[]): void {
    const { calls, host, options } = this.#context;
    if (this.#closed) return;
    const sinceMs = host.clock.nowMs();
    const chunks = puts.map(({ storing }) => storing);
    // The newest of them: none may be protected for less long than its own writer counts on.
    const gcEpoch = Math.max(...chunks.map((storing) => storing.gcEpoch));
    const alone = chunks.length === 1 ? chunks[0]! : null;
    const type = alone === null ? messageType.chunkPuts : messageType.chunkPut;
    const body =
      alone === null
        ? encodeChunkPuts(chunks, gcEpoch)
        : encodeChunkPut(alone.key, alone.origin, alone.data, gcEpoch);
    for (const { memory } of chunks) memory?.hold();
    const answered = (reply: CallReply) => {
      const statuses = alone === null ? manyStatuses(reply) : oneStatus(reply);
      this.#answered(brick, puts, sinceMs, reply.ok, statuses);
    };
    calls.call(brick, type, body, options.chunkTimeoutMs, answered, () => {
      for (const { memory } of chunks) memory?.release();
    });
  }

  #answered(
    brick: BrickNumber,
    puts: readonly Put[],
    sinceMs: number,
    inTime: boolean,
    statuses: readonly PutStatus[] | null,
  ): void {
    const { health, host } = this.#context;
    const nowMs = host.clock.nowMs();
    if (inTime) health.answered(brick, nowMs - sinceMs);
    else health.timedOut(brick, nowMs);
    const fit = statuses?.length === puts.length ? statuses : null;
    for (const [at, { storing, asked }] of puts.entries()) {
      if (storing.ended) continue;
      this.#take(storing, asked, inTime, fit === null ? null : fit[at]!);
    }
  }

  #take(storing: Storing, asked: Asked, inTime: boolean, status: PutStatus | null): void {
    if (status === putStatus.stored || status === putStatus.deduplicated) {
      storing.asked.splice(storing.asked.indexOf(asked), 1);
      storing.stored.push(asked.brick);
      if (status === putStatus.deduplicated) {
        const { stats } = this.#context;
        stats.deduplicatedCopies += 1;
        stats.deduplicatedBytes += storing.lengthBytes;
      }
    } else asked.state = !inTime || status === putStatus.busy ? "late" : "refused";
    this.#advance(storing);
  }

  #end(storing: Storing): void {
    if (storing.ended) return;
    storing.ended = true;
    const last = this.#active.pop()!;
    if (last === storing) return;
    this.#active[storing.activeAt] = last;
    last.activeAt = storing.activeAt;
  }

  #startSweep(): void {
    this.#sweep ??= this.#context.host.clock.after(sweepEveryMs, () => {
      this.#sweep = null;
      this.#lookForSlow();
      if (this.#active.length > 0) this.#startSweep();
    });
  }

  #lookForSlow(): void {
    const nowMs = this.#context.host.clock.nowMs();
    const state = this.#context.state();
    // A brick that went down may make fewer copies enough, one that came up may take one.
    const stateIsNew = state !== this.#stateSeen;
    this.#stateSeen = state;
    for (const storing of [...this.#active]) {
      let look = stateIsNew;
      for (const asked of storing.asked) {
        if (asked.state !== "waiting") continue;
        if (nowMs - asked.sinceMs < this.#context.health.writeHedgeAfterMs(asked.brick)) continue;
        // Only when there is another brick to ask; else its answer is waited for.
        if (this.#nextBrick(storing) === null) break;
        asked.state = "hedged";
        this.#context.stats.writeHedges += 1;
        look = true;
      }
      if (storing.retryAtMs > 0 && storing.retryAtMs <= nowMs) {
        storing.retryAtMs = 0;
        storing.forget("late");
        look = true;
      }
      if (look) this.#advance(storing);
    }
  }
}

function oneStatus(reply: CallReply): PutStatus[] | null {
  const status = reply.ok ? decodeChunkPutReply(reply.body) : null;
  return status === null ? null : [status];
}

function manyStatuses(reply: CallReply): PutStatus[] | null {
  return reply.ok ? decodeChunkPutsReply(reply.body) : null;
}
