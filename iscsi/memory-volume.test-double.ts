import { grainBytes, sectorBytes } from "../brick/units.ts";
import type {
  Volume,
  VolumeAllocation,
  VolumeDirectory,
  VolumeDone,
  VolumeFault,
  VolumeInfo,
  VolumeRead,
  VolumeTask,
} from "../brick/volume/volume.ts";

/**
 * A thin volume in memory, for tests alone: grains are made when they are written and dropped when
 * they are unmapped as a whole. `fault`, when set, is what every operation ends with.
 */
export class MemoryVolume implements Volume {
  info: VolumeInfo;
  fault: VolumeFault | null = null;
  readonly #grains = new Map<number, { bytes: Buffer; written: Uint8Array }>();

  constructor(name: string, sizeBytes: number, uuid = "00112233445566778899aabbccddeeff") {
    this.info = { name, uuid, sizeBytes };
  }

  grow(sizeBytes: number): void {
    this.info = { ...this.info, sizeBytes };
  }

  async read(offsetBytes: number, lengthBytes: number, _task?: VolumeTask): Promise<VolumeRead> {
    const fault = this.#faultOf(offsetBytes, lengthBytes);
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
    _task?: VolumeTask,
  ): Promise<VolumeDone> {
    const lengthBytes = data.reduce((sum, buffer) => sum + buffer.length, 0);
    const fault = this.#faultOf(offsetBytes, lengthBytes);
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
    return { ok: true };
  }

  async unmap(offsetBytes: number, lengthBytes: number, _task?: VolumeTask): Promise<VolumeDone> {
    const fault = this.#faultOf(offsetBytes, lengthBytes);
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
  ): Promise<VolumeAllocation> {
    const fault = this.#faultOf(offsetBytes, lengthBytes);
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

  #faultOf(offsetBytes: number, lengthBytes: number): VolumeFault | null {
    if (this.fault !== null) return this.fault;
    const { sizeBytes } = this.info;
    return offsetBytes + lengthBytes > sizeBytes ? { code: "out_of_range", sizeBytes } : null;
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
