import assert from "node:assert/strict";
import { test } from "node:test";
import type { ShardView } from "../cluster-state.ts";
import { planUnion, type ReplicaReport } from "./union.ts";

function view(number: number, members: number[], candidates: number[] = []): ShardView {
  return { view: number, primary: members[0]!, primaryBoot: 1, members, candidates };
}

/** A complete replica that has committed up to 5 in view 1, unless said otherwise. */
function report(brick: number, of: Partial<ReplicaReport> = {}): ReplicaReport {
  const commitOp = of.commitOp ?? 5;
  return {
    brick,
    promised: 9,
    accepted: 1,
    baseOp: commitOp,
    overlays: [],
    commitOp,
    lastOp: commitOp,
    pendingFrom: commitOp + 1,
    damaged: false,
    windows: [],
    starts: [{ view: 1, lastOp: 0 }],
    ...of,
  };
}

const inView2 = { accepted: 2, starts: [view1Start(), { view: 2, lastOp: 5 }] };

function view1Start() {
  return { view: 1, lastOp: 0 };
}

const whole = view(1, [1, 2]);

test("the largest base leads, with the longest log of the newest view", () => {
  const reports = [report(1, { lastOp: 8 }), report(2, { commitOp: 6, lastOp: 7 })];
  const decision = planUnion([whole], reports, false);
  assert.ok(decision.ok);
  const { leader, endOp, steps } = decision.plan;
  assert.deepEqual({ leader, endOp }, { leader: 2, endOp: 8 });
  assert.deepEqual(steps, [{ kind: "entries", from: 1, firstOp: 7, lastOp: 8 }]);
});

test("a log that went on alone in an old view does not count, however long it is", () => {
  const stale = report(1, { lastOp: 30 });
  const candidate = report(3, {
    ...inView2,
    baseOp: 0,
    overlays: [{ incarnation: 2, fromOp: 6, toOp: 7 }],
    commitOp: 7,
    lastOp: 9,
    pendingFrom: 8,
  });
  const decision = planUnion([whole, view(2, [2], [3])], [stale, candidate], false);
  assert.ok(decision.ok);
  const { leader, endOp, steps, accepted } = decision.plan;
  assert.deepEqual({ leader, endOp, accepted }, { leader: 1, endOp: 9, accepted: 2 });
  assert.deepEqual(steps, [
    { kind: "overlay", from: 3, firstOp: 6, lastOp: 7 },
    { kind: "entries", from: 3, firstOp: 8, lastOp: 9 },
  ]);
});

test("an entry of an old view never fills the gap that a newer view left", () => {
  const stale = report(1, { lastOp: 6 });
  const late = report(3, {
    accepted: 3,
    starts: [...inView2.starts, { view: 3, lastOp: 7 }],
    baseOp: 0,
    overlays: [{ incarnation: 2, fromOp: 7, toOp: 8 }],
    commitOp: 8,
  });
  const views = [whole, view(3, [2], [3])];
  const decision = planUnion(views, [stale, late], true);
  assert.deepEqual(decision, { ok: false, reason: "no brick that answers holds op 6 (of 8)" });
});

test("an overlay that was set aside fills such a gap", () => {
  const old = report(1);
  const overlays = [
    { incarnation: 2, fromOp: 6, toOp: 7 },
    { incarnation: 3, fromOp: 10, toOp: 12 },
  ];
  const starts = [...inView2.starts, { view: 4, lastOp: 9 }];
  const first = report(3, { accepted: 4, starts, baseOp: 0, overlays, commitOp: 12 });
  const second = report(4, {
    accepted: 4,
    starts,
    baseOp: 0,
    overlays: [{ incarnation: 1, fromOp: 8, toOp: 12 }],
    commitOp: 12,
  });
  const decision = planUnion([whole, view(4, [2], [3, 4])], [old, first, second], false);
  assert.ok(decision.ok);
  assert.deepEqual(decision.plan.steps, [
    { kind: "overlay", from: 3, firstOp: 6, lastOp: 7 },
    { kind: "overlay", from: 4, firstOp: 8, lastOp: 12 },
  ]);
});

test("a view without a sound reporter keeps the shard unavailable until everyone has reported", () => {
  const views = [whole, view(2, [2], [3])];
  const reports = [report(1), report(3, { ...inView2, damaged: true })];
  const decision = planUnion(views, reports, false);
  assert.ok(!decision.ok);
  assert.match(decision.reason, /^view 2 \(bricks 2, 3\) has no undamaged reporter$/);
  assert.ok(planUnion(views, reports, true).ok);
});
