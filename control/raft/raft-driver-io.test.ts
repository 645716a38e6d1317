import assert from "node:assert/strict";
import { test } from "node:test";
import { SimWorld } from "../../tools/sim/sim-host.ts";
import { RaftNode } from "./raft-driver-io.ts";

/** A machine whose state is the list of the commands applied. */
class Brick {
  applied: string[] = [];
  indexes: number[] = [];
  leads = false;
  restored = 0;
  node!: RaftNode;
  readonly number: number;
  readonly #world: SimWorld;

  constructor(world: SimWorld, number: number) {
    this.number = number;
    this.#world = world;
  }

  async start(voters?: number[], snapshotEveryEntries = 50): Promise<void> {
    const host = this.#world.host(this.number);
    this.applied = [];
    this.indexes = [];
    this.leads = false;
    const peers = [1, 2, 3, 4, 5].filter((one) => one !== this.number);
    host.network.setPeers(new Map(peers.map((one) => [one, `brick-${one}`])));
    let node: RaftNode | null = null;
    host.network.onMessage((from, { body }) => node?.receive(from, Buffer.concat(body)));
    node = await RaftNode.open({
      host,
      self: this.number,
      messageType: 1,
      ...(voters !== undefined && { bootstrap: { voters } }),
      apply: (entries) => {
        for (const { payload, index } of entries) {
          this.applied.push(payload.toString());
          this.indexes.push(index);
        }
      },
      snapshot: () => Buffer.from(JSON.stringify(this.applied)),
      restore: (snapshot) => {
        this.applied = JSON.parse(snapshot.toString());
        this.restored += 1;
      },
      onRoleChange: (leads) => {
        this.leads = leads;
      },
      snapshotEveryEntries,
    });
    this.node = node;
  }
}

async function cluster(seed: number, count: number): Promise<{ world: SimWorld; bricks: Brick[] }> {
  const world = new SimWorld(seed);
  const numbers = Array.from({ length: count }, (_, at) => at + 1);
  const bricks = numbers.map((number) => new Brick(world, number));
  await world.complete(Promise.all(bricks.map((brick) => brick.start(numbers))));
  return { world, bricks };
}

async function leaderOf(world: SimWorld, bricks: readonly Brick[]): Promise<Brick> {
  const up = () => bricks.filter((brick) => world.machine(brick.number).running);
  await world.runUntil(() => up().some((brick) => brick.leads), 20_000);
  return up().find((brick) => brick.leads)!;
}

async function propose(world: SimWorld, brick: Brick, text: string): Promise<boolean> {
  const result = await world.complete(brick.node.propose(Buffer.from(text)));
  return result.ok;
}

test("three bricks elect a leader, commit, and all apply the same", async () => {
  const { world, bricks } = await cluster(1, 3);
  const leader = await leaderOf(world, bricks);
  for (let at = 0; at < 10; at += 1) assert(await propose(world, leader, `command ${at}`));
  const barrier = await world.complete(leader.node.readBarrier());
  assert(barrier.ok && barrier.index >= 12);
  await world.runFor(500);
  for (const { applied } of bricks) assert.deepEqual(applied, leader.applied);
  assert.equal(leader.applied.length, 10);
});

test("a follower refuses proposals and reads, and names the leader", async () => {
  const { world, bricks } = await cluster(2, 3);
  const leader = await leaderOf(world, bricks);
  await world.runFor(500);
  const follower = bricks.find((brick) => brick !== leader)!;
  const fault = { code: "not_leader", leader: leader.number };
  const proposed = await world.complete(follower.node.propose(Buffer.from("no")));
  assert.deepEqual(proposed, { ok: false, fault });
  const read = await world.complete(follower.node.readBarrier());
  assert.deepEqual(read, { ok: false, fault });
});

test("a single brick leads by itself and keeps what it acknowledged through power cuts", async () => {
  const { world, bricks } = await cluster(3, 1);
  const brick = bricks[0]!;
  for (let boot = 0; boot < 5; boot += 1) {
    await leaderOf(world, bricks);
    for (let at = 0; at < 7; at += 1) assert(await propose(world, brick, `${boot}.${at}`));
    world.crashAll();
    await world.complete(brick.start([1], 5));
  }
  await leaderOf(world, bricks);
  await world.complete(brick.node.readBarrier());
  const all = [0, 1, 2, 3, 4].flatMap((boot) => [0, 1, 2, 3, 4, 5, 6].map((at) => `${boot}.${at}`));
  assert.deepEqual(brick.applied, all);
  assert(brick.restored > 0, "snapshots were used");
});

