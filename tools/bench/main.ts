import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { Command } from "commander";
import { z } from "zod";
import { capacitySchema, parseOption, sizeSchema, sizeText } from "../options.ts";
import { RealCluster, type RealClusterOptions } from "../real-cluster-io.ts";
import { runTool } from "../run-tool-io.ts";
import { table } from "../table.ts";
import { type Job, runFio } from "./fio.ts";
import { fillJob, jobs } from "./jobs.ts";
import { type BenchResult, heads, type Measured, mediansOf, rowsOf } from "./measured.ts";
import { cpuSeconds, diskBytes, residentBytes } from "./process-cost.ts";
import { Tgt } from "./tgt.ts";

/**
 * `npm run bench`: a cluster of its own on this machine, and tgtd on a plain file, under the same jobs
 * in turn. END writes everything durably on two bricks before it answers; tgtd answers from the page
 * cache.
 */

const cacheFolder = fileURLToPath(new URL("../../.cache/fio", import.meta.url));
const buildScript = fileURLToPath(new URL("build-fio.sh", import.meta.url));

interface Subject {
  name: string;
  url: string;
  pids: () => number[];
}

interface BenchPlan {
  bricks: number;
  seconds: number;
  rounds: number;
  spanBytes: number;
  capacity: string;
  only: RegExp;
  tgt: boolean;
  json: string | null;
  before: Measured[] | null;
  profile: string | null;
}

const countOf = (what: string, max: number) =>
  z
    .string()
    .regex(/^[1-9]\d{0,3}$/, `is not a number of ${what}`)
    .transform(Number)
    .refine((value) => value <= max, `is more than ${max}`);

await new Command("bench")
  .description("Measure a cluster on this machine beside tgtd on a plain file")
  .option("--bricks <N>", "of the cluster", "4")
  .option("--seconds <N>", "for each job", "5")
  .option("--rounds <N>", "of which the medians are taken", "1")
  .option("--span <SIZE>", "part of the volume that is used", "512MiB")
  .option("--capacity <SIZE>", "space each brick offers", "8GiB")
  .option("--only <REGEX>", "jobs whose name and depth match, as in 'write, 32'", ".")
  .option("--no-tgt", "END alone")
  .option("--json <FILE>", "write the results there, too")
  .option("--compare <FILE>", "show how much faster than an earlier --json each job was")
  .option("--profile <DIR>", "leave a CPU profile of each brick there (slows them down a little)")
  .action(async (given: Record<string, string> & { tgt: boolean }) => {
    parseOption("--capacity", given.capacity, capacitySchema);
    await bench({
      bricks: parseOption("--bricks", given.bricks, countOf("bricks", 9)),
      seconds: parseOption("--seconds", given.seconds, countOf("seconds", 9999)),
      rounds: parseOption("--rounds", given.rounds, countOf("rounds", 99)),
      spanBytes: parseOption("--span", given.span, sizeSchema),
      capacity: given.capacity!,
      only: new RegExp(given.only!),
      tgt: given.tgt,
      json: given.json ?? null,
      before: given.compare === undefined ? null : readResult(given.compare).measured,
      profile: given.profile === undefined ? null : resolve(given.profile),
    });
  })
  .parseAsync();

function readResult(file: string): BenchResult {
  return JSON.parse(readFileSync(file, "utf8")) as BenchResult;
}

async function bench(plan: BenchPlan): Promise<void> {
  const fio = join(cacheFolder, "fio");
  if (!existsSync(fio)) {
    say("building fio with the libiscsi engine");
    const built = await runTool("sh", [buildScript, cacheFolder], { timeoutMs: 600_000 });
    if (built.code !== 0) throw new Error(`build-fio.sh: ${built.output}`);
  }
  const folder = mkdtempSync(join(tmpdir(), "endisk-bench-"));
  const { bricks, capacity } = plan;
  const cluster = new RealCluster({ bricks, capacity, ...profiling(plan) });
  let tgt: Tgt | null = null;
  try {
    await cluster.start();
    const numbers = Array.from({ length: bricks }, (_, at) => at + 1);
    const subjects: Subject[] = [
      { name: "END", url: cluster.url(1), pids: () => numbers.map((one) => cluster.pid(one)) },
    ];
    if (plan.tgt) {
      const port = Number(cluster.portal(10).split(":")[1]);
      tgt = await Tgt.start({ folder, port, sizeBytes: plan.spanBytes });
      const { url, pid } = tgt;
      subjects.push({ name: "tgtd", url, pids: () => [pid] });
    }
    report(plan, mediansOf(await measureAll(plan, fio, subjects)));
  } finally {
    await tgt?.stop();
    await cluster.dispose();
    rmSync(folder, { recursive: true, force: true });
  }
}

function profiling({ profile }: BenchPlan): RealClusterOptions {
  if (profile === null) return {};
  return { environment: { NODE_OPTIONS: `--cpu-prof --cpu-prof-dir=${profile}` } };
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
  for (let round = 1; round <= plan.rounds; round += 1) {
    for (const job of jobs.filter(({ name, depth }) => plan.only.test(`${name}, ${depth}`))) {
      for (const subject of subjects) {
        say(`round ${round}: ${job.name}, depth ${job.depth}: ${subject.name}`);
        measured.push(await measure(plan, fio, subject, job));
      }
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
  const { url, pids } = subject;
  const { spanBytes, seconds } = plan;
  const before = { cpu: cpuSeconds(pids()), disk: diskBytes() };
  const { writtenBytes, ...result } = await runFio({ fio, url, job, spanBytes, seconds });
  const spent = cpuSeconds(pids()) - before.cpu;
  const written = diskBytes() - before.disk;
  return {
    target: subject.name,
    job: job.name,
    depth: job.depth,
    ...result,
    cpuUsPerCommand: (spent * 1e6) / Math.max(1, result.iops * seconds),
    residentBytes: residentBytes(pids()),
    diskBytesPerByte: writtenBytes === 0 ? null : written / writtenBytes,
  };
}

function report(plan: BenchPlan, measured: Measured[]): void {
  const { bricks, seconds, rounds, spanBytes, json, before } = plan;
  const machine = `${cpus().length} x ${cpus()[0]?.model ?? "CPU"}`;
  say("");
  say(table(heads, rowsOf(measured, before)));
  say("");
  say(`${machine}; ${bricks} bricks, two copies, all on this machine; ${seconds} s a job on`);
  say(
    `${sizeText(spanBytes)}, median of ${rounds}. us/cmd: CPU of all bricks together, or of tgtd;`,
  );
  say("MiB: their memory; disk: bytes that reached the machine's for each byte written.");
  if (json === null) return;
  const result: BenchResult = { machine, bricks, seconds, rounds, measured };
  writeFileSync(json, `${JSON.stringify(result, null, 2)}\n`);
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}
