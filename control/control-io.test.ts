import assert from "node:assert/strict";
import { test } from "node:test";
import type { ClusterState } from "../brick/cluster-state.ts";
import { Prng } from "../brick/prng.ts";
import { Calls } from "../brick/rpc/calls.ts";
import type { BrickNumber } from "../brick/units.ts";
import { SimWorld } from "../tools/sim/sim-host.ts";
import { emptyClusterState } from "./cluster-machine.ts";
import type { Command } from "./commands.ts";
import { Control } from "./control-io.ts";
import type { ShardStatus } from "./keepalive.ts";
import type { MapControl } from "./map-control.ts";
import type { RaftCallbacks, RaftPort } from "./raft-port.ts";
import { uuid } from "./testing.ts";
import type { RaftMembers, VoterChange } from "./voters.ts";

const clusterId = uuid(1000);

/** Stands in for Raft: one true log, and a leader that needs a majority of the voters. */
class LogOracle {
  readonly world: SimWorld;
  readonly log: Buffer[] = [];
  readonly nodes = new Map<BrickNumber, OracleNode>();
  readonly isolated = new Set<BrickNumber>();
  members: RaftMembers = { voters: [1], learners: [] };
  leader: BrickNumber = 0;
  term = 0;
  #leaderlessRounds = 0;

  constructor(world: SimWorld) {
    this.world = world;
    this.#round();
  }

  /** Alive and able to reach a majority of the voters. */
  hasQuorum(brick: BrickNumber): boolean {
    const { voters } = this.members;
    if (!this.nodes.has(brick)) return false;
    const reached = voters.filter(
      (one) =>
        this.nodes.has(one) &&
        (one === brick || (!this.isolated.has(brick) && !this.isolated.has(one))),
    );
    return reached.length * 2 > voters.length;
  }

  deliver(): void {
    for (const node of this.nodes.values()) {
      if (this.leader === 0) continue;
      if (node.brick === this.leader) node.catchUp(this.log);
      else this.world.after(this.world.prng.between(1, 120), () => this.#follow(node));
    }
  }

  /** Followers learn of commits late, each in its own time. */
  #follow(node: OracleNode): void {
    const { brick } = node;
    if (this.leader === 0 || this.nodes.get(brick) !== node) return;
    if (!this.isolated.has(brick) && !this.isolated.has(this.leader)) node.catchUp(this.log);
  }

  #round(): void {
    if (this.leader !== 0 && !this.hasQuorum(this.leader)) this.leader = 0;
    if (this.leader !== 0) this.#leaderlessRounds = 0;
    else if ((this.#leaderlessRounds += 1) >= 6) {
      this.leader = this.members.voters.find((one) => this.hasQuorum(one)) ?? 0;
      const node = this.nodes.get(this.leader);
      this.term += 1;
      node?.catchUp(this.log);
      node?.setRole(true);
    }
    this.deliver();
    this.world.after(50, () => this.#round());
  }
}

class OracleNode implements RaftPort {
  readonly brick: BrickNumber;
  readonly #oracle: LogOracle;
  readonly #callbacks: RaftCallbacks;
  /** What it believes; it may have been deposed. */
  #leads = false;
  #applied = 0;

  constructor(oracle: LogOracle, brick: BrickNumber, callbacks: RaftCallbacks) {
    this.#oracle = oracle;
    this.brick = brick;
    this.#callbacks = callbacks;
    oracle.nodes.set(brick, this);
  }

  setRole(leads: boolean): void {
    this.#leads = leads;
    this.#callbacks.onRoleChange(leads, this.#oracle.term);
  }

  catchUp(log: readonly Buffer[]): void {
    if (this.brick !== this.#oracle.leader && this.#leads) this.setRole(false);
    const fresh = log.slice(this.#applied);
    this.#applied = log.length;
    if (fresh.length > 0) this.#callbacks.apply(fresh);
  }

  propose(payload: Buffer): Promise<{ ok: boolean }> {
    return this.#inQuorum(() => {
      this.#oracle.log.push(payload);
      this.#oracle.deliver();
    });
  }

  readBarrier(): Promise<{ ok: boolean }> {
    return this.#inQuorum(() => {});
  }

