import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { chunkKey } from "../chunk/key.ts";
import { Prng } from "../prng.ts";
import { KiB } from "../units.ts";
import { type Bench, bytesOf, makeBench, makeCluster } from "./gateway-bench.ts";
import { fillWith } from "./sector-model.ts";
import { type VolumeDone, VolumeTask } from "./volume.ts";

const large = fillWith(77, 128);
const small = fillWith(5, 8);

async function write(bench: Bench, offsetBytes: number, bytes: Buffer) {
  return bench.cluster.time.until(bench.gateway.write(offsetBytes, [bytes]));
}

async function read(bench: Bench, offsetBytes: number, lengthBytes: number) {
  return bench.cluster.time.until(bench.gateway.read(offsetBytes, lengthBytes));
}

function holdersOf(bench: Bench, bytes: Buffer): number[] {
  const name = chunkKey(bytes).toString("hex");
  return [...bench.cluster.bricks.values()]
    .filter((brick) => brick.chunks.has(name))
    .map((brick) => brick.number);
}

const noCache = { chunkCacheBytes: 0, operationDeadlineMs: 2000, chunkTimeoutMs: 300 };

test("lost is said only when every brick has answered that it lacks the chunk", async () => {
  const bench = makeBench(makeCluster(1), noCache);
  const { cluster } = bench;
  assert.deepEqual(await write(bench, 0, large), { ok: true });
  const holders = holdersOf(bench, large);
  assert.equal(holders.length, 2);
  for (const brick of cluster.bricks.values()) brick.chunks.clear();
  const away = [2, 3, 4].find((number) => !holders.includes(number))!;
  cluster.kill(away);
  await cluster.time.run(500);
  const unavailable = await read(bench, 0, large.length);
  assert.equal(!unavailable.ok && unavailable.fault.code, "unavailable");
  cluster.revive(away);
  const lost = await read(bench, 4096, 4096);
  assert.deepEqual(!lost.ok && lost.fault, { code: "lost", offsetBytes: 4096 });
  assert.ok(bench.notes.includes(`missing on ${holders[0]}`));
  assert.ok(bench.notes.includes(`missing on ${holders[1]}`));
});

test("a damaged copy is never served: the next holder is asked, and it is noted", async () => {
  const bench = makeBench(makeCluster(2), noCache);
  await write(bench, 0, large);
  const holders = holdersOf(bench, large);
  const name = chunkKey(large).toString("hex");
  const damaged = Buffer.from(large);
  damaged[9]! ^= 1;
  for (const number of holders.slice(0, 1)) bench.cluster.brick(number).chunks.set(name, damaged);
  for (let round = 0; round < 4; round += 1) {
    assert.ok(bytesOf(await read(bench, 0, large.length)).equals(large));
  }
  const [first] = holders;
  assert.ok(bench.notes.every((note) => note === `damaged on ${first}`));
  for (const number of holders.slice(1)) bench.cluster.brick(number).chunks.set(name, damaged);
  const lost = await read(bench, 0, large.length);
  assert.equal(!lost.ok && lost.fault.code, "lost");
});

/** A MiB: sixteen chunks, most of which go to a brick together with others. */
const wide = randomBytes(1024 * KiB);

function assertStoredTwice(bench: Bench, bytes: Buffer): void {
  for (let at = 0; at < bytes.length; at += 64 * KiB) {
    const holders = holdersOf(bench, bytes.subarray(at, at + 64 * KiB));
    assert.ok(holders.length >= 2, `the chunk at ${at} is on ${holders.length} bricks`);
  }
  assert.deepEqual(bench.cluster.violations, []);
}

test("the chunks of a large write go to each brick in one message", async () => {
  const bench = makeBench(makeCluster(30), noCache);
  assert.deepEqual(await write(bench, 0, wide), { ok: true });
  assertStoredTwice(bench, wide);
  for (const brick of bench.cluster.bricks.values()) assert.ok(brick.puts <= 1);
});

