import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { ClusterState, ShardRecord } from "../brick/cluster-state.ts";
import { chainBricks, chainViewsMax, replicasNow } from "./shard-commands.ts";
import { TestCluster, uuid } from "./testing.ts";
import {
  type PlanInput,
  type PlannedChange,
  planViews,
  replicasAfterRecovery,
  type ShardReport,
} from "./view-planner.ts";

const transferAfterMs = 60_000;

/**
 * A cluster whose replicas are sets of ops, as truth to hold the plans against: an op commits on
 * every member and candidate of the view at once, and nothing is ever lost but by a cut.
 */
class Model extends TestCluster {
  nowMs = 1;
  readonly committed: number[];
  /** held[shard][brick]: the ops that the brick's replica holds. */
  readonly held: Map<number, Set<number>>[];
  /** Per shard and brick: the newest view that the replica has begun, and the op it began at. */
  readonly begun: Map<number, { view: number; op: number }>[];
  /** Per shard and brick: the view that the replica has promised to begin, or a later one. */
  readonly promised: Map<number, number>[];
  readonly released = new Set<number>();

  constructor(brickCount: number, shardCount: number) {
    super(brickCount, shardCount);
    this.committed = this.state.shards.map(() => 0);
    this.held = this.state.shards.map(() => new Map());
    this.promised = this.state.shards.map(() => new Map());
    this.begun = this.state.shards.map(() => new Map([[1, { view: 1, op: 0 }]]));
  }

  holds(shard: number, brick: number): Set<number> {
    const bricks = this.held[shard]!;
    if (!bricks.has(brick)) bricks.set(brick, new Set());
    return bricks.get(brick)!;
  }

  write(number: number): void {
    const shard = this.state.shards[number]!;
    const brick = this.state.bricks[shard.primary]!;
    const replicas = [...shard.members, ...shard.candidates];
    const answers = replicas.every(
      (one) =>
        this.state.bricks[one]!.reachable && (this.promised[number]!.get(one) ?? 0) <= shard.view,
    );
    if (!answers || brick.boot !== shard.primaryBoot || shard.damaged?.length) return;
    this.committed[number]! += 1;
    for (const one of replicas) this.holds(number, one).add(this.committed[number]!);
  }

  isComplete(number: number, brick: number): boolean {
    return this.holds(number, brick).size === this.committed[number];
  }

  input(): PlanInput {
    const up = Object.values(this.state.bricks).filter((brick) => brick.reachable);
    const reports = new Map<number, ShardReport>();
    for (const [number, shard] of this.state.shards.entries()) {
      const complete = shard.candidates.filter((one) => this.isComplete(number, one));
      const released = this.released.has(number);
      const empty = this.committed[number] === 0;
      // Only a candidate that was given everything may say so.
      reports.set(number, {
        view: shard.view,
        complete: shard.transfer ? complete : [],
        released,
        empty,
      });
    }
    const heard = new Set(up.map((brick) => brick.number));
    return { nowMs: this.nowMs, transferAfterMs, heard, reports };
  }

  /** Lets primaries copy to candidates where they may. */
  transfer(): void {
    for (const [number, shard] of this.state.shards.entries()) {
      const primary = this.state.bricks[shard.primary]!;
      if (!shard.transfer || !primary.reachable || primary.boot !== shard.primaryBoot) continue;
      for (const one of shard.candidates) {
        if (!this.state.bricks[one]!.reachable || shard.damaged?.includes(one)) continue;
        for (const op of this.holds(number, shard.primary)) this.holds(number, one).add(op);
      }
    }
  }

  plan(): number {
    const changes = planViews(this.state, this.input());
    const shards = new Set(changes.map((change) => change.shard));
    assert.equal(shards.size, changes.length, "one step a shard");
    let carriedOut = 0;
    for (const change of changes) if (this.carryOut(change)) carriedOut += 1;
    return carriedOut;
  }

