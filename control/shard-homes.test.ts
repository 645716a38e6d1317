import assert from "node:assert/strict";
import { test } from "node:test";
import { shardOf, shardsOfFamily } from "../brick/cluster-state.ts";
import {
  emptyModel,
  type Model,
  model,
  transferAfterMs,
  writeAll,
} from "./planner-model.test-support.ts";
import { uuid } from "./testing.ts";

/** All shards have been written, and `gateway` serves the volume "disk" from the beginning. */
function servedModel(brickCount: number, gateway: number): Model {
  const cluster = emptyModel(brickCount, 16, 4);
  cluster.attach("disk", gateway);
  cluster.settle();
  writeAll(cluster);
  return cluster;
}

function placesOf(
  cluster: Model,
  name: string,
): { primaries: number[]; members: (readonly number[])[] } {
  const shards = cluster.shardsOf(name);
  return {
    primaries: [...new Set(shards.map(({ primary }) => primary))],
    members: [...new Map(shards.map(({ members }) => [members.join(), members])).values()],
  };
}

function stand(cluster: Model): void {
  for (const one of Object.keys(cluster.state.attachments)) cluster.standing.add(one);
}

function membersOf(cluster: Model): (readonly number[])[] {
  return cluster.state.shards.map(({ members }) => members);
}

test("a family's runs go round its own shards, and the next family's shards follow", () => {
  const { state } = model(1, 8, 2);
  const runBytes = 1024;
  assert.deepEqual(shardsOfFamily(state, 1), [2, 3]);
  assert.deepEqual(shardsOfFamily(state, 2), [4, 5]);
  assert.deepEqual(shardsOfFamily(state, 9), [2, 3]);
  for (let run = 0; run < 6; run += 1) {
    assert.equal(shardOf(state, 1, run * runBytes + 7), 2 + (run % 2));
  }
  // The largest numbers that branches may have.
  for (const shard of shardsOfFamily(state, 2 ** 53 - 1)) assert.ok(shard >= 0 && shard < 8);
});

test("without spans a family has all shards", () => {
  const { state } = model(1, 8);
  assert.equal(new Set(shardsOfFamily(state, 5)).size, 8);
  const used = new Set(Array.from({ length: 8 }, (_, run) => shardOf(state, 5, run * 1024)));
  assert.equal(used.size, 8);
});

test("a span wider than the map is all of it", () => {
  const { state } = model(1, 3, 4);
  assert.deepEqual(shardsOfFamily(state, 1).sort(), [0, 1, 2]);
  for (let run = 0; run < 9; run += 1) assert.ok(shardOf(state, 2, run * 1024) < 3);
});

test("a new volume's shards are led by its gateway, wherever that is, with one and the same backup", () => {
  for (let gateway = 1; gateway <= 5; gateway += 1) {
    const cluster = emptyModel(5, 16, 4);
    cluster.attach("disk", gateway);
    cluster.settle();
    const { primaries, members } = placesOf(cluster, "disk");
    assert.deepEqual(primaries, [gateway]);
    assert.equal(members.length, 1);
    assert.ok(members[0]!.includes(gateway));
    cluster.assertWhole();
  }
});

test("what has been written moves to a gateway only when that has stood long", () => {
  const cluster = servedModel(5, 1);
  const [home] = placesOf(cluster, "disk").members;
  const elsewhere = [2, 3, 4, 5].find((one) => !home!.includes(one))!;
  cluster.attach("disk", elsewhere);
  const before = membersOf(cluster);
  cluster.settle();
  assert.deepEqual(membersOf(cluster), before);
  stand(cluster);
  cluster.settle();
  const { primaries, members } = placesOf(cluster, "disk");
  assert.deepEqual(primaries, [elsewhere]);
  assert.equal(members.length, 1);
  // One replica has moved, not both.
  assert.equal(members[0]!.filter((one) => home!.includes(one)).length, 1);
  cluster.assertWhole();
});

