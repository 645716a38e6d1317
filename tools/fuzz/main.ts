import { parseArgs } from "node:util";
import { Coverage } from "./coverage.ts";
import { runRound } from "./fuzz-io.ts";
import { fuzzPortal } from "./portal-fuzz-io.ts";
import { summaryLines } from "./summary.ts";

/** Mutated PDUs of one round: enough to meet everything, few enough to be repeated in seconds. */
const roundPdus = 20_000;

const help = `npm run fuzz -- [--seed N] [--pdus N] [--connections N]

Fuzzes the iSCSI target in this process with mutated PDUs, in rounds of ${roundPdus} with the
seeds N, N+1, and so on; then with mutated streams, half-open connections and resets over loopback,
which the seed does not repeat exactly. Exit status: 0 when every check held, 1 when one did not (it is printed,
with the command that repeats it), 2 when the options are wrong.

  --seed N          the first round's (default: a random one)
  --pdus N          mutated PDUs in this process (default 1000000)
  --connections N   connections over loopback (default 20000)
`;

/** What resident memory may grow by, once the allocator has what it needs: after a fifth. */
const growthMiBMax = 64;
const usedGrowthMiBMax = 8;
const warmShare = 0.2;

const { values } = parseArgs({
  options: {
    seed: { type: "string" },
    pdus: { type: "string", default: "1000000" },
    connections: { type: "string", default: "20000" },
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

/** After a collection, in MiB; the collector is there with --expose-gc. */
interface Memory {
  readonly resident: number;
  /** What is referred to: a leak shows here, whatever the allocator keeps for later. */
  readonly used: number;
}

async function memoryNow(): Promise<Memory> {
  // Buffers are given back behind the collector's back: a few times, with pauses.
  for (let time = 0; time < 3; time += 1) {
    globalThis.gc?.();
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  const { rss, heapUsed, external } = process.memoryUsage();
  return { resident: rss / 2 ** 20, used: (heapUsed + external) / 2 ** 20 };
}

const seed = wholeNumber("seed", values.seed ?? String(Math.floor(Math.random() * 2 ** 31)));
const pdus = wholeNumber("pdus", values.pdus);
const connections = wholeNumber("connections", values.connections);
const total = new Coverage();
const startedMs = performance.now();
let turnMsMax = 0;
let warm: Memory | null = null;
let rounds = 0;
for (; total.mutated < pdus; rounds += 1) {
  const goal = Math.min(roundPdus, pdus - total.mutated);
  const report = await runRound(seed + rounds, goal);
  total.add(report.coverage);
  turnMsMax = Math.max(turnMsMax, report.turnMsMax);
  if (report.violation !== null) {
    const { message, transcript } = report.violation;
    process.stdout.write(`VIOLATED: ${message}\n${transcript}\n`);
    process.stdout.write(
      `again: npm run fuzz -- --seed ${report.seed} --pdus ${goal} --connections 0\n`,
    );
    process.exit(1);
  }
  if (total.mutated >= warmShare * pdus) warm ??= await memoryNow();
  if (rounds % 10 === 9) process.stderr.write(`${total.mutated} of ${pdus} mutated PDUs\n`);
}
function printTotals(coverage: Coverage): void {
  process.stdout.write(`${summaryLines(coverage).join("\n")}\n`);
}

/** Says how memory grew, or ends. */
async function growthText(from: Memory): Promise<string> {
  const now = await memoryNow();
  const resident = now.resident - from.resident;
  const used = now.used - from.used;
  const text = `memory +${resident.toFixed(0)} MiB resident, +${used.toFixed(1)} MiB used`;
  if (resident <= growthMiBMax && used <= usedGrowthMiBMax) return text;
  process.stdout.write(`VIOLATED: ${text}\n`);
  process.exit(1);
}

const secondsSince = (sinceMs: number) => ((performance.now() - sinceMs) / 1000).toFixed(0);

if (rounds > 0) {
  printTotals(total);
  process.stdout.write(
    `seeds ${seed} to ${seed + rounds - 1}: every check held in ${secondsSince(startedMs)} s; longest turn ${turnMsMax.toFixed(1)} ms of processor time, ${await growthText(warm!)}, fingerprint ${total.fingerprint.toString(16)}\n`,
  );
}

if (connections > 0) {
  const first = Math.ceil(connections * warmShare);
  const parts = [first, connections - first];
  const beforeMs = performance.now();
  const overLoopback = new Coverage();
  let warmed: Memory | null = null;
  let lateMsMax = 0;
  for (const [index, count] of parts.entries()) {
    const report = await fuzzPortal(seed + index, count);
    overLoopback.add(report.coverage);
    lateMsMax = Math.max(lateMsMax, report.lateMsMax);
    if (report.violation !== null) {
      process.stdout.write(`VIOLATED over loopback: ${report.violation}\n`);
      process.exit(1);
    }
    warmed ??= await memoryNow();
  }
  printTotals(overLoopback);
  process.stdout.write(
    `loopback, seed ${seed}: every check held in ${secondsSince(beforeMs)} s; event loop late by ${lateMsMax.toFixed(0)} ms at most, clients included, ${await growthText(warmed!)}\n`,
  );
}
