import {
  type AttachmentRecord,
  brickOf,
  type ClusterState,
  isReachable,
  type VolumeRecord,
} from "../cluster-state.ts";
import type { Host } from "../host.ts";
import type { Calls } from "../rpc/calls.ts";
import type { UnitChange } from "../unit/unit-changes.ts";
import { newUnit, type UnitRecord } from "../unit/unit-record.ts";
import type { BrickNumber } from "../units.ts";
import { BrickHealth } from "./brick-health.ts";
import { ChunkCache } from "./chunk-cache.ts";
import type { ChunkContext } from "./chunk-context.ts";
import { ChunkReader } from "./chunk-reader.ts";
import { ChunkWriter } from "./chunk-writer.ts";
import { type Asked, ForwardClient, type Forwarded } from "./forward-client.ts";
import { ForwardService } from "./forward-service.ts";
import { Gateway, type GatewayParts } from "./gateway.ts";
import { type Origin, type Portal, unavailable } from "./operation.ts";
import { type VolumeOptions, volumeOptionsDefault } from "./options.ts";
import { lengthOf } from "./split.ts";
import { type VolumeHooks, VolumeStats } from "./stats.ts";
import type {
  UnitChanged,
  UnitWatcher,
  Volume,
  VolumeAllocation,
  VolumeDirectory,
  VolumeDone,
  VolumeFault,
  VolumeInfo,
  VolumePort,
  VolumeRead,
  VolumeSpace,
  VolumeTask,
} from "./volume.ts";

/** The commands of the control plane that a gateway needs. */
export type AttachmentCommand = {
  type: "attach";
  uuid: string;
  brick: BrickNumber;
  boot: number;
  expectEpoch: number;
  by: { brick: BrickNumber; boot: number };
};

export interface VolumesParts {
  readonly host: Host;
  readonly calls: Calls;
  readonly self: BrickNumber;
  boot(): number;
  state(): ClusterState;
  submit(command: AttachmentCommand): Promise<{ ok: boolean }>;
  /** Whether this brick may act under its lease, at this instant. */
  leaseValid(): boolean;
  readonly options?: Partial<VolumeOptions>;
  readonly hooks?: VolumeHooks;
}

/** An attachment that was refused is tried again after this. */
const attachAgainMs = 100;
/** A forwarded command is given up this much after its gateway must have answered. */
const forwardSlackMs = 2000;

const noHooks: VolumeHooks = { latency: () => {}, repairNote: () => {} };

/**
 * The volumes as one brick's portal offers them: served here while this brick holds the attachment,
 * else by the brick that does.
 */
export class Volumes implements VolumeDirectory {
  readonly stats = new VolumeStats();
  readonly #parts: VolumesParts;
  readonly #gatewayParts: GatewayParts;
  readonly #forward: ForwardClient;
  readonly #options: VolumeOptions;
  /** By volume uuid; each under the epoch it was made for. */
  readonly #gateways = new Map<string, Gateway>();
  readonly #handles = new Map<string, Handle>();
  /** Volumes for which an attachment is being asked for, or was refused a moment ago. */
  readonly #attaching = new Set<string>();
  #portal: Portal;
  /** Epochs that a shard has refused: their successor is not known here yet. */
  readonly #fenced = new Set<number>();
  #waiting: (() => void)[] = [];
  #closed = false;

