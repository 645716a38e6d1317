import { test } from "node:test";
import { MapFuzz } from "./map-fuzz.test-support.ts";

const seedCount = Number(process.env.ENDISK_MAP_SEEDS ?? 25);
const seedFirst = Number(process.env.ENDISK_MAP_SEED ?? 1);

for (let seed = seedFirst; seed < seedFirst + seedCount; seed += 1) {
  test(`seed ${seed}: replicas under chance keep every promise`, async () => {
    await new MapFuzz(seed).run(4000);
  });
}