test("what was acknowledged survives the leader's loss and the whole cluster's power cut", async () => {
  const { world, bricks } = await cluster(4, 3);
  const expected: string[] = [];
  for (let round = 0; round < 4; round += 1) {
    const leader = await leaderOf(world, bricks);
    for (let at = 0; at < 30; at += 1) {
      if (await propose(world, leader, `${round}.${at}`)) expected.push(`${round}.${at}`);
    }
    if (round % 2 === 0) world.machine(leader.number).crash();
    else world.crashAll();
    await world.runFor(3000);
    for (const brick of bricks) {
      if (!world.machine(brick.number).running) await world.complete(brick.start());
    }
  }
  const leader = await leaderOf(world, bricks);
  assert((await world.complete(leader.node.readBarrier())).ok);
  assert.deepEqual(leader.applied, expected);
  assert.equal(expected.length, 120);
});

test("an empty brick joins as learner, fetches a snapshot, and becomes a voter", async () => {
  const { world, bricks } = await cluster(5, 1);
  const first = bricks[0]!;
  await leaderOf(world, bricks);
  for (let at = 0; at < 1300; at += 1) assert(await propose(world, first, `command ${at}`));
  const second = new Brick(world, 2);
  await world.complete(second.start());
  const added = await world.complete(first.node.changeMembership({ type: "addLearner", brick: 2 }));
  assert(added.ok);
  await world.runFor(2000);
  assert.deepEqual(second.applied, first.applied);
  assert.equal(second.restored, 1);
  assert((await world.complete(first.node.changeMembership({ type: "promote", brick: 2 }))).ok);
  assert.deepEqual(second.node.status().configuration.voters, [1, 2]);
  // Two voters: neither commits alone.
  world.machine(2).crash();
  const proposal = first.node.propose(Buffer.from("alone"));
  await world.runFor(5000);
  assert.equal(first.node.status().role === "leader", false);
  await world.complete(second.start());
  const result = await world.complete(proposal);
  assert(result.ok || result.fault.code !== "closed");
});

test("a failed flush ends the brick", async () => {
  const { world, bricks } = await cluster(6, 1);
  await leaderOf(world, bricks);
  world.machine(1).disk.dials.syncErrorChance = 1;
  const proposal = bricks[0]!.node.propose(Buffer.from("x"));
  proposal.then(() => assert.fail("acknowledged without a flush"));
  await world.runUntil(() => !world.machine(1).running);
  assert.equal(world.crashes[0]!.cause, "self");
});

test("leadership is handed over without waiting for a timeout", async () => {
  const { world, bricks } = await cluster(7, 3);
  const leader = await leaderOf(world, bricks);
  assert(await propose(world, leader, "before"));
  const to = bricks.find((brick) => brick !== leader)!;
  leader.node.transferLeadership(to.number);
  await world.runUntil(() => to.leads, 300);
  assert(await propose(world, to, "after"));
  assert.deepEqual(to.applied, ["before", "after"]);
});

test("junk instead of a message is dropped", async () => {
  const { world, bricks } = await cluster(8, 1);
  const leader = await leaderOf(world, bricks);
  for (const junk of ["", "x", "\u0001\u0005junk that is longer than a header"]) {
    leader.node.receive(2, Buffer.from(junk));
  }
  assert(await propose(world, leader, "still here"));
});

test("a brick whose log, snapshot or vote was damaged heals from its peers", async () => {
  let healed = 0;
  for (let seed = 20; seed < 50; seed += 1) {
    const { world, bricks } = await cluster(seed, 3);
    const expected: string[] = [];
    for (let round = 0; round < 3; round += 1) {
      const leader = await leaderOf(world, bricks);
      for (let at = 0; at < 40; at += 1) {
        const text = `${round}.${at}`;
        if (await propose(world, leader, text)) expected.push(text);
      }
      const victim = world.prng.pick(bricks);
      const machine = world.machine(victim.number);
      machine.crash();
      const paths = machine.disk.paths().filter((path) => path.startsWith("raft/"));
      const file = machine.disk.file(world.prng.pick(paths))!;
      for (let flip = 0; flip < 3 && file.sizeBytes > 0; flip += 1) {
        file.flipBit(world.prng.between(0, 8 * file.sizeBytes - 1));
      }
      await world.runFor(3000);
      await world.complete(victim.start());
      const status = victim.node.status();
      if (status.isHealing || status.holes > 0) healed += 1;
      await world.runFor(3000);
      assert.equal(victim.node.status().isHealing, false);
      assert.equal(victim.node.status().holes, 0);
    }
    const leader = await leaderOf(world, bricks);
    assert((await world.complete(leader.node.readBarrier())).ok);
    await world.runFor(1000);
    for (const brick of bricks) assert.deepEqual(brick.applied, expected, `seed ${seed}`);
  }
  assert(healed > 0, "some damage was to be healed");
});
