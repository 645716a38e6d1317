import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

/**
 * `npm test`: everything. Installs the Debian packages that the tests with real initiators need
 * when it may, runs every part even when one fails, and ends with the totals. A part that cannot
 * run has failed; nothing is skipped in silence.
 */

const root = fileURLToPath(new URL("..", import.meta.url));

/** A program that a test uses, and the Debian package it comes in. */
const tools: readonly (readonly [string, string])[] = [
  ["/usr/bin/iscsi-inq", "libiscsi-bin"],
  ["/usr/bin/qemu-img", "qemu-utils"],
  ["/usr/lib/x86_64-linux-gnu/qemu/block-iscsi.so", "qemu-block-extra"],
  ["/usr/bin/qemu-system-x86_64", "qemu-system-x86"],
  ["/usr/sbin/iscsid", "open-iscsi"],
  ["/usr/bin/busybox", "busybox-static"],
  ["/usr/sbin/mkfs.ext4", "e2fsprogs"],
  ["/usr/sbin/mkfs.xfs", "xfsprogs"],
  ["/usr/sbin/blkdiscard", "util-linux"],
  ["/usr/sbin/modprobe", "kmod"],
  ["/usr/sbin/multipathd", "multipath-tools"],
  ["/usr/bin/gcc", "gcc"],
  ["/usr/lib/x86_64-linux-gnu/libc.a", "libc6-dev"],
];

/**
 * Simulated clusters that always run: one that once failed is added here when it is mended. New ones
 * are drawn by `npm run sim -- --soak`, so that a change is judged by itself and not by luck.
 */
const simRuns: readonly SimRun[] = [
  { seed: 1, bricks: 4, dials: "all" },
  { seed: 2, bricks: 5, dials: "all" },
  // A leader that had not heard a brick yet began views without it.
  { seed: 987_655, bricks: 4, dials: "none" },
  { seed: 555, bricks: 3, dials: "none" },
  // A preempt of one that held nothing was taken for a reservation.
  { seed: 24_242, bricks: 5, dials: "none" },
  // A copy waited for two holders that were away in ever more rounds at once.
  { seed: 127_854_567, bricks: 5, dials: "none" },
  // One of five voters was lost, and there was never room for another in its place.
  { seed: 7001, bricks: 4, dials: "all" },
  // A brick was away while another joined, which led by its return: it could not be answered.
  { seed: 30_012, bricks: 4, dials: "all", short: true },
  // A brick that came back between a chunk and its answer went without it.
  { seed: 52_152, bricks: 4, dials: "all", short: true },
  // A command came to a brick that was only just opening its Raft log.
  { seed: 70_029, bricks: 3, dials: "all", short: true },
  // Too few bricks were up while nothing was answered: that chunks were copied then was called wrong.
  { seed: 80_666, bricks: 4, dials: "all", short: true },
  // A command began at a portal that was down already, and was thought to have begun before.
  { seed: 100_754, bricks: 7, dials: "all", short: true },
  // A bit of a chunk flipped, and was found, before the answer that it was durable had arrived.
  { seed: 101_000, bricks: 3, dials: "all", short: true },
  // A voter had lost the end of its Raft log without knowing it, and was never sent that again.
  { seed: 110_022, bricks: 7, dials: "all", short: true },
  // An answer to what a brick had asked before it restarted was taken for one to what it asked since.
  { seed: 300_568, bricks: 8, dials: "all", short: true },
  // What a gateway owed to a shard waited for a holder that nobody had asked.
  { seed: 800_990, bricks: 5, dials: "all", short: true },
  // A small write that landed in a narrower view than it was sent in was told the bricks of the wider one.
  { seed: 900_589, bricks: 4, dials: "all", short: true },
  // A brick had restarted before it was drained, and was kept for a volume that nobody used since.
  { seed: 900_583, bricks: 5, dials: "all", short: true },
  // A recovery asked the primary, cut at its end, while nobody whole was there; then somebody was.
  { seed: 1_000_850, bricks: 4, dials: "all", short: true },
  // What Raft's log had acknowledged was damaged at its end, and a power cut took the mark of how far it went.
  { seed: 1_200_065, bricks: 3, dials: "all", short: true },
  // The answer of who gathered a recovery's union was lost, and waited for, for two minutes.
  { seed: 1_200_548, bricks: 8, dials: "all", short: true },
  // A small write that had landed with too few copies was told, asked again, the bricks of a view that came since.
  { seed: 1_310_133, bricks: 4, dials: "all", short: true },
  // A backup had restarted, and its primary's greeting was lost, in a shard that nobody wrote.
  { seed: 1_410_303, bricks: 6, dials: "all", short: true },
];
/** Of a usual run, and of one of a soak: hours under faults, and how long clients pause. */
const usualRun = ["--hours", "0.1"];
const shortRun = ["--hours", "0.006", "--pause", "1100"];
const partMsMax = 20 * 60_000;

interface Totals {
  passed: number;
  failed: number;
}

interface SimRun {
  readonly seed: number;
  readonly bricks: number;
  /** The same seed is another run with other dials. */
  readonly dials: "all" | "none";
  readonly short?: true;
}

interface Part {
  name: string;
  program: string;
  args: readonly string[];
  /** Whether it is a run of node's test runner, which counts its tests; else it counts as one. */
  countsTests: boolean;
}

