import type { JobResult } from "./fio.ts";
import type { StageBudget } from "./stages.ts";

/** One job on one target, in one round or as the median of several. */
export interface Measured extends Omit<JobResult, "writtenBytes" | "writeCount"> {
  target: string;
  job: string;
  depth: number;
  /** Of all its processes together. */
  cpuUsPerCommand: number;
  memoryBytes: number;
  /** Bytes that reached the disk for each byte that the client wrote; null for reads. */
  diskBytesPerByte: number | null;
  /** Of all bricks' logs, for each write; null for reads and for others than END. */
  flushesPerWrite?: number | null;
  stages?: StageBudget[];
}

/** What a run of the bench leaves behind, and a later one compares itself with. */
export interface BenchResult {
  machine: string;
  bricks: number;
  seconds: number;
  rounds: number;
  sessions?: number;
  volumes?: number;
  memory?: string | null;
  measured: Measured[];
}

/** The same job on the same target, each figure the median of its rounds. */
export function mediansOf(rounds: readonly Measured[]): Measured[] {
  const byJob = Map.groupBy(rounds, jobAndTarget);
  return [...byJob.values()].map((same) => {
    const of = (figure: (one: Measured) => number) => median(same.map(figure));
    const known = (figure: (one: Measured) => number | null) => {
      const figures = same.map(figure).filter((one) => one !== null);
      return figures.length === 0 ? null : median(figures);
    };
    return {
      ...same[0]!,
      iops: of((one) => one.iops),
      megabytesPerSecond: of((one) => one.megabytesPerSecond),
      p50Us: of((one) => one.p50Us),
      p99Us: of((one) => one.p99Us),
      p999Us: of((one) => one.p999Us),
      cpuUsPerCommand: of((one) => one.cpuUsPerCommand),
      memoryBytes: Math.max(...same.map((one) => one.memoryBytes)),
      diskBytesPerByte: known((one) => one.diskBytesPerByte),
      flushesPerWrite: known((one) => one.flushesPerWrite ?? null),
      stages: medianStages(same),
    };
  });
}

/** Of each step the median round. */
function medianStages(rounds: readonly Measured[]): StageBudget[] {
  const all = rounds.flatMap(({ stages }) => stages ?? []);
  const byStep = Map.groupBy(all, ({ op, stage }) => `${op}/${stage}`);
  return [...byStep.values()].map((same) => {
    const of = (figure: (one: StageBudget) => number) => median(same.map(figure));
    return {
      ...same[0]!,
      count: of((one) => one.count),
      meanUs: of((one) => one.meanUs),
      p99Us: of((one) => one.p99Us),
    };
  });
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

function jobAndTarget({ job, depth, target }: Measured): string {
  return `${job}/${depth}/${target}`;
}

/** The row of the same job and depth with another target. */
export function beside(
  measured: readonly Measured[],
  row: Measured,
  target: string,
): Measured | undefined {
  const key = jobAndTarget({ ...row, target });
  return measured.find((other) => jobAndTarget(other) === key);
}

const MiB = 1024 * 1024;

export const heads = [
  "job",
  "depth",
  "target",
  "IOPS",
  "MB/s",
  "p50 us",
  "p99 us",
  "p99.9 us",
  "us/cmd",
  "MiB",
  "disk",
  "flush",
  "of tgtd",
  "before",
];

/** `before`: an earlier result, by which each row is divided. */
export function rowsOf(
  measured: readonly Measured[],
  before: readonly Measured[] | null,
): (string | number)[][] {
  return measured.map((row) => {
    const tgtd = row.target === "tgtd" ? undefined : beside(measured, row, "tgtd");
    const was = before === null ? undefined : beside(before, row, row.target);
    return [
      row.job,
      row.depth,
      row.target,
      Math.round(row.iops),
      row.megabytesPerSecond.toFixed(1),
      Math.round(row.p50Us),
      Math.round(row.p99Us),
      Math.round(row.p999Us),
      Math.round(row.cpuUsPerCommand),
      Math.round(row.memoryBytes / MiB),
      row.diskBytesPerByte === null ? "" : row.diskBytesPerByte.toFixed(2),
      row.flushesPerWrite?.toFixed(2) ?? "",
      tgtd === undefined ? "" : `${(row.iops / tgtd.iops).toFixed(2)}x`,
      was === undefined ? "" : `${(row.iops / was.iops).toFixed(2)}x`,
    ];
  });
}
