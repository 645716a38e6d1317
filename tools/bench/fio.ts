import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { runTool } from "../run-tool-io.ts";

/** One job of fio with its libiscsi engine. */

export interface Job {
  name: string;
  /** fio's name of the pattern. */
  pattern: "randread" | "randwrite" | "read" | "write" | "randrw";
  blockBytes: number;
  depth: number;
}

export interface JobResult {
  iops: number;
  megabytesPerSecond: number;
  p50Us: number;
  p99Us: number;
  p999Us: number;
  /** Bytes that the client wrote. */
  writtenBytes: number;
  clientCpuPercent: number;
}

interface FioSide {
  iops: number;
  io_bytes: number;
  bw_bytes: number;
  clat_ns: { percentile?: Record<string, number> };
}

export async function runFio(options: {
  fio: string;
  url: string;
  job: Job;
  spanBytes: number;
  /** null: the whole span once. */
  seconds: number | null;
}): Promise<JobResult> {
  const { job, seconds } = options;
  const folder = mkdtempSync(join(tmpdir(), "endisk-fio-"));
  const output = join(folder, "result.json");
  const args = [
    `--name=${job.name}`,
    "--ioengine=libiscsi",
    // fio takes a colon in a file name for a list of names.
    `--filename=${options.url.replaceAll(":", "\\:")}`,
    "--thread",
    `--rw=${job.pattern}`,
    `--bs=${job.blockBytes}`,
    `--iodepth=${job.depth}`,
    `--size=${options.spanBytes}`,
    "--norandommap=1",
    // Of a mix; others do not heed it.
    "--rwmixread=70",
    // Every block that is written differs from all others: nothing to deduplicate.
    "--scramble_buffers=1",
    "--output-format=json",
    `--output=${output}`,
    ...(seconds === null ? [] : ["--time_based", `--runtime=${seconds}`]),
  ];
  try {
    const timeoutMs = (seconds ?? 180) * 1000 + 60_000;
    const { code, output: said } = await runTool(options.fio, args, { timeoutMs });
    if (code !== 0) throw new Error(`fio ${job.name}: exit ${code}: ${said.slice(-2000)}`);
    return resultOf(job, readFileSync(output, "utf8"));
  } finally {
    rmSync(folder, { recursive: true });
  }
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
    clientCpuPercent: report.usr_cpu + report.sys_cpu,
  };
}
