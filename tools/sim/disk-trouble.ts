import type { Prng } from "../../brick/prng.ts";
import { type BrickNumber, sectorBytes } from "../../brick/units.ts";
import type { FaultAtlas } from "./fault-atlas.ts";
import { type FaultDials, never } from "./fault-dials.ts";
import { pause, rest, type Scene, sitOutCalm } from "./scene.ts";
import type { DiskDials, FileCall } from "./sim-disk.ts";
import type { SimFile } from "./sim-file.ts";

/** A disk that fails is looked at this often, and mended after so long if nobody met the failure. */
const lookEveryMs = 50;
const failureMsMax = 20_000;
/** After a failed flush the brick must have stopped within this. */
const stopWithinMs = 1_000;
const slowMsMax = 15_000;
const unreadableSectorsMax = 16;
const strikesMax = 4;
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
}

/** What disks do to bricks: they fail, which a brick must not survive; they are slow; they rot. */
export class DiskTrouble {
  readonly counts: DiskCounts = { failures: 0, slow: 0, flips: 0, unreadable: 0 };
  readonly #scene: Scene;
  readonly #dials: FaultDials;
  readonly #atlas: FaultAtlas;

  #underWay = 0;

  constructor(scene: Scene, dials: FaultDials, atlas: FaultAtlas) {
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
    for (let strikes = prng.between(1, strikesMax); strikes > 0; strikes -= 1) {
      this.#strike(prng, brick);
    }
  }

  #strike(prng: Prng, brick: BrickNumber): void {
    const file = this.#pickFile(prng, brick);
    const atBytes = file === null ? null : aim(prng, file);
    if (file === null || atBytes === null) return;
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
