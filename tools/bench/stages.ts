import { stageTable } from "../../brick/stage-times.ts";
import type { Samples } from "./prometheus.ts";

/** The written budget of a read and a write: how long each step took during a job. */
export interface StageBudget {
  op: string;
  stage: string;
  /** Timed ones: of most steps, one in eight. */
  count: number;
  meanUs: number;
  p99Us: number;
}

const metric = "endisk_stage_seconds";

/** What happened between two scrapes of the same bricks, all of them together. */
export function stageBudgets(before: readonly Samples[], after: readonly Samples[]): StageBudget[] {
  return stageTable.flatMap(([op, stage]) => {
    const labels = { op, stage };
    const grown = (name: string, more: Record<string, string> = {}) =>
      total(after, name, { ...labels, ...more }) - total(before, name, { ...labels, ...more });
    const count = grown(`${metric}_count`);
    if (count === 0) return [];
    const bounds = after[0]!.values(`${metric}_bucket`, labels).map(({ labels: { le } }) => le!);
    const buckets = bounds.map((le) => {
      return {
        upToUs: le === "+Inf" ? Infinity : Number(le) * 1e6,
        count: grown(`${metric}_bucket`, { le }),
      };
    });
    const meanUs = (grown(`${metric}_sum`) / count) * 1e6;
    return [{ op, stage, count, meanUs, p99Us: quantileUs(buckets, 0.99) }];
  });
}

function total(scrapes: readonly Samples[], name: string, labels: Record<string, string>): number {
  return scrapes.reduce((sum, samples) => sum + samples.sum(name, labels), 0);
}

/** `buckets` count from 0 up to their bounds; within a bucket all is taken for spread evenly. */
export function quantileUs(
  buckets: readonly { upToUs: number; count: number }[],
  part: number,
): number {
  const wanted = (buckets.at(-1)?.count ?? 0) * part;
  let from = { upToUs: 0, count: 0 };
  for (const bucket of buckets) {
    if (bucket.count >= wanted && bucket.count > from.count) {
      if (bucket.upToUs === Infinity) return from.upToUs;
      const share = (wanted - from.count) / (bucket.count - from.count);
      return from.upToUs + share * (bucket.upToUs - from.upToUs);
    }
    from = bucket;
  }
  return from.upToUs;
}

export const stageHeads = ["job", "depth", "op", "step", "mean us", "p99 us", "timed"];

export function stageRows(
  measured: readonly { job: string; depth: number; stages?: readonly StageBudget[] }[],
): (string | number)[][] {
  return measured.flatMap(({ job, depth, stages }) =>
    (stages ?? []).map((one, at) => [
      at === 0 ? job : "",
      at === 0 ? depth : "",
      one.op,
      one.stage,
      microseconds(one.meanUs),
      microseconds(one.p99Us),
      one.count,
    ]),
  );
}

function microseconds(us: number): string {
  return us < 10 ? us.toFixed(1) : String(Math.round(us));
}
