import type { Prng } from "../../brick/prng.ts";
import { giveBack, LentMemory } from "../../brick/rpc/lent-memory.ts";
import { sectorBytes, sectorsPerGrain } from "../../brick/units.ts";
import {
  type Volume,
  type VolumeDone,
  type VolumeFault,
  VolumeTask,
} from "../../brick/volume/volume.ts";
import { type Histories, writeTags } from "./histories.ts";

export interface ClientOptions {
  /** The client works on this many sectors from 0. */
  readonly sectors: number;
  readonly pauseMsMax: number;
  /** Called with each acknowledged write, before anything else happens. */
  readonly onAcknowledged: (firstSector: number, data: Buffer | null) => void;
  /** Called with what no initiator may ever see. */
  readonly onViolation: (what: string) => void;
}

export interface ClientCounts {
  reads: number;
  writes: number;
  unmaps: number;
  faults: Partial<Record<VolumeFault["code"], number>>;
}

type Kind = "read" | "write" | "unmap";

/** One operation of a virtual initiator. Its promise may never end when its brick dies. */
export class Client {
  readonly counts: ClientCounts = { reads: 0, writes: 0, unmaps: 0, faults: {} };
  readonly #prng: Prng;
  readonly #histories: Histories;
  readonly #options: ClientOptions;

  constructor(prng: Prng, histories: Histories, options: ClientOptions) {
    this.#prng = prng;
    this.#histories = histories;
    this.#options = options;
  }

  async operate(volume: Volume): Promise<void> {
    const kind: Kind = this.#prng.pick([
      "read",
      "read",
      "read",
      "write",
      "write",
      "write",
      "unmap",
    ]);
    const { firstSector, sectorCount } = this.#range();
    if (kind === "read") await this.read(volume, firstSector, sectorCount);
    else await this.write(volume, firstSector, sectorCount, kind === "unmap");
  }

  async read(volume: Volume, firstSector: number, sectorCount: number): Promise<boolean> {
    const start = this.#histories.tick();
    const result = await volume.read(firstSector * sectorBytes, sectorCount * sectorBytes);
    if (!result.ok) return this.#fault(result.fault);
    this.counts.reads += 1;
    const bytes = Buffer.concat(result.buffers);
    if (bytes.length !== sectorCount * sectorBytes) {
      this.#options.onViolation(`a read of ${sectorCount} sectors gave ${bytes.length} bytes`);
      return false;
    }
    result.release?.();
    const mixed = this.#histories.endRead(start, firstSector, bytes);
    if (mixed !== null) this.#options.onViolation(mixed);
    return true;
  }

  async write(volume: Volume, firstSector: number, count: number, zero: boolean): Promise<void> {
    const ticket = this.#histories.startWrite(firstSector, count, zero);
    const offsetBytes = firstSector * sectorBytes;
    const data = zero ? null : Buffer.alloc(count * sectorBytes);
    if (data !== null) writeTags(data, firstSector, ticket.firstTag);
    const result =
      data === null
        ? await volume.unmap(offsetBytes, count * sectorBytes)
        : await this.#writeLent(volume, offsetBytes, data);
    if (!result.ok) {
      this.#fault(result.fault);
      return;
    }
    this.#options.onAcknowledged(firstSector, data);
    this.#histories.endWrite(ticket);
    if (zero) this.counts.unmaps += 1;
    else this.counts.writes += 1;
  }

  /** As a portal writes: the data lie in memory that the volume gives back when it needs them no more. */
  #writeLent(volume: Volume, offsetBytes: number, data: Buffer): Promise<VolumeDone> {
    const lent = Buffer.allocUnsafeSlow(data.length);
    data.copy(lent);
    const task = new VolumeTask();
    task.memory = new LentMemory();
    task.memory.add(() => giveBack(lent));
    return volume.write(offsetBytes, this.#cut(lent), task);
  }

  #fault(fault: VolumeFault): boolean {
    this.counts.faults[fault.code] = (this.counts.faults[fault.code] ?? 0) + 1;
    if (fault.code === "lost") this.#options.onViolation(`lost data at ${fault.offsetBytes}`);
    if (fault.code === "out_of_range") this.#options.onViolation("out of range inside the volume");
    return false;
  }

  /** Mostly small, sometimes across grains, sometimes whole grains. */
  #range(): { firstSector: number; sectorCount: number } {
    const { sectors } = this.#options;
    const shape = this.#prng.unit();
    let firstSector = this.#prng.between(0, sectors - 1);
    let sectorCount = 8;
    if (shape < 0.3) sectorCount = this.#prng.between(1, 8);
    else if (shape < 0.6) firstSector -= firstSector % 8;
    else if (shape < 0.8) sectorCount = this.#prng.between(1, 2 * sectorsPerGrain);
    else {
      firstSector -= firstSector % sectorsPerGrain;
      sectorCount = sectorsPerGrain * this.#prng.between(1, 2);
    }
    return { firstSector, sectorCount: Math.min(sectorCount, sectors - firstSector) };
  }

  /** As an initiator's data arrives: in pieces that know nothing of sectors' borders. */
  #cut(data: Buffer): Buffer[] {
    if (this.#prng.chance(0.5)) return [data];
    const at = this.#prng.between(1, data.length - 1);
    return [data.subarray(0, at), data.subarray(at)];
  }
}
