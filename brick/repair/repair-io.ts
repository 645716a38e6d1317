import { decodeChunkHasReply } from "../chunk/chunk-messages.ts";
import { brickOf, type ClusterState, isReachable } from "../cluster-state.ts";
import { encodeChunkMark } from "../gc/mark-messages.ts";
import type { Host } from "../host.ts";
import { chunksOf, type Entry } from "../map/entry.ts";
import { holdersMax } from "../map/grain.ts";
import { decodeMapReply, encodeMapRehint, type MapStatus } from "../map/map-messages.ts";
import type { MapService } from "../map/map-service-io.ts";
import type { TableEntry } from "../map/map-table.ts";
import type { GrainKey } from "../map/map-table-keys.ts";
import { ownBranch } from "../map/owed.ts";
import type { Replica } from "../map/replica.ts";
import type { Calls } from "../rpc/calls.ts";
import { messageType } from "../rpc/message-types.ts";
import type { Store } from "../store/store.ts";
import { type BrickNumber, MiB } from "../units.ts";
import { writePlacement } from "../volume/placement.ts";
import { fetchChunk } from "./fetch-chunk.ts";
import { leaves, leavingBricks, planGrain, type RepairTask } from "./repair-plan.ts";

/** Map records looked at in one step of a walk, and the pause between steps. */
const pageRecords = 128;
const pauseMs = 20;
/** A walk that could not do everything begins anew after this. */
const retryMs = 2000;
/** The same, when there was nothing that it could try. */
const stuckRetryMs = 30_000;
const copyTimeoutMs = 10_000;
const getTimeoutMs = 3000;
const rehintTimeoutMs = 2000;
/** Bytes this brick has copied in a second, at most. */
export const repairBytesPerSecond = 64 * MiB;

export interface RepairCounters {
  /** Copies made because bricks failed or lacked one from the start. */
  repairBytes: number;
  /** Copies made because bricks are being emptied. */
  rebalanceBytes: number;
}

interface Walk {
  /** For which bricks that leave, and which view, the shard was found to be in order. */
  clean: string;
  after: GrainKey | null;
  /** What the walk under way is for. */
  purpose: string;
  /** Extents that a walk could not put in order. */
  left: number;
  /** Of these, ones for which nothing can be done until more bricks are up, or less full. */
  stuck: number;
  resumeAtMs: number;
}

/**
 * Sees to it that everything mapped by the shards led here has its copies on bricks that stay: walks
 * their records, has missing copies made by the bricks that shall keep them, and names those in the
 * map. Reboots give it nothing to do.
 */