  carryOut(change: PlannedChange): boolean {
    if (change.type === "release") {
      this.released.add(change.shard);
      return true;
    }
    if (change.type === "recover") return this.recover(change.shard);
    if (change.type === "setTransfer") {
      this.ok(change);
      return true;
    }
    const before = this.state.shards[change.shard]!;
    this.ok(change);
    this.begin(change.shard, before);
    return true;
  }

  begin(number: number, before: ShardRecord): void {
    const shard = this.state.shards[number]!;
    assert.equal(shard.view, before.view + 1);
    this.released.delete(number);
    for (const one of shard.members) {
      assert.ok(this.isComplete(number, one), `member ${one} of shard ${number} lacks ops`);
    }
    assert.ok(shard.chain.length <= chainViewsMax);
    const whole = shard.candidates.length === 0 && shard.members.length >= replicasNow(this.state);
    assert.equal(shard.chain.length === 0, whole, "the chain is empty exactly while whole");
    for (const one of [...shard.members, ...shard.candidates]) {
      this.begun[number]!.set(one, { view: shard.view, op: this.committed[number]! });
    }
  }

  /** The rule of docs/replication.md over what the reachable bricks of the chain hold. */
  recover(number: number): boolean {
    const shard = this.state.shards[number]!;
    const bricks = chainBricks(shard).filter((one) => this.state.bricks[one]!.reachable);
    for (const one of bricks) this.promised[number]!.set(one, shard.view + 1);
    const sound = bricks.filter((one) => !shard.damaged?.includes(one));
    const views = [...shard.chain, shard];
    const reported = (view: { members: readonly number[]; candidates: readonly number[] }) =>
      [...view.members, ...view.candidates].some((one) => sound.includes(one));
    const all = Object.values(this.state.bricks).every(
      (brick) => brick.status === "failed" || brick.reachable,
    );
    if (!all && !views.every(reported)) return false;
    const begun = bricks.flatMap((one) => this.begun[number]!.get(one) ?? []);
    const newest = Math.max(...begun.map((one) => one.view));
    const union = new Set(bricks.flatMap((one) => [...this.holds(number, one)]));
    let end = 0;
    for (const one of bricks) {
      const at = this.begun[number]!.get(one);
      if (at?.view === newest) end = Math.max(end, at.op, ...this.holds(number, one));
    }
    for (let op = 1; op <= end; op += 1) if (!union.has(op)) return false;
    assert.equal(end, this.committed[number], "recovery finds every committed op");
    const primary = bricks[0]!;
    this.held[number]!.set(primary, union);
    this.ok({
      type: "changeView",
      shard: number,
      expect: shard.view,
      primary,
      members: [primary],
      candidates: bricks.slice(1),
      transfer: true,
      completed: [],
      released: false,
      recovery: true,
    });
    this.begin(number, shard);
    return true;
  }

  /** As if the brick served so many volumes, and nobody else did any but those in `others`. */
  serve(number: number, volumes = 1, others: ClusterState["attachments"] = {}): void {
    const { boot } = this.state.bricks[number]!;
    const attachments = { ...others };
    for (let at = 0; at < volumes; at += 1) {
      attachments[uuid(1000 * number + at)] = { brick: number, boot, epoch: 1000 * number + at };
    }
    this.state = { ...this.state, attachments };
  }

  settle(): void {
    for (let round = 0; round < 400; round += 1) {
      this.transfer();
      if (this.plan() === 0) return;
    }
    assert.fail("the plans do not come to an end");
  }

  assertWhole(): void {
    for (const [number, shard] of this.state.shards.entries()) {
      const what = `shard ${number}: ${JSON.stringify(shard)}`;
      assert.equal(shard.members.length, replicasNow(this.state), what);
      assert.deepEqual([...shard.candidates, ...shard.chain], [], what);
      assert.equal(shard.shortSinceMs, 0, what);
      assert.ok(this.isComplete(number, shard.primary), what);
      const before = this.committed[number]!;
      this.write(number);
      assert.equal(this.committed[number], before + 1, `it takes writes; ${what}`);
    }
  }
}

