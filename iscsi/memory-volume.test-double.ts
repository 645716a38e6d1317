import { mayAccess } from "../brick/unit/conflicts.ts";
import { changeUnit, type UnitChange } from "../brick/unit/unit-changes.ts";
import { newUnit, type UnitRecord } from "../brick/unit/unit-record.ts";
import { grainBytes, sectorBytes } from "../brick/units.ts";
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
} from "../brick/volume/volume.ts";

/**
 * A thin volume in memory, for tests alone: grains are made when they are written and dropped when
 * they are unmapped as a whole. `fault`, when set, is what every operation ends with.
 */
export class MemoryVolume implements Volume {
  info: VolumeInfo;
  fault: VolumeFault | null = null;
  /** What `space` answers. */
  spaceNow: VolumeSpace = {
    usedBytes: 0,
    freeBytes: 2 ** 40,
    poolUsedBytes: 0,
    poolBytes: 2 ** 41,
  };
  /** What `ports` answers. */
  portsNow: VolumePort[] = [{ targetPort: 1, state: "optimized" }];
  /** What `isServed` answers. */
  servedNow = true;
  /** Whether a sanitize that was started runs to its end, at once. */
  sanitizes = true;
  /** Volumes that `copyFrom` may name besides this one. */
  readonly others = new Map<string, MemoryVolume>();
  #unit: UnitRecord = newUnit;
  readonly #watchers = new Set<UnitWatcher>();
  readonly #grains = new Map<number, { bytes: Buffer; written: Uint8Array }>();

  constructor(name: string, sizeBytes: number, uuid = "00112233445566778899aabbccddeeff") {
    this.info = { name, uuid, sizeBytes };
  }

  grow(sizeBytes: number): void {
    this.info = { ...this.info, sizeBytes };
  }

  async read(offsetBytes: number, lengthBytes: number, task?: VolumeTask): Promise<VolumeRead> {
    const fault = this.#faultOf(offsetBytes, lengthBytes, task, "read");
    if (fault !== null) return { ok: false, fault };
    const buffers: Buffer[] = [];
    for (const piece of pieces(offsetBytes, lengthBytes)) {
      const grain = this.#grains.get(piece.grain);
      const { start, end } = piece;
      buffers.push(grain === undefined ? zeros(end - start) : grain.bytes.subarray(start, end));
    }
    return { ok: true, buffers };
  }

  async write(
    offsetBytes: number,
    data: readonly Buffer[],
    task?: VolumeTask,
  ): Promise<VolumeDone> {
    const lengthBytes = data.reduce((sum, buffer) => sum + buffer.length, 0);
    const fault = this.#faultOf(offsetBytes, lengthBytes, task, "write");
    if (fault !== null) return { ok: false, fault };
    let at = offsetBytes;
    for (const buffer of data) {
      let from = 0;
      for (const { grain, start, end } of pieces(at, buffer.length)) {
        const { bytes, written } = this.#grain(grain);
        from += buffer.copy(bytes, start, from, from + end - start);
        written.fill(1, Math.floor(start / sectorBytes), Math.ceil(end / sectorBytes));
      }
      at += buffer.length;
    }
    task?.memory?.release();
    return { ok: true };
  }

  writeAtomic(
    offsetBytes: number,
    data: readonly Buffer[],
    task?: VolumeTask,
  ): Promise<VolumeDone> {
    return this.write(offsetBytes, data, task);
  }

  async unmap(offsetBytes: number, lengthBytes: number, task?: VolumeTask): Promise<VolumeDone> {
    const fault = this.#faultOf(offsetBytes, lengthBytes, task, "write");
    if (fault !== null) return { ok: false, fault };
    for (const { grain, start, end } of pieces(offsetBytes, lengthBytes)) {
      const found = this.#grains.get(grain);
      if (found === undefined) continue;
      if (end - start === grainBytes) this.#grains.delete(grain);
      // A reader may still hold the old bytes: they are replaced, not changed.
      found.bytes = Buffer.from(found.bytes).fill(0, start, end);
      found.written.fill(0, start / sectorBytes, end / sectorBytes);
    }
    return { ok: true };
  }

  async allocation(
    offsetBytes: number,
    lengthBytes: number,
    runsMax: number,
    task?: VolumeTask,
  ): Promise<VolumeAllocation> {
    const fault = this.#faultOf(offsetBytes, lengthBytes, task, "read");
    if (fault !== null) return { ok: false, fault };
    const runs: { lengthBytes: number; mapped: boolean }[] = [];
    for (const { grain, start, end } of pieces(offsetBytes, lengthBytes)) {
      const written = this.#grains.get(grain)?.written;
      for (let sector = start / sectorBytes; sector < end / sectorBytes; sector += 1) {
        const mapped = written?.[sector] === 1;
        const last = runs.at(-1);
        if (last?.mapped === mapped) last.lengthBytes += sectorBytes;
        else if (runs.length === runsMax) return { ok: true, runs };
        else runs.push({ lengthBytes: sectorBytes, mapped });
      }
    }
    return { ok: true, runs };
  }

  async compareAndWrite(
    offsetBytes: number,
    compare: readonly Buffer[],
    data: readonly Buffer[],
    task?: VolumeTask,
  ): Promise<VolumeDone> {
    const expected = Buffer.concat(compare);
    const fault = this.#faultOf(offsetBytes, expected.length, task, "write");
    if (fault !== null) return { ok: false, fault };
    const found = this.#bytes(offsetBytes, expected.length);
    const at = found.findIndex((byte, index) => byte !== expected[index]);
    if (at >= 0) return { ok: false, fault: { code: "miscompare", offsetBytes: at } };
    return this.write(offsetBytes, data, task);
  }

