import { parseArgs } from "node:util";
import { countSteps, crashAt, crashesOf } from "./verb-crash.ts";
import { verbNames } from "./verbs.ts";

const help = `npm run crash:verbs -- [--seed N] [--stride N] [--first N] [--verb NAME]

Cuts the power before the steps of every verb of an operator, one cut a run, in the simulator: of the
brick that leads Raft, of the one that serves the volume, of the one that is asked, of the one that the
verb is about, and of all. A step is a change of a brick's medium or a message that it sends. Exit
status: 0 when every verb came to its end or never began, 1 when one did not, 2 when the options are wrong.

  --seed N     which cluster (default 1)
  --stride N   only every so many steps (default 1: all of them)
  --first N    from that step on (default 1)
  --verb NAME  only that one: ${verbNames.join("; ")}
`;

const { values } = parseArgs({
  options: {
    seed: { type: "string" },
    stride: { type: "string" },
    first: { type: "string" },
    verb: { type: "string" },
    help: { type: "boolean", short: "h" },
  },
});
if (values.help) {
  process.stdout.write(help);
  process.exit(0);
}
const [seed, stride, first] = [values.seed, values.stride, values.first].map((text) =>
  Number(text ?? 1),
) as [number, number, number];
const names = values.verb === undefined ? verbNames : [values.verb];
const isCount = (value: number) => Number.isSafeInteger(value) && value >= 1;
if (![seed, stride, first].every(isCount) || !names.every((name) => verbNames.includes(name))) {
  process.stderr.write(help);
  process.exit(2);
}

const sum = { steps: 0, crashes: 0, violations: 0 };
for (const name of names) {
  const victims = await countSteps(name, seed);
  const steps = victims.reduce((all, victim) => all + victim.steps, 0);
  const crashes = crashesOf(victims, stride, first);
  let violations = 0;
  for (const crash of crashes) {
    const found = await crashAt(name, seed, crash);
    if (found === null) continue;
    violations += 1;
    process.stdout.write(`VIOLATED: ${name}, ${crash.role} at step ${crash.step}: ${found}\n`);
  }
  const parts = victims.map((victim) => `${victim.role} ${victim.steps}`).join(", ");
  process.stdout.write(
    `${name}: ${steps} steps (${parts}), ${crashes.length} crashes, ${violations} violations\n`,
  );
  sum.steps += steps;
  sum.crashes += crashes.length;
  sum.violations += violations;
}
const seconds = (process.cpuUsage().user / 1e6).toFixed(0);
process.stdout.write(
  `${names.length} verbs, ${sum.steps} steps, ${sum.crashes} crashes, ${sum.violations} violations; ${seconds} s of the processor\n`,
);
process.exit(sum.violations === 0 ? 0 : 1);
