import { parseArgs } from "node:util";
import { type DialGroup, dialGroups } from "./fault-dials.ts";
import { type SimulationReport, simulate } from "./simulate.ts";
import { addRun, drawRun, noRuns, runLine, sumLine } from "./soak.ts";
import { readRecord, writeRecord } from "./soak-record-io.ts";

const help = `npm run sim -- [--seed N] [--bricks N] [--hours H] [--pause MS] [--clients N] [--dials LIST] [--damage MS] [--gc MS] [--log]
npm run sim -- --soak [--minutes M] [--runs N] [--record FILE] [--seed N] [--bricks N] [--hours H] [--pause MS] [--dials LIST] [--damage MS]

Runs a whole cluster in the simulator: simulated clock, network and disks, the product's own code.
The same options always give the same hash. Exit status: 0 when every invariant held, 1 when one was
violated (it is printed), 2 when the options are wrong.

  --seed N      which run (default: a random one, printed)
  --bricks N    bricks in the cluster, 1 to 9 (default 5)
  --hours H     simulated hours under faults (default 1)
  --pause MS    between an initiator's operations, at most (default 2000)
  --clients N   virtual initiators (default 4)
  --dials LIST  which faults may be drawn besides crashes, whole power cuts, partitions and freezes:
                of ${dialGroups.join(",")}, or "all" (default), or "none"
  --damage MS   something stored is damaged every so many ms, as far as a readable copy of everything is
                left (default: as drawn)
  --gc MS       collects garbage all the time, an epoch every so many ms, with a client that makes
                chunks die and come back, and checks what is owed (default: the usual pace)
  --log         what the bricks say, with the simulated time in ms
  --soak        seed after seed (from --seed on, else from a random one), a line for each, which begins with
                the options that repeat it, and the sum at the end; each draws its bricks (3 to 8),
                hours and pause unless they are given
  --minutes M   of the machine's time, after which a soak ends (default: when it is interrupted)
  --runs N      after which a soak ends
  --record FILE a soak in parts: it goes on where the last part ended, with the seed after its last
                one, and its sum is that of all parts. Other runs are counted apart, in another file
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

function dialsOf(text: string): readonly DialGroup[] {
  if (text === "all") return dialGroups;
  if (text === "none") return [];
  const names = text.split(",");
  const groups = dialGroups.filter((group) => names.includes(group));
  if (groups.length === names.length) return groups;
  process.stderr.write(`--dials ${text}: there are ${dialGroups.join(", ")}\n\n${help}`);
  process.exit(2);
}

function summary(report: SimulationReport): string {
  const { counts, counters, duel, faults, dials } = report;
  const minutes = (report.simulatedMs / 60_000).toFixed(1);
  const faultText = Object.entries(counts.faults).map(([code, count]) => `${count} ${code}`);
  const happened = Object.entries(faults).map(([name, count]) => `${name} ${count}`);
  return [
    `simulated ${minutes} minutes: ${counts.reads} reads, ${counts.writes} writes, ${counts.unmaps} unmaps${faultText.length > 0 ? `; ended with ${faultText.join(", ")}` : ""}`,
    `${counters.written} counted up, ${counters.miscompares} miscompares, ${counters.bits} bits set; ${report.copies} copies; ${duel.preempts} preempts, ${duel.writes} writes between them, ${duel.conflicts} conflicts; ${report.resets} resets; ${report.failovers} failovers`,
    `faults: ${report.reboots} reboots, ${happened.join(", ")}; loss ${dials.lossChance}, duplicates ${dials.duplicateChance}, reordering ${dials.reorderChance}`,
    ...(report.gc === null ? [] : [`garbage: ${JSON.stringify(report.gc)}`]),
    `chunk bytes copied after reboots ${report.copiedBytes}, settled ${report.settleBytes}; map bytes transferred ${report.transferBytes}; grains compacted ${report.compactedGrains}`,
  ].join("\n");
}

const { values } = parseArgs({
  options: {
    seed: { type: "string" },
    bricks: { type: "string" },
    hours: { type: "string" },
    pause: { type: "string" },
    clients: { type: "string" },
    dials: { type: "string" },
    minutes: { type: "string" },
    runs: { type: "string" },
    record: { type: "string" },
    soak: { type: "boolean" },
    damage: { type: "string" },
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
const dials = dialsOf(values.dials ?? "all");
const say = values.log ? (line: string) => process.stdout.write(`${line}\n`) : null;
const pauseMsMax = number("pause", values.pause, 2000, 1, 3_600_000);
const gcEveryMs = number("gc", values.gc, 0, 0, 3_600_000);
const damageEveryMs = number("damage", values.damage, 0, 0, 3_600_000);
const common = {
  clients,
  dials,
  ...(damageEveryMs > 0 && { damageEveryMs }),
  ...(gcEveryMs > 0 && { gcEveryMs }),
};

async function runOne(): Promise<boolean> {
  const listed = dials.length === dialGroups.length ? "all" : dials.join(",") || "none";
  const options = `bricks=${bricks} hours=${hours} pause=${pauseMsMax} clients=${clients} dials=${listed}`;
  process.stdout.write(`seed=${seed} ${options}\n`);
  const report = await simulate({ seed, bricks, hours, pauseMsMax, ...common }, say);
  process.stdout.write(`${summary(report)}\nhash=${report.hash}\n`);
  if (report.violation !== null) process.stdout.write(`VIOLATED: ${report.violation}\n`);
  return report.violation === null;
}

async function soak(): Promise<boolean> {
  const minutes = number("minutes", values.minutes, Number.MAX_SAFE_INTEGER, 0, 2 ** 53);
  const runs = number("runs", values.runs, Number.MAX_SAFE_INTEGER, 1, 2 ** 53);
  const endMs = performance.now() + minutes * 60_000;
  const given = {
    ...(values.bricks !== undefined && { bricks }),
    ...(values.hours !== undefined && { hours }),
    ...(values.pause !== undefined && { pauseMsMax }),
  };
  const { record: path } = values;
  const record = path === undefined ? { sum: noRuns(), seedNext: seed } : readRecord(path, seed);
  const { sum } = record;
  const end = () => {
    process.stdout.write(`${sumLine(sum)}\n`);
    process.exit(sum.violations === 0 ? 0 : 1);
  };
  process.once("SIGINT", end);
  process.once("SIGTERM", end);
  while (performance.now() < endMs && sum.runs < runs) {
    const run = drawRun(record.seedNext, given);
    const report = await simulate({ ...run, ...common }, say);
    addRun(sum, report);
    record.seedNext += 1;
    if (path !== undefined) writeRecord(path, record);
    process.stdout.write(`${runLine(run, report)}\n`);
  }
  end();
  return sum.violations === 0;
}

process.exit((await (values.soak ? soak() : runOne())) ? 0 : 1);
