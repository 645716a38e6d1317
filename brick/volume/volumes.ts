import { ChunkCache } from "../chunk/chunk-cache.ts";
import { brickOf, type ClusterState, isReachable, type VolumeRecord } from "../cluster-state.ts";
import { decodeMapForget } from "../compaction/forget-messages.ts";
import { type CipherSource, noKeys } from "../crypt/volume-cipher.ts";
import type { Host } from "../host.ts";
import type { Calls } from "../rpc/calls.ts";
import { messageType } from "../rpc/message-types.ts";
import { StageTimes } from "../stage-times.ts";
import type { UnitChange } from "../unit/unit-changes.ts";
import type { BrickNumber } from "../units.ts";
import { AheadRoom } from "./ahead-room.ts";
import { type AttachCommand, Attachments, attachAgainMs } from "./attachments.ts";
import { BrickHealth } from "./brick-health.ts";
import type { ChunkContext } from "./chunk-context.ts";
import { ChunkReader } from "./chunk-reader.ts";
import { ChunkWriter } from "./chunk-writer.ts";
import { ForwardClient } from "./forward-client.ts";
import { ForwardService } from "./forward-service.ts";
import { Gateway, type GatewayParts } from "./gateway.ts";
import type { Portal } from "./operation.ts";
import { type VolumeOptions, volumeOptionsDefault } from "./options.ts";
import { Sanitizer } from "./sanitizer.ts";
import { type OwnSlices, SliceReader } from "./slice-reader.ts";
import { MappedBytes, spaceOf } from "./space.ts";
import { type VolumeHooks, VolumeStats } from "./stats.ts";
import { type Submitted, Units } from "./units.ts";
import type { Volume, VolumeDirectory, VolumeInfo, VolumeSpace } from "./volume.ts";
import { Handle } from "./volume-handle.ts";

/** The commands of the control plane that volumes need. */
export type VolumeCommand =
  | AttachCommand
  | { readonly type: "changeUnit"; readonly uuid: string; readonly change: UnitChange };

export interface VolumesParts {
  readonly host: Host;
  readonly calls: Calls;
  readonly self: BrickNumber;
  boot(): number;
  state(): ClusterState;
  submit(command: VolumeCommand): Promise<Submitted>;
  /** Resolves true once `state` holds all that was committed before; false: nobody answers. */
  refresh(): Promise<boolean>;
  /** Whether this brick may act under its lease, at this instant. */
  leaseValid(): boolean;
  /** The chunks that this brick stores itself. */
  readonly own: OwnSlices;
  /** Mapped bytes by branch, of the shards that a brick leads; null: it does not answer. */
  mappedBytes(brick: BrickNumber): Promise<ReadonlyMap<number, number> | null>;
  /** Absent: this brick has no keys, and serves what is not encrypted. */
  readonly keys?: CipherSource;
  readonly options?: Partial<VolumeOptions>;
  readonly hooks?: VolumeHooks;
  readonly stages?: StageTimes;
}

/** A forwarded command is given up this much after its gateway must have answered. */
const forwardSlackMs = 2000;

const noHooks: VolumeHooks = { latency: () => {}, repairNote: () => {} };

/**
 * The volumes as one brick's portal offers them: served here while this brick holds the attachment,
 * else by the brick that does.
 */
export class Volumes implements VolumeDirectory {
  readonly stats: VolumeStats;
  readonly forward: ForwardClient;
  readonly attachments: Attachments;
  readonly units: Units;
  readonly #parts: VolumesParts;
  readonly #options: VolumeOptions;
  readonly #aheadRoom: AheadRoom;
  readonly #sanitizer: Sanitizer;
  readonly #mapped: MappedBytes;
  readonly #handles = new Map<string, Handle>();
  #portal: Portal;
  #waiting: (() => void)[] = [];
  #closed = false;

  constructor(parts: VolumesParts) {
    const { host, calls, self, keys = noKeys } = parts;
    const state = () => parts.state();
    this.#parts = parts;
    this.stats = new VolumeStats(parts.stages ?? new StageTimes(host.clock));
    this.#portal = portalOf(parts);
    this.#options = { ...volumeOptionsDefault, ...parts.options };
    this.#aheadRoom = new AheadRoom(this.#options.readAheadBytes);
    const gatewayParts = this.#gatewayParts();
    this.attachments = new Attachments({
      host,
      calls,
      self,
      state,
      boot: () => parts.boot(),
      submit: (command) => parts.submit(command),
      leaseValid: () => parts.leaseValid(),
      isReady: (volume) => keys.isReady(volume),
      hasKey: (volume) => keys.hasKey(volume),
      makeGateway: (volume, epoch) => new Gateway(gatewayParts, volume, epoch),
      wake: () => this.#wake(),
    });
    this.forward = new ForwardClient({
      host,
      calls,
      timeoutMs: this.#options.operationDeadlineMs + forwardSlackMs,
      stands: (uuid, epoch) => {
        const held = parts.state().attachments[uuid];
        return held?.epoch === epoch && this.attachments.answers(held);
      },
    });
    new ForwardService(host, calls, (uuid, epoch) => {
      const gateway = this.attachments.local(uuid);
      return gateway?.epoch === epoch ? gateway : undefined;
    });
    const submitChange = (uuid: string, change: UnitChange) =>
      parts.submit({ type: "changeUnit", uuid, change });
    this.units = new Units({
      host,
      calls,
      state,
      submit: submitChange,
      gateway: (uuid) => this.attachments.existing(uuid),
      changed: (deadlineMs) => this.changed(deadlineMs),
    });
    const { attachments } = this;
    calls.serve(messageType.mapForget, (_from, body) => {
      const forget = decodeMapForget(body);
      if (forget !== null) attachments.ofBranch(forget.branch)?.map.forget(forget.grain);
    });
    this.#sanitizer = new Sanitizer({ host, attachments, state, keys, submit: submitChange });
    this.#mapped = new MappedBytes({ host, state, ask: (brick) => parts.mappedBytes(brick) });
  }