export class Repair {
  readonly counters: RepairCounters = { repairBytes: 0, rebalanceBytes: 0 };
  readonly #host: Host;
  readonly #calls: Calls;
  readonly #self: BrickNumber;
  readonly #map: MapService;
  readonly #state: () => ClusterState;
  readonly #walks = new Map<number, Walk>();
  /** Copies wanted by branch, as of `state`. */
  #copies: { state: ClusterState | null; byBranch: Map<number, number> } = {
    state: null,
    byBranch: new Map(),
  };
  #closed = false;

  constructor(parts: {
    host: Host;
    calls: Calls;
    self: BrickNumber;
    map: MapService;
    store: Store;
    state: () => ClusterState;
  }) {
    this.#host = parts.host;
    this.#calls = parts.calls;
    this.#self = parts.self;
    this.#map = parts.map;
    this.#state = parts.state;
    serveCopies(parts.calls, parts.store);
    parts.map.onCommit = (replica, entry) => this.#committed(replica, entry);
    this.#later(pauseMs);
  }

  close(): void {
    this.#closed = true;
  }

  /**
   * Shards led here that were not found in order since the last brick left or was lost, in whatever
   * view: what `endisk status` calls the rest of a repair.
   */
  restoringShards(): number {
    const state = this.#state();
    const leaving = leavingBricks(state);
    if (leaving === "") return 0;
    let restoring = 0;
    for (const [shard, { primary }] of state.shards.entries()) {
      if (primary !== this.#self) continue;
      const clean = this.#walks.get(shard)?.clean ?? "";
      if (clean.slice(clean.indexOf(":") + 1) !== leaving) restoring += 1;
    }
    return restoring;
  }

  /**
   * Shards that this brick is to lead in which something on bricks that leave may still be needed:
   * all that were not found in order since.
   */
  pendingShards(): number[] {
    const state = this.#state();
    const pending: number[] = [];
    for (const [shard, { primary, view }] of state.shards.entries()) {
      if (primary !== this.#self) continue;
      if (this.#walks.get(shard)?.clean !== purposeOf(state, view)) pending.push(shard);
    }
    return pending;
  }

  /** Extents short of copies in the shards led here, as the last walks found; see Walk. */
  backlog(): { short: number; stuck: number } {
    let short = 0;
    let stuck = 0;
    for (const { shard } of this.#led()) {
      const walk = this.#walks.get(shard);
      short += walk?.left ?? 0;
      stuck += walk?.stuck ?? 0;
    }
    return { short, stuck };
  }

  /**
   * A write placed before its gateway knew what leaves may land after the walk has passed its grain:
   * then the shard is not in order, whatever the walk finds.
   */
  #committed(replica: Replica, entry: Entry): void {
    if (replica.role.is !== "primary") return;
    const state = this.#state();
    const copies = this.#copiesOf(state, entry.branch);
    const isShort = ({ holders }: { holders: readonly BrickNumber[] }) =>
      holders.filter((brick) => !leaves(state, brick)).length < copies;
    if (!chunksOf(entry).some(isShort)) return;
    const walk = this.#walk(replica.shard);
    walk.clean = "";
    walk.left += 1;
  }

  /** 0: nobody reads that branch any more. */
  #copiesOf(state: ClusterState, branch: number): number {
    if (this.#copies.state !== state) {
      const volumes = Object.values(state.volumes);
      const byBranch = new Map(volumes.map((volume) => [volume.branch, volume.copies]));
      this.#copies = { state, byBranch };
    }
    return this.#copies.byBranch.get(ownBranch(branch)) ?? 0;
  }

  #led(): Replica[] {
    return [...this.#map.replicas()].filter(({ role }) => role.is === "primary" && !role.released);
  }

  #later(delayMs: number): void {
    this.#host.clock.after(delayMs, () => {
      if (this.#closed) return;
      this.#step().then((spentMs) => this.#later(Math.max(pauseMs, spentMs)));
    });
  }

  /** One page of one shard's walk; how long to wait to stay within the budget. */
  async #step(): Promise<number> {
    const nowMs = this.#host.clock.nowMs();
    const state = this.#state();
    for (const replica of this.#led()) {
      const purpose = purposeOf(state, replica.view?.view);
      const walk = this.#walk(replica.shard);
      if (walk.clean === purpose || (walk.purpose === purpose && walk.resumeAtMs > nowMs)) continue;
      if (walk.purpose !== purpose) Object.assign(walk, { purpose, after: null });
      const bytes = await this.#page(replica, walk);
      return (bytes / repairBytesPerSecond) * 1000;
    }
    return 500;
  }

  #walk(shard: number): Walk {
    let walk = this.#walks.get(shard);
    if (walk === undefined) {
      walk = { clean: "", after: null, purpose: "", left: 0, stuck: 0, resumeAtMs: 0 };
      this.#walks.set(shard, walk);
    }
    return walk;
  }

  async #page(replica: Replica, walk: Walk): Promise<number> {
    const { table, shard, facts } = replica;
    if (walk.after === null) Object.assign(walk, { left: 0, stuck: 0 });
    const page = table.scan("base", shard, facts.incarnation, walk.after, pageRecords);
    const last = page.entries.at(-1);
    if (last !== undefined) {
      walk.after = { branch: last.branch, grain: last.grain, generation: last.generation };
    }
    let bytes = 0;
    for (const entry of page.entries) {
      // Bricks leave or return: the walk begins anew.
      if (purposeOf(this.#state(), replica.view?.view) !== walk.purpose) return bytes;
      bytes += await this.#mend(replica, walk, entry);
    }
    if (!page.done) return bytes;
    if (walk.left === 0 && purposeOf(this.#state(), replica.view?.view) === walk.purpose) {
      walk.clean = walk.purpose;
    }
    const pause = walk.left > 0 && walk.left === walk.stuck ? stuckRetryMs : retryMs;
    walk.after = null;
    walk.resumeAtMs = this.#host.clock.nowMs() + pause;
    return bytes;
  }

  async #mend(replica: Replica, walk: Walk, entry: TableEntry): Promise<number> {
    const state = this.#state();
    const copies = this.#copiesOf(state, entry.branch);
    if (copies === 0) return 0;
    const placement = writePlacement(state);
    let bytes = 0;
    for (const task of planGrain(state, placement, copies, entry.grain, entry.value.extents)) {
      if (task === "stuck") {
        walk.left += 1;
        walk.stuck += 1;
        continue;
      }
      const copied = await this.#carryOut(replica, entry, task);
      if (copied === null) walk.left += 1;
      else bytes += copied;
    }
    return bytes;
  }

  /** Bytes copied; null when copies are still missing. */
  async #carryOut(replica: Replica, entry: TableEntry, task: RepairTask): Promise<number | null> {
    const made: BrickNumber[] = [];
    let bytes = 0;
    // Before anything is asked of anybody: what is named below is kept from this epoch on.
    const { gcEpoch } = this.#state();
    for (const target of task.targets) {
      const copied = await this.#copy(target, task, gcEpoch);
      if (copied === null) continue;
      made.push(target);
      bytes += copied;
    }
    if (task.lost) this.counters.repairBytes += bytes;
    else this.counters.rebalanceBytes += bytes;
    if (made.length === 0 && task.targets.length > 0) return null;
    const kept = await this.#protect(task.kept, task.key, gcEpoch);
    if (kept === null) return null;
    const complete = kept.length === task.kept.length && made.length === task.targets.length;
    const enough = task.full && complete;
    const holders = new Set([...kept, ...made]);
    // Until there are enough that stay, those that leave are still worth asking.
    const others = enough ? [] : await this.#protect(task.sources, task.key, gcEpoch);
    for (const source of others ?? []) holders.add(source);
    const named = [...holders].slice(0, holdersMax);
    const status = await this.#rehint(replica, entry, { key: task.key, holders: named, gcEpoch });
    return status === "ok" && enough ? bytes : null;
  }

  /**
   * Those of the bricks that have the chunk, and keep it from now on like one stored in that epoch;
   * who is away is believed. null: somebody did not answer.
   */
  async #protect(
    bricks: readonly BrickNumber[],
    key: Buffer,
    gcEpoch: number,
  ): Promise<BrickNumber[] | null> {
    const holders: BrickNumber[] = [];
    for (const brick of bricks) {
      const isHere = isReachable(brickOf(this.#state(), brick));
      const has = isHere ? await this.#ask(brick, key, gcEpoch) : true;
      if (has === null) return null;
      if (has) holders.push(brick);
    }
    return holders;
  }

  #ask(brick: BrickNumber, key: Buffer, gcEpoch: number): Promise<boolean | null> {
    const body = encodeChunkMark(gcEpoch, [key]);
    return new Promise((resolve) => {
      this.#calls.call(brick, messageType.chunkMark, body, getTimeoutMs, (reply) => {
        resolve(reply.ok ? (decodeChunkHasReply(reply.body)?.[0] ?? null) : null);
      });
    });
  }

  #copy(target: BrickNumber, task: RepairTask, gcEpoch: number): Promise<number | null> {
    const body = encodeCopy(task.key, task.sources, gcEpoch);
    return new Promise((resolve) => {
      this.#calls.call(target, messageType.chunkCopy, body, copyTimeoutMs, (reply) => {
        const done = reply.ok && reply.body.length === 8 && reply.body[0] === 1;
        resolve(done ? reply.body.readUInt32BE(4) : null);
      });
    });
  }

  #rehint(
    replica: Replica,
    entry: TableEntry,
    hints: { key: Buffer; holders: readonly BrickNumber[]; gcEpoch: number },
  ): Promise<MapStatus | null> {
    const { branch, grain, generation } = entry;
    const view = replica.view?.view ?? 0;
    const { shard } = replica;
    const body = encodeMapRehint({ shard, view, branch, generation, grain, ...hints });
    return new Promise((resolve) => {
      this.#calls.call(this.#self, messageType.mapRehint, body, rehintTimeoutMs, (reply) => {
        resolve(reply.ok ? (decodeMapReply(reply.body)?.status ?? null) : null);
      });
    });
  }
}

