import { serveChunks } from "../brick/chunk/chunk-service.ts";
import type { BrickHealth, ClusterState } from "../brick/cluster-state.ts";
import type { CompactionOptions } from "../brick/compaction/compaction-options.ts";
import { GrainCompaction } from "../brick/compaction/grain-compaction-io.ts";
import { KeyService } from "../brick/crypt/key-service-io.ts";
import { Keyring } from "../brick/crypt/keyring-io.ts";
import { type LevelRange, levelOf, ownLevels } from "../brick/feature-level.ts";
import { Gc } from "../brick/gc/gc-io.ts";
import type { GcOptions } from "../brick/gc/gc-options.ts";
import type { Host } from "../brick/host.ts";
import { MapService } from "../brick/map/map-service-io.ts";
import { type MemoryParts, memoryPartsDefault } from "../brick/memory-budget.ts";
import type { CopyRates } from "../brick/repair/copy-budget.ts";
import { Heal } from "../brick/repair/heal-io.ts";
import type { HealOptions } from "../brick/repair/heal-options.ts";
import { Repair } from "../brick/repair/repair-io.ts";
import { Calls } from "../brick/rpc/calls.ts";
import { Store, type StoreOptions } from "../brick/store/store.ts";
import type { BrickNumber } from "../brick/units.ts";
import type { VolumeOptions } from "../brick/volume/options.ts";
import type { VolumeHooks } from "../brick/volume/stats.ts";
import { Volumes } from "../brick/volume/volumes.ts";
import { type Bootstrap, Control } from "../control/control-io.ts";
import type { MembershipTiming } from "../control/membership.ts";
import { openRaft } from "../control/raft/raft-driver-io.ts";
import { askStats, serveStats } from "./brick-stats.ts";

/** What the process may take, how that is divided, and what it takes now. */
export interface MemoryUse {
  /** 0: not bounded. */
  readonly budgetBytes: number;
  readonly parts: MemoryParts;
  residentBytes(): number;
}

/** What the keys of encrypted volumes are kept and moved with. */
export interface KeyOptions {
  /** 32 bytes: this brick's keys are sealed with it on its disk. */
  readonly masterKey: Buffer;
  /** 32 bytes: the cluster's own; keys are sealed with it between bricks. */
  readonly clusterSecret: Buffer;
  /** Unpredictable bytes; in the simulator, the seed's. */
  random(bytes: number): Buffer;
}

export interface NodeOptions {
  readonly self: BrickNumber;
  readonly capacityBytes: number;
  /** Counts only when the store is new. */
  readonly identity?: NonNullable<StoreOptions["identity"]>;
  readonly segmentBytes?: number;
  readonly addresses: { readonly peer: string; readonly portal: string; readonly api: string };
  readonly domain?: string;
  /** Begins a cluster: this brick is its first. */
  readonly bootstrap?: Bootstrap;
  readonly seeds?: ReadonlyMap<BrickNumber, string>;
  readonly timing?: Partial<MembershipTiming>;
  readonly volumeOptions?: Partial<VolumeOptions>;
  readonly memory?: MemoryUse;
  readonly gcOptions?: Partial<GcOptions>;
  readonly healOptions?: Partial<HealOptions>;
  readonly copyRates?: Partial<CopyRates>;
  /** Feature levels that the brick knows, when not all that the build does. */
  readonly levels?: LevelRange;
  readonly compactionOptions?: Partial<CompactionOptions>;
  readonly hooks?: VolumeHooks;
  readonly keys: KeyOptions;
  /** After each change of the cluster state, once the brick's own parts have it. */
  readonly onState?: (state: ClusterState) => void;
  /**
   * The store is open and durable, under a boot number that nobody has seen; the network may speak
   * from here on.
   */
  readonly onStoreOpen: (boot: number) => Promise<void> | void;
}

/** In the simulator a process is no brick's own. */
const unbounded: MemoryUse = {
  budgetBytes: 0,
  parts: memoryPartsDefault,
  residentBytes: () => 0,
};

function volumeMemory(parts: MemoryParts): Partial<VolumeOptions> {
  const { chunkCacheBytes, readAheadBytes, mapCacheGrainsMax, mapCacheCellsMax } = parts;
  return { chunkCacheBytes, readAheadBytes, mapCacheGrainsMax, mapCacheCellsMax };
}

/** What the leader is told. */
function healthOf(store: Store, repair: Repair | null, keys: KeyService | null): BrickHealth {
  const { corruptChunks } = store.counters;
  const keysLacking = keys?.lackingLong ?? 0;
  const health = { corruptChunks, repairPending: repair?.restoringShards() ?? 0 };
  return keysLacking === 0 ? health : { ...health, keysLacking };
}

/** The parts of one brick joined over any host, real or simulated. */
export class BrickNode {
  readonly host: Host;
  readonly memory: MemoryUse;
  readonly store: Store;
  readonly calls: Calls;
  readonly map: MapService;
  readonly control: Control;
  readonly volumes: Volumes;
  readonly repair: Repair;
  readonly heal: Heal;
  readonly gc: Gc;
  readonly compaction: GrainCompaction;
  readonly keys: KeyService;
  readonly levels: LevelRange;

