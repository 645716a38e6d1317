import type { VolumeRecord } from "../cluster-state.ts";
import type { Extent } from "../map/grain.ts";
import { grainBytes, sectorBytes } from "../units.ts";
import type { FetchOutcome } from "../volume/chunk-reader.ts";
import type { Gateway } from "../volume/gateway.ts";
import { unavailable } from "../volume/operation.ts";
import { type Piece, splitWrite } from "../volume/split.ts";
import type { VolumeFault } from "../volume/volume.ts";
import type { VolumeCipher } from "./volume-cipher.ts";

/** A part of a copy's source, and what the map says of its grains. */
export interface CopyStep {
  readonly fromBytes: number;
  readonly toBytes: number;
  readonly lengthBytes: number;
  readonly found: ReadonlyMap<number, readonly Extent[]>;
}

/** One extent's share of a step: whole chunks are fetched, for most copies are of whole files. */
interface Share {
  readonly grain: number;
  readonly extent: Extent;
  readonly firstSector: number;
  readonly endSector: number;
}

export interface Carried {
  ready(pieces: Piece[]): void;
  /** The map is to be asked anew: what it said was not to be had. */
  again(): void;
  failed(fault: VolumeFault): void;
}

/** How long a copy waits before it asks for a chunk again that it did not find. */
const retryEveryMs = 100;

/**
 * A copy between places of which one is encrypted: what an address is encrypted with is bound to it, so
 * there is no chunk to refer to. The bytes are read and decrypted, and written anew like any others.
 */
export class CopyCarrier {
  readonly #gateway: Gateway;
  /** The volume that is copied from, as it is now. */
  readonly #source: () => VolumeRecord | undefined;
  readonly #cipherOf: (volume: VolumeRecord) => VolumeCipher | null;
  #abandoned = false;
  /** Keys that nobody had the time before. */
  #lost = new Set<string>();

  constructor(parts: {
    gateway: Gateway;
    source: () => VolumeRecord | undefined;
    cipherOf: (volume: VolumeRecord) => VolumeCipher | null;
  }) {
    this.#gateway = parts.gateway;
    this.#source = parts.source;
    this.#cipherOf = parts.cipherOf;
  }

  abandon(): void {
    this.#abandoned = true;
  }

  carry(step: CopyStep, { ready, again, failed }: Carried): void {
    const source = this.#source();
    if (source === undefined) {
      failed({ code: "deleted" });
      return;
    }
    const cipher = this.#cipherOf(source);
    const plain = Buffer.alloc(step.lengthBytes);
    const shares = sharesOf(step);
    let waiting = shares.length + 1;
    let ended = false;
    const end = (why: "again" | VolumeFault | null) => {
      if (ended || this.#abandoned) return;
      waiting -= 1;
      if (why === null && waiting > 0) return;
      ended = true;
      if (why === null) ready(splitWrite(step.toBytes, [plain]));
      else if (why !== "again") failed(why);
      else {
        this.#gateway.context.host.clock.after(retryEveryMs, () => {
          if (!this.#abandoned) again();
        });
      }
    };
    const { reader } = this.#gateway;
    for (const share of shares) {
      const { key, holders } = share.extent;
      reader.fetch(key, holders, (outcome) => {
        end(this.#take(step, share, cipher, outcome, plain));
      });
    }
    reader.flush();
    end(null);
  }

  /** Puts the share's bytes in their place; else says what is wrong. */
  #take(
    step: CopyStep,
    share: Share,
    cipher: VolumeCipher | null,
    outcome: FetchOutcome,
    into: Buffer,
  ): "again" | VolumeFault | null {
    const { grain, extent, firstSector } = share;
    const atBytes = grain * grainBytes + firstSector * sectorBytes;
    if (!outcome.ok) {
      // As a read does: the map may name another chunk by now, and only if it does not is it lost.
      const name = extent.key.toString("latin1");
      if (outcome.fault !== "lost") return "again";
      if (this.#lost.has(name)) return { code: "lost", offsetBytes: atBytes };
      this.#lost.add(name);
      return "again";
    }
    const bytes = bytesOf(share, cipher, outcome.bytes);
    if (bytes === null) {
      return unavailable(`what grain ${grain} of the source holds does not fit its chunk`);
    }
    bytes.copy(into, atBytes - step.fromBytes);
    return null;
  }
}

function sharesOf({ fromBytes, lengthBytes, found }: CopyStep): Share[] {
  const shares: Share[] = [];
  for (const [grain, extents] of found) {
    const from = Math.max(0, (fromBytes - grain * grainBytes) / sectorBytes);
    const to = (fromBytes + lengthBytes - grain * grainBytes) / sectorBytes;
    for (const extent of extents) {
      const firstSector = Math.max(from, extent.firstSector);
      const endSector = Math.min(to, extent.firstSector + extent.sectorCount);
      if (firstSector < endSector) shares.push({ grain, extent, firstSector, endSector });
    }
  }
  return shares;
}

function bytesOf(share: Share, cipher: VolumeCipher | null, chunk: Buffer): Buffer | null {
  const { grain, extent, firstSector, endSector } = share;
  if (cipher !== null) return cipher.open(grain, extent, share, chunk, 0);
  if (extent.keyDomain !== undefined) return null;
  const start = (extent.chunkSector + firstSector - extent.firstSector) * sectorBytes;
  const end = start + (endSector - firstSector) * sectorBytes;
  return end > chunk.length ? null : chunk.subarray(start, end);
}
