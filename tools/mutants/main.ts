import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Command } from "commander";
import type { Mutant } from "./mutant.ts";
import { mutants } from "./mutants.ts";

/** `npm run mutants`: makes each wrong version of mutants.ts, and says whether it is caught. */

const root = fileURLToPath(new URL("../..", import.meta.url));
const folders = ["brick", "control", "iscsi", "test", "tools"];
const files = ["package.json", "tsconfig.json"];
/** A mutant may make a test hang: that is noticed, too. */
const limitMs = 300_000;

await new Command("mutants")
  .description("Make END wrong in many ways, one at a time, and see that the suite notices")
  .option("--only <REGEX>", "mutants whose name matches", ".")
  .option("--list", "say what they are, and run nothing")
  .action((given: { only: string; list?: true }) => {
    const chosen = mutants.filter(({ name }) => new RegExp(given.only).test(name));
    if (given.list) for (const { file, name } of chosen) say(`${file}: ${name}`);
    else process.exitCode = runAll(chosen) ? 0 : 1;
  })
  .parseAsync();

/** Whether all were caught. The sound version goes first: what fails with it proves nothing. */
function runAll(chosen: readonly Mutant[]): boolean {
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
    const survivors = chosen.filter((mutant) => !isCaught(folder, mutant));
    say(`${chosen.length - survivors.length} of ${chosen.length} caught`);
    for (const { name } of survivors) say(`not caught: ${name}`);
    return survivors.length === 0;
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
