import assert from "node:assert/strict";
import { ChunkCache } from "../chunk/chunk-cache.ts";
import type { VolumeRecord } from "../cluster-state.ts";
import { VolumeCipher } from "../crypt/volume-cipher.ts";
import { dataKeyBytes, Xts } from "../crypt/xts.ts";
import { Prng } from "../prng.ts";
import { StageTimes } from "../stage-times.ts";
import { AheadRoom } from "./ahead-room.ts";
import { BrickHealth } from "./brick-health.ts";
import type { ChunkContext } from "./chunk-context.ts";
import { ChunkReader } from "./chunk-reader.ts";
import { ChunkWriter } from "./chunk-writer.ts";
import { FakeCluster } from "./fake-cluster.ts";
import { Gateway, type GatewayParts } from "./gateway.ts";
import { type VolumeOptions, volumeOptionsDefault } from "./options.ts";
import { SliceReader } from "./slice-reader.ts";
import { VolumeStats } from "./stats.ts";
import type { VolumeRead } from "./volume.ts";

/** A key for each domain, of which every gateway of a bench knows. */
function cipherOf({ keyDomain }: VolumeRecord): VolumeCipher | null {
  if (keyDomain === undefined) return null;
  const key = new Prng(keyDomain).fill(Buffer.alloc(dataKeyBytes));
  return new VolumeCipher(keyDomain, new Xts(key));
}

/** For tests: one gateway on a fake cluster, and what it told. */
export interface Bench {
  cluster: FakeCluster;
  gateway: Gateway;
  stats: VolumeStats;
  notes: string[];
  lease: { valid: boolean };
  fencedEpochs: number[];
}

export function makeBench(
  cluster: FakeCluster,
  options: Partial<VolumeOptions> = {},
  epoch = 1,
  self = 1,
  name = "disk",
): Bench {
  const all = { ...volumeOptionsDefault, ...options };
  const notes: string[] = [];
  const lease = { valid: true };
  const fencedEpochs: number[] = [];
  const { host, calls } = cluster.brick(self);
  const stats = new VolumeStats(new StageTimes(host.clock));
  const context: ChunkContext = {
    host,
    calls,
    self,
    options: all,
    stats,
    hooks: {
      latency: () => {},
      repairNote: (_key, brick, what) => notes.push(`${what} on ${brick}`),
    },
    health: new BrickHealth(all.hedgeMs),
    state: () => cluster.state,
  };
  const writer = new ChunkWriter(context);
  const chunks = new ChunkCache(all.chunkCacheBytes);
  const aheadRoom = new AheadRoom(all.readAheadBytes);
  const parts: GatewayParts = {
    context,
    chunks,
    aheadRoom,
    reader: new ChunkReader(context),
    slices: new SliceReader(context, chunks, cluster.brick(self)),
    writer,
    leaseValid: () => lease.valid,
    cipherOf,
    fenced: (fencedEpoch) => fencedEpochs.push(fencedEpoch),
  };
  const gateway = new Gateway(parts, cluster.state.volumes[name]!, epoch);
  cluster.onState.add(() => {
    gateway.onState(cluster.state.volumes[name]!);
  });
  return { cluster, gateway, stats, notes, lease, fencedEpochs };
}

export function makeCluster(seed: number, volume = {}, bricks = 4): FakeCluster {
  return new FakeCluster({ seed, bricks, shards: 5, volume });
}

export function bytesOf(result: VolumeRead): Buffer {
  if (!result.ok) assert.fail(JSON.stringify(result.fault));
  return Buffer.concat(result.buffers);
}
