/**
 * What may happen to each file of a brick, and what END does then: the table of docs/failures.md,
 * which damage.test.ts compares with this one, and carries out.
 */

/** What a medium does to bytes at rest. */
export const restDamages = [
  "bit flip",
  "zeros",
  "junk",
  "truncated",
  "swapped",
  "misdirected write",
  "EIO on read",
] as const;
export type RestDamage = (typeof restDamages)[number];

/** What a disk does to a call. */
export const callDamages = ["EIO on write", "EIO on fsync", "ENOSPC"] as const;
export type CallDamage = (typeof callDamages)[number];

export const outcomes = {
  healed:
    "the bytes are not served; the chunk is written anew from another brick, in place of the damaged one",
  rebuilt:
    "what is whole on both sides counts; the map replicas it may concern are rebuilt from peers, its chunks written anew from other bricks",
  "other copy": "the other copy counts, and both are written again",
  "asks peers":
    "what is missing comes from the other voters; until then this one abstains as far as is needed",
  "goes on":
    "nothing that matters is lost: the file only hastens a start, or room is found elsewhere, or later",
  waits:
    "the brick says what is full and how much it needs, asks again every 2 s, and starts by itself once there is room",
  stops:
    "the brick stops itself, never repeats the call, and is as a killed brick; a restart is whole",
  refuses:
    "the brick does not start and says why; its shards and chunks are as those of a lost brick",
} as const;
export type Outcome = keyof typeof outcomes;

export interface DamageRow {
  readonly file: string;
  readonly damages: readonly (RestDamage | CallDamage | "missing")[];
  /** When the damage is done: while the brick runs, or before it starts. */
  readonly when: "running" | "before a start";
  readonly outcome: Outcome;
}

export const damageRows: readonly DamageRow[] = [
  { file: "segment: a chunk", damages: restDamages, when: "running", outcome: "healed" },
  {
    file: "segment: a new chunk",
    damages: restDamages,
    when: "before a start",
    outcome: "rebuilt",
  },
  {
    file: "segment: a map record",
    damages: restDamages,
    when: "before a start",
    outcome: "rebuilt",
  },
  {
    file: "segment: a batch header",
    damages: restDamages,
    when: "before a start",
    outcome: "rebuilt",
  },
  { file: "segment", damages: ["EIO on write", "EIO on fsync"], when: "running", outcome: "stops" },
  { file: "segment", damages: ["ENOSPC"], when: "running", outcome: "goes on" },
  {
    file: "superblock: one copy",
    damages: restDamages,
    when: "before a start",
    outcome: "other copy",
  },
  {
    file: "superblock: both copies",
    damages: ["zeros", "junk"],
    when: "before a start",
    outcome: "refuses",
  },
  {
    file: "superblock",
    damages: ["EIO on write", "EIO on fsync"],
    when: "before a start",
    outcome: "refuses",
  },
  { file: "index", damages: ["missing"], when: "before a start", outcome: "goes on" },
  {
    file: "index of a recycled log",
    damages: ["missing"],
    when: "before a start",
    outcome: "refuses",
  },
  {
    file: "index",
    damages: ["EIO on read", "EIO on write"],
    when: "running",
    outcome: "stops",
  },
  { file: "index", damages: ["ENOSPC"], when: "running", outcome: "goes on" },
  { file: "index", damages: ["ENOSPC"], when: "before a start", outcome: "waits" },
  { file: "Raft log", damages: restDamages, when: "before a start", outcome: "asks peers" },
  {
    file: "Raft log",
    damages: ["EIO on write", "EIO on fsync"],
    when: "running",
    outcome: "stops",
  },
  { file: "Raft log", damages: ["ENOSPC"], when: "running", outcome: "goes on" },
  {
    file: "Raft term and vote: one copy",
    damages: restDamages,
    when: "before a start",
    outcome: "other copy",
  },
  {
    file: "Raft term and vote: both copies",
    damages: ["zeros", "junk"],
    when: "before a start",
    outcome: "refuses",
  },
  { file: "Raft tail", damages: restDamages, when: "before a start", outcome: "goes on" },
  { file: "Raft snapshot", damages: restDamages, when: "before a start", outcome: "asks peers" },
  { file: "list of peers", damages: restDamages, when: "before a start", outcome: "goes on" },
];

export function tableLines(): string[] {
  const rows = damageRows.map(({ file, damages, when, outcome }) => {
    return `| ${file} | ${damages.join(", ")} | ${when} | ${outcome} |`;
  });
  const meanings = Object.entries(outcomes).map(([name, meaning]) => `| ${name} | ${meaning} |`);
  return [...rows, ...meanings];
}
