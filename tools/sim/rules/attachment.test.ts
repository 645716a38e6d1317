import assert from "node:assert/strict";
import { test } from "node:test";
import type { BrickRecord, ShardRecord } from "../../../brick/cluster-state.ts";
import type { Host } from "../../../brick/host.ts";
import { encodeMapReply } from "../../../brick/map/map-messages.ts";
import { type CallReply, type Calls, Received } from "../../../brick/rpc/calls.ts";
import { StageTimes } from "../../../brick/stage-times.ts";
import { volumeOptionsDefault } from "../../../brick/volume/options.ts";
import { MapOperation, ShardLink } from "../../../brick/volume/shard-link.ts";
import { splitUnmap } from "../../../brick/volume/split.ts";
import { VolumeStats } from "../../../brick/volume/stats.ts";
import { emptyClusterState } from "../../../control/cluster-machine.ts";
import { ClusterScene } from "./cluster-scene.test-support.ts";

/** Which gateway serves a volume, and what an older one may still do. docs/simulation.md names the rules. */

test("a gateway that restarts inside its lease takes a new epoch, and what it sent before is fenced", async () => {
  const scene = await ClusterScene.begin();
  const gateway = scene.otherThan(scene.shard().primary);
  await scene.write(gateway, 1, "first");
  const epochs = () => Object.values(scene.state.attachments).map(({ epoch }) => epoch);
  const before = Math.max(...epochs());
  const { primary } = scene.shard();
  assert.notEqual(primary, gateway);
  scene.hold(gateway, primary);
  scene.ask(gateway, 1, "of the old boot");
  await scene.run(20);
  scene.kill(gateway);
  const arrive = scene.cluster.world.network.takeHeld(gateway, primary);
  scene.hold(gateway, primary, false);
  await scene.start(gateway);
  await scene.write(gateway, 1, "second");
  assert.ok(Math.max(...epochs()) > before);
  arrive();
  await scene.run(500);
  assert.equal(await scene.read(gateway, 1), "second");
  await scene.write(gateway, 2, "third");
  assert.deepEqual(await scene.readEverywhere(2), new Set(["third"]));
});

test("an older attachment's write does not land after the takeover", async () => {
  const scene = await ClusterScene.begin({ bricks: 4 });
  const { primary } = scene.shard();
  const gateway = scene.otherThan(primary, scene.raftLeader);
  await scene.write(gateway, 1, "old");
  // What it sends waits in the network: its write, and that it is alive.
  const others = scene.cluster.bricks.filter((brick) => brick !== gateway);
  for (const brick of others) scene.hold(gateway, brick);
  const late = scene.ask(gateway, 1, "late");
  await scene.run(20);
  await scene.until(() => scene.isDown(gateway));
  const next = scene.otherThan(gateway, primary);
  await scene.write(next, 1, "new");
  scene.heal();
  await scene.run(1000);
  assert.deepEqual(await scene.readEverywhere(1), new Set(["new"]));
  assert.notEqual(late.outcome, "good");
});

test("an answer of an older view counts for nothing, and the operation is sent again", () => {
  const sent: { to: number; type: number; done: (reply: CallReply) => void }[] = [];
  const shard = (view: number, primary: number) => ({ view, primary }) as ShardRecord;
  const up = { status: "up", reachable: true } as BrickRecord;
  let state = { ...emptyClusterState, shards: [shard(1, 1)], bricks: { 1: up, 2: up } };
  const calls = {
    call: (to: number, type: number, _body: unknown, _ms: number, done: never) =>
      void sent.push({ to, type, done }),
  };
  const clock = { nowMs: () => 0, wallMs: () => 0, after: () => timer, soon: () => {} };
  const timer = { cancel: () => {} };
  const outcomes: string[] = [];
  const link = new ShardLink(
    {
      host: { clock } as unknown as Host,
      calls: calls as unknown as Calls,
      options: volumeOptionsDefault,
      stats: new VolumeStats(new StageTimes(clock)),
      branch: 1,
      epoch: 1,
      state: () => state,
      generation: () => 1,
      fenced: () => outcomes.push("fenced"),
    },
    0,
  );
  const answer = (view: number) =>
    sent.shift()!.done(new Received(encodeMapReply({ status: "ok", view, holders: [] }), null));
  const asked = () => sent.map(({ to }) => to);
  const piece = splitUnmap(0, 4096)[0]!;
  link.submit(new MapOperation(piece, null, ({ code }) => outcomes.push(code)));
  answer(1);
  assert.deepEqual(asked(), [1]);
  state = { ...state, shards: [shard(2, 2)] };
  link.onState();
  assert.deepEqual(asked(), [1, 2]);
  answer(1);
  assert.deepEqual(outcomes, []);
  answer(2);
  assert.deepEqual(outcomes, ["done"]);
});
