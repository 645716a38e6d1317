import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { DiskError } from "../../brick/host.ts";
import { Prng } from "../../brick/prng.ts";
import { Partitions } from "./partitions.ts";
import { SimCluster } from "./sim-cluster.ts";
import { SimFile } from "./sim-file.ts";
import { SimKvStore } from "./sim-kv.ts";
import { noRuns } from "./soak.ts";
import { readRecord, writeRecord } from "./soak-record-io.ts";

/** What the simulator does to a cluster that nobody is told of. */

test("a lost write leaves what was there, and the file as long as if it had landed", () => {
  const file = new SimFile();
  file.write(0, [Buffer.from("kept")]);
  file.loseWrite(2, 6);
  assert.equal(file.read(0, 100).toString("latin1"), "kept\0\0\0\0");
});

test("a rotten pair cannot be read, alone or among others, until it is written anew", () => {
  const store = new SimKvStore();
  const key = Buffer.from("key");
  store.apply([{ key, value: Buffer.from("value") }], true);
  assert.ok(store.rot(new Prng(1)));
  const isRot = (error: unknown) => error instanceof DiskError && error.code === "EIO";
  assert.throws(() => store.get("key"), isRot);
  assert.throws(() => store.range("a", "z", 10), isRot);
  store.apply([{ key, value: Buffer.from("again") }], true);
  assert.equal(store.get("key")?.toString(), "again");
  assert.equal(store.isRotten, false);
});

function newCluster(): SimCluster {
  return new SimCluster({ seed: 1, bricks: 5, shardCount: 2, volumeBytes: 2 ** 27, copies: 2 });
}

test("every kind of partition parts the cluster, and ends", async () => {
  const cluster = newCluster();
  await cluster.create();
  let healed = 0;
  const partitions = new Partitions(cluster, new Prng(2), 500, () => {
    healed += 1;
  });
  for (let round = 0; round < 40; round += 1) {
    if (round % 8 === 0) partitions.bridge();
    else partitions.part();
    assert.ok(cluster.world.network.isParted());
    await cluster.world.runUntil(() => healed > round, 5_000);
    assert.ok(!cluster.world.network.isParted());
  }
  for (const [kind, count] of Object.entries(partitions.counts)) assert.ok(count > 0, kind);
  assert.ok(partitions.shapes.size > 20, `${partitions.shapes.size} distinct`);
});

test("what is sent into a dead connection is lost, whatever heals, and the other way is open", async () => {
  const cluster = newCluster();
  await cluster.create();
  const { network } = cluster.world;
  network.set(1, 2, { halfOpen: true });
  network.heal();
  const { dropped } = network.stats;
  const between = new Set<string>();
  network.filter = (from, to) => {
    between.add(`${from}>${to}`);
    return true;
  };
  await cluster.world.runFor(1_000);
  assert.ok(network.stats.dropped > dropped);
  assert.ok(!between.has("1>2"));
  assert.ok(between.has("2>1"));
});

test("the record of a soak is what its parts came to together", () => {
  const folder = mkdtempSync(join(tmpdir(), "endisk-soak-"));
  try {
    const path = join(folder, "record.json");
    const begun = readRecord(path, 7);
    assert.deepEqual(begun, { sum: noRuns(), seedNext: 7 });
    begun.sum.runs = 3;
    begun.sum.partitionShapes.add("one");
    begun.seedNext = 10;
    writeRecord(path, begun);
    assert.deepEqual(readRecord(path, 7), begun);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
