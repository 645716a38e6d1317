import assert from "node:assert/strict";
import { test } from "node:test";
import { type ClusterState, shardsOfFamily } from "../../brick/cluster-state.ts";
import { Prng } from "../../brick/prng.ts";
import { type BrickNumber, grainBytes, KiB, MiB } from "../../brick/units.ts";
import { choosePlace, keepDoing, patiently, type Scene } from "./scene.ts";
import { SimCluster, volumeName } from "./sim-cluster.ts";

/** Backups that are evened out (control/backup-spread.ts) while volumes are written and read. */

const span = 2;
const volumeCount = 8;
const grains = 64;
/** Every run of grains, and so every shard of the volume, has some. */
const grainStep = 64;
const blockBytes = 4 * KiB;
/** Shorter than in the product, and longer than a reboot all the same. */
const transferMs = 10_000;
const rebootMs = 5_000;
/** In this time the next backups would have moved, if there were any to be moved. */
const restMs = 3 * transferMs;

/** A place of a volume: what it holds for certain, or else one of what may have landed since. */
interface Place {
  sure: number;
  readonly perhaps: Set<number>;
}

/** Writes numbers that count up, reads them back, and notes what should not be. */
class Load {
  readonly wrong: string[] = [];
  operations = 0;
  readonly #name: string;
  readonly #scene: Scene;
  readonly #prng: Prng;
  readonly #places: Place[] = Array.from({ length: grains }, () => {
    return { sure: 0, perhaps: new Set<number>() };
  });
  #last = 0;

  constructor(scene: Scene, name: string, prng: Prng) {
    this.#scene = scene;
    this.#name = name;
    this.#prng = prng;
  }

  async act(): Promise<void> {
    const at = this.#prng.between(0, grains - 1);
    if (this.#prng.chance(0.5)) await this.#write(at);
    else await this.#read(at);
  }

  /** Everything, through whichever brick. */
  async verify(): Promise<void> {
    for (let at = 0; at < grains; at += 1) {
      while (!(await this.#read(at)));
    }
  }

  async #write(at: number): Promise<void> {
    const place = this.#places[at]!;
    const portal = choosePlace(this.#scene, this.#prng, this.#name);
    if (portal === null) return;
    this.#last += 1;
    const number = this.#last;
    place.perhaps.add(number);
    const bytes = Buffer.alloc(blockBytes);
    for (let sector = 0; sector < blockBytes; sector += 512) bytes.writeUInt32LE(number, sector);
    const done = portal.volume.write(at * grainStep * grainBytes, [bytes]);
    const result = await patiently(this.#scene, portal.brick, done);
    this.operations += 1;
    if (!result?.ok) return;
    place.sure = number;
    place.perhaps.clear();
  }

  /** Whether it was answered. */
  async #read(at: number): Promise<boolean> {
    const { sure, perhaps } = this.#places[at]!;
    const portal = choosePlace(this.#scene, this.#prng, this.#name);
    if (portal === null) return false;
    const done = portal.volume.read(at * grainStep * grainBytes, blockBytes);
    const result = await patiently(this.#scene, portal.brick, done);
    this.operations += 1;
    if (!result?.ok) return false;
    const bytes = Buffer.concat(result.buffers);
    for (let sector = 0; sector < blockBytes; sector += 512) {
      const found = bytes.readUInt32LE(sector);
      if (found === sure || perhaps.has(found)) continue;
      this.wrong.push(`${this.#name} ${at}.${sector}: ${found}, not ${sure} or ${[...perhaps]}`);
    }
    return true;
  }
}

/** Who keeps each shard, as one text each. */
function membersOf({ shards }: ClusterState): string[] {
  return shards.map(({ members }) => members.join());
}

/** The groups of shards that are not kept by whom they were. */
function movedFamilies(before: readonly string[], state: ClusterState): number[] {
  const moved = membersOf(state).flatMap((members, shard) =>
    members === before[shard] ? [] : [Math.floor(shard / span)],
  );
  return [...new Set(moved)];
}

/** Volumes that the brick backs up, and volumes whose shards it leads. */
function dutiesOf(state: ClusterState, brick: BrickNumber): { backs: number; leads: number } {
  let [backs, leads] = [0, 0];
  for (const { family } of Object.values(state.volumes)) {
    const shards = shardsOfFamily(state, family).map((one) => state.shards[one]!);
    if (shards.every(({ primary }) => primary === brick)) leads += 1;
    else if (shards.every(({ members }) => members.includes(brick))) backs += 1;
  }
  return { backs, leads };
}

test("volumes made on two bricks are backed up by six that join, under load; reboots move nothing", async () => {
  const seed = 71;
  const cluster = new SimCluster({
    seed,
    bricks: 2,
    shardCount: volumeCount * span,
    shardSpan: span,
    volumeBytes: 256 * MiB,
    copies: 2,
    timing: { transferAfterMs: transferMs },
  });
  const { world } = cluster;
  const state = () => cluster.anyNode()!.control.state();
  const wrong: string[] = [];
  let working = true;
  const scene: Scene = {
    cluster,
    working: () => working,
    calm: () => true,
    violation: (what) => wrong.push(what),
    fault: () => {},
  };
  await cluster.create();
  const names = [volumeName];
  for (let at = 1; at < volumeCount; at += 1) {
    names.push(`made${at}`);
    await cluster.addVolume(`made${at}`, at.toString(16).padStart(32, "d"));
  }
  const first = (at: number) => cluster.volumeAt((at % 2) + 1, names[at]!);
  await world.runUntil(() => names.every((_, at) => first(at) !== undefined));
  for (const at of names.keys()) {
    const done = first(at)!.write(0, [Buffer.alloc(blockBytes)]);
    assert.ok((await world.complete(done)).ok);
  }
  const prng = new Prng(seed);
  const loads = names.map((name) => new Load(scene, name, prng.fork()));
  const work = Promise.all(
    loads.map((load) => keepDoing(scene, prng.fork(), 1000, () => load.act())),
  );
  for (let brick = 3; brick <= 8; brick += 1) await cluster.join();
  await cluster.settled();
  const made = membersOf(state());
  assert.deepEqual(new Set(made), new Set(["1,2"]));

  // In the middle of the second move the brick that is to take the replicas reboots.
  await world.runUntil(
    () => movedFamilies(made, state()).length === 1 && cluster.isWhole(),
    600_000,
  );
  const candidates = () => state().shards.flatMap((shard) => shard.candidates);
  await world.runUntil(() => candidates().length > 0, 600_000);
  const begun = state().shards.findIndex((shard) => shard.candidates.length > 0);
  const [target] = candidates();
  const before = membersOf(state());
  cluster.crash(target!);
  await world.runFor(rebootMs);
  cluster.start(target!);
  await world.runUntil(() => cluster.isWhole());
  await world.runFor(transferMs - 2_000);
  const family = Math.floor(begun / span);
  assert.ok(movedFamilies(before, state()).every((one) => one === family));

  let moves = 0;
  let seen = state();
  const short: string[] = [];
  /** Looks at every state on the way. */
  const pass = async (ms: number): Promise<void> => {
    const untilMs = world.clock.nowMs + ms;
    await world.runUntil(() => {
      if (state() !== seen) short.push(...membersOf(state()).filter((one) => !one.includes(",")));
      seen = state();
      return world.clock.nowMs >= untilMs;
    });
  };
  for (let known = membersOf(state()), restedMs = 0; restedMs < restMs; restedMs += 1_000) {
    await pass(1_000);
    const moved = movedFamilies(known, state());
    if (moved.length === 0) continue;
    assert.equal(moved.length, 1, "one volume at a time");
    moves += 1;
    known = membersOf(state());
    restedMs = 0;
  }
  assert.ok(moves <= 2 * volumeCount, `${moves} moves`);
  assert.deepEqual(short, [], "two complete replicas all the time");
  for (const brick of [1, 2]) assert.deepEqual(dutiesOf(state(), brick), { backs: 0, leads: 4 });
  for (let brick = 3; brick <= 8; brick += 1) {
    const { backs, leads } = dutiesOf(state(), brick);
    assert.ok((backs === 1 || backs === 2) && leads === 0, `brick ${brick} backs up ${backs}`);
  }

  // At rest a backup reboots, and what it keeps stays where it is.
  const evened = membersOf(state());
  cluster.crash(5);
  await world.runFor(rebootMs);
  cluster.start(5);
  await world.runUntil(() => cluster.isWhole());
  await world.runFor(restMs);
  assert.deepEqual(membersOf(state()), evened);

  working = false;
  await world.complete(work);
  for (const load of loads) await world.complete(load.verify(), 600_000);
  assert.deepEqual([...wrong, ...loads.flatMap((load) => load.wrong)], []);
  assert.ok(loads.every(({ operations }) => operations > 100));
  assert.equal(cluster.copiedBytes, 0, "no chunk is copied");
});
