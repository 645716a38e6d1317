import assert from "node:assert/strict";
import { test } from "node:test";
import { compactGrain } from "../../brick/map/requests.ts";
import { Prng } from "../../brick/prng.ts";
import { messageType } from "../../brick/rpc/message-types.ts";
import { grainBytes, KiB, MiB, sectorBytes } from "../../brick/units.ts";
import { shortOfCopies } from "./copies.ts";
import { SimCluster, type SimClusterOptions } from "./sim-cluster.ts";

const pieceBytes = 4 * KiB;
const piecesPerGrain = grainBytes / pieceBytes;
const answerMsMax = 60_000;
const compactionOptions = {
  chunksMin: 4,
  wasteSectorsMin: 16,
  idleMs: 500,
  walkEveryMs: 500,
  bytesPerSecond: 64 * MiB,
  busyBytesPerSecond: 64 * MiB,
};

/** A cluster whose volume is written in small pieces, and what its grains are in. */
class AgedScene {
  readonly cluster: SimCluster;
  /** What the volume holds; null: it is unmapped there. */
  readonly #pieces = new Map<number, Buffer | null>();
  readonly #prng: Prng;

  constructor(seed: number, options: Partial<SimClusterOptions> = {}) {
    const usual = { bricks: 3, shardCount: 1, volumeBytes: 64 * MiB, copies: 2, compactionOptions };
    this.cluster = new SimCluster({ ...usual, gcEveryMs: 500, ...options, seed });
    this.#prng = new Prng(seed + 1000);
  }

  async write(grain: number, piece: number, through = 1): Promise<void> {
    const data = this.#prng.fill(Buffer.alloc(pieceBytes));
    const at = grain * grainBytes + piece * pieceBytes;
    const done = this.cluster.volumeAt(through)!.write(at, [data]);
    assert.deepEqual(await this.cluster.world.complete(done, answerMsMax), { ok: true });
    this.#pieces.set(at, data);
  }

  async unmap(grain: number, piece: number): Promise<void> {
    const at = grain * grainBytes + piece * pieceBytes;
    const done = this.cluster.volumeAt(1)!.unmap(at, pieceBytes);
    assert.deepEqual(await this.cluster.world.complete(done, answerMsMax), { ok: true });
    this.#pieces.set(at, null);
  }

  /** Grains 0 to `count`, each in as many chunks as it has pieces. */
  async age(count: number): Promise<void> {
    for (let grain = 0; grain < count; grain += 1) {
      for (let piece = 0; piece < piecesPerGrain; piece += 1) await this.write(grain, piece);
    }
  }

