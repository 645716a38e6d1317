import assert from "node:assert/strict";
import { test } from "node:test";
import { grainsPerShardRun } from "../../brick/cluster-state.ts";
import { Prng } from "../../brick/prng.ts";
import { grainBytes, KiB } from "../../brick/units.ts";
import { SimCluster, volumeName } from "./sim-cluster.ts";

/** What is to land as one does, whenever its gateway dies or all bricks lose their power. */

const runBytes = grainsPerShardRun * grainBytes;
const lengthBytes = 300 * KiB;
const places = { "of one shard": 40 * KiB, "of two shards": runBytes - 100 * KiB };
const rounds = 20;
/** A write that nothing disturbs has mostly landed by then. */
const writeMsMax = 9;

class Scene {
  readonly cluster: SimCluster;
  readonly prng: Prng;
  readonly #offsetBytes: number;
  #content: Buffer = Buffer.alloc(lengthBytes);

  constructor(seed: number, offsetBytes: number) {
    this.prng = new Prng(seed);
    this.#offsetBytes = offsetBytes;
    const sizes = { shardCount: 4, volumeBytes: 2 * runBytes, copies: 2 };
    this.cluster = new SimCluster({ seed, bricks: 3, ...sizes });
  }

  async round(tag: number): Promise<"old" | "new"> {
    const { cluster, prng } = this;
    const { world } = cluster;
    // Whoever reads finds the volume served, or has it served.
    await this.#read();
    const gateway = cluster.volumeHolder(volumeName)!;
    const next = Buffer.alloc(lengthBytes, tag);
    const volume = cluster.volumeAt(gateway)!;
    let told = false;
    const done =
      tag % 2 === 0
        ? volume.writeAtomic(this.#offsetBytes, [next])
        : volume.compareAndWrite(this.#offsetBytes, [this.#content], [next]);
    void done.then(({ ok }) => {
      told = ok;
    });
    await world.runFor(prng.unit() * writeMsMax);
    const wasTold = told;
    const dead = prng.chance(0.5) ? [gateway] : cluster.bricks;
    for (const brick of dead) cluster.crash(brick);
    await world.runFor(prng.unit() * 100);
    for (const brick of dead) cluster.start(brick);
    await cluster.settled();
    const found = await this.#read();
    assert.ok(found.equals(next) || found.equals(this.#content), "half of a write");
    if (wasTold) assert.ok(found.equals(next), "an acknowledged write is lost");
    const landed = found.equals(next);
    this.#content = found;
    return landed ? "new" : "old";
  }

  /** Through whatever portal, as soon as the volume is served again. */
  async #read(): Promise<Buffer> {
    for (let attempt = 0; attempt < 50; attempt += 1) {
      const volume = this.cluster.volumeAt(this.prng.pick(this.cluster.bricks));
      const read = volume?.read(this.#offsetBytes, lengthBytes);
      const result = read && (await this.cluster.world.complete(read, 120_000));
      if (result?.ok) return Buffer.concat(result.buffers);
      // It does not know of the volume yet, or nobody serves it.
      await this.cluster.world.runFor(200);
    }
    throw new Error("the volume cannot be read");
  }
}

for (const [where, offsetBytes] of Object.entries(places)) {
  for (const seed of [1, 2]) {
    test(`seed ${seed}: writes over several grains ${where} are one over every crash`, async () => {
      const scene = new Scene(seed, offsetBytes);
      await scene.cluster.create();
      const ends = new Set<string>();
      for (let tag = 1; tag <= rounds; tag += 1) ends.add(await scene.round(tag));
      // Were all of them too early or too late, nothing would have been examined.
      assert.equal(ends.size, 2);
    });
  }
}
