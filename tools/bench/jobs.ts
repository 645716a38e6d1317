import { GiB, KiB, MiB } from "../../brick/units.ts";

/** One job of fio with its libiscsi engine. */
export interface Job {
  name: string;
  /** fio's name of the pattern. */
  pattern: "randread" | "randwrite" | "read" | "write" | "randrw";
  blockBytes: number;
  depth: number;
  /** Of blocks of several sizes: fio's list of them. */
  blockMix?: string;
  /** A SYNCHRONIZE CACHE behind each write, and the next write behind that. */
  flush?: boolean;
  /** Of the volume's beginning; the bench's own span when absent. */
  spanBytes?: number;
  /** Random places are multiples of it. */
  alignBytes?: number;
  /** Left out behind each block. */
  skipBytes?: number;
  /** Measured beside the disk by itself, too. */
  rawDisk?: boolean;
  /** Not measured: makes the volume what the jobs after it meet, by so many bytes for each of the span. */
  prepares?: number;
}

/** Written once before anything is measured, so that reads meet data. */
const fillJob: Job = {
  name: "fill",
  pattern: "write",
  blockBytes: 1 * MiB,
  depth: 8,
  prepares: 1,
};

function atDepths(job: Omit<Job, "depth">, ...depths: readonly number[]): Job[] {
  return depths.map((depth) => ({ ...job, depth }));
}

const randomRead = { name: "4 KiB random read", pattern: "randread", blockBytes: 4 * KiB } as const;
const randomWrite = {
  name: "4 KiB random write",
  pattern: "randwrite",
  blockBytes: 4 * KiB,
} as const;
const longRead = { name: "128 KiB seq. read", pattern: "read", blockBytes: 128 * KiB } as const;

/** In this order: reads find what the jobs before them have left, as on a volume in use. */
const standardJobs: readonly Job[] = [
  fillJob,
  ...atDepths({ ...randomRead, name: "4 KiB random read, fresh" }, 32),
  ...atDepths({ ...randomWrite, rawDisk: true }, 1),
  ...atDepths(randomWrite, 32, 128),
  ...atDepths(randomRead, 1, 32, 128),
  ...atDepths({ name: "16 KiB mix 70/30", pattern: "randrw", blockBytes: 16 * KiB }, 16),
  ...atDepths({ name: "128 KiB seq. write", pattern: "write", blockBytes: 128 * KiB }, 8),
  ...atDepths(longRead, 8),
  ...atDepths({ name: "1 MiB seq. write", pattern: "write", blockBytes: 1 * MiB }, 1, 8),
  ...atDepths({ name: "1 MiB seq. read", pattern: "read", blockBytes: 1 * MiB }, 1, 8),
];

/** As a database writes: its journal and its pages, each made durable before the next. */
const databaseJobs: readonly Job[] = [
  fillJob,
  ...atDepths(
    { name: "8 KiB seq. write + flush", pattern: "write", blockBytes: 8 * KiB, flush: true },
    1,
  ),
  ...atDepths(
    { name: "8 KiB random write + flush", pattern: "randwrite", blockBytes: 8 * KiB, flush: true },
    1,
  ),
  ...atDepths({ name: "8 KiB mix 70/30", pattern: "randrw", blockBytes: 8 * KiB }, 8),
];

function ofAge(age: string): Job[] {
  return [
    ...atDepths({ ...longRead, name: `${longRead.name}, ${age}` }, 8),
    ...atDepths({ ...randomRead, name: `${randomRead.name}, ${age}` }, 32),
    ...atDepths({ ...randomWrite, name: `${randomWrite.name}, ${age}` }, 32),
  ];
}

/** A volume gets older: whole grains, then grains of 4 KiB pieces, then pieces of every size. */
const agingJobs: readonly Job[] = [
  fillJob,
  ...ofAge("fresh"),
  { ...randomWrite, name: "overwrite", depth: 128, prepares: 1 },
  ...ofAge("overwritten"),
  {
    name: "age",
    pattern: "randwrite",
    blockBytes: 512,
    blockMix: "512/10:4k/30:16k/30:64k/30",
    depth: 64,
    prepares: 2,
  },
  ...ofAge("aged"),
];

/** Half of one brick's chunk cache, and the whole span, which should be several times all of them. */
const cacheJobs: readonly Job[] = [
  fillJob,
  ...atDepths({ ...randomRead, name: "4 KiB random read, 32 MiB", spanBytes: 32 * MiB }, 1, 32),
  ...atDepths({ ...randomRead, name: "4 KiB random read, all" }, 1, 32),
];

/** A map of so many grains, each with one extent, far apart: as small as such a map can be stored. */
function mapJobs(gib: number): Job[] {
  const grainBytes = 64 * KiB;
  const blockBytes = 512;
  const spanBytes = gib * GiB;
  const scattered = { blockBytes, spanBytes, alignBytes: grainBytes };
  return [
    {
      name: `map of ${gib} GiB`,
      pattern: "write",
      blockBytes,
      depth: 128,
      spanBytes,
      skipBytes: grainBytes - blockBytes,
      prepares: blockBytes / grainBytes,
    },
    ...atDepths(
      { ...scattered, name: `512 B random read, map of ${gib} GiB`, pattern: "randread" },
      1,
      32,
    ),
    ...atDepths(
      { ...scattered, name: `512 B random write, map of ${gib} GiB`, pattern: "randwrite" },
      1,
      32,
    ),
  ];
}

export const jobSets = {
  standard: standardJobs,
  database: databaseJobs,
  aging: agingJobs,
  cache: cacheJobs,
  map: [...mapJobs(1), ...mapJobs(10), ...mapJobs(100)],
} as const satisfies Record<string, readonly Job[]>;
export type JobSet = keyof typeof jobSets;

/** What must be prepared, and of what is measured the jobs whose name and depth match. */
export function jobsOf(set: JobSet, only: RegExp): Job[] {
  return jobSets[set].filter(
    ({ name, depth, prepares }) => prepares !== undefined || only.test(`${name}, ${depth}`),
  );
}
