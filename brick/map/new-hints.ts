import { replicasOf } from "../cluster-state.ts";
import type { Entry } from "./entry.ts";
import type { Replica } from "./replica.ts";

/**
 * An entry with its chunk inside names the bricks of the view that it was proposed in. Taken over
 * into a later view, it commits on the bricks of that one: those are who hold the chunk then, and of
 * the older ones nobody knows. Gives the entries that say so; op and view are still to be given.
 *
 * They are entries of their own, because the same entry may have committed in the older view on a
 * replica that this primary does not hear: records of one op are the same everywhere.
 */
export function newHints(replica: Replica): Entry[] {
  const { facts, pending, effects } = replica;
  const bricks = replicasOf(replica.view!);
  const isNew = ({ holders }: Entry) =>
    holders.length !== bricks.length || !bricks.every((brick) => holders.includes(brick));
  const stale = new Map<string, Entry>();
  for (let op = facts.commitOp + 1; op <= facts.lastOp; op += 1) {
    const entry = pending.get(op)!;
    const { kind, branch, generation, grain, key, inlineBytes } = entry;
    const name = `${branch}/${generation}/${grain}/${key?.toString("latin1")}`;
    if (kind === "write" && inlineBytes > 0 && isNew(entry)) stale.set(name, entry);
    else if (kind === "rehint" && !isNew(entry)) stale.delete(name);
  }
  return [...stale.values()].map(({ shard, branch, generation, grain, key }) => ({
    kind: "rehint",
    shard,
    op: 0,
    view: 0,
    branch,
    generation,
    epoch: 0,
    sequence: 0,
    lowWater: 0,
    grain,
    grainCount: 0,
    firstSector: 0,
    sectorCount: 0,
    chunkSector: 0,
    chunkSectors: 0,
    key,
    holders: bricks,
    clusterTimeMs: effects.clusterTimeMs(),
    gcEpoch: effects.gcEpoch(),
    inlineBytes: 0,
    parts: [],
    inline: null,
  }));
}
