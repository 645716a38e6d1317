import type { ShardView } from "../cluster-state.ts";
import type { BrickNumber } from "../units.ts";
import type { ViewStart } from "./replica-state.ts";
import type { WindowsImage } from "./windows.ts";

/** What a brick holds of a shard, said under a promise to answer nothing of views below `promised`. */
export interface ReplicaReport {
  readonly brick: BrickNumber;
  readonly promised: number;
  readonly accepted: number;
  readonly baseOp: number;
  /** 0: no overlay. */
  readonly overlayFrom: number;
  readonly commitOp: number;
  readonly lastOp: number;
  /** Pending entries as runs of one accepted view: [first op, last op, view]. */
  readonly pending: readonly (readonly [number, number, number])[];
  readonly damaged: boolean;
  readonly windows: WindowsImage;
  readonly starts: readonly ViewStart[];
}

/** Gather in this order at `leader`; everything before the last overlay is committed. */
export interface UnionPlan {
  readonly leader: BrickNumber;
  readonly endOp: number;
  readonly steps: readonly UnionStep[];
  /** Windows as of the commit point they belong to. */
  readonly windows: WindowsImage;
  readonly windowsOp: number;
  readonly starts: readonly ViewStart[];
}

export type UnionStep =
  | { kind: "overlay"; from: BrickNumber; toOp: number }
  | { kind: "entries"; from: BrickNumber; firstOp: number; lastOp: number };

export type UnionDecision = { ok: true; plan: UnionPlan } | { ok: false; reason: string };

/**
 * Whether the reports suffice to lead a shard again, and how to gather what it needs
 * (docs/replication.md, "Recovery"). `views`: the chain and the present view, oldest first.
 * `allReported`: every brick of them that is not failed has reported.
 */
export function planUnion(
  views: readonly ShardView[],
  reports: readonly ReplicaReport[],
  allReported: boolean,
): UnionDecision {
  const sound = reports.filter((report) => !report.damaged);
  if (!allReported) {
    for (const view of views) {
      const bricks = [...view.members, ...view.candidates];
      if (!sound.some((report) => bricks.includes(report.brick))) {
        const text = `view ${view.view} (bricks ${bricks.join(", ")}) has no undamaged reporter`;
        return { ok: false, reason: text };
      }
    }
  }
  const usable =
    allReported && sound.length === 0
      ? reports
      : [...sound, ...(allReported ? reports.filter((one) => one.damaged) : [])];
  if (usable.length === 0) return { ok: false, reason: "no brick has reported" };
  const accepted = Math.max(...usable.map((report) => report.accepted));
  const newest = usable.filter((report) => report.accepted === accepted);
  const endOp = Math.max(
    ...newest.map((report) => report.lastOp),
    ...usable.map((report) => report.commitOp),
  );
  // The largest base first: least to gather.
  const bases = [...usable].sort((a, b) => b.baseOp - a.baseOp || a.brick - b.brick);
  let reason = "";
  for (const base of bases) {
    const steps = cover(base.baseOp, endOp, usable);
    if (typeof steps === "string") {
      reason ||= steps;
      continue;
    }
    const knows = usable.reduce((a, b) => (b.commitOp > a.commitOp ? b : a));
    const plan: UnionPlan = {
      leader: base.brick,
      endOp,
      steps,
      windows: knows.windows,
      windowsOp: knows.commitOp,
      starts: newest.reduce((a, b) => (b.starts.length > a.starts.length ? b : a)).starts,
    };
    return { ok: true, plan };
  }
  return { ok: false, reason };
}

/** Steps from a base to the end without a gap, or the gap in words. */
function cover(
  baseOp: number,
  endOp: number,
  reports: readonly ReplicaReport[],
): UnionStep[] | string {
  const steps: UnionStep[] = [];
  let at = baseOp;
  while (at < endOp) {
    const overlay = reports
      .filter((one) => one.overlayFrom > 0 && one.overlayFrom <= at + 1 && one.commitOp > at)
      .reduce<ReplicaReport | null>(
        (a, b) => (a === null || b.commitOp > a.commitOp ? b : a),
        null,
      );
    if (overlay !== null) {
      steps.push({ kind: "overlay", from: overlay.brick, toOp: overlay.commitOp });
      at = overlay.commitOp;
      continue;
    }
    const next = entryAt(at + 1, reports);
    if (next === null) return `no brick that answers holds op ${at + 1} (of ${endOp})`;
    const last = steps.at(-1);
    if (last?.kind === "entries" && last.from === next) {
      steps[steps.length - 1] = { ...last, lastOp: at + 1 };
    } else {
      steps.push({ kind: "entries", from: next, firstOp: at + 1, lastOp: at + 1 });
    }
    at += 1;
  }
  return steps;
}

/** Who holds the op as accepted in the newest view. */
function entryAt(op: number, reports: readonly ReplicaReport[]): BrickNumber | null {
  let best: { brick: BrickNumber; view: number } | null = null;
  for (const { brick, pending } of reports) {
    for (const [first, last, view] of pending) {
      if (op < first || op > last) continue;
      if (best === null || view > best.view) best = { brick, view };
    }
  }
  return best?.brick ?? null;
}
