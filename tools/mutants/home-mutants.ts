import { inFile, type Mutant } from "./mutant.ts";

/** Each breaks one rule of where the shards of a volume are: docs/simulation.md tells which. */
export const homeMutants: readonly Mutant[] = [
  ...inFile("control/shard-homes.test.ts", [
    {
      name: "map records move to a gateway that has only just taken over",
      file: "control/shard-homes.ts",
      text: "const settled = home.standing || isEmpty || holders.includes(home.brick);",
      instead: "const settled = true;",
      scenario: "what has been written moves to a gateway only when that has stood long",
    },
    {
      name: "whoever stands in for a brick keeps its place when it is back",
      file: "control/view-planner.ts",
      text: "const groups = [whole.members, shard.members, more];",
      instead: "const groups = [shard.members, more];",
      scenario:
        "the backup takes over the volume: it leads, and when the other is back nothing moves",
    },
    {
      name: "small writes fill the two bricks of their shard",
      file: "control/shard-homes.ts",
      text: "return brick.full || usedShare > this.#usedShare + (isHolder ? crowdedShare : roomyShare);",
      instead: "return brick.full;",
      scenario:
        "small writes leave bricks that are fuller than the others, also the gateway, and come back",
    },
    {
      name: "a replica that a whole shard has begun is given up again",
      file: "control/view-planner.ts",
      text: "const more = shard.members.length >= wanted ? shard.candidates : [];",
      instead: "const more: BrickNumber[] = [];",
      scenario:
        "a new volume's shards are led by its gateway, wherever that is, with one and the same backup",
    },
  ]),
  ...inFile("tools/sim/homes.test.ts", [
    {
      name: "an older brick is asked to be in a cluster whose shards it would look for elsewhere",
      file: "control/control-io.ts",
      text: "...(shardSpan !== undefined && level >= levelOfShardSpan && { shardSpan }),",
      instead: "...(shardSpan !== undefined && { shardSpan }),",
      scenario: "a cluster made by an older build keeps its volumes on all shards",
    },
  ]),
];
