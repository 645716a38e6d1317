import { parseArgs } from "node:util";
import { crashStates } from "./crash-states.ts";

const help = `npm run crash-states -- [--seed N] [--states N]

Opens every state that a power cut could leave of recorded runs of a brick's store and of Raft's
files, and of each sequence of up to three store operations, and examines each: nothing acknowledged
is lost, nothing is invented, neither now nor after a second power cut. Prints how many states there
were by what the power was cut after. Exit status: 0 when every state held, 1 when one did not (it is
printed), 2 when the options are wrong.

  --seed N     which runs, and which choices at each cut (default: a random one, printed)
  --states N   at least so many states in all (default 50000)
`;

const { values } = parseArgs({
  options: {
    seed: { type: "string" },
    states: { type: "string", default: "50000" },
    help: { type: "boolean", short: "h" },
  },
});
if (values.help) {
  process.stdout.write(help);
  process.exit(0);
}
const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 31));
const statesMin = Number(values.states);
if (!Number.isSafeInteger(seed) || seed < 0 || !Number.isSafeInteger(statesMin)) {
  process.stderr.write(help);
  process.exit(2);
}
process.stdout.write(`seed=${seed} states=${statesMin}\n`);
try {
  await crashStates({ seed, statesMin }, (line) => process.stdout.write(`${line}\n`));
} catch (error) {
  process.stdout.write(`${error instanceof Error ? error.stack : String(error)}\n`);
  process.exit(1);
}
