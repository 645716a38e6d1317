import type { Job } from "./fio.ts";

const KiB = 1024;

/** Written once before anything is measured, so that reads meet data. */
export const fillJob: Job = { name: "fill", pattern: "write", blockBytes: 1024 * KiB, depth: 8 };

function atDepths(job: Omit<Job, "depth">, ...depths: readonly number[]): Job[] {
  return depths.map((depth) => ({ ...job, depth }));
}

/** In this order: reads find what the jobs before them have left, as on a volume in use. */
export const jobs: readonly Job[] = [
  ...atDepths({ name: "4 KiB random read, fresh", pattern: "randread", blockBytes: 4 * KiB }, 32),
  ...atDepths(
    { name: "4 KiB random write", pattern: "randwrite", blockBytes: 4 * KiB },
    1,
    32,
    128,
  ),
  ...atDepths({ name: "4 KiB random read", pattern: "randread", blockBytes: 4 * KiB }, 1, 32, 128),
  ...atDepths({ name: "16 KiB mix 70/30", pattern: "randrw", blockBytes: 16 * KiB }, 16),
  ...atDepths({ name: "128 KiB seq. write", pattern: "write", blockBytes: 128 * KiB }, 8),
  ...atDepths({ name: "128 KiB seq. read", pattern: "read", blockBytes: 128 * KiB }, 8),
  ...atDepths({ name: "1 MiB seq. write", pattern: "write", blockBytes: 1024 * KiB }, 1, 8),
  ...atDepths({ name: "1 MiB seq. read", pattern: "read", blockBytes: 1024 * KiB }, 1, 8),
];
