import { Command } from "commander";
import { z } from "zod";
import { parseOption, parseOptional } from "../options.ts";
import { scenarios } from "./all-scenarios.ts";
import { roundsRow, roundsTable } from "./rounds.ts";
import { runScenario, stopRunning } from "./run-io.ts";

/** `npm run failures`: real failures on real processes under verified load, against what is promised. */

const countSchema = z
  .string()
  .regex(/^[1-9]\d{0,5}$/, "is not a whole number")
  .transform(Number);

// The bricks go with this process, however it is ended.
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.on(signal, async () => {
    await stopRunning();
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
        say(`${scenario.name}: ${scenario.about}`);
        const count = (scenario.once ? null : rounds) ?? scenario.rounds;
        const ran = await runScenario(scenario, { rounds: count, seed, log, say });
        for (const what of ran.broken) say(`  BROKEN ${what}`);
        rows.push(roundsRow(scenario.name, ran.rounds));
        kept &&= ran.broken.length === 0;
      }
      say(`\n${roundsTable(rows)}`);
      process.exitCode = kept ? 0 : 1;
    },
  )
  .parseAsync();

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}
