import type { VolumeRecord } from "../cluster-state.ts";
import type { UnitChange } from "../unit/unit-changes.ts";
import type { UnitRecord } from "../unit/unit-record.ts";
import type { Asked, Forwarded } from "./forward-client.ts";
import type { CopySource } from "./forward-messages.ts";
import type { Gateway } from "./gateway.ts";
import { type Origin, type Portal, unavailable } from "./operation.ts";
import { lengthOf } from "./split.ts";
import type {
  UnitChanged,
  UnitWatcher,
  Volume,
  VolumeAllocation,
  VolumeDone,
  VolumeFault,
  VolumeInfo,
  VolumePort,
  VolumeRead,
  VolumeSpace,
  VolumeTask,
} from "./volume.ts";
import type { Volumes } from "./volumes.ts";

/** One volume at one portal, wherever it is served. */
export class Handle implements Volume {
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

  writeAtomic(
    offsetBytes: number,
    data: readonly Buffer[],
    task?: VolumeTask,
  ): Promise<VolumeDone> {
    return this.#run<VolumeDone>(
      task,
      offsetBytes + lengthOf(data),
      (gateway, origin) => gateway.writeAtomic(offsetBytes, data, origin),
      (asked) => this.#volumes.forward.writeAtomic(asked, offsetBytes, data),
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

  copyFrom(
    source: CopySource,
    offsetBytes: number,
    lengthBytes: number,
    task?: VolumeTask,
  ): Promise<VolumeDone> {
    return this.#run<VolumeDone>(
      task,
      offsetBytes + lengthBytes,
      (gateway, origin) => gateway.copyFrom(source, offsetBytes, lengthBytes, origin),
      (asked) => this.#volumes.forward.copyFrom(asked, source, { offsetBytes, lengthBytes }),
    );
  }

  unit(): UnitRecord {
    return this.#volumes.units.unit(this.record.uuid);
  }

  /**
   * Resolves as Volume.changeUnit says; `unavailable` when not every reachable brick has settled in
   * an operation's time: the change may stand, and the same change asked for again finds it so.
   */
  async changeUnit(change: UnitChange): Promise<UnitChanged> {
    const volumes = this.#volumes;
    const { uuid } = this.record;
    const changed = await volumes.units.change(uuid, change, volumes.deadlineMs());
    return volumes.isOpen(uuid) ? changed : fault<UnitChanged>({ code: "deleted" });
  }

  async freshUnit(): Promise<{ ok: true; unit: UnitRecord } | { ok: false; fault: VolumeFault }> {
    if (await this.#volumes.refresh()) return { ok: true, unit: this.unit() };
    return { ok: false, fault: unavailable("the control plane does not answer") };
  }

  watchUnit(watcher: UnitWatcher): { stop(): void } {
    return this.#volumes.units.watch(this.record.uuid, watcher);
  }

  ports(): readonly VolumePort[] {
    return this.#volumes.attachments.ports(this.record.uuid);
  }

  isServed(): boolean {
    return this.#volumes.attachments.isServed(this.record.uuid);
  }

  async moveTo(targetPort: number): Promise<VolumeDone> {
    const volumes = this.#volumes;
    const { uuid } = this.record;
    const deadlineMs = volumes.deadlineMs();
    while (volumes.isOpen(uuid)) {
      if (volumes.attachments.moveOn(uuid, targetPort)) return { ok: true };
      if (volumes.nowMs() >= deadlineMs) {
        return fault<VolumeDone>(unavailable("the volume does not move there"));
      }
      await volumes.changed(deadlineMs);
    }
    return fault<VolumeDone>({ code: "deleted" });
  }

  space(): VolumeSpace {
    return this.#volumes.space(this.record);
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
    const place = this.#volumes.attachments.where(uuid);
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
      const place = volumes.attachments.where(uuid);
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

function fault<T>(one: VolumeFault): T {
  return { ok: false, fault: one } as T;
}