test("of chunks that a brick got together some are refused: those go elsewhere", async () => {
  const bench = makeBench(makeCluster(31), noCache);
  // It has taken some of them already, and has room for no others.
  assert.deepEqual(await write(bench, 0, wide.subarray(0, 512 * KiB)), { ok: true });
  for (const number of [2, 3]) bench.cluster.brick(number).full = true;
  assert.deepEqual(await write(bench, 0, wide), { ok: true });
  assertStoredTwice(bench, wide);
  assert.ok(bytesOf(await read(bench, 0, wide.length)).equals(wide));
});

test("a brick that damages one chunk of several holds that one not", async () => {
  const bench = makeBench(makeCluster(32), noCache);
  const { cluster } = bench;
  const harmed = cluster.brick(2);
  cluster.onTheWay = (to, body) => {
    if (to !== 2 || body.length < 128 * KiB) return body;
    const copy = Buffer.from(body);
    copy[copy.length - 1]! ^= 1;
    return copy;
  };
  assert.deepEqual(await write(bench, 0, wide), { ok: true });
  assertStoredTwice(bench, wide);
  assert.ok(harmed.chunks.size > 0);
});

test("a brick that dies with several chunks, or answers twice, costs none a copy", async () => {
  const bench = makeBench(makeCluster(33), noCache);
  const { cluster, gateway } = bench;
  const writing = gateway.write(0, [wide]);
  cluster.brick(3).frozen = true;
  await cluster.time.run(2);
  cluster.kill(3);
  assert.deepEqual(await cluster.time.until(writing), { ok: true });
  for (let at = 0; at < wide.length; at += 64 * KiB) {
    const holders = holdersOf(bench, wide.subarray(at, at + 64 * KiB));
    assert.ok(holders.filter((number) => number !== 3).length >= 2);
  }
  // The messages come again, all of them: each chunk is there once, and counts once.
  const doubled = makeBench(makeCluster(34), noCache);
  doubled.cluster.faults.doubleShare = 1;
  assert.deepEqual(await write(doubled, 0, wide), { ok: true });
  assertStoredTwice(doubled, wide);
  assert.ok(bytesOf(await read(doubled, 0, wide.length)).equals(wide));
});

test("a chunk that moved is found along the key's order", async () => {
  const bench = makeBench(makeCluster(3), noCache);
  await write(bench, 0, large);
  const holders = holdersOf(bench, large);
  const other = [1, 2, 3, 4].find((number) => !holders.includes(number))!;
  const name = chunkKey(large).toString("hex");
  for (const number of holders) bench.cluster.brick(number).chunks.delete(name);
  bench.cluster.brick(other).chunks.set(name, large);
  assert.ok(bytesOf(await read(bench, 0, large.length)).equals(large));
});

test("full bricks are passed over; when all are full the write ends without landing", async () => {
  const bench = makeBench(makeCluster(4), noCache);
  const { cluster } = bench;
  for (const number of [1, 2]) cluster.brick(number).full = true;
  assert.deepEqual(await write(bench, 0, large), { ok: true });
  assert.deepEqual(holdersOf(bench, large), [3, 4]);
  cluster.brick(3).full = true;
  const other = fillWith(78, 128);
  assert.deepEqual(await write(bench, 0, other), { ok: false, fault: { code: "no_space" } });
  assert.ok(bytesOf(await read(bench, 0, large.length)).equals(large));
  cluster.noSpaceOnWrite = true;
  assert.deepEqual(await write(bench, 0, small), { ok: false, fault: { code: "no_space" } });
  cluster.noSpaceOnWrite = false;
  assert.deepEqual(await write(bench, 0, small), { ok: true });
  assert.equal(bench.gateway.ranges.heldCount, 0);
});

