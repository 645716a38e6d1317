import { parseArgs } from "node:util";
import { type SimulationReport, simulate } from "./simulate.ts";

const help = `npm run sim -- [--seed N] [--bricks N] [--hours H] [--clients N] [--gc MS] [--log]

Runs a whole cluster in the simulator: simulated clock, network and disks, the product's own code.
The same options always give the same hash. Exit status: 0 when every invariant held, 1 when one was
violated (it is printed), 2 when the options are wrong.

  --seed N      which run (default: a random one, printed)
  --bricks N    bricks in the cluster, 1 to 9 (default 5)
  --hours H     simulated hours under faults (default 1)
  --clients N   virtual initiators (default 4)
  --gc MS       collects garbage all the time, an epoch every so many ms, with a client that makes
                chunks die and come back, and checks what is owed (default: the usual pace)
  --log         what the bricks say, with the simulated time in ms
`;

function number(
  name: string,
  text: string | undefined,
  fallback: number,
  min: number,
  max: number,
) {
  const value = text === undefined ? fallback : Number(text);
  if (!Number.isFinite(value) || value < min || value > max) {
    process.stderr.write(`--${name} ${text}: must be a number from ${min} to ${max}\n\n${help}`);
    process.exit(2);
  }
  return value;
}

function summary(report: SimulationReport): string {
  const { counts, counters, duel, faults, dials } = report;
  const minutes = (report.simulatedMs / 60_000).toFixed(1);
  const faultText = Object.entries(counts.faults).map(([code, count]) => `${count} ${code}`);
  return [
    `simulated ${minutes} minutes: ${counts.reads} reads, ${counts.writes} writes, ${counts.unmaps} unmaps${faultText.length > 0 ? `; ended with ${faultText.join(", ")}` : ""}`,
    `${counters.written} counted up, ${counters.miscompares} miscompares, ${counters.bits} bits set; ${report.copies} copies; ${duel.preempts} preempts, ${duel.writes} writes between them, ${duel.conflicts} conflicts; ${report.resets} resets; ${report.failovers} failovers`,
    `faults: ${faults.crashes} crashes, ${faults.powerCuts} whole power cuts, ${faults.partitions} partitions, ${faults.freezes} freezes; loss ${dials.lossChance}, duplicates ${dials.duplicateChance}, reordering ${dials.reorderChance}`,
    ...(report.gc === null ? [] : [`garbage: ${JSON.stringify(report.gc)}`]),
    `chunk bytes copied after reboots ${report.copiedBytes}, settled ${report.settleBytes}; map bytes transferred ${report.transferBytes}`,
  ].join("\n");
}

const { values } = parseArgs({
  options: {
    seed: { type: "string" },
    bricks: { type: "string" },
    hours: { type: "string" },
    clients: { type: "string" },
    gc: { type: "string" },
    log: { type: "boolean" },
    help: { type: "boolean", short: "h" },
  },
});
if (values.help) {
  process.stdout.write(help);
  process.exit(0);
}
const seed = number("seed", values.seed, Math.floor(Math.random() * 2 ** 31), 0, 2 ** 48);
const bricks = number("bricks", values.bricks, 5, 1, 9);
const hours = number("hours", values.hours, 1, 0.001, 24 * 365);
const clients = number("clients", values.clients, 4, 1, 64);
process.stdout.write(`seed=${seed} bricks=${bricks} hours=${hours} clients=${clients}\n`);
const say = values.log ? (line: string) => process.stdout.write(`${line}\n`) : null;
const gcEveryMs = number("gc", values.gc, 0, 0, 3_600_000);
const options = { seed, bricks, hours, clients, pauseMsMax: 2000 };
const report = await simulate({ ...options, ...(gcEveryMs > 0 && { gcEveryMs }) }, say);
process.stdout.write(`${summary(report)}\nhash=${report.hash}\n`);
if (report.violation !== null) {
  process.stdout.write(`VIOLATED: ${report.violation}\n`);
  process.exit(1);
}
process.exit(0);
