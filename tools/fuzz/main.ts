import { parseArgs } from "node:util";
import { Coverage } from "./coverage.ts";
import { runRound } from "./fuzz-io.ts";
import { summaryLines } from "./summary.ts";

/** Mutated PDUs of one round: enough to meet everything, few enough to be repeated in seconds. */
const roundPdus = 20_000;

const help = `npm run fuzz -- [--seed N] [--pdus N]

Fuzzes the iSCSI target in this process with mutated PDUs, in rounds of ${roundPdus} with the
seeds N, N+1, and so on. Exit status: 0 when every check held, 1 when one did not (it is printed,
with the command that repeats it), 2 when the options are wrong.

  --seed N   the first round's (default: a random one)
  --pdus N   mutated PDUs (default 1000000)
`;

/** What memory may grow by between the end of the first round and that of the last (FIGURES T16). */
const growthMiBMax = 64;

const { values } = parseArgs({
  options: {
    seed: { type: "string" },
    pdus: { type: "string", default: "1000000" },
    help: { type: "boolean", short: "h" },
  },
});
if (values.help) {
  process.stdout.write(help);
  process.exit(0);
}

function wholeNumber(name: string, text: string): number {
  if (/^\d{1,12}$/.test(text)) return Number(text);
  process.stderr.write(`--${name} ${text}: must be a whole number\n\n${help}`);
  process.exit(2);
}

/** Resident memory after a collection, in MiB; the collector is there with --expose-gc. */
function residentMiB(): number {
  globalThis.gc?.();
  return process.memoryUsage.rss() / 2 ** 20;
}

const seed = wholeNumber("seed", values.seed ?? String(Math.floor(Math.random() * 2 ** 31)));
const pdus = wholeNumber("pdus", values.pdus);
const total = new Coverage();
const startedMs = performance.now();
let turnMsMax = 0;
let baseMiB: number | null = null;
let rounds = 0;
for (; total.mutated < pdus; rounds += 1) {
  const goal = Math.min(roundPdus, pdus - total.mutated);
  const report = await runRound(seed + rounds, goal);
  total.add(report.coverage);
  turnMsMax = Math.max(turnMsMax, report.turnMsMax);
  if (report.violation !== null) {
    const { message, transcript } = report.violation;
    process.stdout.write(`VIOLATED: ${message}\n${transcript}\n`);
    process.stdout.write(`again: npm run fuzz -- --seed ${report.seed} --pdus ${goal}\n`);
    process.exit(1);
  }
  baseMiB ??= residentMiB();
}
const growthMiB = residentMiB() - (baseMiB ?? 0);
const seconds = ((performance.now() - startedMs) / 1000).toFixed(0);
process.stdout.write(`${summaryLines(total).join("\n")}\n`);
process.stdout.write(
  `seeds ${seed} to ${seed + rounds - 1}: every check held in ${seconds} s; longest turn ${turnMsMax.toFixed(1)} ms of processor time, memory +${growthMiB.toFixed(0)} MiB, fingerprint ${total.fingerprint.toString(16)}\n`,
);
if (growthMiB > growthMiBMax) {
  process.stdout.write(`VIOLATED: memory grew by more than ${growthMiBMax} MiB\n`);
  process.exit(1);
}
