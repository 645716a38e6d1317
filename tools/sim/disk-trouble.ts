import { DiskError } from "../../brick/host.ts";
import { recordKey } from "../../brick/map/map-table-keys.ts";
import type { Prng } from "../../brick/prng.ts";
import { StoreOpenError } from "../../brick/store/store-open.ts";
import { type BrickNumber, sectorBytes } from "../../brick/units.ts";
import type { FaultAtlas } from "./fault-atlas.ts";
import { type FaultDials, never } from "./fault-dials.ts";
import { pause, rest, type Scene, sitOutCalm } from "./scene.ts";
import { BrickStopped } from "./sim-clock.ts";
import type { DiskDials, FileCall } from "./sim-disk.ts";
import type { SimFile } from "./sim-file.ts";
import type { SimKvStore } from "./sim-kv.ts";

/** A disk that fails is looked at this often, and mended after so long if nobody met the failure. */
const lookEveryMs = 50;
const failureMsMax = 20_000;
/** After a failed flush the brick must have stopped within this. */
const stopWithinMs = 1_000;
const slowMsMax = 15_000;
const unreadableSectorsMax = 16;
const strikesMax = 4;
const strayWritesMax = 3;
const strayMsMax = 10_000;
const placeBytes = 4096;
const indexFolder = "index";
const rottenStartsMax = 3;
/** Of the rot in the index so much is in what the next start has to read. */
const rottenAtStartShare = 0.5;
/** Within this after a checkpoint the log gets records of which the index has the older ones. */
const rottenAfterMsMax = 2_000;
/** Whether all is in order is looked at this often, before something is damaged. */
const orderMs = 1_000;
/** Where something is to be damaged is looked for so often: most of a file may be zeros. */
const aimsMax = 64;

interface FailingFiles {
  readonly call: FileCall;
  readonly folder: string;
}

export interface DiskCounts {
  failures: number;
  slow: number;
  flips: number;
  unreadable: number;
  /** Writes that the disk said were done, and that never landed, */
  lostWrites: number;
  /** or landed elsewhere. */
  misdirected: number;
  /** Pairs of the key-value store. */
  rotten: number;
}

/** What disks have done to what is stored. */
export function damageCount(counts: DiskCounts): number {
  const { flips, unreadable, lostWrites, misdirected, rotten } = counts;
  return flips + unreadable + lostWrites + misdirected + rotten;
}

/** What disks do to bricks: they fail, which a brick must not survive; they are slow; they rot. */
export class DiskTrouble {
  readonly counts: DiskCounts = {
    failures: 0,
    slow: 0,
    flips: 0,
    unreadable: 0,
    lostWrites: 0,
    misdirected: 0,
    rotten: 0,
  };
  readonly #scene: Scene;
  readonly #dials: FaultDials;
  readonly #atlas: FaultAtlas;
  /** Of these, something that they wrote went astray, or was damaged since. */
  readonly #harmed = new Set<BrickNumber>();
  readonly #giveUp: (prng: Prng, brick: BrickNumber) => Promise<void>;

  #underWay = 0;

  constructor(
    scene: Scene,
    dials: FaultDials,
    atlas: FaultAtlas,
    giveUp: (prng: Prng, brick: BrickNumber) => Promise<void>,
  ) {
    this.#giveUp = giveUp;
    this.#scene = scene;
    this.#dials = dials;
    this.#atlas = atlas;
  }

  /** Whether a disk fails or is slow just now. */
  get isUnderWay(): boolean {
    return this.#underWay > 0;
  }

