import { keyName } from "../chunk/chunk-index.ts";
import { chunkKey } from "../chunk/key.ts";
import type { ClusterState, VolumeRecord } from "../cluster-state.ts";
import type { Host } from "../host.ts";
import type { Entry } from "../map/entry.ts";
import type { MapService } from "../map/map-service-io.ts";
import type { TableEntry } from "../map/map-table.ts";
import type { Replica } from "../map/replica.ts";
import { compactGrain, isSettled } from "../map/requests.ts";
import type { Calls } from "../rpc/calls.ts";
import type { LentMemory } from "../rpc/lent-memory.ts";
import { messageType } from "../rpc/message-types.ts";
import { ServedWatch } from "../served-watch.ts";
import { StageTimes } from "../stage-times.ts";
import type { Store } from "../store/store.ts";
import { type BrickNumber, sectorBytes } from "../units.ts";
import { BrickHealth } from "../volume/brick-health.ts";
import type { ChunkContext } from "../volume/chunk-context.ts";
import { ChunkReader } from "../volume/chunk-reader.ts";
import { ChunkWriter, type StoreOutcome } from "../volume/chunk-writer.ts";
import { volumeOptionsDefault } from "../volume/options.ts";
import { VolumeStats } from "../volume/stats.ts";
import { type CompactionOptions, compactionOptionsDefault } from "./compaction-options.ts";
import { encodeMapForget } from "./forget-messages.ts";
import { contentOf, type GrainPlan, planGrain } from "./grain-plan.ts";
import { ShardWalk } from "./shard-walk.ts";

/** Map records looked at in one step, and the pause between steps. */
const pageRecords = 128;
const pauseMs = 20;
/** Whether a shard is to be walked is looked at this often. */
const lookEveryMs = 1000;
/** Grains that one brick rewrites at a time. */
export const grainsUnderWayMax = 2;
/** A chunk that is not on enough bricks by then is given up: it is garbage. */
const storeTimeoutMs = 10_000;
/** What has not landed by then may do so yet, but is waited for no longer. */
const landTimeoutMs = 10_000;
/** This brick serves initiators when it did so within this time. */
const busyForMs = 1000;

export interface CompactionCounters {
  /** Grains that are one chunk since. */
  grains: number;
  /** Bytes of their chunks, each counted once. */
  bytes: number;
  /** Chunks that their records named before. */
  chunksReplaced: number;
  /** Grains that were changed while they were rewritten, or whose chunk was stored too long ago. */
  refused: number;
  /** Grains that could not be read or stored now. */
  failed: number;
  walks: number;
}

interface CompactionParts {
  readonly host: Host;
  readonly calls: Calls;
  readonly self: BrickNumber;
  readonly map: MapService;
  readonly store: Store;
  readonly state: () => ClusterState;
  /** Whether every shard led here has its copies: repair goes first. */
  isInOrder(): boolean;
  /** Bytes that this brick's gateway has read and written for initiators; it only grows. */
  servedBytes(): number;
  readonly options?: Partial<CompactionOptions>;
}

/**
 * Rewrites grains of the shards led here that are in many chunks, while nobody changes those shards: reads
 * what the grain holds, stores it as one chunk, and names that where the record is still the same. It
 * remembers nothing: whoever leads the shard next finds what is left.
 */
export class GrainCompaction {
  readonly counters: CompactionCounters = {
    grains: 0,
    bytes: 0,
    chunksReplaced: 0,
    refused: 0,
    failed: 0,
    walks: 0,
  };
  readonly #parts: CompactionParts;
  readonly #options: CompactionOptions;
  readonly #reader: ChunkReader;
  readonly #writer: ChunkWriter;
  readonly #walks = new Map<number, ShardWalk>();
  readonly #served: ServedWatch;
  #closed = false;