  static async open(host: Host, options: NodeOptions): Promise<BrickNode> {
    const { levels = ownLevels } = options;
    const { self, identity, segmentBytes, bootstrap, seeds, timing, domain } = options;
    const calls = new Calls(host, self);
    const memory = options.memory ?? unbounded;
    const map = new MapService(host, calls, self, memory.parts);
    // 1. What this brick has promised and stored, and a boot number that nobody has seen.
    const store = await Store.open(host, {
      capacityBytes: options.capacityBytes,
      participants: [map],
      memory: memory.parts,
      ...(segmentBytes !== undefined && { segmentBytes }),
      ...(identity !== undefined && { identity }),
    });
    const cut = store.cut || store.damaged;
    // From here on the replicas themselves remember what may be missing.
    await map.attach(store);
    serveChunks(calls, store, self);
    const { masterKey, clusterSecret, random } = options.keys;
    const { clusterId } = store.superblock;
    const keyring = await Keyring.open({ disk: host.disk, clusterId, masterKey, random });
    await options.onStoreOpen(store.superblock.boot);
    // 2. From here on the brick speaks.
    const parts: {
      control: Control | null;
      volumes: Volumes | null;
      gc: Gc | null;
      repair: Repair | null;
      keys: KeyService | null;
    } = {
      control: null,
      volumes: null,
      repair: null,
      gc: null,
      keys: null,
    };
    const onState = (state: ClusterState) => {
      calls.level = levelOf(state);
      // First of all: what is stored from here on belongs to the new epoch.
      parts.gc?.onState(state);
      map.onState(state);
      parts.keys?.onState(state);
      parts.volumes?.onState(state);
      options.onState?.(state);
    };
    const control = await Control.open({
      host,
      calls,
      superblock: store.superblock,
      addresses: options.addresses,
      cut,
      map,
      levels,
      space: () => store.space(),
      garbage: () => parts.gc?.garbage(),
      health: () => healthOf(store, parts.repair, parts.keys),
      onState,
      onRemoved: () => parts.keys?.leave(),
      onLease: (untilMs) => map.setLease(untilMs),
      openRaft: openRaft({ host, calls, self }),
      ...(bootstrap !== undefined && { bootstrap }),
      ...(seeds !== undefined && { seeds }),
      ...(timing !== undefined && { timing }),
      ...(domain !== undefined && { domain }),
    });
    parts.control = control;
    const keys = new KeyService({
      host,
      calls,
      self,
      keyring,
      clusterSecret,
      random,
      state: () => control.state(),
      submit: (command) => control.submit(command),
      changed: () => parts.volumes?.onState(control.state()),
    });
    parts.keys = keys;
    keys.onState(control.state());
    const volumes = new Volumes({
      host,
      calls,
      self,
      stages: store.stages,
      boot: () => store.superblock.boot,
      state: () => control.state(),
      submit: (command) => control.submit(command),
      own: store.slices,
      refresh: () => control.refresh(),
      leaseValid: () => control.leaseValid(host.clock.nowMs()),
      keys,
      mappedBytes: async (brick) => {
        const stats = await askStats(calls, brick);
        return stats === null ? null : new Map(stats.mapped);
      },
      options: { ...volumeMemory(memory.parts), ...options.volumeOptions },
      ...(options.hooks !== undefined && { hooks: options.hooks }),
    });
    parts.volumes = volumes;
    volumes.onState(control.state());
    const state = () => control.state();
    const { copyRates: rates } = options;
    const servedBytes = () => volumes.stats.readBytes + volumes.stats.writeBytes;
    const repairParts = { host, calls, self, map, store, state, servedBytes };
    const repair = new Repair({ ...repairParts, ...(rates !== undefined && { rates }) });
    parts.repair = repair;
    const { healOptions } = options;
    const healParts = { host, calls, self, store, state };
    const heal = new Heal({
      ...healParts,
      ...(healOptions !== undefined && { options: healOptions }),
    });
    const nudge = () => control.nudge();
    store.watchSpace(nudge);
    const { gcOptions } = options;
    const gcParts = { host, calls, self, map, store, state, nudge };
    const gc = new Gc({ ...gcParts, ...(gcOptions !== undefined && { options: gcOptions }) });
    parts.gc = gc;
    const { compactionOptions } = options;
    const compaction = new GrainCompaction({
      ...repairParts,
      isInOrder: () => repair.pendingShards().length === 0,
      ...(compactionOptions !== undefined && { options: compactionOptions }),
    });
    const data = { store, map, volumes, repair, heal, gc, compaction, keys, levels };
    const node = new BrickNode({ host, memory, calls, control, ...data });
    serveStats(node);
    return node;
  }

  private constructor(parts: {
    host: Host;
    memory: MemoryUse;
    store: Store;
    calls: Calls;
    map: MapService;
    control: Control;
    volumes: Volumes;
    repair: Repair;
    heal: Heal;
    gc: Gc;
    compaction: GrainCompaction;
    keys: KeyService;
    levels: LevelRange;
  }) {
    this.host = parts.host;
    this.memory = parts.memory;
    this.store = parts.store;
    this.calls = parts.calls;
    this.map = parts.map;
    this.control = parts.control;
    this.volumes = parts.volumes;
    this.repair = parts.repair;
    this.heal = parts.heal;
    this.gc = parts.gc;
    this.compaction = parts.compaction;
    this.keys = parts.keys;
    this.levels = parts.levels;
  }

  get number(): BrickNumber {
    return this.store.superblock.brick;
  }

  /** Stops serving, then leaves a sealed log. */
  async close(): Promise<void> {
    this.repair.close();
    this.compaction.close();
    this.volumes.close();
    this.keys.close();
    await this.control.close();
    await this.heal.close();
    await this.gc.close();
    this.map.close();
    await this.store.close();
  }
}
