import { chunksOf } from "../../brick/map/entry.ts";
import { isZeros } from "../../brick/map/grain.ts";
import { BrickStopped } from "./sim-clock.ts";
import type { SimCluster } from "./sim-cluster.ts";

/**
 * What of the map does not have its copies: for every extent, as many bricks as its volume wants are
 * named and have it. null: nothing, and every shard is led. To be asked when every brick runs.
 */
export function shortOfCopies(cluster: SimCluster): string | null {
  try {
    return firstShort(cluster);
  } catch (error) {
    // Its index failed when it was asked.
    if (error instanceof BrickStopped) return error.message;
    throw error;
  }
}

function firstShort(cluster: SimCluster): string | null {
  const { nodes } = cluster;
  const { volumes, shards } = cluster.anyNode()!.control.state();
  const copiesOf = new Map(Object.values(volumes).map(({ branch, copies }) => [branch, copies]));
  let led = 0;
  for (const node of nodes.values()) {
    for (const { shard, role, facts } of node.map.replicas()) {
      if (role.is !== "primary") continue;
      led += 1;
      const { entries } = node.map.table.scan("base", shard, facts.incarnation, null, 100_000);
      for (const { branch, grain, value } of entries) {
        const wanted = Math.min(copiesOf.get(branch) ?? 0, cluster.bricks.length);
        for (const extent of value.extents) {
          if (isZeros(extent)) continue;
          const { key, holders } = extent;
          const good = holders.filter((brick) => nodes.get(brick)?.store.has(key));
          if (good.length >= wanted) continue;
          const what = `${key.toString("hex", 0, 6)} of branch ${branch} grain ${grain}`;
          return `${what}, shard ${shard}: named on ${holders}, and there on ${good}`;
        }
      }
    }
  }
  return led < shards.length ? `${led} of ${shards.length} shards are led` : null;
}

/** Whether some map record that is or may be in force names the chunk. */
export function isNamed(cluster: SimCluster, key: Buffer): boolean {
  for (const { map } of cluster.nodes.values()) {
    for (const { shard, facts, pending } of map.replicas()) {
      for (const entry of pending.values()) {
        if (chunksOf(entry).some((chunk) => chunk.key.equals(key))) return true;
      }
      const { entries } = map.table.scan("base", shard, facts.incarnation, null, 100_000);
      for (const { value } of entries) {
        if (value.extents.some((extent) => extent.key.equals(key))) return true;
      }
    }
  }
  return false;
}