function model(brickCount: number, shardCount = 4): Model {
  const made = new Model(brickCount, shardCount);
  made.settle();
  made.assertWhole();
  return made;
}

function writeAll(cluster: Model): void {
  for (const number of cluster.state.shards.keys()) cluster.write(number);
}

test("a new cluster spreads replicas and primaries over its bricks", () => {
  const cluster = model(4, 32);
  const led = new Map<number, number>();
  for (const shard of cluster.state.shards)
    led.set(shard.primary, (led.get(shard.primary) ?? 0) + 1);
  assert.equal(led.size, 4);
  for (const count of led.values()) assert.ok(count >= 4 && count <= 12, `${[...led]}`);
});

function ledBy(cluster: Model, number: number): number {
  return cluster.state.shards.filter((shard) => shard.primary === number).length;
}

test("a gateway leads every shard that it is a member of, and nothing else moves", () => {
  const cluster = model(4, 32);
  writeAll(cluster);
  const members = cluster.state.shards.map((shard) => shard.members);
  cluster.serve(2);
  cluster.settle();
  const heldBy2 = members.filter((one) => one.includes(2)).length;
  assert.ok(heldBy2 > 8);
  assert.equal(ledBy(cluster, 2), heldBy2);
  assert.deepEqual(
    cluster.state.shards.map((shard) => shard.members),
    members,
  );
  cluster.assertWhole();
  // The brick is gone: others lead, and when it is back and serves again, it does.
  cluster.down(2);
  cluster.settle();
  assert.equal(ledBy(cluster, 2), 0);
  cluster.up(2);
  cluster.nowMs += transferAfterMs;
  cluster.settle();
  assert.equal(ledBy(cluster, 2), heldBy2);
  cluster.assertWhole();
});

test("gateways share what they are both members of by the number of their volumes", () => {
  const cluster = model(2, 64);
  writeAll(cluster);
  cluster.serve(1, 3);
  cluster.serve(2, 1, cluster.state.attachments);
  cluster.settle();
  const share = ledBy(cluster, 1);
  assert.ok(share >= 40 && share <= 56, `${share} of 64`);
  assert.equal(ledBy(cluster, 2), 64 - share);
});

test("a brick goes down: others lead, and a fresh candidate logs new ops but waits for older", () => {
  const cluster = model(3, 8);
  writeAll(cluster);
  cluster.down(1);
  const hit = cluster.state.shards.flatMap((shard, at) => (shard.members.includes(1) ? [at] : []));
  assert.ok(hit.length > 0);
  const views = cluster.state.shards.map((shard) => shard.view);
  cluster.plan();
  for (const [number, shard] of cluster.state.shards.entries()) {
    if (!hit.includes(number)) {
      assert.equal(shard.view, views[number]);
      continue;
    }
    assert.notEqual(shard.primary, 1);
    assert.deepEqual(
      [shard.members.length, shard.candidates.length, shard.transfer],
      [1, 1, false],
    );
    assert.equal(shard.chain.length, 1);
  }
  cluster.nowMs += transferAfterMs - 1;
  const early = planViews(cluster.state, cluster.input());
  assert.equal(early.filter((one) => one.type === "setTransfer").length, 0);
  cluster.nowMs += 1;
  const due = planViews(cluster.state, cluster.input());
  assert.equal(due.filter((one) => one.type === "setTransfer").length, hit.length);
  cluster.settle();
  cluster.assertWhole();
});

test("a brick that returns joins beside the candidate, catches up, and the candidate leaves", () => {
  const cluster = model(3, 8);
  const before = cluster.state.shards.map((shard) => shard.members);
  writeAll(cluster);
  cluster.down(2);
  cluster.plan();
  writeAll(cluster);
  cluster.announce(2, 2);
  cluster.plan();
  for (const [number, members] of before.entries()) {
    if (!members.includes(2)) continue;
    const shard = cluster.state.shards[number]!;
    assert.equal(shard.candidates.length, 2);
    assert.ok(shard.candidates.includes(2) && shard.transfer);
  }
  cluster.settle();
  cluster.assertWhole();
  assert.deepEqual(
    cluster.state.shards.map((shard) => shard.members),
    before,
  );
});

