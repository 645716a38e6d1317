import { Prng } from "../../brick/prng.ts";
import type { SimulationReport } from "./simulate.ts";

/** What many runs came to together. */
export interface SoakSum {
  runs: number;
  violations: number;
  simulatedMs: number;
  reboots: number;
  powerCuts: number;
  partitions: number;
  freezes: number;
  diskFailures: number;
  corruptions: number;
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
    freezes: 0,
    diskFailures: 0,
    corruptions: 0,
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
  sum.partitions += faults.partitions + faults.clogs;
  sum.freezes += faults.freezes + faults.slow;
  sum.diskFailures += faults.failures;
  sum.corruptions += faults.flips + faults.unreadable;
  sum.losses += faults.lost;
  sum.operations += counts.reads + counts.writes + counts.unmaps + report.copies + report.resets;
  sum.operations += counters.written + counters.miscompares + counters.bits;
  sum.operations += duel.preempts + duel.writes + duel.conflicts;
}

/** The options of a run of the soak, which its line repeats: `npm run sim -- LINE`. */
export function drawRun(seed: number): { seed: number; bricks: number; hours: number } {
  const prng = new Prng(seed + 0.125 * 2 ** 32);
  return { seed, bricks: prng.between(3, 6), hours: prng.pick([0.05, 0.1, 0.2]) };
}

export function runLine(
  run: { seed: number; bricks: number; hours: number },
  report: SimulationReport,
): string {
  const { faults } = report;
  const happened = Object.entries({ reboots: report.reboots, ...faults })
    .filter(([, count]) => count > 0)
    .map(([name, count]) => `${name} ${count}`);
  const options = `--seed ${run.seed} --bricks ${run.bricks} --hours ${run.hours}`;
  const verdict = report.violation === null ? "ok" : `VIOLATED: ${report.violation}`;
  return `${options}  hash=${report.hash}  ${happened.join(", ")}  ${verdict}`;
}

export function sumLine(sum: SoakSum): string {
  const hours = (sum.simulatedMs / 3_600_000).toFixed(2);
  return `${sum.runs} runs, ${hours} simulated hours, ${sum.operations} operations; ${sum.reboots} reboots, ${sum.powerCuts} whole power cuts, ${sum.partitions} partitions and clogs, ${sum.freezes} freezes and slow disks, ${sum.diskFailures} failing disks, ${sum.corruptions} corruptions, ${sum.losses} permanent losses; ${sum.violations} violations`;
}
