import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Command } from "commander";
import { z } from "zod";
import { capacitySchema, parseOption, sizeSchema, sizeText } from "../options.ts";
import { RealCluster } from "../real-cluster-io.ts";
import { runTool } from "../run-tool-io.ts";
import { table } from "../table.ts";
import { type Job, type JobResult, runFio } from "./fio.ts";
import { cpuSeconds, residentBytes } from "./process-cost.ts";
import { Tgt } from "./tgt.ts";

/**
 * `npm run bench`: a cluster of three bricks of its own on this machine, and tgtd on a plain file,
 * under the same jobs in turn. END writes everything durably on two bricks before it answers; tgtd
 * answers from the page cache.
 */

const cacheFolder = fileURLToPath(new URL("../../.cache/fio", import.meta.url));
const buildScript = fileURLToPath(new URL("build-fio.sh", import.meta.url));
const bricks = [1, 2, 3];

const KiB = 1024;
const jobs: readonly Job[] = [
  { name: "4 KiB random write", pattern: "randwrite", blockBytes: 4 * KiB, depth: 1 },
  { name: "4 KiB random write", pattern: "randwrite", blockBytes: 4 * KiB, depth: 32 },
  { name: "4 KiB random read", pattern: "randread", blockBytes: 4 * KiB, depth: 1 },
  { name: "4 KiB random read", pattern: "randread", blockBytes: 4 * KiB, depth: 32 },
  { name: "1 MiB seq. write", pattern: "write", blockBytes: 1024 * KiB, depth: 1 },
  { name: "1 MiB seq. write", pattern: "write", blockBytes: 1024 * KiB, depth: 32 },
  { name: "1 MiB seq. read", pattern: "read", blockBytes: 1024 * KiB, depth: 1 },
  { name: "1 MiB seq. read", pattern: "read", blockBytes: 1024 * KiB, depth: 32 },
];

/** Written once before anything is measured, so that reads meet data. */
const fillJob: Job = { name: "fill", pattern: "write", blockBytes: 1024 * KiB, depth: 8 };

interface Measured extends JobResult {
  target: string;
  job: string;
  depth: number;
  cpuSeconds: number;
  cpuUsPerCommand: number;
  residentBytes: number;
}

interface Subject {
  name: string;
  url: string;
  pids: () => number[];
}

interface BenchPlan {
  seconds: number;
  spanBytes: number;
  capacity: string;
  only: RegExp;
  tgt: boolean;
  json: string | null;
}

const secondsSchema = z
  .string()
  .regex(/^\d{1,4}$/, "is not a number of seconds")
  .transform(Number);

await new Command("bench")
  .description("Measure a cluster of three bricks on this machine beside tgtd on a plain file")
  .option("--seconds <N>", "for each job", "5")
  .option("--span <SIZE>", "part of the volume that is used", "512MiB")
  .option("--capacity <SIZE>", "space each brick offers", "8GiB")
  .option("--only <REGEX>", "jobs whose name and depth match, as in 'write, 32'", ".")
  .option("--no-tgt", "END alone")
  .option("--json <FILE>", "write the results there, too")
  .action(async (given: Record<string, string> & { tgt: boolean }) => {
    parseOption("--capacity", given.capacity, capacitySchema);
    await bench({
      seconds: parseOption("--seconds", given.seconds, secondsSchema),
      spanBytes: parseOption("--span", given.span, sizeSchema),
      capacity: given.capacity!,
      only: new RegExp(given.only!),
      tgt: given.tgt,
      json: given.json ?? null,
    });
  })
  .parseAsync();