test("a restarted primary loses its view at once, nobody their membership", () => {
  const cluster = model(3, 8);
  writeAll(cluster);
  const led = cluster.state.shards.flatMap((shard, at) => (shard.primary === 3 ? [at] : []));
  assert.ok(led.length > 0);
  const members = cluster.state.shards.map((shard) => shard.members);
  cluster.announce(3, 2);
  cluster.plan();
  for (const number of led) assert.notEqual(cluster.state.shards[number]!.primary, 3);
  assert.deepEqual(
    cluster.state.shards.map((shard) => shard.members),
    members,
  );
});

test("a single brick leads again after each restart, with an empty chain", () => {
  const cluster = model(1, 2);
  for (let boot = 2; boot < 50; boot += 1) {
    writeAll(cluster);
    cluster.announce(1, boot);
    cluster.settle();
    cluster.assertWhole();
  }
});

test("a member that only the state calls up does not lead before it is heard", () => {
  const cluster = model(2, 1);
  const [shard] = cluster.state.shards;
  const other = shard!.members.find((one) => one !== shard!.primary)!;
  cluster.announce(shard!.primary, 2);
  const input = { ...cluster.input(), heard: new Set<number>() };
  assert.deepEqual(planViews(cluster.state, input), []);
  const change = planViews(cluster.state, { ...input, heard: new Set([other]) })[0];
  assert.equal(change?.type === "changeView" && change.primary, other);
});

test("a view is short of replicas only when the state says that bricks are gone", () => {
  const cluster = model(3, 8);
  writeAll(cluster);
  cluster.down(2);
  // This leader has heard one brick of the two that are up.
  for (const heard of [1, 3]) {
    const input = { ...cluster.input(), heard: new Set([heard]) };
    const changes = planViews(cluster.state, input);
    assert.ok(changes.some((change) => change.type === "changeView"));
    for (const change of changes) {
      if (change.type !== "changeView") continue;
      assert.deepEqual([...change.members, ...change.candidates].sort(), [1, 3]);
    }
  }
  cluster.plan();
  cluster.down(3);
  cluster.plan();
  for (const { primary, members, candidates } of cluster.state.shards) {
    if (primary === 1) assert.deepEqual([members, candidates], [[1], []]);
  }
});

test("who leads after a recovery has candidates at once, though nobody else of the chain is left", () => {
  const cluster = model(4, 8);
  for (const [number, { primary, members }] of cluster.state.shards.entries()) {
    const other = members.find((one) => one !== primary)!;
    const { state } = cluster;
    const bricks = { ...state.bricks, [other]: { ...state.bricks[other]!, reachable: false } };
    const { candidates } = replicasAfterRecovery({ ...state, bricks }, number, primary);
    assert.equal(candidates.length, 1);
    assert.ok(![primary, other].includes(candidates[0]!));
  }
});

test("a third brick takes its share gently: a few whole shards at a time", () => {
  const cluster = model(2, 32);
  for (let round = 0; round < 3; round += 1) writeAll(cluster);
  cluster.join(3);
  const adding = planViews(cluster.state, cluster.input()).filter(
    (one) => one.type === "changeView",
  );
  assert.equal(adding.length, 4);
  cluster.settle();
  cluster.assertWhole();
  const held = cluster.state.shards.filter((shard) => shard.members.includes(3)).length;
  assert.ok(held >= 12 && held <= 30, `${held} of 32`);
});

