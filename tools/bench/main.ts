import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { Command } from "commander";
import { z } from "zod";
import { capacitySchema, parseOption, sizeSchema, sizeText, UsageError } from "../options.ts";
import { RealCluster, type RealClusterOptions } from "../real-cluster-io.ts";
import { runTool } from "../run-tool-io.ts";
import { table } from "../table.ts";
import { runFio } from "./fio.ts";
import { type Job, type JobSet, jobSets, jobsOf } from "./jobs.ts";
import { measure } from "./measure-io.ts";
import { type BenchResult, heads, type Measured, mediansOf, rowsOf } from "./measured.ts";
import { plotsOf } from "./plot.ts";
import { Samples } from "./prometheus.ts";
import { measureRawDisk } from "./raw-disk-io.ts";
import { stageHeads, stageRows } from "./stages.ts";
import type { Subject } from "./subject.ts";
import { Tgt } from "./tgt.ts";

/**
 * `npm run bench`: a cluster of its own on this machine, and tgtd on a plain file, under the same jobs
 * in turn. END writes everything durably on two bricks before it answers; tgtd answers from the page
 * cache.
 */

const picturesDefault = "docs/pictures";
const cacheFolder = fileURLToPath(new URL("../../.cache/fio", import.meta.url));
const buildScript = fileURLToPath(new URL("build-fio.sh", import.meta.url));

interface BenchPlan {
  bricks: number;
  sessions: number;
  volumes: number;
  jobs: readonly Job[];
  seconds: number;
  rounds: number;
  spanBytes: number;
  capacity: string;
  tgt: boolean;
  stages: boolean;
  memory: string | null;
  json: string | null;
  plot: string | null;
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
  .option("--sessions <N>", "of fio, each of an initiator of its own", "1")
  .option("--volumes <N>", "that the sessions share out among them, each by another brick", "1")
  .option("--set <NAME>", `the jobs: ${Object.keys(jobSets).join(", ")}`, "standard")
  .option("--seconds <N>", "for each job", "5")
  .option("--rounds <N>", "of which the medians are taken", "1")
  .option("--span <SIZE>", "part of the volume that is used", "512MiB")
  .option("--capacity <SIZE>", "space each brick offers", "8GiB")
  .option("--only <REGEX>", "jobs whose name and depth match, as in 'write, 32'", ".")
  .option("--memory <SIZE>", "of each brick")
  .option("--no-tgt", "END alone")
  .option("--stages", "show how long each step of reads and writes took")
  .option("--json <FILE>", "write the results there, too")
  .option("--plot [DIR]", `draw the results, as ${picturesDefault} or DIR has them`)
  .option("--from <FILE>", "measure nothing: show, and plot, an earlier --json")
  .option("--compare <FILE>", "show how much faster than an earlier --json each job was")
  .option("--profile <DIR>", "leave a CPU profile of each brick there (slows them down a little)")
  .action(
    async (
      given: Record<string, string> & { tgt: boolean; stages?: boolean; plot?: string | true },
    ) => {
      parseOption("--capacity", given.capacity, capacitySchema);
      const plot = given.plot === undefined ? null : plotFolder(given.plot);
      if (given.from !== undefined) {
        const result = readResult(given.from);
        say(table(heads, rowsOf(result.measured, null)));
        if (plot !== null) draw(plot, result);
        return;
      }
      const set = parseOption("--set", given.set, z.enum(Object.keys(jobSets) as JobSet[]));
      const sessions = parseOption("--sessions", given.sessions, countOf("sessions", 64));
      const volumes = parseOption("--volumes", given.volumes, countOf("volumes", 64));
      if (volumes > sessions) throw new UsageError("--volumes: more than there are --sessions");
      await bench({
        bricks: parseOption("--bricks", given.bricks, countOf("bricks", 9)),
        sessions,
        volumes,
        jobs: jobsOf(set, new RegExp(given.only!)),
        seconds: parseOption("--seconds", given.seconds, countOf("seconds", 9999)),
        rounds: parseOption("--rounds", given.rounds, countOf("rounds", 99)),
        spanBytes: parseOption("--span", given.span, sizeSchema),
        capacity: given.capacity!,
        tgt: given.tgt,
        stages: given.stages === true,
        memory: given.memory ?? null,
        json: given.json ?? null,
        plot,
        before: given.compare === undefined ? null : readResult(given.compare).measured,
        profile: given.profile === undefined ? null : resolve(given.profile),
      });
    },
  )
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
  const cluster = new RealCluster(clusterOptions(plan));
  let tgt: Tgt | null = null;
  try {
    await cluster.start();
    const subjects = [endOf(cluster, plan)];
    if (plan.tgt) {
      const port = Number(cluster.portal(10).split(":")[1]);
      const sizeBytes = Math.max(...plan.jobs.map((job) => job.spanBytes ?? plan.spanBytes));
      const { volumes } = plan;
      tgt = await Tgt.start({ folder, port, sizeBytes, volumes });
      const { urls, pid } = tgt;
      subjects.push({
        name: "tgtd",
        urls: sessionUrls(plan, (volume) => urls[volume]!),
        pids: () => [pid],
        scrape: async () => [],
      });
    }
    report(plan, mediansOf(await measureAll(plan, fio, subjects, folder)));
  } finally {
    await tgt?.stop();
    await cluster.dispose();
    rmSync(folder, { recursive: true, force: true });
  }
}

