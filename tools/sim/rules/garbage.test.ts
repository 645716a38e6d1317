import assert from "node:assert/strict";
import { test } from "node:test";
import { chunkKey } from "../../../brick/chunk/key.ts";
import { grainsPerShardRun, shardOf } from "../../../brick/cluster-state.ts";
import { gcOptionsDefault } from "../../../brick/gc/gc-options.ts";
import { MarkWalk } from "../../../brick/gc/mark-walk-io.ts";
import { gcShare } from "../../../brick/gc/pace.ts";
import { decodeMapGroup } from "../../../brick/map/group-messages.ts";
import { messageType } from "../../../brick/rpc/message-types.ts";
import { grainBytes } from "../../../brick/units.ts";
import { emptyClusterState } from "../../../control/cluster-machine.ts";
import { volumeName } from "../sim-cluster.ts";
import { ClusterScene } from "./cluster-scene.test-support.ts";
import { MapScene } from "./map-scene.test-support.ts";

/** What garbage collection must leave alone. docs/simulation.md names the rules. */

const gcEveryMs = 200;

/** Runs until an epoch is marked and every brick has swept by it. */
async function swept(scene: ClusterScene, epoch: number): Promise<void> {
  const { nodes } = scene.cluster;
  await scene.until(() => [...nodes.values()].every(({ gc }) => gc.sweptEpoch >= epoch));
}

/** No name and no number comes twice. */
let volumesMade = 0;

/** Volumes are made and deleted, so that epochs go on while nothing is written. */
async function epochs(scene: ClusterScene, until: () => boolean): Promise<void> {
  for (let round = 1; !until(); round += 1) {
    assert.ok(round < 100, "no epoch ends");
    volumesMade += 1;
    const name = `short-lived-${volumesMade}`;
    await scene.cluster.addVolume(name, String(volumesMade).padStart(32, "0"));
    await scene.cluster.submit({ type: "deleteVolume", name });
    await scene.run(gcEveryMs);
  }
}

test("a gateway that waits between PUT and map operation over two epochs stores its chunk again", async () => {
  const scene = await ClusterScene.begin({ gcEveryMs });
  const gateway = scene.otherThan(scene.shard().primary);
  await scene.write(gateway, 9, "first");
  scene.lose(gateway, messageType.mapWrite);
  const write = scene.ask(gateway, 1, "slow", grainBytes);
  await scene.run(50);
  const { gcEpoch } = scene.state;
  await epochs(scene, () => scene.state.gcEpoch > gcEpoch + 3);
  scene.lose(null);
  assert.equal(await scene.answerTo(write, 30_000), "good");
  assert.deepEqual(await scene.readEverywhere(1), new Set(["slow"]));
  assert.equal(scene.copiesOf(1).length, 2);
});

test("a chunk that a PUT finds is kept, however long it was garbage before", async () => {
  // So slowly that the map operation, sent again, is not too old.
  const scene = await ClusterScene.begin({ gcEveryMs: 1500 });
  const gateway = scene.shard().primary;
  await scene.write(gateway, 1, "twice", grainBytes);
  const holders = scene.copiesOf(1);
  await scene.unmap(gateway, 1);
  // It would be swept when the second epoch after this one is marked.
  const epoch = scene.state.gcEpoch + 2;
  await scene.until(() => scene.state.gcEpoch === epoch);
  scene.lose(gateway, messageType.mapWrite);
  const write = scene.ask(gateway, 2, "twice", grainBytes);
  const hits = () => holders.filter((brick) => scene.node(brick).store.counters.dedupHits > 0);
  await scene.until(() => hits().length === holders.length);
  assert.ok(scene.state.gc!.marked < epoch);
  await swept(scene, epoch);
  scene.lose(null);
  assert.equal(await scene.answerTo(write), "good");
  assert.deepEqual(await scene.readEverywhere(2), new Set(["twice"]));
  assert.deepEqual(scene.copiesOf(2), holders);
});

