import assert from "node:assert/strict";
import fc from "fast-check";
import { type ClusterState, type ShardRecord, shardsOfFamily } from "../brick/cluster-state.ts";
import { type CalmSpell, nextSpell } from "./calm.ts";
import { chainBricks, chainViewsMax, replicasNow } from "./shard-commands.ts";
import { TestCluster, uuid } from "./testing.ts";
import { type PlanInput, type PlannedChange, planViews, type ShardReport } from "./view-planner.ts";

export const transferAfterMs = 60_000;

/**
 * A cluster whose replicas are sets of ops, as truth to hold the plans against: an op commits on
 * every member and candidate of the view at once, and nothing is ever lost but by a cut.
 */
export class Model extends TestCluster {
  nowMs = 1;
  readonly committed: number[];
  /** held[shard][brick]: the ops that the brick's replica holds. */
  readonly held: Map<number, Set<number>>[];
  /** Per shard and brick: the newest view that the replica has begun, and the op it began at. */
  readonly begun: Map<number, { view: number; op: number }>[];
  /** Per shard and brick: the view that the replica has promised to begin, or a later one. */
  readonly promised: Map<number, number>[];
  readonly released = new Set<number>();
  /** Per shard, the view of which something has been said. */
  readonly #reported = new Map<number, number>();
  /** Volumes that have been served by the same brick for long. */
  readonly standing = new Set<string>();
  #calm: CalmSpell | null = null;

  constructor(brickCount: number, shardCount: number, shardSpan?: number) {
    super(brickCount, shardCount, shardSpan);
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
      // What a primary says of a new view comes a round later.
      const isNews = this.#reported.get(number) !== shard.view;
      this.#reported.set(number, shard.view);
      if (isNews) continue;
      // Only a candidate that was given everything may say so.
      reports.set(number, {
        view: shard.view,
        complete: shard.transfer ? complete : [],
        released,
        empty,
      });
    }
    const heard = new Set(up.map((brick) => brick.number));
    const { nowMs, standing } = this;
    this.#calm = nextSpell(this.#calm, this.state, heard, nowMs);
    const calm = this.#calm !== null && nowMs - this.#calm.sinceMs >= transferAfterMs;
    return { nowMs, transferAfterMs, heard, reports, standing, calm };
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

  /** The volume, made when it is not there, is served by that brick from now on. */
  attach(name: string, brick: number): void {
    const id = uuid(Number.parseInt(name, 36));
    if (this.state.volumes[name] === undefined) {
      const rest = { sizeBytes: 2 ** 30, copies: 2, degradedWrites: true };
      this.ok({ type: "createVolume", name, uuid: id, ...rest });
    }
    const { boot } = this.state.bricks[brick]!;
    const held = this.state.attachments[id];
    // Who serves it and is up gives it away itself.
    const holder = held === undefined ? undefined : this.state.bricks[held.brick];
    const by = holder?.reachable && holder.boot === held!.boot ? held! : { brick, boot };
    const expectEpoch = held?.epoch ?? 0;
    const asked = { brick: by.brick, boot: by.boot };
    this.ok({ type: "attach", uuid: id, brick, boot, expectEpoch, by: asked });
  }

  setFull(number: number, full: boolean): void {
    const { capacityBytes, usedBytes } = this.state.bricks[number]!;
    this.ok({ type: "brickSpace", number, capacityBytes, usedBytes, full });
  }

  /** The brick says that so much of its capacity is used. */
  fill(number: number, share: number): void {
    const { capacityBytes } = this.state.bricks[number]!;
    const space = { capacityBytes, usedBytes: Math.floor(capacityBytes * share), full: false };
    this.run({ type: "brickSpace", number, ...space });
  }

  /** The shards of a volume. */
  shardsOf(name: string): ShardRecord[] {
    const numbers = shardsOfFamily(this.state, this.state.volumes[name]!.family);
    return numbers.map((one) => this.state.shards[one]!);
  }

  settle(): void {
    for (let round = 0, quiet = 0; round < 800; round += 1) {
      this.transfer();
      quiet = this.plan() === 0 ? quiet + 1 : 0;
      if (quiet === 2) return;
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

/** Bricks that have agreed on who holds which shard, all of them empty. */
export function emptyModel(brickCount: number, shardCount: number, shardSpan?: number): Model {
  const cluster = new Model(brickCount, shardCount, shardSpan);
  cluster.settle();
  return cluster;
}

export function model(brickCount: number, shardCount = 4, shardSpan?: number): Model {
  const made = emptyModel(brickCount, shardCount, shardSpan);
  made.assertWhole();
  return made;
}

export function writeAll(cluster: Model): void {
  for (const number of cluster.state.shards.keys()) cluster.write(number);
}

export function ledBy(cluster: Model, number: number): number {
  return cluster.state.shards.filter((shard) => shard.primary === number).length;
}

/** What may happen to a cluster. */
export const event = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constant("write" as const), at: fc.nat(3) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("down" as const), at: fc.nat(4) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("up" as const), at: fc.nat(4) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("restart" as const), at: fc.nat(4) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("cut" as const), at: fc.nat(4) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("wait" as const), at: fc.nat(2) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("transfer" as const), at: fc.nat(2) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("serve" as const), at: fc.nat(4) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("attach" as const), at: fc.nat(14) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("full" as const), at: fc.nat(4) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("stand" as const), at: fc.nat(2) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("fill" as const), at: fc.nat(14) }) },
  { weight: 6, arbitrary: fc.record({ kind: fc.constant("plan" as const), at: fc.nat(2) }) },
);

export function happen(cluster: Model, { kind, at }: { kind: string; at: number }): void {
  const bricks = Object.values(cluster.state.bricks);
  const brick = bricks[at % bricks.length]!;
  if (kind === "write") cluster.write(at % cluster.state.shards.length);
  if (kind === "down" && brick.reachable) cluster.down(brick.number);
  if (kind === "up" && !brick.reachable) cluster.up(brick.number);
  if (kind === "restart") cluster.announce(brick.number, brick.boot + 1);
  if (kind === "serve") cluster.serve(brick.number, 1 + (at % 2), cluster.state.attachments);
  if (kind === "attach" && brick.reachable) cluster.attach(`disk${at % 3}`, brick.number);
  if (kind === "stand")
    for (const one of Object.keys(cluster.state.attachments)) cluster.standing.add(one);
  if (kind === "full") cluster.setFull(brick.number, !brick.full);
  if (kind === "fill") cluster.fill(brick.number, (at % 3) / 2);
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