function purposeOf(state: ClusterState, view: number | undefined): string {
  return `${view}:${leavingBricks(state)}`;
}

const copyBytes = 40;

/**
 * A request to fetch a chunk: sourceCount[1] zero[3] garbage-collection epoch[4] key[32], sources[2
 * each].
 */
function encodeCopy(key: Buffer, sources: readonly BrickNumber[], gcEpoch: number): Buffer[] {
  const body = Buffer.alloc(copyBytes + 2 * sources.length);
  body[0] = sources.length;
  body.writeUInt32BE(gcEpoch, 4);
  key.copy(body, 8);
  for (const [at, source] of sources.entries()) body.writeUInt16BE(source, copyBytes + 2 * at);
  return [body];
}

/** Answers: done[1] zero[3] bytesCopied[4]. */
function serveCopies(calls: Calls, store: Store): void {
  calls.serve(messageType.chunkCopy, (_from, body, reply) => {
    if (body.length < copyBytes || body.length !== copyBytes + 2 * body[0]!) return;
    store.stamps.reach(body.readUInt32BE(4));
    const key = Buffer.from(body.subarray(8, copyBytes));
    const sources = Array.from({ length: body[0]! }, (_, at) =>
      body.readUInt16BE(copyBytes + 2 * at),
    );
    const answer = Buffer.alloc(8);
    fetchAndKeep(calls, store, key, sources).then((bytes) => {
      answer[0] = bytes === null ? 0 : 1;
      answer.writeUInt32BE(bytes ?? 0, 4);
      reply([answer]);
    });
  });
}

async function fetchAndKeep(
  calls: Calls,
  store: Store,
  key: Buffer,
  sources: readonly BrickNumber[],
): Promise<number | null> {
  if (store.protect(key)) return 0;
  for (const source of sources) {
    const bytes = await fetchChunk(calls, key, source);
    if (typeof bytes === "string") continue;
    const origin = { branch: 0, grain: 0, firstSector: 0, sequence: 0 };
    const kept = await new Promise<boolean>((resolve) => {
      store.put(key, bytes, origin, (result) => resolve(result.ok));
    });
    return kept ? bytes.length : null;
  }
  return null;
}