test("a brick that drains is written to only when the others are too few", async () => {
  const bench = makeBench(makeCluster(35, { copies: 3 }), noCache);
  const { cluster } = bench;
  cluster.setBrick(2, { status: "draining" });
  assert.deepEqual(await write(bench, 0, large), { ok: true });
  assert.deepEqual(holdersOf(bench, large), [1, 3, 4]);
  // Three bricks, one of which drains, and three copies.
  cluster.setBrick(4, { status: "removed", reachable: false });
  cluster.brick(4).alive = false;
  const other = fillWith(79, 128);
  assert.deepEqual(await write(bench, 0, other), { ok: true });
  assert.deepEqual(holdersOf(bench, other), [1, 2, 3]);
  cluster.setBrick(3, { full: true });
  cluster.brick(3).full = true;
  const third = fillWith(80, 128);
  assert.deepEqual(await write(bench, 0, third), { ok: false, fault: { code: "no_space" } });
});

test("a chunk that was stored too long ago is stored again before the map names it", async () => {
  const bench = makeBench(makeCluster(8), noCache);
  const { cluster } = bench;
  const written = bench.gateway.write(0, [large]);
  // The bricks have the chunk; two epochs pass, and it is swept, before the shard hears of it.
  const name = chunkKey(large).toString("hex");
  const sweep = () => {
    const holders = [1, 2, 3, 4].filter((brick) => cluster.brick(brick).chunks.has(name));
    if (holders.length < 2) {
      cluster.time.after(0.1, sweep);
      return;
    }
    for (const brick of holders) cluster.brick(brick).chunks.delete(name);
    cluster.setState({ gcEpoch: cluster.state.gcEpoch + 2 });
  };
  sweep();
  assert.deepEqual(await cluster.time.until(written), { ok: true });
  assert.equal(cluster.staleWrites, 1);
  assert.ok(bytesOf(await read(bench, 0, large.length)).equals(large));
  assert.deepEqual(cluster.violations, []);
});

test("fewer copies only when the cluster state says so and the volume allows it", async () => {
  for (const degradedWrites of [true, false]) {
    const bench = makeBench(makeCluster(5, { copies: 3, degradedWrites }, 3), noCache);
    const { cluster } = bench;
    cluster.brick(3).alive = false;
    const early = bench.gateway.write(0, [large]);
    await cluster.time.run(1000);
    cluster.setShard(0, { primary: 1, members: [1, 2] });
    for (const shard of [1, 2, 3, 4]) cluster.setShard(shard, { primary: 2, members: [1, 2] });
    // The brick is silent, but committed state does not say yet that it is down.
    assert.equal(bench.stats.writes, 0);
    cluster.setBrick(3, { status: "down", reachable: false });
    const result = await cluster.time.until(early);
    const inline = await write(bench, 1 << 20, small);
    if (degradedWrites) {
      assert.deepEqual([result, inline], [{ ok: true }, { ok: true }]);
      assert.equal(bench.stats.degradedWrites, 2);
    } else {
      assert.equal(!result.ok && result.fault.code, "unavailable");
      assert.equal(!inline.ok && inline.fault.code, "unavailable");
      cluster.revive(3);
      assert.deepEqual(await write(bench, 0, small), { ok: true });
    }
  }
});