  constructor(parts: CompactionParts) {
    this.#parts = parts;
    this.#options = { ...compactionOptionsDefault, ...parts.options };
    const { host, calls, self, state } = parts;
    this.#served = new ServedWatch(host.clock, () => parts.servedBytes());
    const context: ChunkContext = {
      host,
      calls,
      self,
      state,
      options: volumeOptionsDefault,
      // Apart from what initiators cause.
      stats: new VolumeStats(new StageTimes(host.clock)),
      hooks: { latency: () => {}, repairNote: () => {} },
      health: new BrickHealth(volumeOptionsDefault.hedgeMs),
    };
    this.#reader = new ChunkReader(context);
    this.#writer = new ChunkWriter(context);
    parts.map.onCommit.push((replica, entry) => this.#committed(replica, entry));
    this.#later(lookEveryMs);
  }

  close(): void {
    this.#closed = true;
    this.#reader.close();
    this.#writer.close();
  }

  #committed({ shard }: Replica, entry: Entry): void {
    if (entry.epoch > 0) this.#walks.get(shard)?.changed(this.#nowMs());
  }

  #nowMs(): number {
    return this.#parts.host.clock.nowMs();
  }

  #pause(delayMs: number): Promise<void> {
    return new Promise((resolve) => void this.#parts.host.clock.after(delayMs, resolve));
  }

  #later(delayMs: number): void {
    this.#parts.host.clock.after(delayMs, () => {
      if (this.#closed) return;
      this.#step().then((worked) => this.#later(worked ? pauseMs : lookEveryMs));
    });
  }

  /** Looks at a page of a shard that is due; false when none is. */
  async #step(): Promise<boolean> {
    // Else the first look in a long time would take what is long over for new.
    this.#served.look();
    const { map, isInOrder, store } = this.#parts;
    if (store.space().full || !isInOrder()) return false;
    for (const replica of map.replicas()) {
      if (replica.role.is !== "primary") continue;
      const walk = this.#walk(replica);
      if (!this.#mayGoOn(replica, walk)) continue;
      await this.#page(replica, walk);
      return true;
    }
    return false;
  }

  #walk({ shard, view }: Replica): ShardWalk {
    const known = this.#walks.get(shard);
    if (known !== undefined && known.view === view?.view) return known;
    const walk = new ShardWalk(view?.view ?? 0, this.#nowMs(), this.#options);
    this.#walks.set(shard, walk);
    return walk;
  }

  /** The shard is as it should be, is led here, and is left alone by initiators. */
  #mayGoOn(replica: Replica, walk: ShardWalk): boolean {
    const { view } = replica;
    if (this.#closed || view === null || view.view !== walk.view) return false;
    if (view.candidates.length > 0 || view.chain.length > 0) return false;
    return isSettled(replica) && walk.isDue(this.#nowMs());
  }

  async #page(replica: Replica, walk: ShardWalk): Promise<void> {
    const { table, shard, facts } = replica;
    walk.goesOn(this.#nowMs());
    const page = table.scan("base", shard, facts.incarnation, walk.after, pageRecords);
    const tasks = this.#tasksIn(page.entries).reverse();
    let isCut = false;
    const carryOut = async () => {
      for (let next = tasks.pop(); next !== undefined; next = tasks.pop()) {
        // Initiators are back, or another brick leads: this page is looked at again.
        isCut ||= !this.#mayGoOn(replica, walk);
        if (isCut) return;
        const { bytes, done } = await this.#rewrite(replica, next);
        if (!done) walk.failed();
        await this.#pause((bytes / this.#bytesPerSecond()) * 1000 * grainsUnderWayMax);
      }
    };
    await Promise.all(Array.from({ length: grainsUnderWayMax }, carryOut));
    if (isCut) return;
    const last = page.entries.at(-1);
    if (page.done) {
      walk.ended();
      this.counters.walks += 1;
    } else {
      walk.after = { branch: last!.branch, grain: last!.grain, generation: last!.generation };
    }
  }

  #tasksIn(entries: readonly TableEntry[]): Task[] {
    const tasks: Task[] = [];
    const volumes = new Map<number, VolumeRecord>();
    for (const volume of Object.values(this.#parts.state().volumes)) {
      if (volume.status === "ready") volumes.set(volume.branch, volume);
    }
    for (const entry of entries) {
      // What is owed to another shard is no volume's: it goes there as it is.
      const volume = volumes.get(entry.branch);
      const plan = volume === undefined ? null : planGrain(entry.value.extents, this.#options);
      // Under a key that is retired nothing will be read again.
      if (plan !== null && plan.keyDomain === volume!.keyDomain) {
        tasks.push({ entry, plan, volume: volume! });
      }
    }
    return tasks;
  }

  /** `bytes`: what was written for it, whatever came of it. */
  async #rewrite(
    replica: Replica,
    { entry, plan, volume }: Task,
  ): Promise<{ bytes: number; done: boolean }> {
    const { extents } = entry.value;
    const chunks = await this.#read(entry);
    const content = chunks === null ? null : contentOf(plan, extents, (key) => chunks.of(key));
    chunks?.release();
    const key = content === null ? null : chunkKey(content);
    const stored = key === null ? null : await this.#store(key, content!, entry, plan, volume);
    if (stored === null || !stored.ok) {
      this.counters.failed += 1;
      return { bytes: 0, done: false };
    }
    const bytes = plan.sectorCount * sectorBytes;
    const { branch, generation, grain, bytes: record } = entry;
    const { holders, gcEpoch } = stored;
    const of = { ...plan, branch, generation, grain, record, key: key!, holders };
    const landed = await this.#name(replica, of, gcEpoch);
    if (!landed) {
      this.counters.refused += 1;
      return { bytes, done: false };
    }
    this.counters.grains += 1;
    this.counters.bytes += bytes;
    this.counters.chunksReplaced += chunks!.count;
    this.#tellGateway(volume, grain);
    return { bytes, done: true };
  }

  /** All chunks of the grain, verified; null when one cannot be had now. */
  async #read({ value }: TableEntry): Promise<ReadChunks | null> {
    const found = new Map<string, Buffer | null>();
    const memories: LentMemory[] = [];
    const release = () => {
      for (const memory of memories) memory.release();
    };
    const reads = value.extents.map(({ key, holders }) => {
      if (found.has(keyName(key))) return null;
      found.set(keyName(key), null);
      return new Promise<boolean>((resolve) => {
        this.#reader.fetch(key, holders, (outcome) => {
          if (outcome.ok) {
            found.set(keyName(key), outcome.bytes);
            outcome.memory?.hold();
            if (outcome.memory !== null) memories.push(outcome.memory);
          }
          resolve(outcome.ok);
        });
      });
    });
    this.#reader.flush();
    if ((await Promise.all(reads)).includes(false)) {
      release();
      return null;
    }
    return { count: found.size, of: (key) => found.get(keyName(key))!, release };
  }

  /** On as many bricks as the volume promises, never on fewer; null: not now. */
  #store(
    key: Buffer,
    content: Buffer,
    { branch, grain }: TableEntry,
    { firstSector }: GrainPlan,
    { copies }: VolumeRecord,
  ): Promise<StoreOutcome | null> {
    const origin = { branch, grain, firstSector, sequence: 0 };
    const wanted = { copies, degradedWrites: false };
    return new Promise((resolve) => {
      const { clock } = this.#parts.host;
      const lengthBytes = content.length;
      const chunk = { key, origin, data: [content], lengthBytes, memory: null };
      const storing = this.#writer.store(chunk, () => wanted, resolve);
      clock.after(storeTimeoutMs, () => {
        storing.abandon();
        resolve(null);
      });
    });
  }

  #name(
    replica: Replica,
    of: Parameters<typeof compactGrain>[1],
    gcEpoch: number,
  ): Promise<boolean> {
    return new Promise((resolve) => {
      const said = compactGrain(replica, of, gcEpoch, () => resolve(true));
      if (said === "proposed") {
        this.#parts.host.clock.after(landTimeoutMs, () => resolve(false));
      } else resolve(false);
    });
  }

  /** Its cache may go on naming what will be swept: it need not find out by asking in vain. */
  #tellGateway({ uuid, branch }: VolumeRecord, grain: number): void {
    const held = this.#parts.state().attachments[uuid];
    if (held === undefined) return;
    this.#parts.calls.tell(held.brick, messageType.mapForget, encodeMapForget({ branch, grain }));
  }

  #bytesPerSecond(): number {
    const { bytesPerSecond, busyBytesPerSecond } = this.#options;
    const isBusy = this.#nowMs() - this.#served.look() < busyForMs;
    return isBusy || this.#parts.store.queuedBytes > 0 ? busyBytesPerSecond : bytesPerSecond;
  }
}

interface Task {
  readonly entry: TableEntry;
  readonly plan: GrainPlan;
  readonly volume: VolumeRecord;
}

interface ReadChunks {
  readonly count: number;
  of(key: Buffer): Buffer;
  /** They are needed no more. */
  release(): void;
}
