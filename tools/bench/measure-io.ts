import { type JobResult, runFio } from "./fio.ts";
import type { Job } from "./jobs.ts";
import type { Measured } from "./measured.ts";
import { cpuSeconds, diskBytes, memoryBytes } from "./process-cost.ts";
import type { Samples } from "./prometheus.ts";
import { waitForQuietDisk } from "./quiet-disk-io.ts";
import { stageBudgets } from "./stages.ts";
import type { Subject } from "./subject.ts";

export interface Measuring {
  readonly fio: string;
  readonly spanBytes: number;
  readonly seconds: number;
}

/** Of the job, before it is measured: caches fill, code is compiled, on both sides. */
const warmUpSeconds = 2;

/** Runs the job, and looks at what it cost the subject: processor, memory, disk, flushes, steps. */
export async function measure(
  { fio, spanBytes, seconds }: Measuring,
  subject: Subject,
  job: Job,
): Promise<Measured> {
  const { urls } = subject;
  await waitForQuietDisk();
  await runFio({ fio, urls, job, spanBytes, seconds: warmUpSeconds, warmsUp: true });
  const pids = subject.pids();
  const scrapes = await subject.scrape();
  const before = { cpu: cpuSeconds(pids), disk: diskBytes() };
  const result = await runFio({ fio, urls, job, spanBytes, seconds });
  const spent = cpuSeconds(pids) - before.cpu;
  const written = diskBytes() - before.disk;
  const scrapesAfter = await subject.scrape();
  const { writtenBytes, writeCount, ...figures } = result;
  return {
    target: subject.name,
    job: job.name,
    depth: job.depth,
    ...figures,
    cpuUsPerCommand: (spent * 1e6) / Math.max(1, result.iops * seconds),
    memoryBytes: memoryBytes(pids),
    diskBytesPerByte: writtenBytes === 0 ? null : written / writtenBytes,
    flushesPerWrite: flushesPerWrite(result, scrapes, scrapesAfter),
    stages: stageBudgets(scrapes, scrapesAfter),
  };
}

/** Of all bricks together; null when nothing was written, or nobody counts. */
function flushesPerWrite(
  { writeCount }: JobResult,
  before: readonly Samples[],
  after: readonly Samples[],
): number | null {
  if (writeCount === 0 || after.length === 0) return null;
  const flushes = (scrapes: readonly Samples[]) =>
    scrapes.reduce((sum, samples) => sum + samples.sum("endisk_flushes_total"), 0);
  return (flushes(after) - flushes(before)) / writeCount;
}
