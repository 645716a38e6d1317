import {
  decodeChunkGetReply,
  encodeChunkGet,
  type GetResult,
  getKeysMax,
  getStatus,
} from "../chunk/chunk-messages.ts";
import { chunkKey, keyEquals } from "../chunk/key.ts";
import { type Keyed, KeyTable } from "../chunk/key-table.ts";
import { type ClusterState, isReachable } from "../cluster-state.ts";
import type { TimerHandle } from "../host.ts";
import type { CallReply } from "../rpc/calls.ts";
import { LentMemory } from "../rpc/lent-memory.ts";
import { messageType } from "../rpc/message-types.ts";
import { stage } from "../stage-times.ts";
import type { BrickNumber } from "../units.ts";
import { ByBrick } from "./by-brick.ts";
import { type ChunkContext, Placements } from "./chunk-context.ts";
import { mayHoldChunks } from "./placement.ts";

const sweepEveryMs = 10;

export type FetchOutcome =
  /** `memory`: what the bytes lie in, when it can be given back; whoever wants them holds it. */
  | { ok: true; bytes: Buffer; memory: LentMemory | null }
  /** Every brick that may hold it has answered absent or damaged. */
  | { ok: false; fault: "lost" }
  /** Those that answered do not have it, but not all have answered. */
  | { ok: false; fault: "away" };

/** One chunk being looked for; all who want it meanwhile wait for the same search. */
interface Search extends Keyed<Search> {
  readonly key: Buffer;
  readonly holders: readonly BrickNumber[];
  readonly waiting: ((outcome: FetchOutcome) => void)[];
  /** Everyone to ask, in order; made when the hints are used up. */
  order: readonly BrickNumber[] | null;
  readonly asked: Set<BrickNumber>;
  /** Answered absent or damaged. */
  readonly without: Set<BrickNumber>;
  underWay: number;
  ended: boolean;
}

/** One GET frame under way. */
interface Frame {
  readonly brick: BrickNumber;
  readonly searches: readonly Search[];
  readonly sinceMs: number;
  hedged: boolean;
  answered: boolean;
}

/**
 * Finds chunks: first on the bricks that their extents name, then along the key's order over all
 * bricks; checks the bytes against the key; asks a second brick when one is slow.
 */
export class ChunkReader {
  readonly #context: ChunkContext;
  readonly #placements = new Placements();
  readonly #searches = new KeyTable<Search>();
  readonly #frames: Frame[] = [];
  /** To be sent when `flush` is called. */
  readonly #outgoing = new ByBrick<Search>();
  #sweep: TimerHandle | null = null;

  constructor(context: ChunkContext) {
    this.#context = context;
  }

  get activeCount(): number {
    return this.#searches.size;
  }

  /** Begins (or joins) a search. Requests leave with `flush`, several keys to a frame. */
  fetch(key: Buffer, holders: readonly BrickNumber[], done: (outcome: FetchOutcome) => void): void {
    const name = key.toString("latin1");
    const running = this.#searches.get(name);
    if (running !== undefined) {
      running.waiting.push(done);
      return;
    }
    const search: Search = {
      key,
      name,
      next: null,
      holders: this.#sortHints(key, holders),
      waiting: [done],
      order: null,
      asked: new Set(),
      without: new Set(),
      underWay: 0,
      ended: false,
    };
    this.#searches.add(search);
    this.#askNext(search);
  }

  isSearching(key: Buffer): boolean {
    return this.#searches.get(key.toString("latin1")) !== undefined;
  }

  /** Whom to ask first; null when none of the holders can be. */
  likeliest(key: Buffer, holders: readonly BrickNumber[]): BrickNumber | null {
    const { bricks } = this.#context.state();
    const reachable = (brick: BrickNumber) => isReachable(bricks[String(brick)]);
    return this.#sortHints(key, holders).find(reachable) ?? null;
  }

  flush(): void {
    if (this.#outgoing.isEmpty) return;
    for (const { brick, items } of this.#outgoing.take()) {
      for (let at = 0; at < items.length; at += getKeysMax) {
        this.#sendFrame(brick, items.slice(at, at + getKeysMax));
      }
    }
  }

  close(): void {
    this.#sweep?.cancel();
    this.#sweep = null;
    for (const search of this.#searches.clear()) search.ended = true;
    this.#frames.length = 0;
    this.#outgoing.take();
  }

  /** This brick itself first, slow ones last; the key says where among equals to begin. */
  #sortHints(key: Buffer, holders: readonly BrickNumber[]): readonly BrickNumber[] {
    const { self, health, host } = this.#context;
    const nowMs = host.clock.nowMs();
    const rank = (brick: BrickNumber) => (brick === self ? 0 : health.isSlow(brick, nowMs) ? 2 : 1);
    if (holders.length < 2) return holders;
    const turn = key[0]! % holders.length;
    const turned = [...holders.slice(turn), ...holders.slice(0, turn)];
    return turned.sort((a, b) => rank(a) - rank(b));
  }

  /** Asks the next brick, if there is one; ends the search when nobody is left. */
  #askNext(search: Search): void {
    const brick = this.#nextBrick(search);
    if (brick !== null) {
      search.asked.add(brick);
      this.#queue(search, brick);
    } else if (search.underWay === 0) {
      const lost = everyoneAnswered(this.#context.state(), search.without);
      this.#end(search, { ok: false, fault: lost ? "lost" : "away" });
    }
  }

  #queue(search: Search, brick: BrickNumber): void {
    search.underWay += 1;
    this.#outgoing.add(brick, search);
  }