  async orWrite(
    offsetBytes: number,
    data: readonly Buffer[],
    task?: VolumeTask,
  ): Promise<VolumeDone> {
    const bits = Buffer.concat(data);
    const fault = this.#faultOf(offsetBytes, bits.length, task, "write");
    if (fault !== null) return { ok: false, fault };
    const found = this.#bytes(offsetBytes, bits.length);
    return this.write(offsetBytes, [Buffer.from(found.map((byte, index) => byte | bits[index]!))]);
  }

  async copyFrom(
    source: { readonly uuid: string; readonly offsetBytes: number },
    offsetBytes: number,
    lengthBytes: number,
    task?: VolumeTask,
  ): Promise<VolumeDone> {
    const from = source.uuid === this.info.uuid ? this : this.others.get(source.uuid);
    if (from === undefined) return { ok: false, fault: { code: "deleted" } };
    const bytes = await from.read(source.offsetBytes, lengthBytes, task);
    if (!bytes.ok) return bytes;
    const holes = await from.allocation(source.offsetBytes, lengthBytes, Number.MAX_SAFE_INTEGER);
    const done = await this.write(offsetBytes, [Buffer.concat(bytes.buffers)], task);
    if (!done.ok || !holes.ok) return done;
    // Where nothing was written in the source, nothing is in the copy.
    let at = offsetBytes;
    for (const { lengthBytes: runBytes, mapped } of holes.runs) {
      if (!mapped) await this.unmap(at, runBytes);
      at += runBytes;
    }
    return done;
  }

  unit(): UnitRecord {
    return this.#unit;
  }

  async changeUnit(change: UnitChange): Promise<UnitChanged> {
    if (this.fault !== null) return { ok: false, fault: this.fault };
    const targetPorts = this.portsNow.map((port) => port.targetPort);
    const { record, outcome } = changeUnit(this.#unit, change, targetPorts);
    if (record !== this.#unit) {
      this.#unit = record;
      await Promise.all([...this.#watchers].map((watcher) => watcher(record)));
    }
    if (change.type === "sanitizeStart" && outcome === "done" && this.sanitizes) {
      setImmediate(() => this.#sanitize());
    }
    return { ok: true, outcome };
  }

  #sanitize(): void {
    this.#grains.clear();
    void this.changeUnit({ type: "sanitizeEnd", ok: true });
  }

  async freshUnit(): Promise<{ ok: true; unit: UnitRecord } | { ok: false; fault: VolumeFault }> {
    if (this.fault !== null) return { ok: false, fault: this.fault };
    return { ok: true, unit: this.#unit };
  }

  watchUnit(watcher: UnitWatcher): { stop(): void } {
    this.#watchers.add(watcher);
    return { stop: () => this.#watchers.delete(watcher) };
  }

  ports(): readonly VolumePort[] {
    return this.portsNow;
  }

  isServed(): boolean {
    return this.servedNow;
  }

  async moveTo(targetPort: number): Promise<VolumeDone> {
    this.portsNow = this.portsNow.map((port) => ({
      targetPort: port.targetPort,
      state: port.targetPort === targetPort ? "optimized" : "nonOptimized",
    }));
    return { ok: true };
  }

  space(): VolumeSpace {
    return this.spaceNow;
  }

  #bytes(offsetBytes: number, lengthBytes: number): Buffer {
    const buffers: Buffer[] = [];
    for (const { grain, start, end } of pieces(offsetBytes, lengthBytes)) {
      buffers.push(this.#grains.get(grain)?.bytes.subarray(start, end) ?? zeros(end - start));
    }
    return Buffer.concat(buffers);
  }

  #faultOf(
    offsetBytes: number,
    lengthBytes: number,
    task: VolumeTask | undefined,
    access: "read" | "write",
  ): VolumeFault | null {
    if (this.fault !== null) return this.fault;
    const { sizeBytes } = this.info;
    if (offsetBytes + lengthBytes > sizeBytes) return { code: "out_of_range", sizeBytes };
    if (this.#unit.sanitize?.state === "running") return { code: "sanitizing" };
    const nexus = task?.nexus ?? null;
    if (nexus === null || this.#unit === newUnit || mayAccess(this.#unit, nexus, access)) {
      return null;
    }
    return { code: "reservation_conflict" };
  }

  #grain(index: number): { bytes: Buffer; written: Uint8Array } {
    let grain = this.#grains.get(index);
    if (grain === undefined) {
      grain = {
        bytes: Buffer.alloc(grainBytes),
        written: new Uint8Array(grainBytes / sectorBytes),
      };
      this.#grains.set(index, grain);
    }
    return grain;
  }
}

const zeroGrain = Buffer.alloc(grainBytes);

function zeros(length: number): Buffer {
  return zeroGrain.subarray(0, length);
}

function* pieces(
  offsetBytes: number,
  lengthBytes: number,
): Generator<{ grain: number; start: number; end: number }> {
  for (let at = offsetBytes; at < offsetBytes + lengthBytes; ) {
    const grain = Math.floor(at / grainBytes);
    const start = at - grain * grainBytes;
    const end = Math.min(grainBytes, start + offsetBytes + lengthBytes - at);
    yield { grain, start, end };
    at += end - start;
  }
}

export function memoryDirectory(
  volumes: readonly Volume[],
  portals: { address: string; tag: number }[] = [],
): VolumeDirectory {
  return {
    list: () => volumes.map((volume) => volume.info),
    open: (name) => volumes.find((volume) => volume.info.name === name),
    portals: () => portals,
  };
}
