import assert from "node:assert/strict";
import { test } from "node:test";
import { scenarios } from "../tools/failures/all-scenarios.ts";
import type { Promised } from "../tools/failures/rounds.ts";
import { runScenario } from "../tools/failures/run-io.ts";

/**
 * Some of what `npm run failures` does, a round or a few of each. How long a pause is depends on the
 * machine: here it only has to end, and a machine that is busy elsewhere may cost a lease.
 */

const rounds: Readonly<Record<string, number>> = {
  "freeze-gateway": 1,
  "two-of-five-gateway": 1,
  reboots: 3,
  replace: 1,
};

for (const [name, count] of Object.entries(rounds)) {
  const scenario = scenarios.find((one) => one.name === name)!;
  test(`${name}: ${scenario.about}`, { timeout: 300_000 }, async () => {
    const promised: Promised = { ...scenario.promised, pauseMsMax: null, refusals: "retryable" };
    const seed = Number(process.env.SEED ?? 1 + (Date.now() % 1_000_000));
    const lines: string[] = [`seed ${seed}`];
    const log = (line: string) => void lines.push(line);
    const ran = await runScenario(
      { ...scenario, promised },
      { rounds: count, seed, log, say: log },
    );
    assert.deepEqual(ran.broken, [], lines.join("\n"));
    assert.equal(ran.rounds.length, count);
  });
}
