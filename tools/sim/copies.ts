import { chunksOf } from "../../brick/map/entry.ts";
import { isZeros } from "../../brick/map/grain.ts";
import { BrickStopped } from "./sim-clock.ts";
import type { SimCluster } from "./sim-cluster.ts";

/** null: every shard is led, and nothing lacks copies. To be asked when every brick runs. */
export function shortOfCopies(cluster: SimCluster): string | null {
  return lackOfCopies(cluster) ?? lackOfPrimaries(cluster);
}

/**
 * What does not have its copies, of the shards that are led: for every extent, as many bricks as its
 * volume wants are named and have it.
 */
export function lackOfCopies(cluster: SimCluster): string | null {
  try {
    return firstShort(cluster);
  } catch (error) {
    // Its index failed when it was asked.
    if (error instanceof BrickStopped) return error.message;
    throw error;
  }
}

export function lackOfPrimaries(cluster: SimCluster): string | null {
  const { shards } = cluster.anyNode()!.control.state();
  let led = 0;
  for (const { map } of cluster.nodes.values()) {
    for (const { role } of map.replicas()) if (role.is === "primary") led += 1;
  }
  return led < shards.length ? `${led} of ${shards.length} shards are led` : null;
}

function firstShort(cluster: SimCluster): string | null {
  const { nodes } = cluster;
  const { volumes } = cluster.anyNode()!.control.state();
  const copiesOf = new Map(Object.values(volumes).map(({ branch, copies }) => [branch, copies]));
  for (const node of nodes.values()) {
    for (const { shard, role, facts } of node.map.replicas()) {
      if (role.is !== "primary") continue;
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
  return null;
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
