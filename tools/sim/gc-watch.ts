import { isZeros } from "../../brick/map/grain.ts";
import { isSettled } from "../../brick/map/requests.ts";
import type { Prng } from "../../brick/prng.ts";
import type { BrickNode } from "../brick-node.ts";
import { PaletteClient } from "./palette.ts";
import type { SimCluster } from "./sim-cluster.ts";

const cellCount = 24;
const operationPauseMsMax = 60;
/** The promises are looked at this often. */
const lookEveryMs = 500;
const readLimitMs = 120_000;
/** Within this, whatever went on before, deleted data is gone. */
const leakLimitMs = 600_000;

export interface GcReport {
  readonly epoch: number;
  readonly sweptChunks: number;
  readonly compactedBytes: number;
  readonly recycledSegments: number;
  /** Writes of the palette client, most of which meet a chunk that is there. */
  readonly paletteWrites: number;
}

/**
 * Garbage collection under examination: a client that makes chunks die and come back all the time,
 * and what must hold at every instant and at the end.
 */
export class GcWatch {
  readonly #cluster: SimCluster;
  readonly #prng: Prng;
  readonly #violated: (what: string) => void;
  readonly #palette: PaletteClient;
  /** The counters of boots as they were looked at last, by brick and boot. */
  readonly #counters = new Map<string, BrickNode["store"]["counters"]>();
  #working = true;

  constructor(cluster: SimCluster, prng: Prng, violated: (what: string) => void) {
    this.#cluster = cluster;
    this.#prng = prng;
    this.#violated = violated;
    this.#palette = new PaletteClient(prng.fork(), cellCount);
  }

  begin(): void {
    for (let at = 0; at < 3; at += 1) this.#operateLater();
    this.#lookLater();
  }

  /** Faults have stopped, and everything has settled. */
  async end(): Promise<void> {
    this.#working = false;
    const { world } = this.#cluster;
    const found = this.#checkHolders();
    if (found !== null) this.#violated(found);
    const volume = () => this.#cluster.volumeAt([...this.#cluster.nodes.keys()][0]!)!;
    for (const read of this.#palette.reads(volume)) {
      const wrong = await world.complete(read(), readLimitMs);
      if (wrong !== null) this.#violated(wrong);
    }
    await this.#deleteAll();
  }

  report(): GcReport {
    this.#count();
    const all = [...this.#counters.values()];
    const sum = (name: "sweptChunks" | "compactedBytes" | "recycledSegments") =>
      all.reduce((total, counters) => total + counters[name], 0);
    return {
      epoch: this.#cluster.anyNode()?.control.state().gcEpoch ?? 0,
      sweptChunks: sum("sweptChunks"),
      compactedBytes: sum("compactedBytes"),
      recycledSegments: sum("recycledSegments"),
      paletteWrites: this.#palette.counts.writes,
    };
  }

  #operateLater(): void {
    const { world, nodes } = this.#cluster;
    world.after(this.#prng.unit() * operationPauseMsMax, () => {
      if (!this.#working) return;
      this.#operateLater();
      const running = [...nodes.keys()];
      if (running.length === 0) return;
      const brick = this.#prng.chance(0.8) ? running[0]! : this.#prng.pick(running);
      const volume = this.#cluster.volumeAt(brick);
      if (volume === undefined) return;
      this.#palette.operate(volume).then((wrong) => {
        if (wrong !== null) this.#violated(wrong);
      });
    });
  }

  #lookLater(): void {
    this.#cluster.world.after(lookEveryMs, () => {
      if (!this.#working) return;
      this.#count();
      const found = this.#checkHolders();
      if (found !== null) this.#violated(found);
      this.#lookLater();
    });
  }

  #count(): void {
    for (const { number, store } of this.#cluster.nodes.values()) {
      this.#counters.set(`${number}/${store.superblock.boot}`, store.counters);
    }
  }

  /** Every chunk that a map record names is on as many bricks as it was stored on, or more. */
  #checkHolders(): string | null {
    const { nodes, options } = this.#cluster;
    const { copies } = options;
    for (const node of nodes.values()) {
      const state = node.control.state();
      for (const replica of node.map.replicas()) {
        if (!isSettled(replica)) continue;
        const { shard, facts } = replica;
        const { entries } = node.map.table.scan("base", shard, facts.incarnation, null, 100_000);
        for (const { branch, grain, value } of entries) {
          for (const extent of value.extents) {
            if (isZeros(extent)) continue;
            const needed = Math.min(copies, extent.holders.length);
            // What a stopped brick holds cannot be asked; it may be one of them.
            let held = this.#cluster.bricks.length - nodes.size;
            // What a lost brick held counts until repair has made it anew.
            held += extent.holders.filter((brick) => this.#cluster.gone.has(brick)).length;
            for (const { store } of nodes.values()) if (store.has(extent.key)) held += 1;
            if (held >= needed) continue;
            const key = extent.key.toString("hex", 0, 6);
            const where = `branch ${branch} grain ${grain} at shard ${shard}`;
            const gc = `${state.gcEpoch} ${JSON.stringify(state.gc)}`;
            return `${where}: ${held} copies of ${key}, of ${extent.holders}; epoch ${gc}`;
          }
        }
      }
    }
    return null;
  }

  /** Everything that deleted volumes held goes: at most 1 % of the space is in use then. */
  async #deleteAll(): Promise<void> {
    const { world, nodes } = this.#cluster;
    const { volumes } = this.#cluster.anyNode()!.control.state();
    for (const { name } of Object.values(volumes)) {
      await this.#cluster.submit({ type: "deleteVolume", name });
    }
    const isBack = () =>
      [...nodes.values()].every(({ store }) => {
        const { chunkCount, usedBytes, capacityBytes } = store.space();
        return chunkCount === 0 && usedBytes <= capacityBytes / 100;
      });
    try {
      await world.runUntil(isBack, leakLimitMs);
    } catch {
      const left = [...nodes.values()].map(({ number, store, gc }) => {
        return { number, swept: gc.sweptEpoch, ...store.space() };
      });
      const { gc, gcEpoch } = this.#cluster.anyNode()!.control.state();
      const state = `${gcEpoch} ${JSON.stringify(gc)}`;
      this.#violated(`space does not come back: ${JSON.stringify(left)}; epoch ${state}`);
    }
  }
}