const localBin = (name: string) => `${root}node_modules/.bin/${name}`;

function nodeTests(name: string, ...patterns: string[]): Part {
  const serial = name === "unit tests" ? [] : ["--test-concurrency=1"];
  return {
    name,
    program: process.execPath,
    args: ["--test", "--test-reporter=spec", ...serial, ...patterns],
    countsTests: true,
  };
}

function simulation({ seed, bricks, dials, short }: SimRun): Part {
  const run = ["--seed", String(seed), "--bricks", String(bricks)];
  const options = [...run, ...(short ? shortRun : usualRun), "--dials", dials];
  return {
    name: `npm run sim -- ${options.join(" ")}`,
    program: process.execPath,
    args: ["tools/sim/main.ts", ...options],
    countsTests: false,
  };
}

function parts(): Part[] {
  return [
    { name: "types", program: localBin("tsc"), args: ["--noEmit"], countsTests: false },
    {
      name: "lint and format",
      program: localBin("biome"),
      args: ["check", "."],
      countsTests: false,
    },
    nodeTests(
      "unit tests",
      "brick/**/*.test.ts",
      "control/**/*.test.ts",
      "iscsi/**/*.test.ts",
      "tools/**/*.test.ts",
      "test/*-suite-*.test.ts",
      "test/formats/**/*.test.ts",
      "test/layers.test.ts",
    ),
    ...simRuns.map(simulation),
    nodeTests("real initiators and processes", "test/iscsi-*.test.ts", "test/real-*.test.ts"),
    nodeTests("Linux kernel initiator", "test/kernel/*.test.ts"),
  ];
}

function missingPackages(): string[] {
  return tools.flatMap(([path, name]) => (existsSync(path) ? [] : [name]));
}

/** Installs what is missing when this machine and this user can; returns what is still missing. */
async function installPackages(): Promise<string[]> {
  const missing = missingPackages();
  if (missing.length === 0) return [];
  const mayInstall = process.getuid?.() === 0 && existsSync("/usr/bin/apt-get");
  if (!mayInstall) return missing;
  say(`installing ${missing.join(" ")}`);
  const lock = ["-o", "DPkg::Lock::Timeout=120", "-q"];
  await run({ program: "apt-get", args: [...lock, "update"], quiet: true });
  const install = ["install", "-y", "--no-install-recommends", ...missing];
  await run({ program: "apt-get", args: [...lock, ...install], quiet: true });
  return missingPackages();
}

interface Ran {
  code: number | null;
  lines: string[];
}

/** Passes the output on as it comes, unless `quiet` and all goes well. */
function run(task: { program: string; args: readonly string[]; quiet?: boolean }): Promise<Ran> {
  return new Promise((resolve) => {
    const lines: string[] = [];
    const child = spawn(task.program, task.args, {
      cwd: root,
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" },
    });
    const timer = setTimeout(() => {
      say(`not ended within ${partMsMax / 60_000} minutes: killed`);
      child.kill("SIGKILL");
    }, partMsMax);
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream }).on("line", (line) => {
        lines.push(line);
        if (!task.quiet) say(line);
      });
    }
    child.on("error", (error) => lines.push(error.message));
    child.on("close", (code) => {
      clearTimeout(timer);
      if (task.quiet && code !== 0) say(lines.slice(-20).join("\n"));
      resolve({ code, lines });
    });
  });
}

async function runPart(part: Part): Promise<Totals> {
  say(`\n== ${part.name}`);
  const startedMs = performance.now();
  const { code, lines } = await run(part);
  const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
  const totals = part.countsTests
    ? testTotals(code, lines)
    : { passed: code === 0 ? 1 : 0, failed: code === 0 ? 0 : 1 };
  say(`== ${part.name}: ${totals.passed} passed, ${totals.failed} failed, ${seconds} s`);
  return totals;
}

/** From the closing lines of node's spec reporter; what was skipped or cancelled has not passed. */
function testTotals(code: number | null, lines: readonly string[]): Totals {
  const total = (name: string) => {
    const line = lines.findLast((text) => text.startsWith(`ℹ ${name} `));
    return line === undefined ? 0 : Number(line.split(" ").at(-1));
  };
  const failed = total("fail") + total("cancelled") + total("skipped") + total("todo");
  const passed = total("pass");
  // No test found, or an end without totals, is a failure.
  if ((code !== 0 || passed === 0) && failed === 0) return { passed, failed: 1 };
  return { passed, failed };
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

const sum: Totals = { passed: 0, failed: 0 };
const failedParts: string[] = [];
const missing = await installPackages();
if (missing.length > 0) {
  say(`Debian packages missing: install them with apt-get install ${missing.join(" ")}`);
  sum.failed += 1;
  failedParts.push("packages");
}
for (const part of parts()) {
  const needsPackages = /real|kernel/.test(part.name);
  const totals =
    missing.length > 0 && needsPackages ? { passed: 0, failed: 1 } : await runPart(part);
  sum.passed += totals.passed;
  sum.failed += totals.failed;
  if (totals.failed > 0) failedParts.push(part.name);
}
say("");
if (failedParts.length > 0) say(`failed: ${failedParts.join("; ")}`);
say(`${sum.passed} passed, ${sum.failed} failed`);
process.exitCode = sum.failed === 0 ? 0 : 1;
