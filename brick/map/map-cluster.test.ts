import assert from "node:assert/strict";
import { test } from "node:test";
import { chunkKey } from "../chunk/key.ts";
import { type GroupPart, groupPartsMax } from "./group.ts";
import { begin, replaceSecond, verify, writeAll } from "./map-cluster-writes.test-support.ts";

test("without its lease a primary answers nothing; with it, it goes on", async () => {
  const { cluster, expected } = await begin(4);
  cluster.crash(1);
  const { map } = await cluster.start(1, 2000);
  cluster.view({ primary: 1, members: [1, 2] });
  assert.equal((await cluster.fence(6)).status, "ok");
  await verify(cluster, expected);
  await cluster.world.runFor(2000);
  // Whoever led meanwhile may have taken other writes.
  await assert.rejects(cluster.lookup(0, 20), /no look-up succeeded/);
  await assert.rejects(cluster.write(1, 0, 8, 77), /no answer that counts/);
  await assert.rejects(cluster.fence(7), /no answer that counts/);
  map.setLease(Number.POSITIVE_INFINITY);
  assert.equal((await cluster.fence(7)).status, "ok");
  await verify(cluster, expected);
});

for (const seed of [1, 2, 3]) {
  test(`seed ${seed}: a write is on both members, and read back`, async () => {
    const { cluster, expected } = await begin(seed);
    await verify(cluster, expected);
    for (const brick of [1, 2]) {
      const { store } = cluster.nodes.get(brick)!;
      for (const key of expected.values()) assert.ok(store.has(Buffer.from(key, "hex")));
    }
  });

  test(`seed ${seed}: a sequence sent again lands once; a cancelled one never`, async () => {
    const { cluster } = await begin(seed, 2);
    const first = Buffer.alloc(512, 1);
    const second = Buffer.alloc(512, 2);
    cluster.sequence += 1;
    const sequence = cluster.sequence;
    assert.equal((await cluster.send(sequence, 50, 0, 1, first)).status, "ok");
    assert.equal((await cluster.send(sequence, 50, 0, 1, second)).status, "ok");
    assert.equal((await cluster.sectors(50))[0], chunkKey(first).toString("hex"));
    assert.equal((await cluster.cancel(sequence)).status, "ok");
    assert.equal((await cluster.cancel(sequence + 1)).status, "cancelled");
    assert.equal((await cluster.send(sequence + 1, 50, 0, 1, second)).status, "cancelled");
    assert.equal((await cluster.sectors(50))[0], chunkKey(first).toString("hex"));
  });

  test(`seed ${seed}: a fenced gateway is refused, before and after a restart`, async () => {
    const { cluster } = await begin(seed, 2);
    assert.equal((await cluster.fence(7)).status, "ok");
    cluster.epoch = 5;
    cluster.sequence = 100;
    assert.equal((await cluster.write(1, 0, 1, 5)).status, "fenced");
    cluster.crash(1);
    cluster.view({ primary: 2, members: [2], chain: [cluster.shard] });
    assert.equal((await cluster.write(1, 0, 1, 5)).status, "fenced");
  });

  test(`seed ${seed}: a candidate logs new writes, and becomes complete by a transfer`, async () => {
    const { cluster, expected } = await begin(seed);
    cluster.crash(2);
    cluster.view({ primary: 1, members: [1], candidates: [3], chain: [cluster.shard] });
    await writeAll(cluster, expected, 10, 30, 2000);
    await verify(cluster, expected);
    for (let grain = 10; grain < 30; grain += 1) {
      const key = Buffer.from(expected.get(grain)!, "hex");
      assert.ok(cluster.nodes.get(3)!.store.has(key));
    }
    cluster.shard = { ...cluster.shard, transfer: true };
    cluster.tell();
    await cluster.complete(3);
    // The transfer was durable: the new member leads alone, after a power cut.
    cluster.crash(1);
    cluster.crash(3);
    await cluster.start(3);
    cluster.view({ primary: 3, members: [3], chain: [] });
    await verify(cluster, expected);
  });

  test(`seed ${seed}: nobody is named anew while records are on their way to a candidate`, async () => {
    const { cluster, expected } = await begin(seed);
    const key = Buffer.from(expected.get(3)!, "hex");
    cluster.crash(2);
    const chain = [cluster.shard];
    cluster.view({ primary: 1, members: [1], candidates: [3], transfer: true, chain });
    await assert.rejects(cluster.rehint(3, key, [1, 3], 1), /no answer that counts/);
    await cluster.complete(3);
    await assert.rejects(cluster.rehint(3, key, [1, 3], 1), /no answer that counts/);
    cluster.view({ primary: 1, members: [1, 3], chain: [] });
    assert.equal((await cluster.rehint(3, key, [1, 3])).status, "ok");
    // The other replica says the same.
    cluster.view({ primary: 3, members: [1, 3], chain: [] });
    const { grains } = await cluster.lookup(3, 1);
    assert.deepEqual(grains.get(3)![0]!.holders, [1, 3]);
  });

  test(`seed ${seed}: what a view takes over names the bricks that it commits on`, async () => {
    const { cluster } = await begin(seed, 2);
    const holders = async (grain: number) =>
      (await cluster.lookup(grain, 1)).grains.get(grain)?.map((extent) => [...extent.holders]);
    // Brick 2 is dead when the write comes; a third one takes its place.
    cluster.crash(2);
    const whole = cluster.shard;
    cluster.world.after(300, () => {
      cluster.view({ primary: 1, members: [1], candidates: [3], chain: [whole] });
    });
    assert.equal((await cluster.write(50, 0, 4, 9)).status, "ok");
    assert.deepEqual(await holders(50), [[1, 3]]);
    assert.deepEqual(await holders(1), [[1, 2]], "what had committed before stays as it was");
    cluster.crash(3);
    const chain = [whole, cluster.shard];
    cluster.world.after(300, () => cluster.view({ primary: 1, members: [1], chain }));
    assert.equal((await cluster.write(60, 0, 4, 10)).status, "ok");
    assert.deepEqual([await holders(60), await holders(50)], [[[1]], [[1, 3]]]);
  });

  test(`seed ${seed}: a member that was away catches up by what it missed`, async () => {
    const { cluster, expected } = await begin(seed, 200);
    cluster.crash(2);
    const whole = cluster.shard;
    cluster.view({ primary: 1, members: [1], candidates: [3], chain: [whole] });
    await writeAll(cluster, expected, 0, 20, 3000);
    // A grain that is removed while the member is away must not come back with it.
    cluster.sequence += 1;
    assert.equal((await cluster.send(cluster.sequence, 150, 0, 128, null)).status, "ok");
    expected.delete(150);
    const before = cluster.nodes.get(1)!.map.counters.transferBytes;
    await cluster.start(2);
    const chain = [whole, cluster.shard];
    cluster.view({ primary: 1, members: [1], candidates: [2, 3], transfer: true, chain });
    await cluster.complete(2);
    const moved = cluster.nodes.get(1)!.map.counters.transferBytes - before;
    assert.ok(moved > 0);
    cluster.crash(1);
    cluster.view({ primary: 2, members: [2], chain: [...chain, cluster.shard] });
    await verify(cluster, expected);
    assert.deepEqual(new Set(await cluster.sectors(150)), new Set([null]));
  });

  test(`seed ${seed}: power cut of all members, and again right after the restart`, async () => {
    const { cluster, expected } = await begin(seed);
    for (let round = 0; round < 3; round += 1) {
      for (const brick of [1, 2]) cluster.crash(brick);
      for (const brick of [1, 2]) await cluster.start(brick);
      const primary = 1 + (round % 2);
      cluster.view({ primary, members: [1, 2] });
      await verify(cluster, expected);
      await writeAll(cluster, expected, 0, 5, 4000 + 100 * round);
    }
    await verify(cluster, expected);
  });

  test(`seed ${seed}: without a complete member, the union of what was logged leads again`, async () => {
    const { cluster, expected } = await begin(seed);
    const whole = cluster.shard;
    cluster.crash(2);
    cluster.view({ primary: 1, members: [1], candidates: [3], chain: [whole] });
    await writeAll(cluster, expected, 5, 30, 5000);
    // The only complete member is lost; the old one and the candidate have everything together.
    cluster.crash(1);
    await cluster.start(2);
    const leader = await cluster.recover([2, 3], false);
    assert.equal(leader, 2);
    await verify(cluster, expected);
    await writeAll(cluster, expected, 0, 10, 6000);
    const other = 3;
    await cluster.complete(other);
    cluster.crash(leader);
    cluster.view({ primary: other, members: [other], chain: [] });
    await verify(cluster, expected);
  });

  test(`seed ${seed}: a backup that restarts within its view goes on`, async () => {
    const { cluster, expected } = await begin(seed);
    cluster.crash(2);
    await cluster.start(2);
    await writeAll(cluster, expected, 0, 10, 7000);
    cluster.crash(1);
    cluster.view({ primary: 2, members: [2], chain: [cluster.shard] });
    await verify(cluster, expected);
  });
}

