import { decodeChunkHasReply } from "../chunk/chunk-messages.ts";
import type { ClusterState } from "../cluster-state.ts";
import { grainsPerShardRun } from "../cluster-state.ts";
import type { Host } from "../host.ts";
import { chunksOf } from "../map/entry.ts";
import { isZeros } from "../map/grain.ts";
import type { TableEntry } from "../map/map-table.ts";
import type { GrainKey } from "../map/map-table-keys.ts";
import type { Replica } from "../map/replica.ts";
import { dropGrains, isSettled, nameHolders } from "../map/requests.ts";
import { encodeChunkHeal, healKeysMax } from "../repair/heal-messages.ts";
import type { Calls } from "../rpc/calls.ts";
import { messageType } from "../rpc/message-types.ts";
import type { Store } from "../store/store.ts";
import { type BrickNumber, sectorBytes } from "../units.ts";
import { gcOf, isSteady, LiveBranches } from "./epochs.ts";
import type { GcOptions } from "./gc-options.ts";
import { encodeChunkMark, markKeysMax } from "./mark-messages.ts";
import { MarkPage } from "./mark-page.ts";
import { restMs } from "./pace.ts";

const markTimeoutMs = 2000;
/** A brick that did not answer is asked again after this. */
const retryMs = 100;

export interface MarkCounters {
  /** Keys sent to bricks that their shards named. */
  marks: number;
  /** Keys that too few of the named bricks had, and every other brick was asked for. */
  broadcasts: number;
  /** Runs of grains of deleted volumes taken out of the map. */
  droppedRuns: number;
  /** Map records that named bricks without the chunk, or not those with it. */
  corrections: number;
  /** Of them, records that named more bricks than anybody wants copies. */
  trims: number;
  /** Keys of which there were too few copies, told to named bricks that lack them. */
  shortfalls: number;
  walks: number;
}

interface MarkParts {
  readonly host: Host;
  readonly calls: Calls;
  readonly self: BrickNumber;
  readonly store: Store;
  readonly options: GcOptions;
  replicas(): Iterable<Replica>;
  state(): ClusterState;
  isClosed(): boolean;
  /** Of this brick's time, what collecting garbage may take now. */
  share(): number;
}

/**
 * Marks, in one epoch, all that the shards led here refer to: what was proposed and has not
 * committed, then the records in the order of their keys. What is proposed after the walk has begun
 * needs no mark in this epoch (docs/garbage.md). A walk that loses its view begins anew.
 */
export class MarkWalk {
  readonly counters: MarkCounters = {
    marks: 0,
    broadcasts: 0,
    droppedRuns: 0,
    corrections: 0,
    trims: 0,
    shortfalls: 0,
    walks: 0,
  };
  readonly #parts: MarkParts;
  readonly #branches = new LiveBranches();
  /** By shard: the view in which it was walked, and the epoch. */
  readonly #done = new Map<number, { view: number; epoch: number }>();

  constructor(parts: MarkParts) {
    this.#parts = parts;
  }

  /** The epoch in which the shard was marked, if that was in this view and is still to be told. */
  markedIn(shard: number, view: number): number | undefined {
    const done = this.#done.get(shard);
    const state = this.#parts.state();
    if (done?.view !== view || done.epoch !== state.gcEpoch) return undefined;
    return gcOf(state).marked < done.epoch ? done.epoch : undefined;
  }

  /** Walks one shard that is to be marked; false when there is none. */
  async step(): Promise<boolean> {
    const state = this.#parts.state();
    if (gcOf(state).marked >= state.gcEpoch) return false;
    for (const replica of this.#parts.replicas()) {
      const view = replica.view?.view;
      if (view === undefined || !isSettled(replica)) continue;
      if (this.markedIn(replica.shard, view) !== undefined) continue;
      if (await this.#walk(replica, { view, epoch: state.gcEpoch })) {
        this.#done.set(replica.shard, { view, epoch: state.gcEpoch });
        this.counters.walks += 1;
      }
      return true;
    }
    return false;
  }

  async #walk(replica: Replica, walk: { view: number; epoch: number }): Promise<boolean> {
    const { table, shard, facts } = replica;
    const { host, options } = this.#parts;
    const pending = new MarkPage();
    for (const entry of replica.pending.values()) {
      const copies = this.#branches.copiesOf(this.#parts.state(), entry.branch);
      if (copies === null) continue;
      for (const { key, holders } of chunksOf(entry)) pending.add(key, holders, copies);
    }
    if (!(await this.#mark(replica, walk, pending))) return false;
    let after: GrainKey | null = null;
    for (;;) {
      const begunMs = host.clock.nowMs();
      const { incarnation } = facts;
      const limit = options.markPageRecords;
      const { entries, done } = table.scan("base", shard, incarnation, after, limit);
      const page = new MarkPage();
      let last: TableEntry | undefined;
      for (const entry of entries) {
        last = entry;
        this.#add(page, entry);
        // Records of many small extents: the rest comes with the next page.
        if (page.size >= markKeysMax) break;
      }
      this.#dropDead(replica, entries);
      const marked = this.#mark(replica, walk, page);
      // What others do with the marks, and waiting for them, is no work of this brick.
      const workMs = host.clock.nowMs() - begunMs;
      if (!(await marked)) return false;
      this.#correct(replica, walk, page, entries);
      if (done && last === entries.at(-1)) return true;
      after = { branch: last!.branch, grain: last!.grain, generation: last!.generation };
      await this.#pause(restMs(workMs, this.#parts.share(), options.pauseMs));
    }
  }

  #add(page: MarkPage, entry: TableEntry): void {
    const copies = this.#branches.copiesOf(this.#parts.state(), entry.branch);
    if (copies === null) return;
    for (const extent of entry.value.extents) {
      if (!isZeros(extent)) page.add(extent.key, extent.holders, copies);
    }
  }

