import assert from "node:assert/strict";
import { test } from "node:test";
import type { LevelRange } from "../../brick/feature-level.ts";
import { levelOf, levelOfMessage, levelsBefore, ownLevels } from "../../brick/feature-level.ts";
import { Prng } from "../../brick/prng.ts";
import { type BrickNumber, grainBytes, KiB, MiB } from "../../brick/units.ts";
import { SimCluster } from "./sim-cluster.ts";

const pieceBytes = 4 * KiB;
const answerMsMax = 120_000;
/** Grains that are written again and again, in small pieces. */
const grains = 4;

/** Three bricks that begin with the build before levels, and an initiator that never rests. */
class UpgradeScene {
  readonly cluster: SimCluster;
  readonly logged: string[] = [];
  /** Messages that were sent to a brick that does not know such. */
  readonly misunderstood: string[] = [];
  readonly #builds = new Map<BrickNumber, LevelRange>();
  readonly #held = new Map<number, Buffer>();
  readonly #prng = new Prng(5);
  #writes = 0;
  #working = true;
  forgets = 0;

  constructor(seed: number) {
    this.cluster = new SimCluster({
      seed,
      bricks: 3,
      shardCount: 2,
      volumeBytes: 128 * MiB,
      copies: 2,
      gcEveryMs: 500,
      levelsOf: (brick) => this.buildOf(brick),
      // Grains are compacted all the time, of which gateways are told from level 2 on.
      compactionOptions: { chunksMin: 2, wasteSectorsMin: 8, idleMs: 0, walkEveryMs: 200 },
    });
    const { world } = this.cluster;
    world.onLog = (brick, line) => this.logged.push(`brick ${brick}: ${line}`);
    world.network.filter = (_from, to, { type, reply }) => {
      if (reply || levelOfMessage(type) === 1) return true;
      this.forgets += 1;
      if (levelOfMessage(type) > this.buildOf(to).newest) this.misunderstood.push(`${type}`);
      return true;
    };
  }

  buildOf(brick: BrickNumber): LevelRange {
    return this.#builds.get(brick) ?? levelsBefore;
  }

  get level(): number {
    return levelOf(this.cluster.anyNode()!.control.state());
  }

  get writes(): number {
    return this.#writes;
  }

  /** Writes through whoever runs, until it is told to stop; each write is read back at the end. */
  begin(): void {
    this.#next();
  }

  #next(): void {
    const { world, nodes } = this.cluster;
    world.after(20, () => {
      if (!this.#working) return;
      const [brick] = [...nodes.keys()];
      const volume = brick === undefined ? undefined : this.cluster.volumeAt(brick);
      if (volume === undefined) return this.#next();
      const piece = Math.floor(this.#prng.unit() * ((grains * grainBytes) / pieceBytes));
      const data = this.#prng.fill(Buffer.alloc(pieceBytes));
      let over = false;
      const again = (landed: boolean) => {
        if (over) return;
        over = true;
        // Of one whose brick went away meanwhile nobody knows.
        if (landed) this.#held.set(piece, data);
        else this.#held.delete(piece);
        if (landed) this.#writes += 1;
        this.#next();
      };
      volume.write(piece * pieceBytes, [data]).then(({ ok }) => again(ok));
      // An initiator sees its connection end, and goes on at another portal.
      const node = nodes.get(brick!);
      const look = () => {
        if (over) return;
        if (nodes.get(brick!) !== node) again(false);
        else world.after(500, look);
      };
      look();
    });
  }

  /** Stops the brick and starts it with that build, as an operator does. */
  async restart(brick: BrickNumber, build: LevelRange): Promise<void> {
    this.cluster.crash(brick);
    this.#builds.set(brick, build);
    await this.cluster.world.runFor(1000);
    this.cluster.start(brick);
    await this.cluster.settled();
    await this.cluster.world.runFor(5000);
  }

  setBuild(brick: BrickNumber, build: LevelRange): void {
    this.#builds.set(brick, build);
  }

  /** Everything that was acknowledged last is there. */
  async check(): Promise<void> {
    this.#working = false;
    const { world } = this.cluster;
    await world.runFor(35_000);
    const [through] = [...this.cluster.nodes.keys()];
    for (const [piece, data] of this.#held) {
      const read = this.cluster.volumeAt(through!)!.read(piece * pieceBytes, pieceBytes);
      const result = await world.complete(read, answerMsMax);
      assert.ok(result.ok && Buffer.concat(result.buffers).equals(data), `piece ${piece}`);
    }
  }
}

test("a cluster is upgraded brick by brick under load, and uses what is new once all have it", async () => {
  const scene = new UpgradeScene(1);
  await scene.cluster.create();
  scene.begin();
  await scene.cluster.world.runFor(5000);
  for (const brick of [3, 2, 1]) {
    assert.equal(scene.level, 1, `before brick ${brick} is upgraded`);
    assert.equal(scene.forgets, 0, "a brick was told what is of a later level");
    const before = scene.writes;
    await scene.restart(brick, ownLevels);
    assert.ok(scene.writes > before, "initiators were served all along");
  }
  await scene.cluster.world.runUntil(() => scene.level === ownLevels.newest, 60_000);
  const compacted = () =>
    [...scene.cluster.nodes.values()].reduce((sum, one) => sum + one.compaction.counters.grains, 0);
  const before = compacted();
  await scene.cluster.world.runUntil(() => compacted() > before && scene.forgets > 0, 120_000);
  assert.deepEqual(scene.misunderstood, []);
  await scene.check();
});

test("a brick that goes back to the build before the cluster's level stops, and says what to do", async () => {
  const scene = new UpgradeScene(2);
  for (const brick of [1, 2, 3]) scene.setBuild(brick, ownLevels);
  await scene.cluster.create();
  scene.begin();
  const { world } = scene.cluster;
  await world.runUntil(() => scene.level === ownLevels.newest, 60_000);
  const stops: string[] = [];
  scene.cluster.world.isBug = ({ brick, reason, cause }) => {
    if (cause !== "power") stops.push(`brick ${brick}: ${String(reason)}`);
    return false;
  };
  scene.cluster.onStartFailure = () => {};
  scene.cluster.crash(3);
  scene.setBuild(3, levelsBefore);
  scene.cluster.start(3);
  await world.runUntil(() => stops.length > 0, 60_000);
  assert.match(
    stops[0]!,
    /^brick 3: Error: this brick cannot go on: it knows feature levels up to 1, and the cluster is at level [23], .* run a newer build on it$/,
  );
  const before = scene.writes;
  await world.runFor(10_000);
  assert.ok(scene.writes > before, "the others go on");
  scene.setBuild(3, ownLevels);
  scene.cluster.start(3);
  await scene.cluster.settled();
  await scene.check();
});