test("a brick that is back before the answer has what was written without it", async () => {
  const groups = [fillWith(20, 128), fillWith(21, 128)];
  const writes: ((bench: Bench) => Promise<VolumeDone>)[] = [
    ({ gateway }) => gateway.write(0, [large]),
    ({ gateway }) => gateway.write(0, [small]),
    ({ gateway }) => gateway.writeAtomic(0, groups),
  ];
  const chunks = [[large], [small], groups];
  for (const [at, begin] of writes.entries()) {
    const bench = makeBench(makeCluster(5, { copies: 3, degradedWrites: true }, 3), noCache);
    const { cluster } = bench;
    cluster.brick(3).alive = false;
    cluster.setBrick(3, { status: "down", reachable: false });
    // The shard is led elsewhere, and its primary holds its answer back.
    for (const shard of [0, 1, 2, 3, 4]) cluster.setShard(shard, { primary: 2, members: [1, 2] });
    await write(bench, 8 << 20, fillWith(30, 8));
    const primary = cluster.brick(2);
    // A small write goes to the shard at once, chunks of a large one to both bricks before.
    const isStored = () => chunks[at]!.every((chunk) => holdersOf(bench, chunk).length === 2);
    primary.frozen = chunks[at]![0] === small;
    const written = begin(bench);
    while (!primary.frozen) {
      primary.frozen = isStored();
      await cluster.time.run(0.05);
    }
    await cluster.time.run(20);
    cluster.brick(3).alive = true;
    cluster.setBrick(3, { status: "up", reachable: true });
    primary.frozen = false;
    assert.deepEqual(await cluster.time.until(written), { ok: true });
    for (const chunk of chunks[at]!) assert.deepEqual(holdersOf(bench, chunk), [1, 2, 3]);
    assert.ok(bytesOf(await read(bench, 0, chunks[at]![0]!.length)).equals(chunks[at]![0]!));
    assert.deepEqual(cluster.violations, []);
  }
});

test("a cancelled write is answered once it can never land", async () => {
  const bench = makeBench(makeCluster(6), noCache);
  const { cluster, gateway } = bench;
  await write(bench, 0, small);
  const shard = cluster.state.shards.findIndex(({ primary }) => primary !== 1);
  const primary = cluster.state.shards[shard]!.primary;
  // A grain of a shard that another brick leads, which hears nothing now.
  let offsetBytes = 0;
  while (cluster.state.shards.indexOf(cluster.shardRecordOf(offsetBytes)) !== shard) {
    offsetBytes += 64 * KiB * 1024;
  }
  await write(bench, offsetBytes, small);
  cluster.brick(primary).frozen = true;
  const task = new VolumeTask();
  let answered = false;
  const result = gateway.write(offsetBytes, [fillWith(6, 8)], { task }).finally(() => {
    answered = true;
  });
  await cluster.time.run(50);
  task.cancel();
  await cluster.time.run(500);
  assert.equal(answered, false);
  cluster.setShard(shard, { primary: 1 });
  assert.deepEqual(await cluster.time.until(result), { ok: false, fault: { code: "cancelled" } });
  cluster.brick(primary).frozen = false;
  assert.ok(bytesOf(await read(bench, offsetBytes, small.length)).equals(small));
  assert.deepEqual(await write(bench, offsetBytes, fillWith(7, 8)), { ok: true });
});

test("at the deadline a write is answered, and its range stays locked until it has settled", async () => {
  const bench = makeBench(makeCluster(7), noCache);
  const { cluster, gateway } = bench;
  await write(bench, 0, small);
  const shard = cluster.state.shards.indexOf(cluster.shardRecordOf(0));
  cluster.brick(cluster.state.shards[shard]!.primary).frozen = true;
  // The gateway's own brick may lead the shard: then it is its service that hears nothing.
  const result = await write(bench, 0, fillWith(6, 8));
  assert.equal(!result.ok && result.fault.code, "unavailable");
  assert.equal(gateway.ranges.heldCount, 1);
  for (const brick of cluster.bricks.values()) brick.frozen = false;
  const after = bytesOf(await read(bench, 0, small.length));
  assert.ok(after.equals(small) || after.equals(fillWith(6, 8)));
  assert.equal(gateway.ranges.heldCount, 0);
});

