import assert from "node:assert/strict";
import { isReachable } from "../../brick/cluster-state.ts";
import { Prng } from "../../brick/prng.ts";
import { type BrickNumber, grainBytes, KiB, MiB } from "../../brick/units.ts";
import { SimCluster, type SimClusterOptions } from "./sim-cluster.ts";

/** One run of grains for each of four shards. */
const volumeBytes = 256 * MiB;
/** Where the volume is written: small pieces, which travel with the map, and whole grains. */
const pieceEveryGrains = 80;
const pieces = Array.from({ length: 48 }, (_, index) => ({
  offsetBytes: index * pieceEveryGrains * grainBytes,
  lengthBytes: index % 2 === 0 ? 4 * KiB : grainBytes,
}));

/** A cluster with a volume that is written in places, and what becomes of its copies. */
export class RepairScene {
  readonly cluster: SimCluster;
  readonly #written = new Map<number, Buffer>();
  readonly #prng: Prng;

  constructor(seed: number, options: Partial<SimClusterOptions> = {}) {
    this.#prng = new Prng(seed + 1000);
    const usual = { bricks: 4, shardCount: 4, volumeBytes, copies: 2 };
    this.cluster = new SimCluster({ ...usual, ...options, seed });
  }

  async begin(): Promise<void> {
    await this.cluster.create();
    await this.write(1);
  }

  async write(through: BrickNumber): Promise<void> {
    for (const { offsetBytes, lengthBytes } of pieces) {
      const data = this.#prng.fill(Buffer.alloc(lengthBytes));
      const done = this.cluster.volumeAt(through)!.write(offsetBytes, [data]);
      assert.deepEqual(await this.cluster.world.complete(done), { ok: true });
      this.#written.set(offsetBytes, data);
    }
  }

  /** Whole grains beside the pieces, a few at a time. */
  async fill(through: BrickNumber, grains: number): Promise<void> {
    assert(grains <= pieces.length * (pieceEveryGrains - 1));
    const next = Array.from({ length: grains }, (_, at) => at).reverse();
    const writer = async () => {
      for (let at = next.pop(); at !== undefined; at = next.pop()) {
        const grain = (at % pieces.length) * pieceEveryGrains + 1 + Math.floor(at / pieces.length);
        const data = this.#prng.fill(Buffer.alloc(grainBytes));
        this.#written.set(grain * grainBytes, data);
        const done = await this.cluster.volumeAt(through)!.write(grain * grainBytes, [data]);
        assert.deepEqual(done, { ok: true });
      }
    };
    const done = Promise.all(Array.from({ length: 8 }, writer));
    await this.cluster.world.complete(done, 600_000);
  }

  async readBack(through: BrickNumber): Promise<void> {
    for (const [offsetBytes, data] of this.#written) {
      const read = this.cluster.volumeAt(through)!.read(offsetBytes, data.length);
      const result = await this.cluster.world.complete(read, 120_000);
      assert.ok(result.ok, `${offsetBytes}: ${JSON.stringify(result)}`);
      assert.ok(Buffer.concat(result.buffers).equals(data), `other bytes at ${offsetBytes}`);
    }
  }

  get state() {
    return this.cluster.anyNode()!.control.state();
  }

  counters() {
    const sum = { repairBytes: 0, rebalanceBytes: 0 };
    for (const { repair } of this.cluster.nodes.values()) {
      sum.repairBytes += repair.counters.repairBytes;
      sum.rebalanceBytes += repair.counters.rebalanceBytes;
    }
    return sum;
  }

  /** Every mapped extent, as the primaries know it. */
  *extents() {
    for (const node of this.cluster.nodes.values()) {
      for (const replica of node.map.replicas()) {
        if (replica.role.is !== "primary") continue;
        const { shard, facts } = replica;
        const { entries } = node.map.table.scan("base", shard, facts.incarnation, null, 100_000);
        for (const entry of entries) {
          for (const extent of entry.value.extents) yield { ...entry, ...extent, replica };
        }
      }
    }
  }

  /** Whether at least two bricks that stay are named for everything, and have it. */
  isInOrder(): boolean {
    const { state, cluster } = this;
    const led = new Set<number>();
    for (const node of cluster.nodes.values()) {
      for (const { shard, role } of node.map.replicas()) if (role.is === "primary") led.add(shard);
    }
    if (led.size < state.shards.length) return false;
    let count = 0;
    for (const { key, holders } of this.extents()) {
      count += 1;
      const good = holders.filter(
        (brick) => state.bricks[brick]?.status === "up" && cluster.nodes.get(brick)?.store.has(key),
      );
      if (good.length < 2) return false;
    }
    assert.ok(count >= pieces.length, `${count} extents`);
    return true;
  }

  /** Whether every shard is led, by who should by now, and was found in order. */
  isEmptied(): boolean {
    const { nodes } = this.cluster;
    const { shards } = this.state;
    const leads = ({ view, primary }: (typeof shards)[number], shard: number) => {
      const replicas = [...(nodes.get(primary)?.map.replicas() ?? [])];
      const replica = replicas.find((one) => one.shard === shard);
      return replica?.role.is === "primary" && replica.view?.view === view;
    };
    return (
      shards.every(leads) &&
      [...nodes.values()].every((node) => node.repair.pendingShards().length === 0)
    );
  }

  /** Whether no shard's map is kept on the brick, and no view is on its way any more. */
  hasLeftViews(brick: BrickNumber): boolean {
    return this.state.shards.every(
      ({ members, candidates, chain }) =>
        ![...members, ...candidates].includes(brick) && chain.length === 0,
    );
  }

  /** A brick without a vote in the control plane. */
  nonVoter(): BrickNumber {
    return Object.values(this.state.bricks).find((brick) => !brick.voter)!.number;
  }

  async crashForGood(brick: BrickNumber): Promise<void> {
    this.cluster.crash(brick);
    await this.cluster.world.runUntil(() => !isReachable(this.state.bricks[brick]));
  }
}
