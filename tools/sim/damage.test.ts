import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import type { BrickNumber } from "../../brick/units.ts";
import { DamageScene, openWithDamagedSnapshot } from "./damage-scene.test-support.ts";
import {
  type CallDamage,
  callDamages,
  type DamageRow,
  damageRows,
  type RestDamage,
  restDamages,
  tableLines,
} from "./damage-table.test-support.ts";

/**
 * docs/failures.md, "What a damaged file does", carried out: each damage of each row on the brick
 * that leads Raft and serves the volume, and on one that does not; both lead shards and back others.
 */

test("the table of docs/failures.md is the one that is tested here", () => {
  const docs = readFileSync(new URL("../../docs/failures.md", import.meta.url), "utf8");
  const lines = new Set(docs.split("\n").map((line) => line.replaceAll(/\s+/g, " ").trim()));
  for (const line of tableLines()) assert.ok(lines.has(line), `docs/failures.md lacks: ${line}`);
  const section = docs.slice(docs.indexOf("## What a damaged file does"));
  const rows = section.slice(3, section.indexOf("\n## ", 3)).match(/^\|(?! *-)/gm)!;
  assert.equal(rows.length, tableLines().length + 2, "a row of the document is not tested");
});

const isRest = (damage: string): damage is RestDamage =>
  (restDamages as readonly string[]).includes(damage);
const isCall = (damage: string): damage is CallDamage =>
  (callDamages as readonly string[]).includes(damage);

/** Calls that fail, by what they are done to. */
const callTargets: Readonly<Record<string, RegExp>> = {
  segment: /^log\//,
  superblock: /^superblock-/,
  "Raft log": /^raft\/log-/,
};

const roles = [
  { role: "leader and gateway", brick: 1 },
  { role: "follower", brick: 2 },
] as const;

for (const { role, brick } of roles) {
  for (const row of damageRows) {
    if (row.file === "Raft snapshot") continue;
    test(`${role}: ${row.file}, ${row.damages.join(", ")}: ${row.outcome}`, async () => {
      const scene = new DamageScene(brick * 100 + damageRows.indexOf(row));
      await scene.begin();
      for (const damage of row.damages) {
        await scene.inOrder();
        await carryOut(scene, brick, row, damage);
        await scene.inOrder();
        await scene.readBack();
        assert.equal(scene.cluster.copiedBytes, 0, `${damage}: repair has copied chunks`);
        scene.disk(brick).fault = null;
        // What comes next is done to what is written now.
        await scene.write();
      }
    });
  }
}

async function carryOut(
  scene: DamageScene,
  brick: BrickNumber,
  row: DamageRow,
  damage: DamageRow["damages"][number],
): Promise<void> {
  if (row.when === "before a start") await beforeStart(scene, brick, row, damage);
  else if (row.outcome === "healed") await atRest(scene, brick, row, damage as RestDamage);
  else await failing(scene, brick, row, damage);
}

/** The chunk is in the index, and nobody restarts: a read or the scrub meets it. */
async function atRest(
  scene: DamageScene,
  brick: BrickNumber,
  row: DamageRow,
  damage: RestDamage,
): Promise<void> {
  const node = scene.cluster.nodes.get(brick)!;
  node.store.checkpoint();
  const before = node.heal.counters.healedChunks;
  for (const target of scene.targets(brick, row.file)) scene.damage(brick, target, damage);
  await scene.readBack();
  const healed = () => node.heal.counters.healedChunks > before;
  await scene.cluster.world.runUntil(healed, 120_000);
}

async function beforeStart(
  scene: DamageScene,
  brick: BrickNumber,
  row: DamageRow,
  damage: DamageRow["damages"][number],
): Promise<void> {
  const disk = scene.disk(brick);
  if (row.file === "index of a recycled log") await recycle(scene, brick);
  scene.stop(brick);
  const from = scene.lines.length;
  if (row.outcome === "waits") return withoutRoom(scene, brick);
  const kept = scene.keep(brick);
  if (damage === "missing") disk.loseKv("index");
  else if (isRest(damage)) {
    for (const target of scene.targets(brick, row.file)) scene.damage(brick, target, damage);
  } else failCalls(scene, brick, row, damage);
  const failure = await scene.start(brick);
  if (row.outcome === "refuses") {
    assert.notEqual(failure, null, `${damage}: the brick has started`);
    // It is as a lost brick: the others serve what was written.
    await scene.cluster.world.runFor(20_000);
    await scene.readBack();
    // And it has harmed nothing that it still has.
    kept.putBack();
    assert.equal(await scene.start(brick), null);
    return;
  }
  assert.equal(failure, null, `${damage}: ${failure}`);
  const lines = scene.lines.slice(from).filter((line) => line.startsWith(`brick ${brick}: `));
  const { store } = scene.cluster.nodes.get(brick)!;
  if (row.outcome === "rebuilt") {
    const noticed = store.damage.length > 0 || lines.some((line) => /log: /.test(line));
    assert.ok(noticed, `${damage}: the start has noticed nothing`);
  }
}

