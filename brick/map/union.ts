import { replicasOf, type ShardView } from "../cluster-state.ts";
import type { BrickNumber } from "../units.ts";
import { type OverlayInterval, sharedTo, type ViewStart } from "./replica-state.ts";
import type { WindowsImage } from "./windows.ts";

/** What a brick holds of a shard, said under a promise to answer nothing of views below `promised`. */
export interface ReplicaReport {
  readonly brick: BrickNumber;
  readonly promised: number;
  readonly accepted: number;
  readonly baseOp: number;
  readonly overlays: readonly OverlayInterval[];
  readonly commitOp: number;
  readonly lastOp: number;
  /** The first of the entries that it holds, up to lastOp. */
  readonly pendingFrom: number;
  readonly damaged: boolean;
  readonly windows: WindowsImage;
  readonly starts: readonly ViewStart[];
  /** It can make nothing durable that it gathers; but lead it can with what it holds. */
  readonly noRoom?: boolean;
}

/** Gather in this order at `leader`; everything before the last overlay is committed. */
export interface UnionPlan {
  readonly leader: BrickNumber;
  readonly endOp: number;
  readonly steps: readonly UnionStep[];
  /** Windows as of the commit point they belong to. */
  readonly windows: WindowsImage;
  readonly windowsOp: number;
  /** Of the log that the union ends with. */
  readonly accepted: number;
  readonly starts: readonly ViewStart[];
}

export interface UnionStep {
  readonly kind: "overlay" | "entries";
  readonly from: BrickNumber;
  readonly firstOp: number;
  readonly lastOp: number;
}

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
      const bricks = replicasOf(view);
      if (!sound.some((report) => bricks.includes(report.brick))) {
        const text = `view ${view.view} (bricks ${bricks.join(", ")}) has no undamaged reporter`;
        return { ok: false, reason: text };
      }
    }
  }
  const usable = allReported ? reports : sound;
  if (usable.length === 0) return { ok: false, reason: "no brick has reported" };
  // Whoever accepted the newest view has in its log, or lacks below it, all that ever committed.
  const newest = usable.reduce((a, b) => (isNewer(b, a) ? b : a));
  const endOp = Math.max(newest.lastOp, ...usable.map((report) => report.commitOp));
  // Of the other logs, only what is the newest one's history too counts.
  const logs = usable.map((report) => {
    return { ...report, soundTo: report === newest ? endOp : sharedTo(report, newest.starts) };
  });
  // The largest base first: least to gather.
  const bases = [...usable].sort((a, b) => b.baseOp - a.baseOp || a.brick - b.brick);
  let reason = "";
  let withoutRoom: UnionPlan | null = null;
  for (const base of bases) {
    const steps = cover(base.baseOp, endOp, logs);
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
      accepted: newest.accepted,
      starts: newest.starts,
    };
    const isOwn = steps.every(({ from }) => from === base.brick);
    if (base.noRoom !== true || isOwn) return { ok: true, plan };
    withoutRoom ??= plan;
  }
  // It is asked again and again until it has room.
  return withoutRoom === null ? { ok: false, reason } : { ok: true, plan: withoutRoom };
}

function isNewer(a: ReplicaReport, b: ReplicaReport): boolean {
  return a.accepted > b.accepted || (a.accepted === b.accepted && a.lastOp > b.lastOp);
}

type SoundReport = ReplicaReport & { readonly soundTo: number };

/** Steps from a base to the end without a gap, or the gap in words. */
function cover(
  baseOp: number,
  endOp: number,
  reports: readonly SoundReport[],
): UnionStep[] | string {
  const steps: UnionStep[] = [];
  let at = baseOp;
  while (at < endOp) {
    const step = overlayAt(at + 1, reports) ?? entriesAt(at + 1, reports);
    if (step === null) return `no brick that answers holds op ${at + 1} (of ${endOp})`;
    steps.push(step);
    at = step.lastOp;
  }
  return steps;
}

/** The overlay with the op that reaches furthest. */
function overlayAt(op: number, reports: readonly SoundReport[]): UnionStep | null {
  let best: UnionStep | null = null;
  for (const { brick: from, overlays } of reports) {
    for (const { fromOp: firstOp, toOp: lastOp } of overlays) {
      if (firstOp > op || lastOp < op || (best !== null && best.lastOp >= lastOp)) continue;
      best = { kind: "overlay", from, firstOp, lastOp };
    }
  }
  return best;
}

/** The longest run of entries from the op on. */
function entriesAt(op: number, reports: readonly SoundReport[]): UnionStep | null {
  let best: UnionStep | null = null;
  for (const { brick: from, pendingFrom, lastOp: heldTo, soundTo } of reports) {
    const lastOp = Math.min(heldTo, soundTo);
    if (pendingFrom > op || lastOp < op || (best !== null && best.lastOp >= lastOp)) continue;
    best = { kind: "entries", from, firstOp: op, lastOp };
  }
  return best;
}
