import type { Prng } from "../../brick/prng.ts";
import type { BrickNumber } from "../../brick/units.ts";
import type { Volume, VolumeFault } from "../../brick/volume/volume.ts";
import type { SimCluster } from "./sim-cluster.ts";

/** An operation that takes longer is given up by its initiator; its outcome stays unknown. */
export const patienceMs = 60_000;

/** What the initiators of a run share: where they play, and to whom they tell what is wrong. */
export interface Scene {
  readonly cluster: SimCluster;
  /** False once nothing new shall begin. */
  working(): boolean;
  /** True while nothing new shall go wrong. */
  calm(): boolean;
  violation(what: string): void;
  /** Counts a fault by its code. */
  fault(fault: VolumeFault): void;
}

/** A portal that runs, and the volume as it offers it. */
export interface Place {
  readonly brick: BrickNumber;
  readonly volume: Volume;
}

/** Mostly the same portal, as an initiator does it; now and then another. */
export function choosePlace({ cluster }: Scene, prng: Prng, volumeName: string): Place | null {
  const running = [...cluster.nodes.keys()];
  if (running.length === 0) return null;
  const brick = prng.chance(0.5) ? running[0]! : prng.pick(running);
  const volume = cluster.volumeAt(brick, volumeName);
  return volume === undefined ? null : { brick, volume };
}

export function pause({ cluster }: Pick<Scene, "cluster">, ms: number): Promise<void> {
  return new Promise((resolve) => void cluster.world.after(ms, resolve));
}

const restMs = 1_000;

/** As long as the run goes on. */
export async function rest(scene: Scene, ms: number): Promise<void> {
  for (let left = ms; left > 0 && scene.working(); left -= restMs) {
    await pause(scene, Math.min(left, restMs));
  }
}

/** Until something may go wrong again. */
export async function sitOutCalm(scene: Scene): Promise<void> {
  while (scene.calm() && scene.working()) await pause(scene, restMs);
}

/** The outcome; null when the brick that was asked is gone, or does not answer. */
export function patiently<T>(
  { cluster }: Pick<Scene, "cluster">,
  brick: BrickNumber,
  operation: Promise<T>,
): Promise<T | null> {
  const { world } = cluster;
  const boot = world.machine(brick).bootCount;
  return new Promise((resolve, reject) => {
    let over = false;
    const end = (outcome: T | null) => {
      over = true;
      resolve(outcome);
    };
    const watch = () => {
      if (over) return;
      const { running, bootCount } = world.machine(brick);
      if (!running || bootCount !== boot) end(null);
      else world.after(100, watch);
    };
    world.after(100, watch);
    world.after(patienceMs, () => end(null));
    operation.then(end, reject);
  });
}

/** Runs one after the other until the run has ended; the last one comes to its end. */
export async function keepDoing(
  scene: Scene,
  prng: Prng,
  pauseMsMax: number,
  act: () => Promise<void>,
): Promise<void> {
  while (scene.working()) {
    await pause(scene, prng.unit() * pauseMsMax);
    if (!scene.working()) return;
    await act();
  }
}