test("a newer attachment fences the older one, whose commands end", async () => {
  const cluster = makeCluster(8);
  const old = makeBench(cluster, noCache, 1, 1);
  const young = makeBench(cluster, noCache, 2, 2);
  await write(old, 0, small);
  assert.ok(bytesOf(await read(young, 0, small.length)).equals(small));
  const refused = old.gateway.write(0, [fillWith(9, 8)]);
  await cluster.time.run(200);
  assert.ok(old.fencedEpochs.length > 0 && old.fencedEpochs.every((epoch) => epoch === 1));
  old.gateway.end("unavailable");
  const result = await cluster.time.until(refused);
  assert.equal(!result.ok && result.fault.code, "unavailable");
  assert.equal(old.gateway.operationCount, 0);
  assert.equal(old.gateway.ranges.heldCount, 0);
  assert.ok(bytesOf(await read(young, 0, small.length)).equals(small));
  const ended = await cluster.time.until(old.gateway.read(0, 512));
  assert.equal(!ended.ok && ended.fault.code, "unavailable");
});

test("without a lease nothing is answered; with it back, everything is", async () => {
  const bench = makeBench(makeCluster(9), noCache);
  await write(bench, 0, small);
  bench.lease.valid = false;
  const waiting = bench.gateway.read(0, small.length);
  await bench.cluster.time.run(500);
  assert.equal(bench.stats.reads, 0);
  bench.lease.valid = true;
  assert.ok(bytesOf(await bench.cluster.time.until(waiting)).equals(small));
  bench.lease.valid = false;
  const result = await read(bench, 0, small.length);
  assert.equal(!result.ok && result.fault.code, "unavailable");
});

test("a frozen brick does not hold up reads and writes", async () => {
  const bench = makeBench(makeCluster(10), { ...noCache, chunkTimeoutMs: 5000 });
  const { cluster } = bench;
  const chunks = Array.from({ length: 12 }, (_, index) => fillWith(100 + index, 128));
  for (const [index, bytes] of chunks.entries()) await write(bench, index * 64 * KiB, bytes);
  cluster.brick(4).frozen = true;
  const startMs = cluster.time.nowMs;
  for (const [index, bytes] of chunks.entries()) {
    assert.ok(bytesOf(await read(bench, index * 64 * KiB, bytes.length)).equals(bytes));
    const result = await write(bench, index * 64 * KiB, fillWith(200 + index, 128));
    assert.deepEqual(result, { ok: true });
  }
  assert.ok(cluster.time.nowMs - startMs < 5000);
  assert.ok(bench.stats.readHedges + bench.stats.writeHedges > 0);
  assert.deepEqual(cluster.violations, []);
});

test("a read that its lease ends under is answered when there is one again", async () => {
  const bench = makeBench(makeCluster(20), noCache);
  const { cluster, gateway, lease } = bench;
  await write(bench, 0, large);
  for (const brick of cluster.bricks.values()) brick.frozen = true;
  let answered = false;
  const reading = gateway.read(0, large.length).then((result) => {
    answered = true;
    return result;
  });
  await cluster.time.run(5);
  lease.valid = false;
  for (const brick of cluster.bricks.values()) brick.frozen = false;
  await cluster.time.run(500);
  assert.equal(answered, false);
  lease.valid = true;
  assert.ok(bytesOf(await cluster.time.until(reading)).equals(large));
});

test("sequential reads look ahead; readers of one chunk share its search", async () => {
  const bench = makeBench(makeCluster(11), { ...noCache, chunkCacheBytes: 1 << 20 });
  const { cluster, gateway } = bench;
  for (let grain = 0; grain < 32; grain += 1) {
    await write(bench, grain * 64 * KiB, fillWith(300 + grain, 128));
  }
  gateway.map.clear();
  bench.stats.lookups = 0;
  for (let grain = 0; grain < 32; grain += 1) await read(bench, grain * 64 * KiB, 64 * KiB);
  assert.ok(bench.stats.lookups < 16, `${bench.stats.lookups} look-ups`);
  const gets = () => [...cluster.bricks.values()].reduce((sum, brick) => sum + brick.gets, 0);
  gateway.chunks.clear();
  const before = gets();
  const reads = Array.from({ length: 16 }, (_, index) => gateway.read(index * 4096, 4096));
  for (const result of await cluster.time.until(Promise.all(reads))) {
    assert.ok(bytesOf(result).equals(fillWith(300, 8)));
  }
  assert.equal(gets() - before, 1);
});