function clusterOptions(plan: BenchPlan): RealClusterOptions {
  const { bricks, capacity, memory, profile } = plan;
  const names = Array.from({ length: plan.volumes }, (_, volume) => volumeName(volume));
  return {
    bricks,
    capacity,
    volumes: names.map((name) => `${name}:1TiB`),
    ...(memory !== null && { memory }),
    ...(profile !== null && {
      environment: { NODE_OPTIONS: `--cpu-prof --cpu-prof-dir=${profile}` },
    }),
  };
}

function volumeName(volume: number): string {
  return `disk${volume}`;
}

function endOf(cluster: RealCluster, plan: BenchPlan): Subject {
  const bricks = Array.from({ length: plan.bricks }, (_, at) => at + 1);
  return {
    name: "END",
    // Whoever is asked for a volume first attaches it: each brick serves its part of them.
    urls: sessionUrls(plan, (volume) =>
      cluster.url((volume % plan.bricks) + 1, volumeName(volume)),
    ),
    pids: () => bricks.map((number) => cluster.pid(number)),
    scrape: () =>
      Promise.all(bricks.map(async (number) => new Samples(await cluster.metricsText(number)))),
  };
}

/** Sessions are shared out evenly among the volumes. */
function sessionUrls(plan: BenchPlan, urlOf: (volume: number) => string): string[] {
  return Array.from({ length: plan.sessions }, (_, session) => urlOf(session % plan.volumes));
}

async function measureAll(
  plan: BenchPlan,
  fio: string,
  subjects: readonly Subject[],
  folder: string,
): Promise<Measured[]> {
  const { spanBytes, seconds, jobs } = plan;
  const measured: Measured[] = [];
  for (let round = 1; round <= plan.rounds; round += 1) {
    for (const job of jobs) {
      const prepares = job.prepares !== undefined;
      if (prepares && round > 1 && !isRepeated(plan)) continue;
      for (const subject of subjects) {
        say(`round ${round}: ${job.name}, depth ${job.depth}: ${subject.name}`);
        if (prepares) await runFio({ fio, urls: subject.urls, job, spanBytes, seconds });
        else measured.push(await measure({ fio, spanBytes, seconds }, subject, job));
      }
      if (job.rawDisk === true) measured.push(await measureRawDisk(folder, job, seconds));
    }
  }
  return measured;
}

/** Whether each round needs the volume as it was: a first filling is enough for the others. */
function isRepeated({ jobs }: BenchPlan): boolean {
  return jobs.filter(({ prepares }) => prepares !== undefined).length > 1;
}

function report(plan: BenchPlan, measured: Measured[]): void {
  const { bricks, sessions, volumes, memory, seconds, rounds, spanBytes, json, before } = plan;
  const machine = `${cpus().length} x ${cpus()[0]?.model ?? "CPU"}`;
  say("");
  say(table(heads, rowsOf(measured, before)));
  say("");
  say(`${machine}; ${bricks} bricks, two copies; ${seconds} s a job on`);
  say(
    `${sizeText(spanBytes)}, ${sessions} sessions, ${volumes} volumes, median of ${rounds}. us/cmd: CPU of all bricks together, or of tgtd;`,
  );
  say("MiB: their memory; disk: bytes that reached the machine's for each byte written;");
  say(
    "flush: flushes of all bricks together for each write; disk, as a target: a file of pages that are",
  );
  say("written one after another with O_DSYNC.");
  if (plan.stages) {
    say("");
    say(table(stageHeads, stageRows(measured)));
    say("");
    say("Steps of END's commands, all bricks together; docs/operations.md says what each is.");
  }
  const counts = { bricks, sessions, volumes, memory, seconds, rounds };
  const result: BenchResult = { machine, ...counts, measured };
  if (json !== null) writeFileSync(json, `${JSON.stringify(result, null, 2)}\n`);
  if (plan.plot !== null) draw(plan.plot, result);
}

/** Commander says `true` when the option has no value. */
function plotFolder(given: string | true): string {
  return given === true ? picturesDefault : given;
}

function draw(folder: string, result: BenchResult): void {
  mkdirSync(folder, { recursive: true });
  for (const [name, svg] of plotsOf(result)) {
    writeFileSync(join(folder, name), svg);
    say(`drawn: ${join(folder, name)}`);
  }
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}
