import { encodeChunkHasReply } from "../chunk/chunk-messages.ts";
import type { ClusterState } from "../cluster-state.ts";
import type { Host } from "../host.ts";
import type { MapService } from "../map/map-service-io.ts";
import type { Calls } from "../rpc/calls.ts";
import { messageType } from "../rpc/message-types.ts";
import type { Store } from "../store/store.ts";
import type { BrickNumber } from "../units.ts";
import { Demand } from "./demand.ts";
import { gcOf } from "./epochs.ts";
import { type GcOptions, gcOptionsDefault } from "./gc-options.ts";
import { decodeChunkMark } from "./mark-messages.ts";
import { type MarkCounters, MarkWalk } from "./mark-walk-io.ts";
import { gcShare, gcShareUrgent } from "./pace.ts";
import { Sweeper } from "./sweep-io.ts";

/** How soon it is looked again whether an epoch has begun or is marked. */
const lookEveryMs = 100;

interface GcParts {
  readonly host: Host;
  readonly calls: Calls;
  readonly self: BrickNumber;
  readonly map: MapService;
  readonly store: Store;
  state(): ClusterState;
  /** There is something to report that the leader waits for. */
  nudge(): void;
  readonly options?: Partial<GcOptions>;
}

/**
 * One brick's part in garbage collection: keeps what others mark, marks what the shards led here
 * refer to, sweeps what nobody has marked, and compacts what is left.
 */
export class Gc {
  readonly #parts: GcParts;
  readonly #options: GcOptions;
  readonly #marks: MarkWalk;
  readonly #sweeper: Sweeper;
  readonly #demand: Demand;
  /** Of the branches that could be read when it was looked last. */
  #volumes: ClusterState["volumes"] = {};
  #closed = false;
  /** Work under way on the store. */
  readonly #running = new Set<Promise<number>>();

  constructor(parts: GcParts) {
    this.#parts = parts;
    this.#options = { ...gcOptionsDefault, ...parts.options };
    const shared = {
      ...parts,
      options: this.#options,
      replicas: () => parts.map.replicas(),
      isClosed: () => this.#closed,
      isShort: () => this.#isShort(),
      share: () => (this.#isShort() ? gcShareUrgent : gcShare),
    };
    this.#marks = new MarkWalk(shared);
    this.#sweeper = new Sweeper(shared);
    this.#demand = new Demand(this.#options);
    parts.map.markedIn = (shard, view) => this.#marks.markedIn(shard, view);
    this.#serve();
    this.onState(parts.state());
    this.#again(() => this.#mark());
    this.#again(() => this.#sweep());
    this.#again(() => this.#sweeper.compact());
  }

  get counters(): MarkCounters {
    return this.#marks.counters;
  }

  /** By the marks of which epoch this brick has swept. */
  get sweptEpoch(): number {
    return this.#sweeper.sweptEpoch;
  }

  onState(state: ClusterState): void {
    this.#parts.store.stamps.reach(state.gcEpoch);
    const before = this.#volumes;
    if (before === state.volumes) return;
    this.#volumes = state.volumes;
    for (const { uuid, name } of Object.values(before)) {
      const now = state.volumes[name];
      if (now?.uuid === uuid && now.status === "ready") continue;
      this.#demand.deleted(state.gcEpoch);
    }
  }

  /** What to tell the leader. */
  garbage(): { wantedEpoch: number; urgent: boolean } | undefined {
    const state = this.#parts.state();
    if (state.version === 0) return undefined;
    const { capacityBytes, freeBytes } = this.#parts.store.space();
    return this.#demand.look({
      nowMs: this.#parts.host.clock.nowMs(),
      gcEpoch: state.gcEpoch,
      marked: gcOf(state).marked,
      maySweep: this.#sweeper.before() !== null,
      releasedBytes: this.#parts.map.counters.releasedBytes,
      capacityBytes,
      freeBytes,
    });
  }

  /** Resolves when nothing of it touches the store any more. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all(this.#running);
  }

  #isShort(): boolean {
    const { capacityBytes, freeBytes } = this.#parts.store.space();
    return freeBytes < this.#options.urgentFreeShare * capacityBytes;
  }

  #serve(): void {
    const { calls, store } = this.#parts;
    calls.serve(messageType.chunkMark, (_from, body, reply) => {
      const marks = decodeChunkMark(body);
      if (marks === null || this.#closed) return;
      store.stamps.reach(marks.gcEpoch);
      reply(encodeChunkHasReply(store.protectMany(marks.keys)));
    });
  }

  async #mark(): Promise<number> {
    if (!(await this.#marks.step())) return lookEveryMs;
    this.#parts.nudge();
    return this.#options.pauseMs;
  }

  async #sweep(): Promise<number> {
    if (await this.#sweeper.sweep()) this.#demand.swept(this.#sweeper.sweptEpoch);
    return lookEveryMs;
  }

  /** Runs the action for ever, with the pause after it that it asks for. */
  async #again(action: () => Promise<number>): Promise<void> {
    if (this.#closed) return;
    const running = action();
    this.#running.add(running);
    const delayMs = await running;
    this.#running.delete(running);
    this.#parts.host.clock.after(delayMs, () => this.#again(action));
  }
}
