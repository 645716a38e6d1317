import assert from "node:assert/strict";
import { chunkKey } from "../chunk/key.ts";
import { sectorBytes } from "../units.ts";
import { MapCluster } from "./map-cluster.test-support.ts";

function keyOf(tag: number, sectorCount: number): string {
  const bytes = Buffer.alloc(sectorCount * sectorBytes, tag % 251);
  bytes.writeUInt32BE(tag, 0);
  return chunkKey(bytes).toString("hex");
}

/** Two members, an epoch, and a few writes; what was written, by grain. */
export async function begin(
  seed: number,
  grains = 20,
): Promise<{ cluster: MapCluster; expected: Map<number, string> }> {
  const cluster = new MapCluster(seed);
  for (const brick of [1, 2, 3]) await cluster.start(brick);
  cluster.view({ primary: 1, members: [1, 2] });
  assert.equal((await cluster.fence(5)).status, "ok");
  const expected = new Map<number, string>();
  await writeAll(cluster, expected, 0, grains, 1000);
  return { cluster, expected };
}

export async function writeAll(
  cluster: MapCluster,
  expected: Map<number, string>,
  from: number,
  to: number,
  tag: number,
): Promise<void> {
  for (let grain = from; grain < to; grain += 1) {
    assert.equal((await cluster.write(grain, 8, 8, tag + grain)).status, "ok");
    expected.set(grain, keyOf(tag + grain, 8));
  }
}

export async function verify(cluster: MapCluster, expected: Map<number, string>): Promise<void> {
  for (const [grain, key] of expected) {
    const keys = await cluster.sectors(grain);
    for (let sector = 0; sector < 128; sector += 1) {
      const inside = sector >= 8 && sector < 16;
      assert.equal(keys[sector], inside ? key : null, `grain ${grain}, sector ${sector}`);
    }
  }
}

/** Brick 2 dies, and brick 3 is to take its place: it gets what the shard holds. */
export function replaceSecond(cluster: MapCluster): void {
  cluster.crash(2);
  cluster.view({
    primary: 1,
    members: [1],
    candidates: [3],
    transfer: true,
    chain: [cluster.shard],
  });
}
