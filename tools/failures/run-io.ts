import { setTimeout as sleep } from "node:timers/promises";
import { broken, isDisturbed, type Round } from "./rounds.ts";
import { CannotRun, type Scenario } from "./scenarios.ts";
import { Stage } from "./stage-io.ts";

export interface RunOptions {
  rounds: number;
  seed: number;
  /** What the load meets. */
  log(line: string): void;
  /** How it goes. */
  say(line: string): void;
}

export interface Ran {
  rounds: readonly Round[];
  /** What was promised and not kept; empty when all was. */
  broken: readonly string[];
}

const attemptsMax = 20;
const restMs = 500;

let stop: (() => Promise<void>) | null = null;

/** Ends what runs now, and takes away what it has made. */
export async function stopRunning(): Promise<void> {
  await stop?.();
}

/** All rounds of a scenario on one cluster. */
export async function runScenario(scenario: Scenario, options: RunOptions): Promise<Ran> {
  const rounds: Round[] = [];
  const found: string[] = [];
  try {
    await runRounds(scenario, options, rounds);
  } catch (error) {
    const { message, stack } = error as Error;
    found.push(error instanceof CannotRun ? message : (stack ?? message));
  }
  for (const [at, round] of rounds.entries()) {
    for (const what of broken(scenario.promised, round)) found.push(`round ${at + 1}: ${what}`);
  }
  // Ports and processors come to rest.
  await sleep(restMs);
  return { rounds, broken: found };
}

async function runRounds(scenario: Scenario, options: RunOptions, rounds: Round[]): Promise<void> {
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
      const round = await undisturbed(() => setting.round(stage, number), options);
      rounds.push(round);
      options.say(`  round ${number + 1}: ${roundText(round)}`);
    }
  } finally {
    await end();
  }
}

/** Repeats a round during which this process was not let run. */
async function undisturbed(round: () => Promise<Round>, { say }: RunOptions): Promise<Round> {
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