  constructor(parts: VolumesParts) {
    const { host, calls, self } = parts;
    this.#parts = parts;
    this.#portal = portalOf(parts);
    this.#options = { ...volumeOptionsDefault, ...parts.options };
    const context: ChunkContext = {
      host,
      calls,
      self,
      options: this.#options,
      stats: this.stats,
      hooks: parts.hooks ?? noHooks,
      health: new BrickHealth(this.#options.hedgeMs),
      state: () => parts.state(),
    };
    this.#gatewayParts = {
      context,
      chunks: new ChunkCache(this.#options.chunkCacheBytes),
      reader: new ChunkReader(context),
      writer: new ChunkWriter(context),
      leaseValid: () => parts.leaseValid(),
      fenced: (epoch) => this.#onFenced(epoch),
    };
    this.#forward = new ForwardClient({
      host,
      calls,
      timeoutMs: this.#options.operationDeadlineMs + forwardSlackMs,
      stands: (uuid, epoch) => {
        const held = parts.state().attachments[uuid];
        return held?.epoch === epoch && this.#answers(held);
      },
    });
    new ForwardService(calls, (uuid, epoch) => {
      const gateway = this.#local(uuid);
      return gateway?.epoch === epoch ? gateway : undefined;
    });
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
    return handle;
  }

  portals(): { address: string; tag: number }[] {
    return Object.values(this.#parts.state().bricks)
      .filter((brick) => isReachable(brick) && brick.portalAddress !== "")
      .map((brick) => ({ address: brick.portalAddress, tag: brick.number }));
  }

  onState(state: ClusterState): void {
    this.#portal = portalOf(this.#parts);
    const byUuid = new Map(Object.values(state.volumes).map((volume) => [volume.uuid, volume]));
    for (const [uuid, gateway] of this.#gateways) {
      const volume = byUuid.get(uuid);
      if (volume === undefined || volume.status !== "ready") this.#end(uuid, "deleted");
      else if (!this.#isMine(state.attachments[uuid], gateway.epoch))
        this.#end(uuid, "unavailable");
      else gateway.onState(volume);
    }
    for (const [uuid, handle] of this.#handles) {
      const volume = byUuid.get(uuid);
      if (volume?.status === "ready") handle.record = volume;
      else this.#handles.delete(uuid);
    }
    this.#giveWay(state);
    this.#wake();
  }

  close(): void {
    this.#closed = true;
    for (const uuid of [...this.#gateways.keys()]) this.#end(uuid, "unavailable");
    this.#wake();
  }

  // For the handles.

  nowMs(): number {
    return this.#parts.host.clock.nowMs();
  }

  deadlineMs(): number {
    return this.nowMs() + this.#options.operationDeadlineMs;
  }

  /** Where the volume is served: here, there, or nowhere yet (then it is asked for). */
  where(uuid: string): { gateway: Gateway } | { at: AttachmentRecord } | null {
    const held = this.#parts.state().attachments[uuid];
    const gateway = this.#local(uuid);
    if (gateway !== undefined) return { gateway };
    const mine = held !== undefined && held.brick === this.#parts.self;
    if (held !== undefined && !mine && this.#answers(held)) return { at: held };
    if (!mine || held.boot !== this.#parts.boot() || this.#fenced.has(held.epoch)) {
      this.#attach(uuid, held);
    }
    return null;
  }

  /** This portal, as it is now. */
  get portal(): Portal {
    return this.#portal;
  }

  get forward(): ForwardClient {
    return this.#forward;
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

  /** The gateway of an attachment that this boot of this brick holds. */
  #local(uuid: string): Gateway | undefined {
    const held = this.#parts.state().attachments[uuid];
    let gateway = this.#gateways.get(uuid);
    if (held === undefined || !this.#isMine(held, held.epoch) || this.#fenced.has(held.epoch)) {
      return undefined;
    }
    if (gateway !== undefined && gateway.epoch !== held.epoch) {
      this.#end(uuid, "unavailable");
      gateway = undefined;
    }
    if (gateway === undefined && !this.#closed) {
      const volume = this.#recordOf(uuid);
      if (volume?.status !== "ready") return undefined;
      gateway = new Gateway(this.#gatewayParts, volume, held.epoch);
      this.#gateways.set(uuid, gateway);
    }
    return gateway;
  }

  #recordOf(uuid: string): VolumeRecord | undefined {
    return Object.values(this.#parts.state().volumes).find((volume) => volume.uuid === uuid);
  }

  #isMine(held: AttachmentRecord | undefined, epoch: number): boolean {
    const { self, boot } = this.#parts;
    return held?.brick === self && held.boot === boot() && held.epoch === epoch;
  }

  #answers(held: AttachmentRecord): boolean {
    const brick = brickOf(this.#parts.state(), held.brick);
    return isReachable(brick) && brick!.boot === held.boot;
  }

  #attach(uuid: string, held: AttachmentRecord | undefined): void {
    if (this.#attaching.has(uuid) || this.#closed || !this.#parts.leaseValid()) return;
    this.#attaching.add(uuid);
    const me = { brick: this.#parts.self, boot: this.#parts.boot() };
    const expectEpoch = held?.epoch ?? 0;
    this.#parts.submit({ type: "attach", uuid, ...me, expectEpoch, by: me }).then(() => {
      this.#parts.host.clock.after(attachAgainMs, () => this.#attaching.delete(uuid));
      this.#wake();
    });
  }

  /** A draining brick hands what it serves to another. */
  #giveWay(state: ClusterState): void {
    const { self, boot } = this.#parts;
    if (brickOf(state, self)?.status !== "draining") return;
    const heir = Object.values(state.bricks).find((one) => one.status === "up" && one.reachable);
    if (heir === undefined) return;
    const by = { brick: self, boot: boot() };
    for (const [uuid, { epoch }] of this.#gateways) {
      if (this.#attaching.has(uuid)) continue;
      this.#attaching.add(uuid);
      const to = { brick: heir.number, boot: heir.boot };
      this.#parts.submit({ type: "attach", uuid, ...to, expectEpoch: epoch, by }).then(() => {
        this.#parts.host.clock.after(attachAgainMs, () => this.#attaching.delete(uuid));
      });
    }
  }

  #onFenced(epoch: number): void {
    this.#fenced.add(epoch);
    for (const [uuid, gateway] of this.#gateways) {
      if (gateway.epoch === epoch) this.#end(uuid, "unavailable");
    }
  }

  #end(uuid: string, reason: "unavailable" | "deleted"): void {
    const gateway = this.#gateways.get(uuid);
    this.#gateways.delete(uuid);
    gateway?.end(reason);
  }
}