async function bench(plan: BenchPlan): Promise<void> {
  const fio = join(cacheFolder, "fio");
  if (!existsSync(fio)) {
    say("building fio with the libiscsi engine");
    const built = await runTool("sh", [buildScript, cacheFolder], { timeoutMs: 600_000 });
    if (built.code !== 0) throw new Error(`build-fio.sh: ${built.output}`);
  }
  const folder = mkdtempSync(join(tmpdir(), "endisk-bench-"));
  const cluster = new RealCluster({ capacity: plan.capacity });
  let tgt: Tgt | null = null;
  try {
    await cluster.start();
    const subjects: Subject[] = [
      {
        name: "END",
        url: cluster.url(1),
        pids: () => bricks.map((number) => cluster.pid(number)),
      },
    ];
    if (plan.tgt) {
      const port = Number(cluster.portal(9).split(":")[1]);
      tgt = await Tgt.start({ folder, port, sizeBytes: plan.spanBytes });
      const { url, pid } = tgt;
      subjects.push({ name: "tgtd", url, pids: () => [pid] });
    }
    const measured = await measureAll(plan, fio, subjects);
    report(plan, measured);
  } finally {
    await tgt?.stop();
    await cluster.dispose();
    rmSync(folder, { recursive: true, force: true });
  }
}

async function measureAll(
  plan: BenchPlan,
  fio: string,
  subjects: readonly Subject[],
): Promise<Measured[]> {
  for (const subject of subjects) {
    say(`filling ${sizeText(plan.spanBytes)} of ${subject.name}`);
    const { url } = subject;
    await runFio({ fio, url, job: fillJob, spanBytes: plan.spanBytes, seconds: null });
  }
  const measured: Measured[] = [];
  for (const job of jobs.filter(({ name, depth }) => plan.only.test(`${name}, ${depth}`))) {
    for (const subject of subjects) {
      say(`${job.name}, depth ${job.depth}: ${subject.name}`);
      measured.push(await measure(plan, fio, subject, job));
    }
  }
  return measured;
}

async function measure(
  plan: BenchPlan,
  fio: string,
  subject: Subject,
  job: Job,
): Promise<Measured> {
  const before = cpuSeconds(subject.pids());
  const { url } = subject;
  const { spanBytes, seconds } = plan;
  const result = await runFio({ fio, url, job, spanBytes, seconds });
  const spent = cpuSeconds(subject.pids()) - before;
  return {
    target: subject.name,
    job: job.name,
    depth: job.depth,
    ...result,
    cpuSeconds: spent,
    cpuUsPerCommand: (spent * 1e6) / Math.max(1, result.iops * seconds),
    residentBytes: residentBytes(subject.pids()),
  };
}

function report(plan: BenchPlan, measured: readonly Measured[]): void {
  const rows = measured.map((row) => {
    const beside = measured.find(
      (other) => other.target === "tgtd" && other.job === row.job && other.depth === row.depth,
    );
    const ratio = beside === undefined ? "-" : `${(row.iops / beside.iops).toFixed(2)}x`;
    return [
      row.job,
      row.depth,
      row.target,
      Math.round(row.iops),
      row.megabytesPerSecond.toFixed(1),
      Math.round(row.p50Us),
      Math.round(row.p99Us),
      row.cpuSeconds.toFixed(1),
      Math.round(row.cpuUsPerCommand),
      Math.round(row.residentBytes / (KiB * KiB)),
      row.target === "tgtd" ? "" : ratio,
    ];
  });
  const heads = ["job", "depth", "target", "IOPS", "MB/s", "p50 us", "p99 us", "CPU s", "us/cmd"];
  say("");
  say(table([...heads, "MiB", "of tgtd"], rows));
  say("");
  const cpu = `${cpus().length} x ${cpus()[0]?.model ?? "CPU"}`;
  say(`${cpu}; ${plan.seconds} s a job on ${sizeText(plan.spanBytes)}; three bricks, two copies,`);
  say("all on this machine. CPU s and MiB are of the three bricks together, or of tgtd.");
  if (plan.json !== null) {
    writeFileSync(
      plan.json,
      `${JSON.stringify({ cpu, plan: { ...plan, only: plan.only.source }, measured }, null, 2)}\n`,
    );
  }
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}