test("a candidate that starts again in a view where nothing happens is heard of again", async () => {
  const { cluster } = await begin(10);
  replaceSecond(cluster);
  await cluster.complete(3);
  cluster.crash(3);
  await cluster.start(3);
  await cluster.complete(3);
});

const groupKey = Buffer.alloc(32, 0xab);

function part(grain: number, owed: boolean, key: Buffer | null = groupKey): GroupPart {
  const where = { grain, grainCount: 0 as const, firstSector: 8, sectorCount: 8 };
  const holders = key === null ? [] : [1, 2];
  return { ...where, chunkSector: 0, chunkSectors: 8, key, holders, owed };
}

test("what a shard owes is apart from its own, found group by group, and outlives its bricks", async () => {
  const { cluster, expected } = await begin(9);
  // Two groups, so far apart that they are answered one after the other.
  assert.equal((await cluster.group([part(3, false), part(4, true), part(6, true)])).status, "ok");
  assert.equal((await cluster.group([part(3000, true), part(3005, true)])).status, "ok");
  expected.set(3, groupKey.toString("hex"));
  await verify(cluster, expected);
  const owedFrom = async (grain: number) => {
    const { coveredCount, grains } = await cluster.lookup(grain, groupPartsMax, true);
    assert.equal(coveredCount, groupPartsMax);
    return [...grains.keys()];
  };
  assert.deepEqual(await owedFrom(0), [4, 6]);
  assert.deepEqual(await owedFrom(5), [6]);
  assert.deepEqual(await owedFrom(7), [3000, 3005]);
  assert.deepEqual(await owedFrom(3006), []);
  // The power goes; another brick leads, and then a third one that was given its table.
  for (const brick of [1, 2]) cluster.crash(brick);
  for (const brick of [1, 2]) await cluster.start(brick);
  const chain = [{ view: 1, primary: 1, primaryBoot: 1, members: [1, 2], candidates: [] }];
  cluster.view({ primary: 2, members: [2], candidates: [3], transfer: true, chain });
  assert.equal((await cluster.fence(6)).status, "ok");
  assert.deepEqual(await owedFrom(0), [4, 6]);
  // Emptied records stay while a brick is away; they are owed no more.
  assert.equal((await cluster.group([part(4, true, null), part(6, true, null)])).status, "ok");
  assert.deepEqual(await owedFrom(0), [3000, 3005]);
  await cluster.complete(3);
  cluster.view({ primary: 3, members: [3, 2] });
  assert.deepEqual(await owedFrom(0), [3000, 3005]);
  await verify(cluster, expected);
});