  receive(): void {}

  leader(): BrickNumber {
    return this.#leads
      ? this.brick
      : this.#oracle.isolated.has(this.brick)
        ? 0
        : this.#oracle.leader;
  }

  isLeader(): boolean {
    return this.#leads;
  }

  term(): number {
    return this.#oracle.term;
  }

  members(): RaftMembers {
    return this.#oracle.members;
  }

  async change({ type, brick }: VoterChange): Promise<boolean> {
    const { ok } = await this.#inQuorum(() => {});
    if (!ok) return false;
    const without = (list: readonly BrickNumber[]) => list.filter((one) => one !== brick);
    let { voters, learners } = this.#oracle.members;
    [voters, learners] = [without(voters), without(learners)];
    if (type === "promote") voters = [...voters, brick];
    else if (type !== "remove") learners = [...learners, brick];
    this.#oracle.members = { voters, learners };
    return true;
  }

  transferLeadership(): void {}

  async close(): Promise<void> {
    this.#oracle.nodes.delete(this.brick);
  }

  #inQuorum(then: () => void): Promise<{ ok: boolean }> {
    return new Promise((resolve) => {
      this.#oracle.world.after(2, () => {
        const leads = this.#leads && this.#oracle.leader === this.brick;
        if (!leads || !this.#oracle.hasQuorum(this.brick)) {
          this.#oracle.world.after(500, () => resolve({ ok: false }));
          return;
        }
        then();
        resolve({ ok: true });
      });
    });
  }
}

/** Replicas without content: a candidate is complete as soon as it may be copied to. */
class EmptyMap implements MapControl {
  state: ClusterState | null = null;
  readonly brick: BrickNumber;
  readonly released = new Map<number, number>();
  assembled = 0;

  constructor(brick: BrickNumber) {
    this.brick = brick;
  }

  shardStatus(): ShardStatus[] {
    const statuses: ShardStatus[] = [];
    for (const [shard, { view, primary, candidates, transfer }] of (
      this.state?.shards ?? []
    ).entries()) {
      if (candidates.includes(this.brick) && transfer)
        statuses.push({ shard, view, complete: true });
      if (primary !== this.brick) continue;
      const released = this.released.get(shard) === view;
      statuses.push({ shard, view, empty: true, ...(released ? { released } : {}) });
    }
    return statuses;
  }

  release(shard: number, view: number): void {
    this.released.set(shard, view);
  }

  async discardReplicas(): Promise<void> {}

  async report(_shard: number, view: number): Promise<Buffer> {
    return Buffer.from(`${view}`);
  }

  planUnion({ chain, reports }: Parameters<MapControl["planUnion"]>[0]) {
    const covered = chain.every(({ members, candidates }) =>
      [...members, ...candidates].some((one) => reports.has(one)),
    );
    const [brick] = reports.keys();
    if (!covered || brick === undefined)
      return { ok: false as const, reason: "a view without a reporter" };
    return { ok: true as const, brick, plan: Buffer.from("plan") };
  }

  async assemble(): Promise<boolean> {
    this.assembled += 1;
    return true;
  }
}

interface Brick {
  control: Control;
  map: EmptyMap;
  leaseUntilMs: number;
}

class Cluster {
  readonly world: SimWorld;
  readonly oracle: LogOracle;
  readonly bricks = new Map<BrickNumber, Brick>();
  readonly #boots = new Map<BrickNumber, number>();

  constructor(seed: number) {
    this.world = new SimWorld(seed);
    this.oracle = new LogOracle(this.world);
  }