/** The index has no room to be opened in, whatever is given up for it, and then it has. */
async function withoutRoom(scene: DamageScene, brick: BrickNumber): Promise<void> {
  const { cluster, lines } = scene;
  const disk = scene.disk(brick);
  disk.fault = (call, path) => (path === "index" && call === "write" ? "ENOSPC" : null);
  const crashes = cluster.world.crashes.length;
  const before = lines.length;
  cluster.start(brick);
  await cluster.world.runFor(20_000);
  await scene.readBack();
  const said = lines.slice(before).filter((line) => line.includes(": store: cannot start, "));
  assert.deepEqual([said.length, cluster.nodes.has(brick)], [1, false]);
  disk.fault = null;
  await cluster.world.runUntil(() => cluster.nodes.has(brick));
  assert.equal(cluster.world.crashes.length, crashes);
}

/** So that a segment is in its second use. */
async function recycle(scene: DamageScene, brick: BrickNumber): Promise<void> {
  const { store } = scene.cluster.nodes.get(brick)!;
  const isRecycled = () => store.counters.recycledSegments > 0;
  for (let round = 0; round < 20 && !isRecycled(); round += 1) {
    await scene.write();
    await scene.cluster.world.runFor(3000);
  }
  assert.ok(isRecycled(), "no segment was recycled");
  await scene.write();
}

function failCalls(scene: DamageScene, brick: BrickNumber, row: DamageRow, damage: string): void {
  assert.ok(isCall(damage));
  const pattern = callTargets[row.file]!;
  const disk = scene.disk(brick);
  disk.fault = (call, path, { to }) => {
    if (!pattern.test(path) || call !== (damage === "EIO on fsync" ? "sync" : "write")) return null;
    // What has its place in a file already has it when the disk is full.
    if (damage === "ENOSPC") return to > (disk.file(path)?.sizeBytes ?? 0) ? "ENOSPC" : null;
    return "EIO";
  };
}

/** Calls fail from now on, until the brick has stopped itself or has gone on for a while. */
async function failing(
  scene: DamageScene,
  brick: BrickNumber,
  row: DamageRow,
  damage: DamageRow["damages"][number],
): Promise<void> {
  const disk = scene.disk(brick);
  const { world } = scene.cluster;
  if (row.file !== "index") failCalls(scene, brick, row, damage);
  else if (damage === "EIO on read") disk.dials.kvReadErrorChance = 1;
  else if (damage === "ENOSPC") {
    disk.fault = (call, path) => (path.startsWith("index") && call === "write" ? damage : null);
  } else disk.dials.kvErrorChance = 1;
  const crashes = world.crashes.length;
  const hasStopped = () => world.crashes.slice(crashes).some((crash) => crash.brick === brick);
  await scene.write();
  if (row.file === "Raft log") await scene.addVolume();
  if (row.file === "index") await scene.checkpoint(brick);
  await world.runFor(2000);
  assert.equal(hasStopped(), row.outcome === "stops", `${damage}: stopped: ${hasStopped()}`);
  await scene.readBack();
  disk.fault = null;
  disk.dials.kvErrorChance = disk.dials.kvReadErrorChance = 0;
  if (hasStopped()) assert.equal(await scene.start(brick), null);
}

test("a brick that has lost all records of a shard does not speak for it", async () => {
  const scene = new DamageScene(901);
  await scene.begin();
  for (const brick of scene.cluster.bricks) scene.stop(brick);
  scene.loseLog(2);
  for (const brick of [2, 3]) assert.equal(await scene.start(brick), null);
  // Long enough for every recovery that can be made without the third.
  await scene.cluster.world.runFor(60_000);
  for (const brick of [2, 3]) await scene.readSome(brick);
  assert.equal(await scene.start(1), null);
  await scene.inOrder();
  await scene.readBack();
});

test("a brick that has lost all records of a shard says so itself, after another restart too", async () => {
  const scene = new DamageScene(902);
  await scene.begin();
  const { shards } = scene.cluster.anyNode()!.control.state()!;
  const held = [...shards.keys()].filter((shard) => shards[shard]!.members.includes(2));
  assert.ok(held.length > 0);
  for (const brick of scene.cluster.bricks) scene.stop(brick);
  scene.loseLog(2);
  for (const view of [1000, 1001]) {
    assert.equal(await scene.start(2), null);
    const { map } = scene.cluster.nodes.get(2)!;
    for (const shard of held) {
      const report = await scene.cluster.world.complete(map.report(shard, view), 10_000);
      assert.equal(JSON.parse(report!.toString("utf8")).damaged, true, `shard ${shard}`);
    }
    scene.stop(2);
  }
});

/** Raft's files alone: a cluster would take long to need a snapshot. */
test("Raft snapshot: the one before it and the log count, else the voter heals", async () => {
  const row = damageRows.find(({ file }) => file === "Raft snapshot")!;
  for (const damage of row.damages) {
    for (const which of ["newest", "both"] as const) {
      const { loaded, report, wanted } = await openWithDamagedSnapshot(damage as RestDamage, which);
      assert.ok(report.damagedSnapshots.length > 0, `${damage}: not noticed`);
      const reached = loaded.entries.at(-1)?.index ?? loaded.snapshot?.index ?? 0;
      const whole = loaded.entries.every((entry) => "payload" in entry) && reached >= wanted;
      const heals = loaded.hardState?.healing?.throughIndex ?? 0;
      assert.ok(whole || heals >= wanted, `${damage} of ${which}: silently lost`);
    }
  }
});