test("slices of its own brick are read without a message, and proven all the same", async () => {
  const bench = makeBench(makeCluster(16, {}, 2), noCache);
  const own = bench.cluster.brick(1);
  own.atHand = true;
  const chunk = randomBytes(64 * KiB);
  await write(bench, 0, chunk);
  const expected = chunk.subarray(8 * KiB, 12 * KiB);
  assert.ok(bytesOf(await read(bench, 8 * KiB, 4 * KiB)).equals(expected));
  assert.deepEqual([own.ownReads, own.sliceGets, own.gets], [1, 0, 0]);
  // What is damaged there is not served: it is asked for like that of any other brick.
  for (const [name, bytes] of own.chunks)
    own.chunks.set(name, Buffer.from(bytes).fill(0, 8 * KiB, 9 * KiB));
  assert.ok(bytesOf(await read(bench, 8 * KiB, 4 * KiB)).equals(expected));
  assert.deepEqual([own.ownReads, own.sliceGets], [2, 1]);
});

test("a small part of a large chunk moves alone, and is proven all the same", async () => {
  const bench = makeBench(makeCluster(16), noCache);
  const { cluster } = bench;
  const sum = (what: "gets" | "sliceGets") =>
    [...cluster.bricks.values()].reduce((all, brick) => all + brick[what], 0);
  const chunk = randomBytes(64 * KiB);
  await write(bench, 0, chunk);
  for (const [from, to] of [
    [0, 512],
    [61 * KiB, 64 * KiB],
    [7 * KiB, 9 * KiB],
    [20 * KiB, 40 * KiB],
  ] as const) {
    const part = await read(bench, from, to - from);
    assert.ok(bytesOf(part).equals(chunk.subarray(from, to)));
  }
  assert.deepEqual([sum("gets"), sum("sliceGets")], [0, 4]);
  // More than half of it: the whole.
  assert.ok(bytesOf(await read(bench, 0, 40 * KiB)).equals(chunk.subarray(0, 40 * KiB)));
  assert.deepEqual([sum("gets"), sum("sliceGets")], [1, 4]);
});

test("slices that are not the chunk's are never served: it is looked for as a whole", async () => {
  for (const place of [0, 8 * KiB + 17, 64 * KiB - 1]) {
    const bench = makeBench(makeCluster(17 + place), noCache);
    const chunk = randomBytes(64 * KiB);
    await write(bench, 0, chunk);
    const name = chunkKey(chunk).toString("hex");
    const holders = holdersOf(bench, chunk);
    for (const lying of holders) {
      const damaged = Buffer.from(chunk);
      damaged[place]! ^= 1;
      bench.cluster.brick(lying).chunks.set(name, damaged);
      assert.ok(
        bytesOf(await read(bench, 8 * KiB, 4 * KiB)).equals(chunk.subarray(8 * KiB, 12 * KiB)),
      );
      bench.cluster.brick(lying).chunks.set(name, chunk);
    }
  }
});

test("with an outline that was proven before, slices are proven all the same", async () => {
  let looked = 0;
  for (const [seed, which] of [
    [1, 0],
    [1, 1],
    [2, 0],
    [2, 1],
  ] as const) {
    const bench = makeBench(makeCluster(19), { ...noCache, chunkCacheBytes: 1 << 20 });
    // Always the same, and so is who is asked: one of the two who lie.
    const chunk = new Prng(seed).fill(Buffer.alloc(64 * KiB));
    await write(bench, 0, chunk);
    assert.ok((await read(bench, 8 * KiB, 4 * KiB)).ok);
    const damaged = Buffer.from(chunk);
    damaged[21 * KiB]! ^= 1;
    const lying = bench.cluster.brick(holdersOf(bench, chunk)[which]!);
    lying.chunks.set(chunkKey(chunk).toString("hex"), damaged);
    const found = bytesOf(await read(bench, 20 * KiB, 4 * KiB));
    assert.ok(found.equals(chunk.subarray(20 * KiB, 24 * KiB)));
    for (const { gets } of bench.cluster.bricks.values()) looked += gets;
  }
  assert.ok(looked > 0, "a lie was met, and the chunk looked for as a whole");
});

