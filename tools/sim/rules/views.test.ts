import assert from "node:assert/strict";
import { test } from "node:test";
import { messageType } from "../../../brick/rpc/message-types.ts";
import { TestCluster } from "../../../control/testing.ts";
import { shortOfCopies } from "../copies.ts";
import { ClusterScene } from "./cluster-scene.test-support.ts";

/** Bricks that go and come back. docs/simulation.md names the rules. */

test("rolling restarts quicker than the wait for a transfer copy nothing", async () => {
  const scene = await ClusterScene.begin({ bricks: 4, shardCount: 2 });
  for (let grain = 0; grain < 6; grain += 1) {
    await scene.write(1, grain, `small ${grain}`);
    await scene.write(1, grain + 1024, `large ${grain}`, 64 * 1024);
  }
  for (const brick of scene.cluster.bricks) {
    scene.crash(brick);
    await scene.until(() => scene.cluster.nodes.size > 0 && scene.isDown(brick));
    await scene.run(2000);
    await scene.start(brick);
    await scene.until(() => !scene.isDown(brick));
  }
  await scene.cluster.settled();
  assert.equal(scene.transferBytes, 0);
  assert.equal(scene.cluster.copiedBytes, 0);
  for (const grain of [0, 5, 1024, 1029]) {
    const text = `${grain < 1024 ? "small" : "large"} ${grain % 1024}`;
    assert.deepEqual(await scene.readEverywhere(grain), new Set([text]));
  }
});

test("new writes are at full copies at once while a brick is away", async () => {
  const scene = await ClusterScene.begin();
  const { members, primary } = scene.shard();
  const away = members.find((brick) => brick !== primary)!;
  const leader = scene.otherThan(away);
  await scene.write(leader, 1, "before");
  scene.crash(away);
  await scene.until(() => scene.isDown(away));
  await scene.write(leader, 2, "small");
  await scene.write(leader, 3, "large", 64 * 1024);
  const { members: now, candidates } = scene.shard();
  assert.equal([...now, ...candidates].length, 2);
  for (const grain of [2, 3]) assert.equal(scene.copiesOf(grain).length, 2);
});

test("a stale backup does not lead, and meanwhile the shard is unavailable, not empty", async () => {
  const scene = await ClusterScene.begin({ bricks: 5 });
  const { members, primary } = scene.shard();
  const stale = members.find((brick) => brick !== primary)!;
  await scene.write(primary, 1, "old");
  scene.crash(stale);
  await scene.until(() => scene.shard().candidates.length === 1);
  const [candidate] = scene.shard().candidates;
  await scene.write(primary, 1, "new");
  const portal = scene.otherThan(...members, candidate!);
  // The only complete member goes: its candidate alone is no shard, nor is the stale member.
  scene.crash(primary);
  await scene.until(() => scene.isDown(primary));
  await scene.run(3000);
  const byCandidate = await scene.answerTo(scene.askRead(portal, 1));
  scene.crash(candidate!);
  await scene.start(stale);
  await scene.until(() => !scene.isDown(stale));
  await scene.run(3000);
  const byStale = await scene.answerTo(scene.askRead(portal, 1));
  for (const outcome of [byCandidate, byStale]) {
    assert.ok(outcome === null || outcome === "fault: unavailable", `${outcome}`);
  }
  await scene.start(candidate!);
  assert.equal(await scene.read(portal, 1), "new");
});

test("a primary that has promised a newer view gives way in its own", async () => {
  const scene = await ClusterScene.begin();
  const { primary, view } = scene.shard();
  const portal = scene.otherThan(primary);
  await scene.write(portal, 1, "before");
  // As a recovery asks that was begun while nobody whole was there.
  await scene.cluster.world.complete(scene.node(primary).map.report(0, view + 1));
  await scene.until(() => scene.shard().view > view);
  assert.equal(await scene.read(portal, 1), "before");
});

test("a store that is older than the cluster knows takes no part, and is kept", async () => {
  const scene = await ClusterScene.begin();
  const { primary } = scene.shard();
  const brick = scene.otherThan(primary, scene.raftLeader);
  const { disk } = scene.cluster.world.machine(brick);
  await scene.write(primary, 1, "old");
  scene.kill(brick);
  const putBack = disk.image();
  for (const text of ["newer", "new"]) {
    await scene.start(brick);
    await scene.back(brick);
    await scene.write(primary, 1, text);
    scene.kill(brick);
  }
  putBack();
  const before = disk.paths();
  // Whoever leads remembers what it heard; the next leader knows what is committed.
  const leader = scene.raftLeader;
  scene.crash(leader);
  await scene.start(leader, brick);
  await scene.run(5000);
  assert.ok(scene.isDown(brick));
  assert.equal(scene.isLeased(brick), false);
  assert.deepEqual(
    before.filter((path) => !disk.paths().includes(path)),
    [],
  );
  assert.equal(await scene.read(primary, 1), "new");
});

