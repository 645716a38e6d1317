import { test } from "node:test";
import { MapFuzz } from "./map-fuzz.test-support.ts";

/**
 * What a seed meets shifts with every number that is drawn anew anywhere in the simulated world. So none
 * is kept here for a fault that it found: such a fault has a scenario of its own, in
 * map-cluster-faults.test.ts or union.test.ts.
 */

/** ENDISK_MAP_SEEDS runs so many seeds, from ENDISK_MAP_SEED on. */
const seedCount = Number(process.env.ENDISK_MAP_SEEDS ?? 12);
const seedFirst = Number(process.env.ENDISK_MAP_SEED ?? 1001);
const troubleMs = 4000;

for (let seed = seedFirst; seed < seedFirst + seedCount; seed += 1) {
  test(`seed ${seed}: replicas under chance keep every promise`, () =>
    new MapFuzz(seed).run(troubleMs));
}