  /** Grains of deleted volumes leave the map, run by run, on every replica alike. */
  #dropDead(replica: Replica, entries: readonly TableEntry[]): void {
    let last = "";
    for (const { branch, generation, grain, value } of entries) {
      if (this.#branches.copiesOf(this.#parts.state(), branch) !== null) continue;
      // While a brick is away its grains' removals are remembered; they are dropped when it is back.
      if (value.extents.length === 0 && replica.view!.chain.length > 0) continue;
      const first = grain - (grain % grainsPerShardRun);
      const name = `${branch}/${generation}/${first}`;
      if (name === last) continue;
      last = name;
      const run = { branch, generation, grain: first, grainCount: grainsPerShardRun };
      if (dropGrains(replica, run, () => {})) this.counters.droppedRuns += 1;
    }
  }

  /** The map learns where chunks are that it looked for in vain. */
  #correct(
    replica: Replica,
    { epoch }: { epoch: number },
    page: MarkPage,
    entries: readonly TableEntry[],
  ): void {
    for (const { key, holders, surplus } of page.corrections(this.#parts.state())) {
      for (const { branch, generation, grain, value } of entries) {
        const extent = value.extents.find((one) => one.key.equals(key));
        if (extent === undefined) continue;
        const of = { branch, generation, grain, key: Buffer.from(key), holders };
        if (!nameHolders(replica, of, epoch)) continue;
        this.counters.corrections += 1;
        if (surplus === 0) continue;
        this.counters.trims += 1;
        // What is named no more is garbage as if it had been overwritten: epochs are wanted for it.
        replica.effects.counters.releasedBytes += surplus * extent.chunkSectors * sectorBytes;
      }
    }
  }

  /** Whether every brick that might sweep has been told. */
  async #mark(
    replica: Replica,
    walk: { view: number; epoch: number },
    page: MarkPage,
  ): Promise<boolean> {
    if (page.size === 0) return this.#isCurrent(replica, walk);
    const rounds = [
      () => page.byHolder(this.#parts.state()),
      () => page.byStranger(this.#parts.state()),
    ];
    for (const [at, questions] of rounds.entries()) {
      const asked: Promise<boolean>[] = [];
      for (const [brick, keys] of questions()) {
        if (at === 0) this.counters.marks += keys.length;
        else this.counters.broadcasts += keys.length;
        for (let from = 0; from < keys.length; from += markKeysMax) {
          const part = keys.slice(from, from + markKeysMax);
          asked.push(this.#ask(replica, walk, page, brick, part));
        }
      }
      if ((await Promise.all(asked)).includes(false)) return false;
    }
    this.#tellShortfalls(page);
    return this.#isCurrent(replica, walk);
  }

  /** What a damaged log lost without a trace, its brick learns from those who name it. */
  #tellShortfalls(page: MarkPage): void {
    for (const [brick, keys] of page.shortfalls(this.#parts.state())) {
      for (let from = 0; from < keys.length; from += healKeysMax) {
        const part = keys.slice(from, from + healKeysMax).map((key) => Buffer.from(key));
        this.#parts.calls.tell(brick, messageType.chunkHeal, encodeChunkHeal(part));
        this.counters.shortfalls += part.length;
      }
    }
  }

  /** Asks until there is an answer, or the brick keeps all that it has anyway. */
  async #ask(
    replica: Replica,
    walk: { view: number; epoch: number },
    page: MarkPage,
    brick: BrickNumber,
    keys: readonly Buffer[],
  ): Promise<boolean> {
    for (;;) {
      if (!this.#isCurrent(replica, walk)) return false;
      if (!isSteady(this.#parts.state(), brick)) {
        return true;
      }
      const has = await this.#told(brick, walk.epoch, keys);
      if (has !== null) {
        page.answered(brick, keys, has);
        return true;
      }
      await this.#pause(retryMs);
    }
  }

  #told(brick: BrickNumber, epoch: number, keys: readonly Buffer[]): Promise<boolean[] | null> {
    const { calls, self, store } = this.#parts;
    if (brick === self) {
      store.stamps.reach(epoch);
      return Promise.resolve(store.protectMany(keys));
    }
    const body = encodeChunkMark(epoch, keys);
    return new Promise((resolve) => {
      calls.call(brick, messageType.chunkMark, body, markTimeoutMs, (reply) => {
        const has = reply.ok ? decodeChunkHasReply(reply.body) : null;
        resolve(has !== null && has.length === keys.length ? has : null);
      });
    });
  }

  /** The shard is still led here in that view, and the epoch is still to be marked. */
  #isCurrent(replica: Replica, { view, epoch }: { view: number; epoch: number }): boolean {
    const state = this.#parts.state();
    if (this.#parts.isClosed() || state.gcEpoch !== epoch || gcOf(state).marked >= epoch) {
      return false;
    }
    return replica.view?.view === view && isSettled(replica);
  }

  #pause(delayMs: number): Promise<void> {
    return new Promise((resolve) => void this.#parts.host.clock.after(delayMs, resolve));
  }
}