  /** Reads whole grains, which must hold what was written and never end with a fault. */
  async check(through: number): Promise<void> {
    const grains = new Set([...this.#pieces.keys()].map((at) => Math.floor(at / grainBytes)));
    for (const grain of grains) {
      const read = this.cluster.volumeAt(through)!.read(grain * grainBytes, grainBytes);
      const result = await this.cluster.world.complete(read, answerMsMax);
      assert.ok(result.ok, `grain ${grain}: ${JSON.stringify(result)}`);
      const bytes = Buffer.concat(result.buffers);
      for (let piece = 0; piece < piecesPerGrain; piece += 1) {
        const at = grain * grainBytes + piece * pieceBytes;
        const wanted = this.#pieces.get(at) ?? Buffer.alloc(pieceBytes);
        const found = bytes.subarray(piece * pieceBytes, (piece + 1) * pieceBytes);
        assert.ok(found.equals(wanted), `piece ${piece} of grain ${grain}`);
      }
    }
  }

  get leader() {
    const { primary } = this.cluster.anyNode()!.control.state().shards[0]!;
    return this.cluster.nodes.get(primary)!;
  }

  get replica() {
    return [...this.leader.map.replicas()].find(({ shard }) => shard === 0)!;
  }

  /** The grain's record, as the shard's primary has it. */
  record(grain: number) {
    const { table } = this.leader.map;
    const { entries } = table.scan("base", 0, this.replica.facts.incarnation, null, 1000);
    const found = entries.find((entry) => entry.grain === grain)!;
    return { ...found, extents: found.value.extents };
  }

  chunksOf(grain: number): number {
    return new Set(this.record(grain).extents.map(({ key }) => key.toString("hex"))).size;
  }

  sum(counter: "grains" | "refused" | "failed" | "bytes"): number {
    const nodes = [...this.cluster.nodes.values()];
    return nodes.reduce((sum, { compaction }) => sum + compaction.counters[counter], 0);
  }

  async compacted(...grains: number[]): Promise<void> {
    const isOne = () => grains.every((grain) => this.chunksOf(grain) === 1);
    await this.cluster.world.runUntil(isOne, answerMsMax);
  }

  /** Two epochs after this what nothing names is gone. */
  async swept(key: Buffer): Promise<void> {
    const isGone = () => [...this.cluster.nodes.values()].every(({ store }) => !store.has(key));
    await this.cluster.world.runUntil(isGone, 600_000);
  }
}

for (const encrypt of [false, true]) {
  const what = encrypt ? "an encrypted grain" : "a grain";
  test(`${what} in many chunks becomes one, on all bricks, and holds what it held`, async () => {
    const scene = new AgedScene(1, { encrypt });
    await scene.cluster.create();
    await scene.age(3);
    assert.equal(scene.chunksOf(1), piecesPerGrain);
    assert.equal(scene.sum("grains"), 0, "initiators are at work");
    await scene.compacted(0, 1, 2);
    assert.equal(scene.record(1).extents.length, 1);
    assert.equal(scene.sum("grains"), 3);
    assert.equal(scene.sum("bytes"), 3 * grainBytes);
    assert.equal(shortOfCopies(scene.cluster), null);
    assert.equal(scene.cluster.copiedBytes, 0);
    for (const brick of scene.cluster.bricks) await scene.check(brick);
    await scene.cluster.world.runFor(10_000);
    assert.equal(scene.sum("grains"), 3, "what is one chunk is left alone");
    scene.cluster.crash(scene.leader.number);
    await scene.cluster.world.runFor(20_000);
    await scene.check([...scene.cluster.nodes.keys()][0]!);
  });
}

test("what is unmapped in a grain stays unmapped", async () => {
  const scene = new AgedScene(2);
  await scene.cluster.create();
  await scene.age(1);
  await scene.unmap(0, 5);
  await scene.unmap(0, 9);
  const runsNow = async () => {
    const asked = scene.cluster.volumeAt(1)!.allocation(0, grainBytes, 100);
    const answer = await scene.cluster.world.complete(asked, answerMsMax);
    assert.ok(answer.ok);
    return answer.runs;
  };
  const before = await runsNow();
  assert.equal(before.length, 5);
  await scene.compacted(0);
  assert.equal(scene.record(0).extents.length, 3);
  assert.deepEqual(await runsNow(), before);
  await scene.check(1);
});

test("a gateway that was not told finds the old chunks swept, and asks again", async () => {
  // Chunks that its cache holds it would not miss.
  const scene = new AgedScene(3, { memory: { chunkCacheBytes: 0 } });
  const { world } = scene.cluster;
  await scene.cluster.create();
  const holder = 1;
  world.network.filter = (_from, _to, { type }) => type !== messageType.mapForget;
  await scene.age(2);
  await scene.check(holder);
  const old = [0, 1].flatMap((grain) => scene.record(grain).extents);
  const gateway = scene.cluster.nodes.get(holder)!;
  await scene.compacted(0, 1);
  for (const { key } of old) await scene.swept(key);
  const faults = gateway.volumes.stats.faults;
  for (const brick of scene.cluster.bricks) await scene.check(brick);
  assert.ok(gateway.volumes.stats.missingNotes > 0, "its cache was never out of date");
  assert.equal(gateway.volumes.stats.faults, faults);
});

test("a grain that is written while it is rewritten keeps what was written", async () => {
  // No epoch ends meanwhile: the record alone says that the chunk is too old.
  const scene = new AgedScene(4, { gcEveryMs: 600_000 });
  const { world } = scene.cluster;
  await scene.cluster.create();
  await scene.age(1);
  // The chunk arrives nowhere until the grain has been written again.
  let isHeld = false;
  const isPut = (type: number) => type === messageType.chunkPut || type === messageType.chunkPuts;
  world.network.filter = (_from, _to, { type, reply }) => {
    if (!isPut(type) || !reply) return true;
    isHeld = true;
    return false;
  };
  await world.runUntil(() => isHeld, answerMsMax);
  await scene.write(0, 7);
  world.network.filter = null;
  await world.runUntil(() => scene.sum("refused") > 0, answerMsMax);
  await scene.check(1);
  await scene.compacted(0);
  await scene.check(1);
});

test("nothing is named on fewer bricks than the volume wants", async () => {
  const scene = new AgedScene(5, { bricks: 2 });
  const { world } = scene.cluster;
  await scene.cluster.create();
  await scene.age(1);
  const isPut = (type: number) => type === messageType.chunkPut || type === messageType.chunkPuts;
  world.network.filter = (_from, _to, { type }) => !isPut(type);
  await world.runUntil(() => scene.sum("failed") > 0, answerMsMax);
  assert.equal(scene.chunksOf(0), piecesPerGrain);
  assert.equal(scene.sum("grains"), 0);
  world.network.filter = null;
  await scene.compacted(0);
  assert.equal(shortOfCopies(scene.cluster), null);
});

test("a chunk of which a copy took two epochs to be stored is not named, but stored again", async () => {
  const scene = new AgedScene(7, { bricks: 2, gcEveryMs: 200 });
  const { world } = scene.cluster;
  await scene.cluster.create();
  await scene.age(1);
  const isPut = (type: number) => type === messageType.chunkPut || type === messageType.chunkPuts;
  let isHeld = false;
  world.network.filter = (from, to, { type, reply }) => {
    if (!isPut(type) || !reply || from === to) return true;
    isHeld = true;
    return false;
  };
  await world.runUntil(() => isHeld, answerMsMax);
  const epoch = () => scene.leader.control.state().gcEpoch;
  const last = epoch() + 3;
  // Epochs go on for what becomes garbage.
  for (let round = 1; epoch() < last; round += 1) {
    const name = `short-lived-${round}`;
    await scene.cluster.addVolume(name, String(round).padStart(32, "0"));
    await scene.cluster.submit({ type: "deleteVolume", name });
    await world.runFor(200);
  }
  assert.equal(scene.sum("failed"), 0, "it was given up before");
  world.network.filter = null;
  await world.runUntil(() => scene.sum("refused") > 0, answerMsMax);
  assert.equal(scene.sum("grains"), 0);
  await scene.compacted(0);
  assert.equal(shortOfCopies(scene.cluster), null);
});

test("a chunk that was stored two epochs ago is not named any more", async () => {
  const never = { ...compactionOptions, chunksMin: 1000, wasteSectorsMin: 1000 };
  const scene = new AgedScene(6, { compactionOptions: never });
  await scene.cluster.create();
  await scene.age(1);
  await scene.cluster.world.runUntil(() => scene.leader.control.state().gcEpoch > 3, 600_000);
  const { branch, generation, grain, bytes: record, extents } = scene.record(0);
  const [{ key, holders, chunkSectors }] = [extents[0]!];
  const run = { firstSector: 0, sectorCount: chunkSectors };
  const of = { branch, generation, grain, record, key, holders, keyDomain: undefined };
  const say = (gcEpoch: number, as = {}) =>
    compactGrain(scene.replica, { ...of, ...run, runs: [run], ...as }, gcEpoch, () => {});
  const { gcEpoch } = scene.leader.control.state();
  assert.equal(say(gcEpoch - 2), "stale");
  assert.equal(say(gcEpoch, { record: record.subarray(1) }), "changed");
  assert.equal(say(gcEpoch - 1), "proposed");
  assert.equal(say(gcEpoch), "changed", "one is under way");
  assert.equal(chunkSectors * sectorBytes, pieceBytes);
});