  run(prng: Prng): Promise<void>[] {
    const { diskStopEveryMs, slowDiskEveryMs, damageEveryMs } = this.#dials;
    const repeat = (everyMs: number, act: (prng: Prng) => Promise<void>) =>
      this.#repeat(prng.fork(), everyMs, act);
    return [
      repeat(diskStopEveryMs, (its) => this.#noted(this.#fail(its))),
      repeat(slowDiskEveryMs, (its) => this.#noted(this.#slowDown(its))),
      repeat(damageEveryMs, (its) => this.#damage(its)),
    ];
  }

  async #repeat(prng: Prng, everyMs: number, act: (prng: Prng) => Promise<void>): Promise<void> {
    if (everyMs === never) return;
    while (this.#scene.working()) {
      await rest(this.#scene, everyMs * (0.2 + 1.6 * prng.unit()));
      await sitOutCalm(this.#scene);
      if (this.#scene.working()) await act(prng);
    }
  }

  async #noted(trouble: Promise<void>): Promise<void> {
    this.#underWay += 1;
    await trouble;
    this.#underWay -= 1;
  }

  /** Every write, flush or batch of the index fails, or nothing is left to grow into, until it stops. */
  async #fail(prng: Prng): Promise<void> {
    const { cluster } = this.#scene;
    const { bricks, starting, world } = cluster;
    const running = bricks.filter((brick) => starting.has(brick));
    if (running.length === 0 || bricks.length - running.length >= this.#dials.awayMax) return;
    const brick = prng.pick(running);
    const machine = world.machine(brick);
    const { disk, bootCount } = machine;
    const before = { ...disk.dials };
    const failing: (Partial<DiskDials> | FailingFiles)[] = [
      { call: "sync", folder: "log/" },
      { call: "sync", folder: "raft/" },
      { writeErrorChance: 1 },
      { kvErrorChance: 1 },
      { capacityBytes: disk.usedBytes() },
    ];
    const failure = prng.pick(failing);
    if ("call" in failure) {
      // Of one kind of file alone, so that nobody stops the brick in another's place.
      disk.fault = (call, path) =>
        call === failure.call && path.startsWith(failure.folder) ? "EIO" : null;
    } else Object.assign(disk.dials, failure);
    this.counts.failures += 1;
    const { syncFailures } = disk;
    let failedMs = never;
    const untilMs = this.#nowMs + prng.between(lookEveryMs, failureMsMax);
    const stopped = () => !machine.running || machine.bootCount !== bootCount;
    while (!stopped() && this.#nowMs < untilMs) {
      await pause(this.#scene, lookEveryMs);
      if (disk.syncFailures > syncFailures) failedMs = Math.min(failedMs, this.#nowMs);
      if (!stopped() && this.#nowMs - failedMs > stopWithinMs && !machine.isFrozen) {
        this.#scene.violation(`brick ${brick} goes on after a flush has failed`);
        break;
      }
    }
    await pause(this.#scene, prng.between(0, this.#dials.restartMsMax));
    Object.assign(disk.dials, before);
    disk.fault = null;
    cluster.start(brick);
  }

  async #slowDown(prng: Prng): Promise<void> {
    const { cluster } = this.#scene;
    const { dials } = cluster.world.machine(prng.pick(cluster.bricks)).disk;
    this.counts.slow += 1;
    dials.slowness = this.#dials.slowness;
    await pause(this.#scene, prng.between(100, slowMsMax));
    dials.slowness = 1;
  }

  /** What is stored changes, or cannot be read any more; nobody is told. */
  async #damage(prng: Prng): Promise<void> {
    let brick = this.#atlas.mayDamage(prng);
    while (brick === null) {
      await pause(this.#scene, orderMs);
      if (!this.#scene.working()) return;
      brick = this.#atlas.mayDamage(prng);
    }
    const shape = prng.unit();
    if (shape < 0.2) await this.#loseWrites(prng, brick);
    else if (shape < 0.35) await this.#rotIndex(prng, brick);
    else {
      for (let strikes = prng.between(1, strikesMax); strikes > 0; strikes -= 1) {
        this.#strike(prng, brick);
      }
    }
  }

  /** Whether the brick may rightly lack what its disk has said is there. */
  isHarmed(brick: BrickNumber): boolean {
    return this.#harmed.has(brick);
  }

  /**
   * Of some writes that follow the disk says that they are done, and they are not there, or at
   * another place. Only while all is whole: then every write is on another disk, too. And not before
   * there is an index: a log without one that has lost its first page is not opened, and the brick is lost.
   */
  async #loseWrites(prng: Prng, brick: BrickNumber): Promise<void> {
    const { cluster } = this.#scene;
    this.#checkpoint(brick);
    const { disk } = cluster.world.machine(brick);
    let left = prng.between(1, strayWritesMax);
    const misdirected = prng.chance(0.5);
    disk.stray = (path, file, lengthBytes) => {
      const isAimedAt = path.startsWith("log/") || path.startsWith("raft/log-");
      if (left === 0 || !isAimedAt || !cluster.isWhole() || prng.chance(0.5)) return null;
      left -= 1;
      this.#harmed.add(brick);
      if (misdirected) this.counts.misdirected += 1;
      else this.counts.lostWrites += 1;
      return { atBytes: misdirected ? anotherPlace(prng, file, lengthBytes) : null };
    };
    const untilMs = this.#nowMs + strayMsMax;
    while (left > 0 && this.#nowMs < untilMs) await pause(this.#scene, lookEveryMs);
    disk.stray = null;
  }

  /**
   * A pair of the index cannot be read any more. The brick stops as often as it meets it; who
   * watches over it starts it a few times and then does without that index: the log has it all.
   */
  async #rotIndex(prng: Prng, brick: BrickNumber): Promise<void> {
    const { cluster } = this.#scene;
    const machine = cluster.world.machine(brick);
    this.#checkpoint(brick);
    const index = machine.disk.kv(indexFolder);
    const atStart = prng.chance(rottenAtStartShare);
    if (atStart) await pause(this.#scene, prng.between(0, rottenAfterMsMax));
    const { bricks = {} } = cluster.anyNode()?.control.state() ?? {};
    if (index === undefined || bricks[String(brick)]?.status !== "up") return;
    const rotten = atStart ? this.#rotForStart(prng, brick, index) : index.rot(prng);
    if (!rotten) return;
    this.counts.rotten += 1;
    this.#atlas.doubt(brick);
    if (atStart) machine.kill();
    for (let starts = 0; index.isRotten && starts < rottenStartsMax; ) {
      await pause(this.#scene, orderMs);
      if (!this.#scene.working()) break;
      if (machine.running) continue;
      starts += 1;
      cluster.start(brick);
      while (machine.running && !cluster.nodes.has(brick)) await pause(this.#scene, lookEveryMs);
      // What it has made of the rest stays.
      this.#checkpoint(brick);
    }
    if (index.isRotten) await this.#doWithoutIndex(prng, brick);
    this.#atlas.release();
  }

  /** Of a map record that has changed since the checkpoint: replay makes the change anew. */
  #rotForStart(prng: Prng, brick: BrickNumber, index: SimKvStore): boolean {
    const node = this.#scene.cluster.nodes.get(brick);
    const changed: string[] = [];
    for (const { shard, facts, table } of node?.map.replicas() ?? []) {
      const name = { kind: "base", shard, incarnation: facts.incarnation } as const;
      for (const entry of table.scan("base", shard, facts.incarnation, null, 100_000).entries) {
        const key = recordKey(name, entry).toString("latin1");
        const stored = index.get(key);
        if (stored !== undefined && !stored.equals(entry.bytes)) changed.push(key);
      }
    }
    if (changed.length === 0) return false;
    index.rotKey(prng.pick(changed));
    return true;
  }

  /** So that the index holds what is looked up, and not only what a start reads. */
  #checkpoint(brick: BrickNumber): void {
    try {
      this.#scene.cluster.nodes.get(brick)?.store.checkpoint();
    } catch (error) {
      // Its disk failed just then.
      if (!(error instanceof BrickStopped)) throw error;
    }
  }

  /** If the log is not all, the brick refuses to start, and is as good as lost. */
  async #doWithoutIndex(prng: Prng, brick: BrickNumber): Promise<void> {
    const { cluster } = this.#scene;
    const machine = cluster.world.machine(brick);
    let refused = false;
    cluster.onStartFailure = (which, error) => {
      const isRefusal = which === brick && error instanceof StoreOpenError;
      if (isRefusal && error.fault.code === "index_damaged") refused = true;
      if (refused || error instanceof DiskError) cluster.world.machine(which).kill();
      else cluster.world.clock.failure ??= { error };
    };
    machine.kill();
    machine.disk.loseKv(indexFolder);
    cluster.start(brick);
    while (!refused && !cluster.nodes.has(brick)) {
      await pause(this.#scene, lookEveryMs);
      cluster.start(brick);
    }
    cluster.onStartFailure = null;
    if (refused) await this.#giveUp(prng, brick);
  }

  #strike(prng: Prng, brick: BrickNumber): void {
    const file = this.#pickFile(prng, brick);
    const atBytes = file === null ? null : aim(prng, file);
    if (file === null || atBytes === null) return;
    this.#harmed.add(brick);
    if (prng.chance(0.6)) {
      this.counts.flips += 1;
      file.flipBit(atBytes * 8 + prng.between(0, 7));
      return;
    }
    this.counts.unreadable += 1;
    const sectors = prng.between(1, unreadableSectorsMax);
    file.makeUnreadable(atBytes - (atBytes % sectorBytes), sectors * sectorBytes);
  }

  /** Mostly the log; of what there are two copies, only ever the same one. */
  #pickFile(prng: Prng, brick: BrickNumber): SimFile | null {
    const { disk } = this.#scene.cluster.world.machine(brick);
    const paths = disk.paths();
    const log = paths.filter((path) => path.startsWith("log/"));
    const others = paths.filter((path) => /^raft\/log-|^raft\/state-a$|^superblock-a$/.test(path));
    const chosen = others.length === 0 || prng.chance(0.8) ? log : others;
    return chosen.length === 0 ? null : (disk.file(prng.pick(chosen)) ?? null);
  }

  get #nowMs(): number {
    return this.#scene.cluster.world.clock.nowMs;
  }
}

/** Of the same file, and not where it should have been. */
function anotherPlace(prng: Prng, file: SimFile, lengthBytes: number): number | null {
  const places = Math.floor((file.sizeBytes - lengthBytes) / placeBytes);
  return places < 1 ? null : prng.between(0, places) * placeBytes;
}

/** A place that something was written to. */
function aim(prng: Prng, file: SimFile): number | null {
  for (let attempt = 0; attempt < aimsMax; attempt += 1) {
    if (file.sizeBytes === 0) return null;
    const atBytes = prng.between(0, file.sizeBytes - 1);
    const near = file.read(atBytes, sectorBytes);
    if (near.some((byte) => byte !== 0)) return atBytes;
  }
  return null;
}
