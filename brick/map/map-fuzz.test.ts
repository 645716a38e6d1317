import { test } from "node:test";
import { MapFuzz } from "./map-fuzz.test-support.ts";

/** Seeds that once found a fault, and what it was. */
const fixedSeeds: readonly (readonly [number, string])[] = [
  [3, "a checkpoint ahead of the log met entries of the incarnation before"],
  [4, "a torn batch was forgotten by the next checkpoint"],
  [15, "an entry of another lineage was taken for the primary's own"],
  [35, "a state from before the restart made a member drop its replica"],
  [38, "a proposal whose messages were lost was never sent again"],
  [96, "a transfer was read before what the last view committed was in the table"],
  [320, "an entry cut from the log came back by a checkpoint that was ahead of it"],
  [540, "a candidate took records before it was told to begin with an empty base"],
  [618, "a candidate took records before it was told to begin with an empty base"],
];

/** ENDISK_MAP_SEEDS runs so many seeds, from ENDISK_MAP_SEED on. */
const seedCount = Number(process.env.ENDISK_MAP_SEEDS ?? 6);
const seedFirst = Number(process.env.ENDISK_MAP_SEED ?? 1001);
const troubleMs = 4000;

for (const [seed, fault] of fixedSeeds) {
  test(`seed ${seed}, which found: ${fault}`, () => new MapFuzz(seed).run(troubleMs));
}

for (let seed = seedFirst; seed < seedFirst + seedCount; seed += 1) {
  test(`seed ${seed}: replicas under chance keep every promise`, () =>
    new MapFuzz(seed).run(troubleMs));
}
