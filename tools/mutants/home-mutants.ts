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
  ...inFile("control/backup-spread.test.ts", [
    {
      name: "whoever stands in for a brick keeps its place when it is back",
      file: "control/view-planner.ts",
      text: "const groups = [whole.members, shard.members, more];",
      instead: "const groups = [shard.members, more];",
      scenario: "reboots move nothing, also when backups take over for good",
    },
    {
      name: "backups move as soon as there is nothing else to do",
      file: "control/view-planner.ts",
      text: "return changes.length === 0 && input.calm ? planSpread(planning) : changes;",
      instead: "return changes.length === 0 ? planSpread(planning) : changes;",
      scenario:
        "backups move once the cluster has been calm for long: whatever disturbs it begins the time anew",
    },
    {
      name: "a brick that is back before it was missed has not disturbed anything",
      file: "control/calm.ts",
      text: "return spell?.starts === starts ? spell : { sinceMs: nowMs, starts };",
      instead: "return spell ?? { sinceMs: nowMs, starts };",
      scenario:
        "backups move once the cluster has been calm for long: whatever disturbs it begins the time anew",
    },
    {
      name: "backups are counted without what their bricks lead",
      file: "control/backup-spread.ts",
      text: "    for (const one of members) {\n",
      instead: "    for (const one of members.filter((member) => member !== primary)) {\n",
      scenario: "reboots move nothing, also when backups take over for good",
    },
    {
      name: "a backup moves to whoever has fewer, though that gains nothing",
      file: "control/backup-spread.ts",
      text: "return this.#shareWith(family, to) <= without;",
      instead: "return without >= 0;",
      scenario:
        "what would leave two bricks as uneven as before, the other way round, does not move",
    },
    {
      name: "a backup that has been begun in another's place is given up again",
      file: "control/view-planner.ts",
      text: "if (more.length > 0 && home !== null && shard.members.includes(home.brick)) {",
      instead: "if (more.length < 0 && home !== null && shard.members.includes(home.brick)) {",
      scenario: "a backup leaves when the other is complete, and writes are on both until then",
    },
    {
      name: "a volume whose backups a reboot has divided stays so",
      file: "control/backup-spread.ts",
      text: "      if (move !== null) return move;\n",
      instead: "      if (move !== null && move.shards.length === 0) return move;\n",
      scenario:
        "a reboot in the middle of a move ends it, begins no other, and it is made up for later",
    },
    {
      name: "a backup moves into its gateway's failure domain",
      file: "control/view-planner.ts",
      text: "return ideal.includes(to) && members.every((one) => one === from || ideal.includes(one));",
      instead: "return ideal.length > 0;",
      scenario: "a backup moves to another failure domain than the gateway's, or not at all",
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
