import { setTimeout as sleep } from "node:timers/promises";
import { Command } from "commander";
import { z } from "zod";
import { parseOption, parseOptional } from "../options.ts";
import { diskScenarios } from "./disks.ts";
import { lossScenarios } from "./losses.ts";
import { networkScenarios } from "./networks.ts";
import { processScenarios } from "./processes.ts";
import { broken, isDisturbed, type Round, roundsRow, roundsTable } from "./rounds.ts";
import { CannotRun, type Scenario } from "./scenarios.ts";
import { Stage } from "./stage-io.ts";

/** `npm run failures`: real failures on real processes under verified load, against what is promised. */

const scenarios: readonly Scenario[] = [
  ...processScenarios,
  ...diskScenarios,
  ...networkScenarios,
  ...lossScenarios,
];

const attemptsMax = 20;

const countSchema = z
  .string()
  .regex(/^[1-9]\d{0,5}$/, "is not a whole number")
  .transform(Number);

/** The bricks go with this process, however it is ended. */
let stop: (() => Promise<void>) | null = null;
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.on(signal, async () => {
    await stop?.();
    process.exit(1);
  });
}

await new Command("failures")
  .description("Break real bricks under verified load, and compare with what END promises")
  .option("--only <NAME...>", "these scenarios alone")
  .option("--rounds <N>", "of each scenario (default: as the list says)")
  .option("--seed <N>", "the same seed makes the same load", String(1 + (Date.now() % 1e6)))
  .option("--list", "say what the scenarios are, and run nothing")
  .option("--verbose", "what the load meets, as it happens")
  .action(
    async (given: {
      only?: string[];
      rounds?: string;
      seed: string;
      list?: true;
      verbose?: true;
    }) => {
      if (given.list) {
        for (const { name, rounds, about } of scenarios) say(`${name} (${rounds}): ${about}`);
        return;
      }
      const rounds = parseOptional("--rounds", given.rounds, countSchema);
      const seed = parseOption("--seed", given.seed, countSchema);
      const unknown = given.only?.find((name) => !scenarios.some((one) => one.name === name));
      if (unknown !== undefined) throw new Error(`no scenario ${unknown}; see --list`);
      const chosen = scenarios.filter(({ name }) => given.only?.includes(name) ?? true);
      const log = given.verbose ? say : () => {};
      const rows: (string | number)[][] = [];
      let kept = true;
      for (const scenario of chosen) {
        const ran = await run(scenario, { rounds: rounds ?? scenario.rounds, seed, log });
        rows.push(roundsRow(scenario.name, ran.rounds));
        kept &&= ran.kept;
      }
      say(`\n${roundsTable(rows)}`);
      process.exitCode = kept ? 0 : 1;
    },
  )
  .parseAsync();

interface RunOptions {
  rounds: number;
  seed: number;
  log: (line: string) => void;
}

async function run(scenario: Scenario, options: RunOptions) {
  say(`${scenario.name}: ${scenario.about}`);
  const ran: Round[] = [];
  let kept = true;
  const complain = (line: string) => {
    kept = false;
    say(`  BROKEN ${line}`);
  };
  try {
    const setting = await scenario.begin();
    const stage = new Stage(setting.options, options.seed, options.log);
    const end = async () => {
      stop = null;
      await stage.close(setting.end);
    };
    stop = end;
    try {
      await setting.prepare?.(stage);
      await stage.cluster.startApart();
      for (let number = 0; number < options.rounds; number += 1) {
        const round = await undisturbed(() => setting.round(stage, number));
        ran.push(round);
        say(`  round ${number + 1}: ${roundText(round)}`);
        for (const what of broken(scenario.promised, round)) complain(what);
      }
    } finally {
      await end();
    }
  } catch (error) {
    complain(error instanceof CannotRun ? error.message : ((error as Error).stack ?? ""));
  }
  // Ports and processors come to rest.
  await sleep(500);
  return { rounds: ran, kept };
}

/** Repeats a round during which this process was not let run. */
async function undisturbed(round: () => Promise<Round>): Promise<Round> {
  for (let attempt = 1; ; attempt += 1) {
    const ran = await round();
    if (!isDisturbed(ran)) return ran;
    say(`  this process stood still for ${Math.round(ran.stalledMs)} ms: the round is repeated`);
    if (attempt === attemptsMax) throw new Error(`disturbed ${attemptsMax} times`);
  }
}

function roundText(round: Round): string {
  const { pauseMs, rejoinMs, wholeMs, refusals, disconnects } = round;
  const ms = (value: number | null) => (value === null ? "-" : `${Math.round(value)} ms`);
  const facts = [`pause ${ms(pauseMs)}`, `serves after ${ms(rejoinMs)}`];
  facts.push(`whole after ${ms(wholeMs)}`, `${disconnects} connections broke`);
  for (const [name, count] of Object.entries(refusals)) facts.push(`${count} times ${name}`);
  return facts.join(", ");
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}
