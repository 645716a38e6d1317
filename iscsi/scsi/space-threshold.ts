import type { VolumeSpace } from "../../brick/volume/volume.ts";
import { softThresholdShare } from "../limits.ts";
import { blockBytes } from "./cdb.ts";

/** The soft threshold of thin provisioning (SBC-4 §4.7.3.7). */

/** Counts of resources are in sets of 2^11 blocks, 1 MiB. */
export const thresholdExponent = 11;
const thresholdSetBytes = blockBytes * 2 ** thresholdExponent;
const countMax = 0xffff_ffff;

export function thresholdSets(bytes: number): number {
  return Math.min(countMax, Math.floor(bytes / thresholdSetBytes));
}

/** `count`: of sets that can still be allocated. `crossed`: no more than those are left. */
export function softThreshold(space: VolumeSpace): { count: number; crossed: boolean } {
  const count = thresholdSets(space.poolBytes * softThresholdShare);
  return { count, crossed: thresholdSets(space.freeBytes) <= count };
}