  async start(number: BrickNumber, cut = false): Promise<Brick> {
    const host = this.world.host(number);
    const boot = (this.#boots.get(number) ?? 0) + 1;
    this.#boots.set(number, boot);
    host.network.setBoot(boot);
    const map = new EmptyMap(number);
    const brick = { map, leaseUntilMs: Number.NEGATIVE_INFINITY } as Brick;
    const seeds = new Map([...this.bricks.keys()].map((one) => [one, `10.0.0.${one}:1`]));
    const opening = Control.open({
      host,
      calls: new Calls(host),
      superblock: { clusterId, brick: number, uuid: uuid(number), boot },
      addresses: { peer: `10.0.0.${number}:1`, portal: "p", api: "a" },
      ...(number === 1 && boot === 1 ? { bootstrap: { shardCount: 8 } } : {}),
      seeds,
      cut,
      map,
      space: () => ({ capacityBytes: 2 ** 30, usedBytes: 0, full: false }),
      onState: (state) => {
        map.state = state;
      },
      onLease: (untilMs) => {
        brick.leaseUntilMs = untilMs;
      },
      openRaft: async (_bootstrap, callbacks) => new OracleNode(this.oracle, number, callbacks),
    });
    brick.control = await this.world.complete(opening);
    this.bricks.set(number, brick);
    return brick;
  }

  crash(number: BrickNumber): void {
    this.world.machine(number).crash();
    this.oracle.nodes.delete(number);
    if (this.oracle.leader === number) this.oracle.leader = 0;
    this.bricks.delete(number);
  }

  isolate(number: BrickNumber): void {
    this.oracle.isolated.add(number);
    this.world.network.partition(
      [number],
      [1, 2, 3, 4, 5].filter((one) => one !== number),
    );
  }

  heal(): void {
    this.oracle.isolated.clear();
    this.world.network.heal();
  }

  async join(number: BrickNumber): Promise<void> {
    const { control } = this.bricks.get(1)!;
    const id = `t${number}`;
    const hash = "a".repeat(64);
    const minted = control.submit({ type: "addJoinToken", id, hash, lifeMs: 60_000 });
    assert.equal((await this.world.complete(minted)).ok, true);
    const joined = control.submit({
      type: "joinBrick",
      tokenId: id,
      tokenHash: hash,
      uuid: uuid(number),
      peerAddress: `10.0.0.${number}:1`,
      portalAddress: "p",
      apiAddress: "a",
      domain: "",
      capacityBytes: 2 ** 30,
    });
    assert.deepEqual(await this.world.complete(joined), { ok: true, value: number });
    await this.start(number);
  }

  /** The state as the oracle's leader has it. */
  state(): ClusterState {
    const brick = this.bricks.get(this.oracle.leader) ?? [...this.bricks.values()][0];
    return brick?.control.state() ?? emptyClusterState;
  }

  isWhole(replicas: number): boolean {
    const { shards } = this.state();
    return (
      shards.length > 0 &&
      shards.every(
        ({ members, candidates, chain }) =>
          members.length === replicas && candidates.length === 0 && chain.length === 0,
      )
    );
  }

  isUp(number: BrickNumber): boolean {
    return this.state().bricks[number]?.status === "up";
  }

  holdsLease(number: BrickNumber): boolean {
    const { control } = this.bricks.get(number)!;
    return control.leaseValid(this.world.machine(number).clock.nowMs());
  }

  async three(): Promise<void> {
    await this.start(1);
    for (const number of [2, 3]) await this.join(number);
    await this.world.runUntil(() => this.isWhole(2), 30_000);
    await this.world.runUntil(() => this.oracle.members.voters.length === 3, 5000);
  }

  /** By its own state and lease, the brick may answer for the shard. */
  mayAnswer(number: BrickNumber, shard: number): boolean {
    const { control, map } = this.bricks.get(number)!;
    const record = control.state().shards[shard];
    return (
      record?.primary === number &&
      record.primaryBoot === this.#boots.get(number) &&
      map.released.get(shard) !== record.view &&
      this.holdsLease(number)
    );
  }

  assertOnePrimary(): void {
    for (const shard of this.state().shards.keys()) {
      const answering = [...this.bricks.keys()].filter((one) => this.mayAnswer(one, shard));
      assert.ok(answering.length <= 1, `bricks ${answering} answer for shard ${shard}`);
    }
  }

  leads(number: BrickNumber): number {
    return this.state().shards.filter((shard) => shard.primary === number).length;
  }
}

test("the first brick begins a cluster, and is up with a lease well within a second", async () => {
  const cluster = new Cluster(1);
  await cluster.start(1);
  await cluster.world.runUntil(() => cluster.isUp(1) && cluster.holdsLease(1), 900);
  assert.equal(cluster.leads(1), 8);
});

test("bricks join, shards become whole, primaries spread by release, three vote", async () => {
  const cluster = new Cluster(2);
  await cluster.three();
  await cluster.world.runUntil(() => [1, 2, 3].every((one) => cluster.leads(one) >= 2), 20_000);
  await cluster.world.runFor(500);
  const { bricks } = cluster.state();
  assert.deepEqual(
    [1, 2, 3].map((one) => bricks[one]!.voter),
    [true, true, true],
  );
  assert.equal(cluster.holdsLease(2), true);
});

test("a killed brick's shards are led again within three seconds, and it comes back", async () => {
  const cluster = new Cluster(3);
  await cluster.three();
  await cluster.world.runUntil(() => cluster.leads(3) > 0, 20_000);
  cluster.crash(3);
  await cluster.world.runUntil(() => !cluster.isUp(3) && cluster.leads(3) === 0, 3000);
  await cluster.start(3);
  await cluster.world.runUntil(() => cluster.isUp(3) && cluster.isWhole(2), 5000);
  assert.equal(cluster.state().bricks[3]!.boot, 2);
});

test("when the Raft leader is killed, another grants leases and has its shards led again", async () => {
  const cluster = new Cluster(4);
  await cluster.three();
  const old = cluster.oracle.leader;
  cluster.crash(old);
  const led = () => cluster.oracle.leader !== 0 && !cluster.isUp(old) && cluster.leads(old) === 0;
  await cluster.world.runUntil(led, 4000);
  const rest = [1, 2, 3].filter((one) => one !== old);
  await cluster.world.runUntil(() => rest.every((one) => cluster.holdsLease(one)), 2000);
});

test("a leader cut off renews nobody's lease, not even its own, and ends it before it is down", async () => {
  const cluster = new Cluster(5);
  await cluster.three();
  const old = cluster.oracle.leader;
  const { control } = cluster.bricks.get(old)!;
  cluster.isolate(old);
  const { clock } = cluster.world.machine(old);
  await cluster.world.runFor(2100);
  assert.equal(control.leaseValid(clock.nowMs()), false);
  assert.equal(cluster.bricks.get(old)!.leaseUntilMs <= clock.nowMs(), true);
  await cluster.world.runUntil(() => cluster.oracle.leader !== old && !cluster.isUp(old), 3000);
  assert.equal(control.leaseValid(clock.nowMs()), false);
  cluster.heal();
  await cluster.world.runUntil(() => cluster.isUp(old) && cluster.holdsLease(old), 2000);
});

test("no brick holds a lease while the committed state says that it is down", async () => {
  const cluster = new Cluster(6);
  await cluster.three();
  for (let round = 0; round < 6; round += 1) {
    const victim = 1 + (round % 3);
    cluster.isolate(victim);
    for (let step = 0; step < 60; step += 1) {
      await cluster.world.runFor(50);
      for (const number of [1, 2, 3]) {
        const down = cluster.state().bricks[number]!.status === "down";
        assert.ok(!(down && cluster.holdsLease(number)), `brick ${number} is down with a lease`);
      }
    }
    cluster.heal();
    await cluster.world.runUntil(() => [1, 2, 3].every((one) => cluster.isUp(one)), 5000);
  }
});

test("a command is applied once, from any brick, also while the leader changes", async () => {
  const cluster = new Cluster(7);
  await cluster.three();
  const create = (name: string, number: number) =>
    cluster.bricks.get(number)!.control.submit({
      type: "createVolume",
      name,
      uuid: uuid(number),
      sizeBytes: 2 ** 30,
      copies: 2,
      degradedWrites: true,
    });
  assert.deepEqual(await cluster.world.complete(create("a", 3)), { ok: true, value: 1 });
  const old = cluster.oracle.leader;
  const other = [1, 2, 3].find((one) => one !== old)!;
  cluster.isolate(old);
  const result = await cluster.world.complete(create("b", other));
  assert.equal(result.ok, true, JSON.stringify(result));
  cluster.heal();
  await cluster.world.runFor(1000);
  assert.deepEqual(Object.keys(cluster.state().volumes), ["a", "b"]);
  assert.equal(cluster.state().branchNext, 3);
  const forged = cluster.bricks
    .get(other)!
    .control.submit({ type: "brickDown", number: 1, boot: 1 });
  const refused = await cluster.world.complete(forged);
  assert.equal(!refused.ok && refused.fault.code, "leader_only");
});

test("after a power cut that cut every log, shards are recovered from all reports", async () => {
  const cluster = new Cluster(8);
  await cluster.three();
  for (const number of [1, 2, 3]) cluster.crash(number);
  cluster.oracle.leader = 0;
  await cluster.world.runFor(1000);
  for (const number of [1, 2, 3]) await cluster.start(number, true);
  const back = () => [1, 2, 3].every((one) => cluster.state().bricks[one]?.boot === 2);
  await cluster.world.runUntil(() => cluster.oracle.leader !== 0 && back(), 3000);
  await cluster.world.runUntil(() => cluster.isWhole(2), 10_000);
  const assembled = [1, 2, 3].map((one) => cluster.bricks.get(one)!.map.assembled);
  assert.equal(assembled[0]! + assembled[1]! + assembled[2]!, 8);
  for (const shard of cluster.state().shards) {
    assert.equal(cluster.state().bricks[shard.primary]!.boot, shard.primaryBoot);
  }
});

test("the leader goes on with a deletion that nobody sees through", async () => {
  const cluster = new Cluster(10);
  await cluster.three();
  const submit = (command: Command) =>
    cluster.world.complete(cluster.bricks.get(3)!.control.submit(command));
  const sizes = { sizeBytes: 2 ** 30, copies: 2, degradedWrites: true };
  for (const [at, name] of ["kept", "deleted"].entries()) {
    await submit({ type: "createVolume", name, uuid: uuid(at + 1), ...sizes });
  }
  assert.equal((await submit({ type: "deleteVolume", name: "deleted" })).ok, true);
  cluster.crash(3);
  await cluster.world.runUntil(() => cluster.state().volumes.deleted === undefined, 5000);
  assert.deepEqual(Object.keys(cluster.state().volumes), ["kept"]);
});

test("refresh sees what was committed before it", async () => {
  const cluster = new Cluster(9);
  await cluster.three();
  const { control } = cluster.bricks.get(1)!;
  const minted = control.submit({
    type: "addJoinToken",
    id: "x",
    hash: "a".repeat(64),
    lifeMs: 1000,
  });
  await cluster.world.complete(minted);
  const other = cluster.bricks.get(3)!.control;
  assert.equal(await cluster.world.complete(other.refresh()), true);
  assert.ok(other.state().joinTokens.x !== undefined);
});

/** One second of one kind of trouble; then everything heals. */
async function trouble(cluster: Cluster, prng: Prng): Promise<void> {
  const number = prng.between(1, 3);
  const kind = prng.pick(["crash", "isolate", "freeze", "none"]);
  const running = cluster.bricks.has(number);
  if (kind === "crash" && running) cluster.crash(number);
  else if (!running) await cluster.start(number, prng.chance(0.3));
  else if (kind === "isolate") cluster.isolate(number);
  else if (kind === "freeze") cluster.world.machine(number).freeze(prng.between(100, 6000));
  for (let step = prng.between(1, 150); step > 0; step -= 1) {
    await cluster.world.runFor(prng.between(1, 40));
    cluster.assertOnePrimary();
  }
  if (prng.chance(0.5)) cluster.heal();
}

for (const seed of [21, 22, 23]) {
  test(`at no moment do two bricks answer for one shard, and all heals (seed ${seed})`, async () => {
    const cluster = new Cluster(seed);
    await cluster.three();
    const prng = new Prng(seed);
    for (let round = 0; round < 30; round += 1) await trouble(cluster, prng);
    cluster.heal();
    for (const number of [1, 2, 3]) {
      if (!cluster.bricks.has(number)) await cluster.start(number);
    }
    const healed = () => [1, 2, 3].every((one) => cluster.isUp(one)) && cluster.isWhole(2);
    await cluster.world.runUntil(healed, 30_000);
  });
}