test("a draining brick hands its replicas over and keeps none", () => {
  const cluster = model(4, 16);
  writeAll(cluster);
  cluster.ok({ type: "drainBrick", number: 1, drain: true });
  assert.equal(
    cluster.refused({ type: "removeBrick", number: 1, emptied: true, force: false }),
    "not_now",
  );
  cluster.settle();
  cluster.assertWhole();
  for (const shard of cluster.state.shards) assert.ok(!shard.members.includes(1));
  cluster.ok({ type: "setVoter", number: 1, voter: false });
  assert.equal(
    cluster.refused({ type: "removeBrick", number: 1, emptied: false, force: false }),
    "not_now",
  );
  cluster.ok({ type: "removeBrick", number: 1, emptied: true, force: false });
});

test("three copies ask for three members, distinct domains first", () => {
  const cluster = model(5, 16);
  cluster.ok({
    type: "createVolume",
    name: "disk",
    uuid: uuid(7),
    sizeBytes: 2 ** 30,
    copies: 3,
    degradedWrites: true,
  });
  for (const [number, domain] of [
    [1, "a"],
    [2, "a"],
    [3, "b"],
    [4, "b"],
    [5, "c"],
  ] as const) {
    const brick = { ...cluster.state.bricks[number]!, domain };
    cluster.state = { ...cluster.state, bricks: { ...cluster.state.bricks, [number]: brick } };
  }
  cluster.settle();
  cluster.assertWhole();
  for (const shard of cluster.state.shards) {
    const domains = new Set(shard.members.map((one) => cluster.state.bricks[one]!.domain));
    assert.equal(domains.size, 3);
  }
});

const event = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constant("write" as const), at: fc.nat(3) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("down" as const), at: fc.nat(4) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("up" as const), at: fc.nat(4) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("restart" as const), at: fc.nat(4) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("cut" as const), at: fc.nat(4) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("wait" as const), at: fc.nat(2) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("transfer" as const), at: fc.nat(2) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("serve" as const), at: fc.nat(4) }) },
  { weight: 6, arbitrary: fc.record({ kind: fc.constant("plan" as const), at: fc.nat(2) }) },
);

function happen(cluster: Model, { kind, at }: { kind: string; at: number }): void {
  const bricks = Object.values(cluster.state.bricks);
  const brick = bricks[at % bricks.length]!;
  if (kind === "write") cluster.write(at % cluster.state.shards.length);
  if (kind === "down" && brick.reachable) cluster.down(brick.number);
  if (kind === "up" && !brick.reachable) cluster.up(brick.number);
  if (kind === "restart") cluster.announce(brick.number, brick.boot + 1);
  if (kind === "serve") cluster.serve(brick.number, 1 + (at % 2), cluster.state.attachments);
  if (kind === "cut") cut(cluster, brick.number);
  if (kind === "wait") cluster.nowMs += (transferAfterMs / 2) * at;
  if (kind === "transfer") cluster.transfer();
  if (kind === "plan") cluster.plan();
}

/** The brick restarts without its newest ops, as far as others of the chain hold them. */
function cut(cluster: Model, number: number): void {
  for (const [at, bricks] of cluster.held.entries()) {
    const chain = chainBricks(cluster.state.shards[at]!);
    const ops = [...(bricks.get(number) ?? [])].sort((a, b) => b - a);
    for (const op of ops.slice(0, 3)) {
      const elsewhere = chain.some((one) => one !== number && cluster.holds(at, one).has(op));
      if (!elsewhere) break;
      bricks.get(number)!.delete(op);
    }
  }
  cluster.announce(number, cluster.state.bricks[number]!.boot + 1, { cut: true });
}

test("whatever happens to the bricks, no op is lost and every shard is whole in the end", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 5 }),
      fc.array(event, { minLength: 10, maxLength: 120 }),
      (brickCount, events) => {
        const cluster = model(brickCount, 4);
        for (const one of events) happen(cluster, one);
        for (const brick of Object.values(cluster.state.bricks)) {
          if (!brick.reachable) cluster.up(brick.number);
        }
        cluster.nowMs += transferAfterMs;
        cluster.settle();
        cluster.assertWhole();
      },
    ),
    { numRuns: 300 },
  );
});