  #nextBrick(search: Search): BrickNumber | null {
    const state = this.#context.state();
    for (const brick of search.holders) {
      if (!search.asked.has(brick) && isReachable(state.bricks[String(brick)])) return brick;
    }
    search.order ??= this.#placements.forRead(state).order(search.key);
    for (const brick of search.order) {
      if (!search.asked.has(brick) && isReachable(state.bricks[String(brick)])) return brick;
    }
    return null;
  }

  #sendFrame(brick: BrickNumber, searches: readonly Search[]): void {
    const { calls, host, options } = this.#context;
    const sinceMs = host.clock.nowMs();
    const frame: Frame = { brick, searches, sinceMs, hedged: false, answered: false };
    this.#frames.push(frame);
    this.#startSweep();
    const body = encodeChunkGet(searches.map((search) => search.key));
    calls.call(brick, messageType.chunkGet, body, options.chunkTimeoutMs, (reply) => {
      this.#answered(frame, reply);
    });
  }

  #answered(frame: Frame, reply: CallReply): void {
    const { health, host } = this.#context;
    const nowMs = host.clock.nowMs();
    const { stages } = this.#context.stats;
    stages.took(stage.readFetch, stages.sample(stage.readFetch, frame.sinceMs));
    const at = this.#frames.indexOf(frame);
    if (at >= 0) this.#frames.splice(at, 1);
    frame.answered = true;
    if (reply.ok) health.answered(frame.brick, nowMs - frame.sinceMs);
    else health.timedOut(frame.brick, nowMs);
    const decoded = reply.ok ? decodeChunkGetReply(reply.parts) : null;
    const results = decoded?.length === frame.searches.length ? decoded : null;
    const memory = reply.ok && reply.release !== null ? new LentMemory() : null;
    if (reply.ok && reply.release !== null) memory?.add(reply.release);
    for (const [index, search] of frame.searches.entries()) {
      if (search.ended) continue;
      search.underWay -= 1;
      this.#take(search, frame.brick, results === null ? null : results[index]!, memory);
    }
    memory?.release();
    this.flush();
  }

  #take(
    search: Search,
    brick: BrickNumber,
    result: GetResult | null,
    memory: LentMemory | null,
  ): void {
    if (result !== null && result.status === getStatus.omitted) {
      this.#queue(search, brick);
      return;
    }
    if (result !== null && result.status === getStatus.found) {
      const { stages } = this.#context.stats;
      const sinceMs = stages.since(stage.readVerify);
      const isGood = keyEquals(chunkKey(result.bytes), search.key);
      stages.took(stage.readVerify, sinceMs);
      if (isGood) {
        this.#end(search, { ok: true, bytes: result.bytes, memory });
        return;
      }
    }
    if (result !== null) {
      search.without.add(brick);
      this.#note(search, brick, result.status === getStatus.absent ? "missing" : "damaged");
    }
    this.#askNext(search);
  }

  #note(search: Search, brick: BrickNumber, what: "missing" | "damaged"): void {
    // Who was never named need not have it.
    if (what === "missing" && !search.holders.includes(brick)) return;
    const { hooks, stats } = this.#context;
    if (what === "missing") stats.missingNotes += 1;
    else stats.damagedNotes += 1;
    hooks.repairNote(search.key, brick, what);
  }

  #end(search: Search, outcome: FetchOutcome): void {
    search.ended = true;
    this.#searches.remove(search);
    for (const done of search.waiting) done(outcome);
  }

  #startSweep(): void {
    this.#sweep ??= this.#context.host.clock.after(sweepEveryMs, () => {
      this.#sweep = null;
      this.#lookForSlow();
      if (this.#frames.length > 0) this.#startSweep();
    });
  }

  #lookForSlow(): void {
    const { health, host, stats } = this.#context;
    const nowMs = host.clock.nowMs();
    const state = this.#context.state();
    for (const frame of this.#frames) {
      const gone = !isReachable(state.bricks[String(frame.brick)]);
      if (frame.hedged) continue;
      if (!gone && nowMs - frame.sinceMs < health.hedgeAfterMs(frame.brick)) continue;
      frame.hedged = true;
      for (const search of frame.searches) {
        if (search.ended) continue;
        stats.readHedges += 1;
        this.#askNext(search);
      }
    }
    this.flush();
  }
}

/** "Lost" may be said only when everyone who is not given up has answered. */
function everyoneAnswered(state: ClusterState, without: ReadonlySet<BrickNumber>): boolean {
  return Object.values(state.bricks).every(
    (brick) => !mayHoldChunks(brick) || without.has(brick.number),
  );
}
