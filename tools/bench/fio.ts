import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { runTool } from "../run-tool-io.ts";
import type { Job } from "./jobs.ts";

export interface JobResult {
  iops: number;
  megabytesPerSecond: number;
  p50Us: number;
  p99Us: number;
  p999Us: number;
  /** Bytes that the client wrote, and in how many commands. */
  writtenBytes: number;
  writeCount: number;
  clientCpuPercent: number;
}

interface FioSide {
  iops: number;
  io_bytes: number;
  total_ios: number;
  bw_bytes: number;
  clat_ns: { percentile?: Record<string, number> };
}

/** Time for a job that ends by bytes, and slack for one that ends by time. */
const preparationMsMax = 3_600_000;
const slackMs = 60_000;

export async function runFio(options: {
  fio: string;
  /** One session each. */
  urls: readonly string[];
  job: Job;
  spanBytes: number;
  /** Of a job that is measured. */
  seconds: number;
  /** Not measured itself: at other places than the run that is. */
  warmsUp?: boolean;
}): Promise<JobResult> {
  const { job, seconds } = options;
  const folder = mkdtempSync(join(tmpdir(), "endisk-fio-"));
  const output = join(folder, "result.json");
  try {
    const timeoutMs = job.prepares === undefined ? seconds * 1000 + slackMs : preparationMsMax;
    const args = [...fioArguments(options), "--output-format=json", `--output=${output}`];
    const { code, output: said } = await runTool(options.fio, args, { timeoutMs });
    if (code !== 0) throw new Error(`fio ${job.name}: exit ${code}: ${said.slice(-2000)}`);
    return resultOf(job, readFileSync(output, "utf8"));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** What is the same for all sessions, and then each of them. */
export function fioArguments(options: {
  urls: readonly string[];
  job: Job;
  spanBytes: number;
  seconds: number;
  warmsUp?: boolean;
}): string[] {
  const { job, seconds } = options;
  // Each volume is prepared once, however many use it then.
  const urls = job.prepares === undefined ? options.urls : [...new Set(options.urls)];
  const spanBytes = job.spanBytes ?? options.spanBytes;
  const skip = job.skipBytes === undefined ? "" : `:${job.skipBytes}`;
  const args = [
    "--ioengine=libiscsi",
    "--thread",
    "--group_reporting",
    `--rw=${job.pattern}${skip}`,
    job.blockMix === undefined ? `--bs=${job.blockBytes}` : `--bssplit=${job.blockMix}`,
    `--iodepth=${job.depth}`,
    `--size=${spanBytes}`,
    "--norandommap=1",
    // Of a mix; others do not heed it.
    "--rwmixread=70",
    // Every block that is written differs from all others: nothing to deduplicate.
    "--scramble_buffers=1",
  ];
  if (job.alignBytes !== undefined) args.push(`--blockalign=${job.alignBytes}`);
  if (options.warmsUp === true) args.push("--randrepeat=0");
  if (job.flush === true) args.push("--fsync=1");
  if (job.prepares === undefined) args.push("--time_based", `--runtime=${seconds}`);
  else args.push(`--io_size=${spanBytes * job.prepares}`);
  for (const [at, url] of urls.entries()) {
    args.push(`--name=session${at + 1}`);
    // fio takes a colon in a file name for a list of names.
    args.push(`--filename=${url.replaceAll(":", "\\:")}`);
    // A target takes so many sessions of one initiator only.
    args.push(`--initiator=iqn.2026-11.endisk.bench:initiator${at + 1}`);
  }
  return args;
}

function resultOf(job: Job, text: string): JobResult {
  const report = JSON.parse(text.slice(text.indexOf("{"))).jobs[0];
  if (report.error !== 0) throw new Error(`fio ${job.name}: error ${report.error}`);
  const sides: FioSide[] = [report.read, report.write];
  const sum = (figure: (side: FioSide) => number) => figure(sides[0]!) + figure(sides[1]!);
  const worstUs = (name: string) =>
    Math.max(...sides.map((side) => side.clat_ns.percentile?.[name] ?? 0)) / 1000;
  return {
    iops: sum((side) => side.iops),
    megabytesPerSecond: sum((side) => side.bw_bytes) / 1e6,
    p50Us: worstUs("50.000000"),
    p99Us: worstUs("99.000000"),
    p999Us: worstUs("99.900000"),
    writtenBytes: sides[1]!.io_bytes,
    writeCount: sides[1]!.total_ios,
    clientCpuPercent: report.usr_cpu + report.sys_cpu,
  };
}
