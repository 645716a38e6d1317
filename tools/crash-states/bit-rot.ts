import { Prng } from "../../brick/prng.ts";
import type { BrickNumber } from "../../brick/units.ts";
import { DamageScene } from "../sim/damage-scene.test-support.ts";
import type { RestDamage } from "../sim/damage-table.test-support.ts";

/** What happens to a page under a brick that goes on running, or between two of its boots. */
const kinds: readonly RestDamage[] = ["bit flip", "zeros", "junk", "swapped", "misdirected write"];
const damagesPerRound = 250;
/** Share of the rounds in which the brick is down while its files are damaged. */
const downShare = 0.3;

export interface BitRotReport {
  readonly damages: number;
  readonly rounds: number;
  readonly healedChunks: number;
  readonly healedBytes: number;
}

/**
 * Damages random pages of the log of one brick at a time, and sees everything healed before the
 * next: each chunk can be read again at as many bricks as it should, every portal serves what was
 * written, and repair has copied nothing.
 */
export async function bitRot(seed: number, damagesMin: number): Promise<BitRotReport> {
  const prng = new Prng(seed);
  const scene = new DamageScene(seed);
  await scene.begin();
  // Before its first checkpoint a brick whose first page is zeros refuses to start: it may have had one.
  for (const brick of scene.cluster.bricks) await scene.checkpoint(brick);
  const report = { damages: 0, rounds: 0, healedChunks: 0, healedBytes: 0 };
  while (report.damages < damagesMin) {
    const brick = prng.pick(scene.cluster.bricks);
    await round(scene, brick, prng);
    report.damages += damagesPerRound;
    report.rounds += 1;
    const { counters } = scene.cluster.nodes.get(brick)!.heal;
    report.healedChunks += counters.healedChunks;
    report.healedBytes += counters.healBytes;
    Object.assign(counters, { healedChunks: 0, healBytes: 0 });
  }
  if (scene.cluster.copiedBytes > 0) throw new Error("repair has copied chunks");
  return report;
}

async function round(scene: DamageScene, brick: BrickNumber, prng: Prng): Promise<void> {
  const isDown = prng.chance(downShare);
  if (isDown) scene.stop(brick);
  // What is damaged in place is in the index: what is not counts as the log's middle, at a start.
  else await scene.checkpoint(brick);
  const used = scene.usedLog(brick);
  for (let left = damagesPerRound; left > 0; left -= 1) {
    const { path, endBytes } = prng.pick(used);
    scene.damage(brick, { path, atBytes: prng.between(0, endBytes - 1) }, prng.pick(kinds));
  }
  if (isDown) {
    const failure = await scene.start(brick);
    if (failure !== null) throw failure;
  } else await scene.readBack();
  await scene.inOrder();
  await scene.readBack();
  if (prng.chance(0.2)) await scene.write();
}