test("the backup takes over the volume: it leads, and when the other is back nothing moves", () => {
  const cluster = servedModel(5, 2);
  const before = membersOf(cluster);
  const partner = placesOf(cluster, "disk").members[0]!.find((one) => one !== 2)!;
  cluster.down(2);
  cluster.plan();
  cluster.attach("disk", partner);
  cluster.plan();
  writeAll(cluster);
  cluster.announce(2, 2);
  cluster.settle();
  cluster.nowMs += transferAfterMs;
  stand(cluster);
  cluster.settle();
  assert.deepEqual(membersOf(cluster), before);
  assert.deepEqual(placesOf(cluster, "disk").primaries, [partner]);
  cluster.assertWhole();
});

test("a brick that was added takes nothing of volumes that are served", () => {
  const cluster = emptyModel(3, 16, 4);
  for (const [at, name] of ["a", "b", "c", "d"].entries()) cluster.attach(name, (at % 3) + 1);
  cluster.settle();
  writeAll(cluster);
  stand(cluster);
  const before = membersOf(cluster);
  cluster.join(4);
  cluster.settle();
  assert.deepEqual(membersOf(cluster), before);
  // Those of nobody are shared out as ever.
  const idle = emptyModel(3, 16, 4);
  writeAll(idle);
  idle.join(4);
  idle.settle();
  assert.ok(idle.state.shards.some(({ members }) => members.includes(4)));
});

test("small writes leave bricks that are fuller than the others, also the gateway, and come back", () => {
  const cluster = servedModel(4, 1);
  stand(cluster);
  const [home] = placesOf(cluster, "disk").members;
  const partner = home!.find((one) => one !== 1)!;
  // Within bounds: 24 % here where 12 % are used in all.
  for (const one of home!) cluster.fill(one, 0.24);
  const before = membersOf(cluster);
  cluster.settle();
  assert.deepEqual(membersOf(cluster), before);
  for (const one of home!) cluster.fill(one, 0.3);
  cluster.settle();
  assert.ok(!placesOf(cluster, "disk").members.flat().includes(partner));
  assert.ok(!placesOf(cluster, "disk").members.flat().includes(1));
  cluster.assertWhole();
  for (const one of [1, 2, 3, 4]) cluster.fill(one, 0.3);
  cluster.settle();
  assert.deepEqual(placesOf(cluster, "disk").primaries, [1]);
  cluster.assertWhole();
});

test("home and backup are in different failure domains", () => {
  for (let gateway = 1; gateway <= 4; gateway += 1) {
    const cluster = emptyModel(4, 16, 4);
    for (const number of [1, 2, 3, 4]) {
      const brick = { ...cluster.state.bricks[number]!, domain: number < 3 ? "a" : "b" };
      cluster.state = { ...cluster.state, bricks: { ...cluster.state.bricks, [number]: brick } };
    }
    cluster.attach("disk", gateway);
    cluster.settle();
    for (const { primary, members } of cluster.shardsOf("disk")) {
      assert.equal(primary, gateway);
      assert.equal(members.filter((one) => one < 3).length, 1);
    }
  }
});

test("of two gateways that share shards, the one with more volumes leads, or the one that is there", () => {
  const cluster = emptyModel(5, 4, 4);
  cluster.attach("a", 1);
  cluster.settle();
  writeAll(cluster);
  stand(cluster);
  cluster.attach("b", 2);
  stand(cluster);
  const before = membersOf(cluster);
  cluster.settle();
  assert.deepEqual(placesOf(cluster, "a").primaries, [1]);
  assert.deepEqual(membersOf(cluster), before);
  cluster.attach("c", 2);
  stand(cluster);
  cluster.settle();
  assert.deepEqual(placesOf(cluster, "a").primaries, [2]);
});

test("a volume that is being deleted draws nothing", () => {
  const cluster = emptyModel(3, 8, 4);
  cluster.attach("disk", 3);
  cluster.ok({ type: "deleteVolume", name: "disk" });
  const { state } = emptyModel(3, 8, 4);
  cluster.settle();
  assert.deepEqual(
    cluster.state.shards.map(({ members }) => members),
    state.shards.map(({ members }) => members),
  );
  assert.ok(cluster.state.attachments[uuid(Number.parseInt("disk", 36))] !== undefined);
});

test("many volumes on shards that they share come to rest, whoever serves them", () => {
  const cluster = emptyModel(8, 64, 4);
  for (let at = 0; at < 40; at += 1) cluster.attach(`v${at.toString(36)}`, (at % 8) + 1);
  cluster.settle();
  cluster.assertWhole();
});