  // VolumeDirectory.

  list(): VolumeInfo[] {
    return Object.values(this.#parts.state().volumes)
      .filter((volume) => volume.status === "ready")
      .sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  open(name: string): Volume | undefined {
    const volume = this.#parts.state().volumes[name];
    if (volume === undefined || volume.status !== "ready" || this.#closed) return undefined;
    let handle = this.#handles.get(volume.uuid);
    if (handle === undefined) {
      handle = new Handle(this, volume);
      this.#handles.set(volume.uuid, handle);
    }
    // Who opens a volume is about to use it: its first command need not wait for a gateway.
    this.attachments.where(volume.uuid);
    return handle;
  }

  portals(): { address: string; tag: number }[] {
    return Object.values(this.#parts.state().bricks)
      .filter((brick) => isReachable(brick) && brick.portalAddress !== "")
      .map((brick) => ({ address: brick.portalAddress, tag: brick.number }));
  }

  onState(state: ClusterState): void {
    this.#portal = portalOf(this.#parts);
    this.attachments.onState(state);
    // Nothing that is checked by this state comes before its watchers know of it.
    this.units.onState(state);
    const byUuid = new Map(Object.values(state.volumes).map((volume) => [volume.uuid, volume]));
    for (const [uuid, handle] of this.#handles) {
      const volume = byUuid.get(uuid);
      if (volume?.status === "ready") handle.record = volume;
      else {
        this.#handles.delete(uuid);
        this.units.forget(uuid);
      }
    }
    this.#sanitizer.onState(state);
    this.forward.onState();
    this.#wake();
  }

  close(): void {
    this.#closed = true;
    this.#mapped.close();
    this.attachments.close();
    this.#wake();
  }

  // For the handles.

  nowMs(): number {
    return this.#parts.host.clock.nowMs();
  }

  deadlineMs(): number {
    return this.nowMs() + this.#options.operationDeadlineMs;
  }

  /** This portal, as it is now. */
  get portal(): Portal {
    return this.#portal;
  }

  refresh(): Promise<boolean> {
    return this.#parts.refresh();
  }

  space(volume: VolumeRecord): VolumeSpace {
    return spaceOf(this.#parts.state(), volume, this.#mapped.of(volume.branch));
  }

  /** Fetched ahead of reads, or on its way, and not asked for yet. */
  get aheadBytes(): number {
    return this.#aheadRoom.bytes;
  }

  isOpen(uuid: string): boolean {
    return !this.#closed && this.#handles.has(uuid);
  }

  /** Resolves when something has changed, or at the deadline. */
  changed(deadlineMs: number): Promise<void> {
    return new Promise((resolve) => {
      let over = false;
      const done = () => {
        if (over) return;
        over = true;
        timer.cancel();
        resolve();
      };
      const delayMs = Math.max(0, Math.min(attachAgainMs, deadlineMs - this.nowMs()));
      const timer = this.#parts.host.clock.after(delayMs, done);
      this.#waiting.push(done);
    });
  }

  #wake(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const done of waiting) done();
  }

  #gatewayParts(): GatewayParts {
    const parts = this.#parts;
    const context: ChunkContext = {
      host: parts.host,
      calls: parts.calls,
      self: parts.self,
      options: this.#options,
      stats: this.stats,
      hooks: parts.hooks ?? noHooks,
      health: new BrickHealth(this.#options.hedgeMs),
      state: () => parts.state(),
    };
    const chunks = new ChunkCache(this.#options.chunkCacheBytes);
    const { keys = noKeys } = parts;
    return {
      context,
      chunks,
      aheadRoom: this.#aheadRoom,
      reader: new ChunkReader(context),
      slices: new SliceReader(context, chunks, parts.own),
      writer: new ChunkWriter(context),
      leaseValid: () => parts.leaseValid(),
      cipherOf: (volume) => keys.cipherOf(volume),
      fenced: (epoch) => this.attachments.onFenced(epoch),
    };
  }
}

function portalOf(parts: VolumesParts): Portal {
  const brick = parts.self;
  const absences = brickOf(parts.state(), brick)?.absences ?? 0;
  return { brick, boot: parts.boot(), absences };
}