test("a recovery does not end the wait for a transfer", async () => {
  const scene = await ClusterScene.begin({ bricks: 4 });
  const { primary, members } = scene.shard();
  const back = members.find((brick) => brick !== primary)!;
  const portal = scene.otherThan(...members);
  for (let grain = 0; grain < 6; grain += 1) await scene.write(portal, grain, `before ${grain}`);
  scene.crash(back);
  await scene.until(() => scene.shard().candidates.length === 1);
  await scene.write(portal, 1, "on the stand-in");
  // The only complete member goes as the other one comes; together they, and the stand-in, have all.
  await scene.start(back);
  await scene.until(() => !scene.isDown(back));
  scene.crash(primary);
  await scene.until(() => scene.isDown(primary) && scene.shard().primary !== primary);
  assert.equal(await scene.read(portal, 1), "on the stand-in");
  await scene.write(portal, 2, "after the recovery");
  await scene.run(5000);
  assert.equal(scene.transferBytes, 0);
  await scene.start(primary);
  await scene.back(primary);
  assert.deepEqual(await scene.readEverywhere(2), new Set(["after the recovery"]));
});

test("a recovery goes on when what asks for the union was lost on its way", async () => {
  const scene = await ClusterScene.begin({ bricks: 4 });
  const { primary, members } = scene.shard();
  const back = members.find((brick) => brick !== primary)!;
  const others = scene.cluster.bricks.filter((brick) => !members.includes(brick));
  const leader = others.find((brick) => scene.state.bricks[brick]!.voter)!;
  if (scene.raftLeader !== leader) await scene.handOver(leader);
  await scene.write(leader, 1, "before");
  scene.crash(back);
  await scene.until(() => scene.shard().candidates.length === 1);
  await scene.write(leader, 1, "on the stand-in");
  await scene.start(back);
  await scene.until(() => !scene.isDown(back));
  scene.lose(leader, messageType.shardAssemble);
  scene.crash(primary);
  await scene.until(() => scene.isDown(primary));
  await scene.run(2000);
  assert.equal(scene.shard().primary, primary);
  scene.lose(null);
  await scene.until(() => scene.shard().primary !== primary, 10_000);
  assert.equal(await scene.read(leader, 1), "on the stand-in");
});

test("a change of view does not begin the wait for a transfer anew", () => {
  const cluster = new TestCluster(4, 1);
  const change = (primary: number, members: number[], candidates: number[]) =>
    cluster.ok({
      type: "changeView",
      shard: 0,
      expect: cluster.state.shards[0]!.view,
      primary,
      members,
      candidates,
      transfer: false,
      completed: members.filter((one) => cluster.state.shards[0]!.candidates.includes(one)),
      released: false,
      recovery: false,
    });
  change(1, [1], [2]);
  change(1, [1, 2], []);
  cluster.ok({ type: "advanceTime", toMs: 1000 });
  cluster.down(2);
  change(1, [1], [3]);
  const since = cluster.state.shards[0]!.shortSinceMs;
  assert.equal(since, 1000);
  cluster.ok({ type: "advanceTime", toMs: 30_000 });
  cluster.down(3);
  change(1, [1], [4]);
  assert.equal(cluster.state.shards[0]!.shortSinceMs, since);
});

test("a brick that returns after several epochs and views brings nothing back, and lacks nothing", async () => {
  const scene = await ClusterScene.begin({ bricks: 4, gcEveryMs: 200 });
  const { primary, members } = scene.shard();
  const away = members.find((brick) => brick !== primary)!;
  const portal = scene.otherThan(...members);
  for (let grain = 0; grain < 6; grain += 1) {
    await scene.write(portal, grain, `before ${grain}`, grain % 2 === 0 ? 4096 : 64 * 1024);
  }
  scene.crash(away);
  await scene.until(() => scene.shard().candidates.length === 1);
  const { gcEpoch } = scene.state;
  const [other] = scene.shard().candidates;
  await scene.unmap(portal, 0);
  await scene.unmap(portal, 1);
  await scene.write(portal, 2, "meanwhile 2", 64 * 1024);
  scene.crash(other!);
  await scene.until(() => scene.isDown(other!));
  await scene.write(portal, 3, "meanwhile 3");
  await scene.start(other!);
  await scene.until(() => !scene.isDown(other!));
  for (let round = 0; scene.state.gcEpoch < gcEpoch + 4; round += 1) {
    await scene.write(portal, 9, `garbage ${round}`, 64 * 1024);
    await scene.run(200);
  }
  await scene.start(away);
  await scene.back(away);
  const epochs = scene.state.gcEpoch + 4;
  for (let round = 0; scene.state.gcEpoch < epochs; round += 1) {
    await scene.write(portal, 9, `more ${round}`, 64 * 1024);
    await scene.run(200);
  }
  assert.equal(shortOfCopies(scene.cluster), null);
  assert.equal(scene.cluster.copiedBytes, 0);
  // It leads, and a gateway that knows nothing asks it.
  const { primary: last } = scene.shard();
  if (last !== away) scene.crash(last);
  await scene.until(() => scene.shard().primary === away);
  if (last !== portal) scene.crash(portal);
  await scene.start(portal);
  const texts = ["", "", "meanwhile 2", "meanwhile 3", "before 4", "before 5"];
  for (const [grain, text] of texts.entries()) assert.equal(await scene.read(portal, grain), text);
});