test("the chunks of what is logged and not committed are marked", async () => {
  const scene = await ClusterScene.begin({ bricks: 4, gcEveryMs });
  const { primary, members } = scene.shard();
  const backup = members.find((brick) => brick !== primary)!;
  // A text whose chunk belongs on bricks that have no part in the shard.
  const texts = Array.from({ length: 100 }, (_, at) => `pending ${at}`);
  const apart = (text: string) =>
    scene.holdersFor(text, grainBytes).every((brick) => !members.includes(brick));
  const text = texts.find(apart)!;
  await scene.write(primary, 9, "first");
  scene.lose(backup, messageType.mapReplica);
  const write = scene.ask(primary, 1, text, grainBytes);
  await scene.run(50);
  const { gcEpoch } = scene.state;
  await epochs(scene, () => scene.state.gcEpoch > gcEpoch + 3);
  scene.lose(null);
  assert.equal(await scene.answerTo(write), "good");
  assert.equal(scene.copiesOf(1).length, 2);
});

test("what a shard owes to another one is kept while it does, over any number of epochs", async () => {
  const scene = await ClusterScene.begin({ bricks: 4, shardCount: 2, gcEveryMs });
  // The first grain of the second run, at a brick from which its shard is reached by messages alone.
  const grain = grainsPerShardRun;
  const { family } = scene.state.volumes[volumeName]!;
  const second = shardOf(scene.state, family, grain);
  const gateway = scene.otherThan(scene.shard(second).primary);
  await scene.write(gateway, 1, "first");
  const { network } = scene.cluster.world;
  network.filter = (from, _to, { type, body }) => {
    if (from !== gateway || type !== messageType.mapGroup) return true;
    return decodeMapGroup(Buffer.concat(body as Buffer[]))!.shard !== second;
  };
  const data = Buffer.alloc(2 * grainBytes);
  for (let at = 0; at < data.length; at += 1) data[at] = at % 251;
  const fromBytes = (grain - 1) * grainBytes;
  const told: boolean[] = [];
  const volume = scene.cluster.volumeAt(gateway)!;
  void volume.writeAtomic(fromBytes, [data]).then(({ ok }) => told.push(ok));
  await scene.run(100);
  const { gcEpoch } = scene.state;
  await epochs(scene, () => scene.state.gcEpoch > gcEpoch + 4);
  await swept(scene, gcEpoch + 3);
  assert.deepEqual(told, []);
  // Nothing but the owing shard's map has named them for long.
  const key = chunkKey(data.subarray(grainBytes));
  const having = () => scene.cluster.bricks.filter((brick) => scene.node(brick).store.has(key));
  assert.equal(having().length, 2);
  network.filter = null;
  await scene.until(() => told.length > 0);
  assert.deepEqual(told, [true]);
  const after = scene.state.gcEpoch;
  await epochs(scene, () => scene.state.gcEpoch > after + 4);
  for (const brick of scene.cluster.bricks) {
    const read = await scene.cluster.world.complete(
      scene.cluster.volumeAt(brick)!.read(fromBytes, data.length),
    );
    assert.ok(read.ok && Buffer.concat(read.buffers).equals(data), `through brick ${brick}`);
  }
  assert.equal(having().length, 2);
});

test("a walk that marks ends with its view, and what another view marked does not count", async () => {
  const scene = await MapScene.begin();
  for (const grain of [1, 2, 3]) await scene.put(grain, `marked ${grain}`);
  const { host, calls, store, map } = scene.node(1);
  const state = { gcEpoch: 1, gc: { marked: 0, begunMs: 0, steady: {} }, bricks: {}, volumes: {} };
  const marks = new MarkWalk({
    host,
    calls,
    self: 1,
    store,
    options: { ...gcOptionsDefault, markPageRecords: 1, pauseMs: 400 },
    share: () => gcShare,
    replicas: () => map.replicas(),
    state: () => ({ ...emptyClusterState, ...state }),
    isClosed: () => false,
  });
  const isMarked = () => marks.markedIn(0, scene.shard.view) === 1;
  assert.ok(await scene.world.complete(marks.step()));
  assert.ok(isMarked());
  scene.view({ primary: 1, members: [1, 2] });
  assert.ok(!isMarked());
  await scene.run();
  // A view that begins while it walks.
  const walking = marks.step();
  await scene.run();
  scene.view({ primary: 1, members: [1, 2] });
  await scene.world.complete(walking);
  assert.equal(marks.counters.walks, 1);
  assert.ok(!isMarked());
  assert.ok(await scene.world.complete(marks.step()));
  assert.ok(isMarked());
});
