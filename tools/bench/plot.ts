import type { BenchResult, Measured } from "./measured.ts";
import { type Bar, type BarChart, barChart } from "./svg.ts";

/** The pictures that docs/performance.md shows, from a result of the bench; by file name. */
export function plotsOf(result: BenchResult): Map<string, string> {
  const { measured } = result;
  const targets = [...new Set(measured.map(({ target }) => target))];
  const where = `${result.bricks} bricks, ${result.seconds} s a job`;
  const charts: [string, BarChart][] = [
    [
      "throughput",
      {
        title: `Throughput by job, ${where}`,
        unit: "commands a second",
        series: targets,
        groups: byJob(measured, targets, ({ iops }) => iops),
        logarithmic: true,
      },
    ],
    [
      "cpu",
      {
        title: `CPU time of all daemons for one command, ${where}`,
        unit: "microseconds",
        series: targets,
        groups: byJob(measured, targets, ({ cpuUsPerCommand }) => cpuUsPerCommand),
        logarithmic: true,
      },
    ],
    ["latency", latencyChart(measured, where)],
  ];
  const stages = stageChart(measured, where);
  if (stages !== null) charts.push(["stages", stages]);
  return new Map(charts.map(([name, chart]) => [`${name}.svg`, barChart(chart)]));
}

function jobName({ job, depth }: Measured): string {
  return `${job}, depth ${depth}`;
}

function byJob(
  measured: readonly Measured[],
  targets: readonly string[],
  figure: (one: Measured) => number,
) {
  return [...Map.groupBy(measured, jobName)].map(([label, same]) => {
    return { label, bars: same.map((one) => bar(figure(one), targets.indexOf(one.target))) };
  });
}

const percentiles = ["p50", "p99", "p99.9"] as const;

function latencyChart(measured: readonly Measured[], where: string): BarChart {
  const ours = measured.filter(({ target }) => target === "END");
  return {
    title: `END's latency, ${where}`,
    unit: "microseconds",
    series: percentiles,
    groups: ours.map((one) => {
      const figures = [one.p50Us, one.p99Us, one.p999Us];
      return { label: jobName(one), bars: figures.map(bar) };
    }),
    logarithmic: true,
  };
}

/** null: a result from before steps were timed. */
function stageChart(measured: readonly Measured[], where: string): BarChart | null {
  const groups = measured.flatMap((one) =>
    (one.stages ?? []).map(({ op, stage, meanUs, p99Us }) => {
      return { label: `${jobName(one)}: ${op} ${stage}`, bars: [bar(meanUs, 0), bar(p99Us, 1)] };
    }),
  );
  if (groups.length === 0) return null;
  return {
    title: `Steps of END's commands, ${where}`,
    unit: "microseconds",
    series: ["mean", "p99"],
    groups,
    logarithmic: true,
  };
}

function bar(value: number, series: number): Bar {
  const label = value < 10 ? value.toFixed(1) : String(Math.round(value));
  return { label, value, series };
}
