import type { Prng } from "../../brick/prng.ts";
import type { UnitChange } from "../../brick/unit/unit-changes.ts";
import type {
  UnitChanged,
  VolumeAllocation,
  VolumeDone,
  VolumeFault,
  VolumeRead,
  VolumeTask,
} from "../../brick/volume/volume.ts";
import { MemoryVolume } from "../../iscsi/memory-volume.test-double.ts";

/**
 * A volume in memory whose operations take their time, end in any order, sometimes fail, and are
 * cancelled in the middle: what a target must cope with above a real cluster.
 */

interface Waiting {
  readonly task: VolumeTask | undefined;
  readonly go: (fault: VolumeFault | null) => void;
}

const administrator = { initiatorPort: "iqn.2026-11.test:admin,i,0x800000000000", targetPort: 7 };

/** Every fault that an operation may end with by itself. */
const faults: readonly VolumeFault[] = [
  { code: "unavailable", reason: "fuzz" },
  { code: "no_space" },
  { code: "lost", offsetBytes: 512 },
];

export class FuzzVolume extends MemoryVolume {
  readonly #prng: Prng;
  readonly #faultChance: number;
  readonly #waiting: Waiting[] = [];
  /** Operations that have been asked for. */
  operations = 0;

  constructor(options: {
    name: string;
    sizeBytes: number;
    uuid: string;
    prng: Prng;
    faultChance: number;
  }) {
    super(options.name, options.sizeBytes, options.uuid);
    this.#prng = options.prng;
    this.#faultChance = options.faultChance;
    this.portsNow = [
      { targetPort: 7, state: "optimized" },
      { targetPort: 8, state: "nonOptimized" },
    ];
  }

  /** Lets some of the waiting operations go on; all of them with chance 1. */
  release(chance: number): void {
    for (const waiting of this.#waiting.splice(0)) {
      if (chance < 1 && !this.#prng.chance(chance)) this.#waiting.push(waiting);
      else waiting.go(this.#faultFor(waiting.task));
    }
  }

  get waitingCount(): number {
    return this.#waiting.length;
  }

  #faultFor(task: VolumeTask | undefined): VolumeFault | null {
    // A cancelled operation may have landed already.
    if (task?.cancelled && this.#prng.chance(0.5)) return { code: "cancelled" };
    return this.#prng.chance(this.#faultChance) ? this.#prng.pick(faults) : null;
  }

  #turn(task: VolumeTask | undefined): Promise<VolumeFault | null> {
    this.operations += 1;
    if (this.#prng.chance(0.4)) return Promise.resolve(null);
    return new Promise((resolve) => {
      const waiting = { task, go: resolve };
      this.#waiting.push(waiting);
      if (task !== undefined && this.#prng.chance(0.5)) {
        task.onCancel = () => {
          const at = this.#waiting.indexOf(waiting);
          if (at >= 0) this.#waiting.splice(at, 1);
          resolve({ code: "cancelled" });
        };
      }
    });
  }

  override async read(offset: number, length: number, task?: VolumeTask): Promise<VolumeRead> {
    const fault = await this.#turn(task);
    if (fault !== null) return { ok: false, fault };
    const reply = await super.read(offset, length, task);
    // What the target still has to send must not change when others write.
    return reply.ok ? { ok: true, buffers: reply.buffers.map((one) => Buffer.from(one)) } : reply;
  }

  override async write(
    offset: number,
    data: readonly Buffer[],
    task?: VolumeTask,
  ): Promise<VolumeDone> {
    const fault = await this.#turn(task);
    return fault === null ? super.write(offset, data, task) : { ok: false, fault };
  }

  override async allocation(
    offset: number,
    length: number,
    runsMax: number,
    task?: VolumeTask,
  ): Promise<VolumeAllocation> {
    const fault = await this.#turn(task);
    return fault === null ? super.allocation(offset, length, runsMax, task) : { ok: false, fault };
  }

  override async compareAndWrite(
    offset: number,
    compare: readonly Buffer[],
    data: readonly Buffer[],
    task?: VolumeTask,
  ): Promise<VolumeDone> {
    const fault = await this.#turn(task);
    return fault === null
      ? super.compareAndWrite(offset, compare, data, task)
      : { ok: false, fault };
  }

  override async changeUnit(change: UnitChange): Promise<UnitChanged> {
    // The cluster's own changes are repeated until they are committed.
    const own = change.type === "sanitizeProgress" || change.type === "sanitizeEnd";
    const fault = own ? null : await this.#turn(undefined);
    return fault === null ? super.changeUnit(change) : { ok: false, fault };
  }

  /** An administrator, who ends what reservations of sessions long gone keep from everybody. */
  async clearReservations(): Promise<void> {
    const key = "00000000000000ff";
    const common = { type: "reserveOut", nexus: administrator, reservation: null } as const;
    const none = { aptpl: false, allTargetPorts: false, initiatorPorts: [], move: null } as const;
    const register = { ...common, ...none, action: "registerAndIgnore", actionKey: key } as const;
    await super.changeUnit({ ...register, key: "0000000000000000" });
    await super.changeUnit({ ...register, action: "clear", key });
  }

  override async unmap(offset: number, length: number, task?: VolumeTask): Promise<VolumeDone> {
    const fault = await this.#turn(task);
    return fault === null ? super.unmap(offset, length, task) : { ok: false, fault };
  }
}