test("a read after a write does not take the answer of a look-up from before it", async () => {
  const bench = makeBench(makeCluster(13), noCache);
  const { cluster, gateway } = bench;
  await write(bench, 0, small);
  gateway.map.clear();
  cluster.heldLookups = [];
  const early = gateway.read(0, small.length);
  await cluster.time.run(50);
  assert.equal(cluster.heldLookups.length, 1);
  await write(bench, 4096, fillWith(6, 8));
  const late = gateway.read(4096, 4096);
  const held = cluster.heldLookups;
  cluster.heldLookups = null;
  for (const release of held) release();
  assert.ok(bytesOf(await cluster.time.until(early)).equals(small));
  assert.ok(bytesOf(await cluster.time.until(late)).equals(fillWith(6, 8)));
});

test("what passes the end of the volume, or is no whole sectors, is refused", async () => {
  const { cluster, gateway } = makeBench(makeCluster(14, { sizeBytes: 1 << 20 }), noCache);
  const outside = { ok: false, fault: { code: "out_of_range", sizeBytes: 1 << 20 } };
  const end = 1 << 20;
  assert.deepEqual(await gateway.read(end - 512, 1024), outside);
  assert.deepEqual(await gateway.write(end, [Buffer.alloc(512)]), outside);
  assert.deepEqual(await gateway.unmap(1, 512), outside);
  assert.deepEqual(await cluster.time.until(gateway.unmap(0, end)), { ok: true });
});

test("a huge unmap goes bit by bit, and a cancel ends it in between", async () => {
  const sizeBytes = 2 ** 40;
  const bench = makeBench(makeCluster(15, { sizeBytes }), noCache);
  const { cluster, gateway } = bench;
  await write(bench, sizeBytes - 4096, small);
  assert.deepEqual(await cluster.time.until(gateway.unmap(0, sizeBytes)), { ok: true });
  assert.equal(cluster.mapWrites, 1 + sizeBytes / (64 * KiB * 1024));
  assert.ok(bytesOf(await read(bench, sizeBytes - 4096, 4096)).equals(Buffer.alloc(4096)));
  const task = new VolumeTask();
  const rest = gateway.unmap(0, sizeBytes, { task });
  await cluster.time.run(3);
  task.cancel();
  const result = await cluster.time.until(rest);
  assert.deepEqual(result, { ok: false, fault: { code: "cancelled" } });
  assert.equal(gateway.ranges.heldCount, 0);
});

test("allocation tells runs, at most as many as asked", async () => {
  const bench = makeBench(makeCluster(12), noCache);
  const { cluster, gateway } = bench;
  await write(bench, 64 * KiB, fillWith(1, 128));
  await write(bench, 128 * KiB, fillWith(2, 8));
  await write(bench, 130 * 1024 * KiB, fillWith(3, 8));
  const whole = await cluster.time.until(gateway.allocation(0, 131 * 1024 * KiB, 100));
  assert.deepEqual(whole.ok && whole.runs, [
    { lengthBytes: 64 * KiB, mapped: false },
    { lengthBytes: 68 * KiB, mapped: true },
    { lengthBytes: (130 * 1024 - 132) * KiB, mapped: false },
    { lengthBytes: 4 * KiB, mapped: true },
    { lengthBytes: 1020 * KiB, mapped: false },
  ]);
  const some = await cluster.time.until(gateway.allocation(66 * KiB, 64 * KiB, 1));
  assert.deepEqual(some.ok && some.runs, [{ lengthBytes: 64 * KiB, mapped: true }]);
});
