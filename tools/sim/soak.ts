import { Prng } from "../../brick/prng.ts";
import type { ConvergenceCounts } from "./convergence.ts";
import { damageCount } from "./disk-trouble.ts";
import { type PartitionKind, partitionKinds } from "./partitions.ts";
import type { SimulationReport } from "./simulate.ts";

const corruptionKinds = ["flips", "unreadable", "lostWrites", "misdirected", "rotten"] as const;
type CorruptionKind = (typeof corruptionKinds)[number];

/** What many runs came to together. */
export interface SoakSum {
  runs: number;
  violations: number;
  simulatedMs: number;
  reboots: number;
  powerCuts: number;
  /** Of all kinds. */
  partitions: number;
  partitionsByKind: Record<PartitionKind, number>;
  /** Each that differs from the others by who did not hear whom. */
  partitionShapes: Set<string>;
  convergence: ConvergenceCounts;
  clogs: number;
  halfOpen: number;
  freezes: number;
  diskFailures: number;
  corruptions: number;
  corruptionsByKind: Record<CorruptionKind, number>;
  losses: number;
  operations: number;
}

export function noRuns(): SoakSum {
  return {
    runs: 0,
    violations: 0,
    simulatedMs: 0,
    reboots: 0,
    powerCuts: 0,
    partitions: 0,
    partitionsByKind: { split: 0, oneWay: 0, pair: 0, gateway: 0, flapping: 0, bridge: 0 },
    partitionShapes: new Set(),
    convergence: { converged: 0, convergeMsLongest: 0 },
    clogs: 0,
    halfOpen: 0,
    freezes: 0,
    diskFailures: 0,
    corruptions: 0,
    corruptionsByKind: { flips: 0, unreadable: 0, lostWrites: 0, misdirected: 0, rotten: 0 },
    losses: 0,
    operations: 0,
  };
}

export function addRun(sum: SoakSum, report: SimulationReport): void {
  const { faults, counts, counters, duel } = report;
  sum.runs += 1;
  sum.violations += report.violation === null ? 0 : 1;
  sum.simulatedMs += report.simulatedMs;
  sum.reboots += report.reboots;
  sum.powerCuts += faults.powerCuts;
  sum.partitions += faults.partitions;
  for (const kind of partitionKinds) sum.partitionsByKind[kind] += report.partitions[kind];
  for (const shape of report.partitionShapes) sum.partitionShapes.add(shape);
  const { converged, convergeMsLongest } = report.convergence;
  sum.convergence.converged += converged;
  sum.convergence.convergeMsLongest = Math.max(
    sum.convergence.convergeMsLongest,
    convergeMsLongest,
  );
  sum.clogs += faults.clogs;
  sum.freezes += faults.freezes + faults.slow;
  sum.diskFailures += faults.failures;
  sum.halfOpen += faults.halfOpen;
  for (const kind of corruptionKinds) sum.corruptionsByKind[kind] += faults[kind];
  sum.corruptions += damageCount(faults);
  sum.losses += faults.lost;
  sum.operations += counts.reads + counts.writes + counts.unmaps + report.copies + report.resets;
  sum.operations += counters.written + counters.miscompares + counters.bits;
  sum.operations += duel.preempts + duel.writes + duel.conflicts;
}

/** What a cluster goes through in a year, as a soak counts years. */
const yearly = {
  reboots: 52,
  partitions: 12,
  corruptions: 4,
  losses: 2,
  powerCuts: 1,
  operations: 20_000,
} as const satisfies Partial<Record<keyof SoakSum, number>>;

/**
 * How many years of a cluster's life the events make: as many as the scarcest kind is enough for.
 * Quiet time is not among them; the sum tells it apart.
 */
export function clusterYears(sum: SoakSum): number {
  const ratios = Object.entries(yearly).map(
    ([kind, count]) => sum[kind as keyof typeof yearly] / count,
  );
  return Math.min(...ratios);
}

/** What one run of a soak is; its line repeats it: `npm run sim -- LINE`. */
export interface SoakRun {
  readonly seed: number;
  readonly bricks: number;
  readonly hours: number;
  readonly pauseMsMax: number;
}

/** `given` is what every run of the soak has in common; the rest is drawn from the seed. */
export function drawRun(seed: number, given: Partial<SoakRun>): SoakRun {
  const prng = new Prng(seed + 0.125 * 2 ** 32);
  const bricks = prng.between(3, 8);
  const hours = prng.pick([0.02, 0.05, 0.1, 0.2]);
  const pauseMsMax = prng.pick([200, 1_000, 2_000]);
  return { seed, bricks, hours, pauseMsMax, ...given };
}

export function runLine(run: SoakRun, report: SimulationReport): string {
  const happened = Object.entries({ reboots: report.reboots, ...report.faults })
    .filter(([, count]) => count > 0)
    .map(([name, count]) => `${name} ${count}`);
  const { seed, bricks, hours, pauseMsMax } = run;
  const options = `--seed ${seed} --bricks ${bricks} --hours ${hours} --pause ${pauseMsMax}`;
  const verdict = report.violation === null ? "ok" : `VIOLATED: ${report.violation}`;
  return `${options}  hash=${report.hash}  ${happened.join(", ")}  ${verdict}`;
}

function corruptionText(sum: SoakSum): string {
  const { flips, unreadable, lostWrites, misdirected, rotten } = sum.corruptionsByKind;
  return `${flips} bits, ${unreadable} unreadable, ${lostWrites} lost and ${misdirected} misdirected writes, ${rotten} in the index`;
}

function partitionText(sum: SoakSum): string {
  const { split, oneWay, pair, gateway, flapping, bridge } = sum.partitionsByKind;
  const { converged, convergeMsLongest } = sum.convergence;
  const kinds = `${split} of a minority, ${oneWay} of one way, ${pair} of two bricks, ${gateway} of the gateway, ${flapping} that flap, ${bridge} bridges`;
  const whole = `${converged} healed and whole again within ${(convergeMsLongest / 1000).toFixed(1)} s`;
  return `${kinds}; ${sum.partitionShapes.size} distinct; ${whole}`;
}

export function sumLine(sum: SoakSum): string {
  const days = (sum.simulatedMs / 86_400_000).toFixed(2);
  const counts = [
    `${sum.runs} runs`,
    `${sum.operations} operations`,
    `${sum.reboots} reboots`,
    `${sum.powerCuts} whole power cuts`,
    `${sum.partitions} partitions (${partitionText(sum)})`,
    `${sum.clogs} clogs`,
    `${sum.halfOpen} half-open connections`,
    `${sum.freezes} freezes and slow disks`,
    `${sum.diskFailures} failing disks`,
    `${sum.corruptions} corruptions (${corruptionText(sum)})`,
    `${sum.losses} permanent losses`,
  ];
  const years = `the events of ${clusterYears(sum).toFixed(2)} cluster-years in ${days} simulated days`;
  return `${counts.join(", ")}: ${years}; ${sum.violations} violations`;
}
