import assert from "node:assert/strict";
import { test } from "node:test";
import { recordKey } from "../../../brick/map/map-table-keys.ts";
import { grainBytes, sectorBytes, sectorsPerGrain } from "../../../brick/units.ts";
import { volumeName } from "../sim-cluster.ts";
import { ClusterScene } from "./cluster-scene.test-support.ts";

/** What a brick makes of an index that it cannot read. docs/simulation.md names the rules. */

const grain = 3;
const startsMax = 3;

test("a map record that a start cannot read is not taken for absent", async () => {
  const scene = await ClusterScene.begin();
  const { world } = scene.cluster;
  const { members, primary } = scene.shard();
  const backup = members.find((brick) => brick !== primary)!;
  await scene.write(primary, grain, "before the checkpoint");
  // A backup hears a little later that it has committed.
  await scene.run(1000);
  const { map, store } = scene.node(backup);
  store.checkpoint();
  // A change of another part of the grain, which the backup makes anew when it starts.
  const volume = scene.cluster.volumeAt(primary, volumeName)!;
  const offsetBytes = grain * grainBytes + (sectorsPerGrain / 2) * sectorBytes;
  const later = volume.write(offsetBytes, [Buffer.alloc(sectorBytes, "after")]);
  assert.deepEqual(await world.complete(later), { ok: true });
  await scene.run(1000);
  // By which the backup's log knows that the change has committed.
  await scene.write(primary, grain + 1, "another grain");
  const { facts, table } = [...map.replicas()][0]!;
  const name = { kind: "base", shard: 0, incarnation: facts.incarnation } as const;
  const { entries } = table.scan("base", 0, facts.incarnation, null, 10_000);
  const entry = entries.find((one) => one.grain === grain)!;
  assert.equal(entry.value.extents.length, 2);
  const { machine, index } = diskOf(scene, backup);
  const key = recordKey(name, entry).toString("latin1");
  assert.ok(!index.get(key)!.equals(entry.bytes));
  index.rotKey(key);
  scene.kill(backup);
  for (let starts = 0; starts < startsMax && !scene.cluster.nodes.has(backup); starts += 1) {
    scene.cluster.start(backup);
    await scene.until(() => scene.cluster.nodes.has(backup) || !machine.running);
  }
  // As often as it is met; the log has it all.
  if (!scene.cluster.nodes.has(backup)) {
    machine.disk.loseKv("index");
    await scene.start(backup);
  }
  // With which what it made of the record stays.
  scene.node(backup).store.checkpoint();
  await scene.back(backup);
  scene.crash(primary);
  assert.equal(await scene.read(backup, grain), "before the checkpoint");
});

function diskOf(scene: ClusterScene, brick: number) {
  const machine = scene.cluster.world.machine(brick);
  return { machine, index: machine.disk.kv("index")! };
}