/** One volume at one portal, wherever it is served. */
class Handle implements Volume {
  record: VolumeRecord;
  readonly #volumes: Volumes;

  constructor(volumes: Volumes, record: VolumeRecord) {
    this.#volumes = volumes;
    this.record = record;
  }

  get info(): VolumeInfo {
    return this.record;
  }

  read(offsetBytes: number, lengthBytes: number, task?: VolumeTask): Promise<VolumeRead> {
    return this.#run<VolumeRead>(
      task,
      offsetBytes + lengthBytes,
      (gateway, origin) => gateway.read(offsetBytes, lengthBytes, origin),
      (asked) => this.#volumes.forward.read(asked, offsetBytes, lengthBytes),
    );
  }

  write(offsetBytes: number, data: readonly Buffer[], task?: VolumeTask): Promise<VolumeDone> {
    return this.#run<VolumeDone>(
      task,
      offsetBytes + lengthOf(data),
      (gateway, origin) => gateway.write(offsetBytes, data, origin),
      (asked) => this.#volumes.forward.write(asked, offsetBytes, data),
    );
  }

  unmap(offsetBytes: number, lengthBytes: number, task?: VolumeTask): Promise<VolumeDone> {
    return this.#run<VolumeDone>(
      task,
      offsetBytes + lengthBytes,
      (gateway, origin) => gateway.unmap(offsetBytes, lengthBytes, origin),
      (asked) => this.#volumes.forward.unmap(asked, { offsetBytes, lengthBytes }),
    );
  }

  compareAndWrite(
    offsetBytes: number,
    compare: readonly Buffer[],
    data: readonly Buffer[],
    task?: VolumeTask,
  ): Promise<VolumeDone> {
    return this.#run<VolumeDone>(
      task,
      offsetBytes + lengthOf(data),
      (gateway, origin) => gateway.compareAndWrite(offsetBytes, compare, data, origin),
      (asked) => this.#volumes.forward.compareAndWrite(asked, offsetBytes, compare, data),
    );
  }

  orWrite(offsetBytes: number, data: readonly Buffer[], task?: VolumeTask): Promise<VolumeDone> {
    return this.#run<VolumeDone>(
      task,
      offsetBytes + lengthOf(data),
      (gateway, origin) => gateway.orWrite(offsetBytes, data, origin),
      (asked) => this.#volumes.forward.orWrite(asked, offsetBytes, data),
    );
  }

  allocation(
    offsetBytes: number,
    lengthBytes: number,
    runsMax: number,
    task?: VolumeTask,
  ): Promise<VolumeAllocation> {
    return this.#run<VolumeAllocation>(
      task,
      offsetBytes + lengthBytes,
      (gateway, origin) => gateway.allocation(offsetBytes, lengthBytes, runsMax, origin),
      (asked) => this.#volumes.forward.allocation(asked, { offsetBytes, lengthBytes }, runsMax),
    );
  }

  // Not served yet.

  async copyFrom(): Promise<VolumeDone> {
    return fault<VolumeDone>(unavailable("not served yet"));
  }

  unit(): UnitRecord {
    return newUnit;
  }

  async changeUnit(_change: UnitChange): Promise<UnitChanged> {
    return fault<UnitChanged>(unavailable("not served yet"));
  }

  async freshUnit(): Promise<{ ok: true; unit: UnitRecord }> {
    return { ok: true, unit: newUnit };
  }

  watchUnit(_watcher: UnitWatcher): { stop(): void } {
    return { stop: () => {} };
  }

  ports(): readonly VolumePort[] {
    return [];
  }

  async moveTo(): Promise<VolumeDone> {
    return fault<VolumeDone>(unavailable("not served yet"));
  }

  space(): VolumeSpace {
    return { usedBytes: 0, freeBytes: 0, poolUsedBytes: 0, poolBytes: 0 };
  }

  /** Here at once, or there; waits while nobody serves the volume. */
  #run<T extends { ok: true } | { ok: false; fault: VolumeFault }>(
    task: VolumeTask | undefined,
    endBytes: number,
    here: (gateway: Gateway, origin: Origin) => Promise<T>,
    there: (asked: Asked) => Promise<Forwarded<T>>,
  ): Promise<T> {
    const { uuid, sizeBytes } = this.record;
    const { portal } = this.#volumes;
    const place = this.#volumes.where(uuid);
    if (place !== null && "gateway" in place) return here(place.gateway, { task, portal });
    if (endBytes > sizeBytes) return Promise.resolve(fault<T>({ code: "out_of_range", sizeBytes }));
    return this.#wait({ task, portal }, here, there);
  }

  async #wait<T extends { ok: true } | { ok: false; fault: VolumeFault }>(
    origin: { task: VolumeTask | undefined; portal: Portal },
    here: (gateway: Gateway, origin: Origin) => Promise<T>,
    there: (asked: Asked) => Promise<Forwarded<T>>,
  ): Promise<T> {
    const volumes = this.#volumes;
    const { uuid } = this.record;
    const { task, portal } = origin;
    const deadlineMs = volumes.deadlineMs();
    while (volumes.nowMs() < deadlineMs) {
      if (!volumes.isOpen(uuid)) return fault<T>({ code: "deleted" });
      if (task?.cancelled) return fault<T>({ code: "cancelled" });
      const place = volumes.where(uuid);
      if (place !== null && "gateway" in place) return here(place.gateway, origin);
      if (place !== null) {
        volumes.stats.forwarded += 1;
        const result = await there({ at: place.at, uuid, task, absences: portal.absences });
        if (result !== "elsewhere") return result;
      }
      await volumes.changed(deadlineMs);
    }
    return fault<T>(unavailable("no gateway serves the volume"));
  }
}

function portalOf(parts: VolumesParts): Portal {
  const brick = parts.self;
  const absences = brickOf(parts.state(), brick)?.absences ?? 0;
  return { brick, boot: parts.boot(), absences };
}

function fault<T>(one: VolumeFault): T {
  return { ok: false, fault: one } as T;
}
