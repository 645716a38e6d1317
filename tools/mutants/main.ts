import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Command } from "commander";
import { Findings } from "./findings.ts";
import type { Mutant } from "./mutant.ts";
import { mutants } from "./mutants.ts";
import { type Part, partOf, readPart } from "./parts.ts";
import { sourcesHash } from "./sources-hash.ts";

/** `npm run mutants`: makes each wrong version of mutants.ts, and says whether it is caught. */

const root = fileURLToPath(new URL("../..", import.meta.url));
const folders = ["brick", "control", "iscsi", "test", "tools"];
const files = ["package.json", "tsconfig.json"];
/** A mutant may make a test hang: that is noticed, too. */
const limitMs = 300_000;

await new Command("mutants")
  .description("Make END wrong in many ways, one at a time, and see that the suite notices")
  .option("--only <REGEX>", "mutants whose name matches", ".")
  .option("--part <N/OF>", "of these every OFth, from the Nth on: 1/4 to 4/4 are all", readPart)
  .option(
    "--record <FILE>",
    "keep there what was found; what it tells of the same sources is not tried again",
  )
  .option("--list", "say what they are, and run nothing")
  .action((given: { only: string; part?: Part; record?: string; list?: true }) => {
    const named = mutants.filter(({ name }) => new RegExp(given.only).test(name));
    const chosen = given.part === undefined ? named : partOf(named, given.part);
    if (given.list) for (const { file, name } of chosen) say(`${file}: ${name}`);
    else process.exitCode = runChosen(chosen, given.record) ? 0 : 1;
  })
  .parseAsync();

/** Whether all were caught, now or when the record was made. */
function runChosen(chosen: readonly Mutant[], record: string | undefined): boolean {
  const sources = sourcesHash(root, [...folders, ...files]);
  const findings = new Findings(sources, record);
  const left = chosen.filter(({ name }) => !findings.isKnown(name));
  const ran = left.length === 0 || runAll(left, findings);
  if (record !== undefined) say(findings.summary(mutants.map(({ name }) => name)));
  return ran && chosen.every(({ name }) => findings.isCaught(name));
}

/** Whether they could be tried. The sound version goes first: what fails with it proves nothing. */
function runAll(chosen: readonly Mutant[], findings: Findings): boolean {
  const folder = mkdtempSync(join(tmpdir(), "endisk-mutants-"));
  try {
    for (const name of folders) cpSync(join(root, name), join(folder, name), { recursive: true });
    for (const name of files) cpSync(join(root, name), join(folder, name));
    symlinkSync(join(root, "node_modules"), join(folder, "node_modules"));
    for (const [text, tests] of testsOf(chosen)) {
      const { passed, output } = runTests(folder, tests);
      if (passed) continue;
      say(`without any mutant this fails: ${text}\n${output}`);
      return false;
    }
    for (const mutant of chosen) findings.add(mutant.name, isCaught(folder, mutant));
    const survivors = chosen.filter(({ name }) => !findings.isCaught(name));
    say(`${chosen.length - survivors.length} of ${chosen.length} caught`);
    for (const { name } of survivors) say(`not caught: ${name}`);
    return true;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

interface Tests {
  readonly caughtBy: readonly string[];
  /** The tests of these files that count; all of them, if none is named. */
  readonly scenarios: readonly string[];
}

/** What must pass without any mutant, by the files that it is in. */
function testsOf(chosen: readonly Mutant[]): Map<string, Tests> {
  const all = new Map<string, Tests>();
  for (const { caughtBy, scenario } of chosen) {
    const text = caughtBy.join(" ");
    const known = all.get(text);
    const whole = scenario === undefined || (known !== undefined && known.scenarios.length === 0);
    const scenarios = whole ? [] : [...new Set([...(known?.scenarios ?? []), scenario])];
    all.set(text, { caughtBy, scenarios });
  }
  return all;
}

function isCaught(folder: string, mutant: Mutant): boolean {
  const path = join(folder, mutant.file);
  const sound = readFileSync(path, "utf8");
  const startedMs = performance.now();
  writeFileSync(
    path,
    sound.replace(mutant.text, () => mutant.instead),
  );
  const { caughtBy, scenario } = mutant;
  const scenarios = scenario === undefined ? [] : [scenario];
  const { passed } = runTests(folder, { caughtBy, scenarios });
  writeFileSync(path, sound);
  const seconds = ((performance.now() - startedMs) / 1000).toFixed(0).padStart(4);
  say(`${passed ? "NOT CAUGHT" : "caught    "} ${seconds} s  ${mutant.name}`);
  return !passed;
}

function runTests(
  folder: string,
  { caughtBy, scenarios }: Tests,
): { passed: boolean; output: string } {
  const tests = caughtBy.every((one) => one.endsWith(".test.ts"));
  const which = scenarios.map((name) => `--test-name-pattern=^${literally(name)}$`);
  const args = tests ? ["--test", "--test-concurrency=1", ...which, ...caughtBy] : [...caughtBy];
  const run = spawnSync(process.execPath, args, {
    cwd: folder,
    timeout: limitMs,
    killSignal: "SIGKILL",
    encoding: "utf8",
    maxBuffer: 64 * 1024 * 1024,
  });
  const output = `${run.stdout}\n${run.stderr}`.split("\n").slice(-40).join("\n");
  return { passed: run.status === 0, output };
}

function literally(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}
