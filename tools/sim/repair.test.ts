import assert from "node:assert/strict";
import { test } from "node:test";
import { isReachable } from "../../brick/cluster-state.ts";
import { decodeMapReply, encodeMapRehint } from "../../brick/map/map-messages.ts";
import { Prng } from "../../brick/prng.ts";
import { messageType } from "../../brick/rpc/message-types.ts";
import { type BrickNumber, grainBytes, KiB, MiB } from "../../brick/units.ts";
import { SimCluster } from "./sim-cluster.ts";

/** One run of grains for each of four shards. */
const volumeBytes = 256 * MiB;
/** Where the volume is written: small pieces, which travel with the map, and whole grains. */
const pieces = Array.from({ length: 48 }, (_, index) => ({
  offsetBytes: index * 80 * grainBytes,
  lengthBytes: index % 2 === 0 ? 4 * KiB : grainBytes,
}));

class Scene {
  readonly cluster: SimCluster;
  readonly #written = new Map<number, Buffer>();
  readonly #prng: Prng;

  constructor(seed: number, { bricks = 4, copies = 2 } = {}) {
    this.#prng = new Prng(seed + 1000);
    this.cluster = new SimCluster({ seed, bricks, shardCount: 4, volumeBytes, copies });
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

  /** Whether every shard is led and was found in order. */
  isEmptied(): boolean {
    const { nodes } = this.cluster;
    return (
      this.state.shards.every((shard) => nodes.has(shard.primary)) &&
      [...nodes.values()].every((node) => node.repair.pendingShards().length === 0)
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

test("a reboot gives repair nothing to do", async () => {
  const scene = new Scene(1);
  await scene.begin();
  const { cluster } = scene;
  for (const brick of [2, 4]) {
    await scene.crashForGood(brick);
    await cluster.world.runFor(20_000);
    cluster.start(brick);
    await cluster.settled();
    await cluster.world.runUntil(() => scene.isEmptied());
  }
  await cluster.world.runUntil(() => scene.isInOrder());
  assert.equal(cluster.copiedBytes, 0);
  await scene.readBack(2);
});

for (const command of ["removeBrick", "brickFailed"] as const) {
  test(`after ${command} of a dead brick, everything has its copies again`, async () => {
    const scene = new Scene(2);
    await scene.begin();
    const { cluster } = scene;
    const dead = scene.nonVoter();
    await scene.crashForGood(dead);
    assert.ok(!scene.isInOrder());
    if (command === "brickFailed") await cluster.submit({ type: command, number: dead });
    else await cluster.submit({ type: command, number: dead, emptied: false, force: true });
    await cluster.world.runUntil(() => scene.isInOrder(), 120_000);
    await cluster.world.runUntil(() => scene.isEmptied(), 120_000);
    assert.ok(scene.counters().repairBytes > 0);
    assert.equal(scene.counters().rebalanceBytes, 0);
    const another = scene.state.shards[0]!.primary;
    await scene.crashForGood(another);
    await scene.readBack([...cluster.nodes.keys()][0]!);
  });
}

test("a drained brick is emptied, goes, and is not missed", async () => {
  const scene = new Scene(3);
  await scene.begin();
  const { cluster } = scene;
  const leaving = scene.nonVoter();
  await cluster.world.runUntil(() => scene.isEmptied());
  const before = scene.state.version;
  await cluster.submit({ type: "drainBrick", number: leaving, drain: true });
  const nodes = () => [...cluster.nodes.values()];
  await cluster.world.runUntil(() => nodes().every((n) => n.control.state().version > before));
  assert.ok(!scene.isEmptied(), "nothing was looked at since");
  await cluster.world.runUntil(
    () =>
      scene.isEmptied() &&
      scene.state.shards.every(
        ({ members, candidates, chain }) =>
          ![...members, ...candidates].includes(leaving) && chain.length === 0,
      ),
    300_000,
  );
  assert.ok(scene.isInOrder());
  assert.ok(scene.counters().rebalanceBytes > 0);
  assert.equal(scene.counters().repairBytes, 0);
  await cluster.submit({ type: "removeBrick", number: leaving, emptied: true, force: false });
  cluster.crash(leaving);
  await scene.readBack([...cluster.nodes.keys()][0]!);
});

test("a brick whose copies nobody can take is not emptied until somebody can", async () => {
  const scene = new Scene(4, { bricks: 3, copies: 3 });
  await scene.begin();
  const { cluster } = scene;
  await cluster.submit({ type: "drainBrick", number: 3, drain: true });
  await cluster.world.runFor(60_000);
  assert.ok(!scene.isEmptied());
  assert.equal(cluster.copiedBytes, 0);
  await cluster.join();
  await cluster.world.runUntil(() => scene.isEmptied(), 300_000);
  assert.ok(scene.counters().rebalanceBytes > 0);
  for (const { key } of scene.extents()) {
    for (const brick of [1, 2, 4]) assert.ok(cluster.nodes.get(brick)!.store.has(key));
  }
});

test("what is written while a brick drains does not stay behind on it", async () => {
  const scene = new Scene(5);
  await scene.begin();
  const { cluster } = scene;
  const leaving = scene.nonVoter();
  const { control } = cluster.anyNode()!;
  const drained = control.submit({ type: "drainBrick", number: leaving, drain: true });
  // Through the leaving brick itself, whose gateway and map replicas are in the middle of it.
  await scene.write(leaving);
  assert.ok((await cluster.world.complete(drained)).ok);
  await scene.write(leaving);
  await cluster.world.runUntil(() => scene.isEmptied() && scene.isInOrder(), 300_000);
  cluster.crash(leaving);
  await scene.readBack([...cluster.nodes.keys()][0]!);
});

test("what lands on a brick after its shard was found in order is moved as well", async () => {
  const scene = new Scene(6);
  await scene.begin();
  const { cluster } = scene;
  const leaving = scene.nonVoter();
  const held = new Set<string>();
  for (const { key, holders } of scene.extents()) {
    if (holders.includes(leaving)) held.add(key.toString("hex"));
  }
  await cluster.submit({ type: "drainBrick", number: leaving, drain: true });
  await cluster.world.runUntil(() => scene.isEmptied() && scene.isInOrder(), 300_000);
  // As a gateway names it that did not know of the drain yet.
  const late = [...scene.extents()].find(({ key }) => held.has(key.toString("hex")))!;
  const { branch, generation, grain, key, replica } = late;
  const { shard, view } = replica;
  const holders = [leaving];
  const { gcEpoch } = scene.state;
  const request = { shard, view: view!.view, branch, generation, grain, key, holders, gcEpoch };
  const { calls } = cluster.nodes.get(leaving)!;
  const body = encodeMapRehint(request);
  const landed = new Promise<boolean>((resolve) => {
    calls.call(replica.self, messageType.mapRehint, body, 2000, (reply) => {
      resolve(reply.ok && decodeMapReply(reply.body)?.status === "ok");
    });
  });
  assert.ok(await cluster.world.complete(landed));
  assert.ok(!scene.isEmptied() && !scene.isInOrder());
  await cluster.world.runUntil(() => scene.isEmptied(), 300_000);
  assert.ok(scene.isInOrder());
});
