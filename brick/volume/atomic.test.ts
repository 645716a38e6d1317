import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { KiB } from "../units.ts";
import { firstDifference } from "./atomic-pieces.ts";
import { type Bench, bytesOf, makeBench, makeCluster } from "./gateway-bench.ts";
import { atomicBytesMax, compareBytesMax, orBytesMax } from "./limits.ts";
import { fillWith } from "./sector-model.ts";
import { type VolumeDone, VolumeTask } from "./volume.ts";

const noCache = { chunkCacheBytes: 0, mapCacheGrainsMax: 5, mapCacheCellsMax: 300 };
const sector = 512;

function until<T>(bench: Bench, promise: Promise<T>): Promise<T> {
  return bench.cluster.time.until(promise);
}

async function readAt(bench: Bench, offsetBytes: number, lengthBytes: number): Promise<Buffer> {
  return bytesOf(await until(bench, bench.gateway.read(offsetBytes, lengthBytes)));
}

function counter(value: number): Buffer {
  const bytes = Buffer.alloc(sector);
  bytes.writeUInt32BE(value);
  return bytes;
}

/** As an initiator counts: reads, and writes one more if nobody was faster. */
async function countUp(bench: Bench, times: number, offsetBytes: number): Promise<number> {
  let tries = 0;
  for (let done = 0; done < times; tries += 1) {
    const found = bytesOf(await bench.gateway.read(offsetBytes, sector));
    const next = counter(found.readUInt32BE(0) + 1);
    const result = await bench.gateway.compareAndWrite(offsetBytes, [found], [next]);
    if (result.ok) done += 1;
    else assert.equal(result.fault.code, "miscompare");
  }
  return tries;
}

test("the first difference, however the bytes are cut", () => {
  const cuts = fc.array(fc.nat(40), { maxLength: 4 });
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40 }), cuts, cuts, fc.nat(60), (bytes, a, b, at) => {
      const other = Buffer.from(bytes);
      if (at < other.length) other[at]! ^= 1;
      const expected = at < other.length ? at : null;
      assert.equal(firstDifference(cutAt(Buffer.from(bytes), a), cutAt(other, b)), expected);
    }),
  );
});

function cutAt(bytes: Buffer, at: readonly number[]): Buffer[] {
  const places = [0, ...at.map((one) => Math.min(one, bytes.length)), bytes.length];
  places.sort((x, y) => x - y);
  return places.slice(1).map((end, index) => bytes.subarray(places[index], end));
}

test("compare and write writes what was expected, and nothing when it was not", async () => {
  const bench = makeBench(makeCluster(1), noCache);
  const { gateway } = bench;
  const old = fillWith(1, 200);
  const young = fillWith(2, 200);
  const zeros = Buffer.alloc(old.length);
  // Across the border of two grains; of what was never written first.
  const at = 60 * KiB;
  assert.deepEqual(await until(bench, gateway.compareAndWrite(at, [zeros], [old])), { ok: true });
  assert.ok((await readAt(bench, at, old.length)).equals(old));
  const wrong = Buffer.from(old);
  wrong[70_001]! ^= 0x80;
  const refused = await until(bench, gateway.compareAndWrite(at, [wrong], [young]));
  assert.deepEqual(refused, { ok: false, fault: { code: "miscompare", offsetBytes: 70_001 } });
  assert.ok((await readAt(bench, at, old.length)).equals(old));
  const cut = [old.subarray(0, 777), old.subarray(777)];
  assert.deepEqual(await until(bench, gateway.compareAndWrite(at, cut, [young])), { ok: true });
  assert.ok((await readAt(bench, at, old.length)).equals(young));
  assert.equal(gateway.ranges.heldCount, 0);
  assert.deepEqual(bench.cluster.violations, []);
});

test("a storm on one sector loses no count", async () => {
  const bench = makeBench(makeCluster(2), noCache);
  bench.cluster.faults = { lossShare: 0.01, doubleShare: 0.02, delayMsMax: 5 };
  const workers = Array.from({ length: 8 }, () => countUp(bench, 25, 0));
  const tries = await until(bench, Promise.all(workers));
  assert.equal((await readAt(bench, 0, sector)).readUInt32BE(0), 8 * 25);
  assert.ok(tries.reduce((sum, one) => sum + one, 0) > 8 * 25, "nobody was ever too late");
});

test("writes to the same sector come before or after, never between", async () => {
  const bench = makeBench(makeCluster(3), noCache);
  const { gateway, cluster } = bench;
  await until(bench, gateway.write(0, [counter(1)]));
  // The write is behind the comparison, which waits for a look-up.
  cluster.heldLookups = [];
  gateway.map.clear();
  const swap = gateway.compareAndWrite(0, [counter(1)], [counter(2)]);
  const write = gateway.write(0, [counter(7)]);
  await cluster.time.run(50);
  const held = cluster.heldLookups;
  cluster.heldLookups = null;
  for (const release of held) release();
  assert.deepEqual(await until(bench, swap), { ok: true });
  assert.deepEqual(await until(bench, write), { ok: true });
  assert.equal((await readAt(bench, 0, sector)).readUInt32BE(0), 7);
});

test("a read that looks its grains up one after the other sees none or all of a write that lands as one", async () => {
  const bench = makeBench(makeCluster(5), noCache);
  const { gateway, cluster } = bench;
  const lengthBytes = 80 * KiB;
  const first = 1024 * 64 * KiB - 30 * KiB;
  const old = fillWith(1, lengthBytes / sector);
  const young = fillWith(2, lengthBytes / sector);
  await until(bench, gateway.writeAtomic(first, [old]));
  for (const late of [0, 1]) {
    const [before, after] = late === 0 ? [old, young] : [young, old];
    gateway.map.clear();
    const asked: (() => void)[] = [];
    cluster.lateLookups = asked;
    const read = gateway.read(first, lengthBytes);
    await cluster.time.run(20);
    assert.equal(asked.length, 2, "one shard each");
    cluster.lateLookups = null;
    // One shard is looked at before the write, the other one behind it.
    asked[1 - late]!();
    await cluster.time.run(20);
    const write = gateway.writeAtomic(first, [after]);
    await cluster.time.run(50);
    asked[late]!();
    const found = bytesOf(await until(bench, read));
    assert.ok(found.equals(before), `shard ${late} was looked at late`);
    assert.deepEqual(await until(bench, write), { ok: true });
    assert.ok((await readAt(bench, first, lengthBytes)).equals(after));
  }
  assert.equal(gateway.ranges.waitingCount, 0);
});

test("or-write sets bits; many at once set all of theirs", async () => {
  const bench = makeBench(makeCluster(4), noCache);
  const { gateway } = bench;
  const lengthBytes = 66 * KiB;
  const results = Array.from({ length: 16 }, (_, bit) => {
    const bits = Buffer.alloc(lengthBytes);
    bits.writeUInt16BE(1 << bit, 0);
    bits.writeUInt16BE(1 << bit, lengthBytes - 2);
    return gateway.orWrite(sector, [bits.subarray(0, 5), bits.subarray(5)]);
  });
  for (const result of await until(bench, Promise.all(results))) {
    assert.deepEqual(result, { ok: true });
  }
  const found = await readAt(bench, sector, lengthBytes);
  assert.equal(found.readUInt16BE(0), 0xffff);
  assert.equal(found.readUInt16BE(lengthBytes - 2), 0xffff);
  assert.ok(found.subarray(2, lengthBytes - 2).equals(Buffer.alloc(lengthBytes - 4)));
});

test("a cancel while it looks means that it never lands, and frees the range at once", async () => {
  const bench = makeBench(makeCluster(5), noCache);
  const { gateway, cluster } = bench;
  cluster.heldLookups = [];
  const task = new VolumeTask();
  const swap = gateway.compareAndWrite(0, [Buffer.alloc(sector)], [counter(1)], { task });
  await cluster.time.run(50);
  task.cancel();
  const ended = await swap;
  assert.deepEqual(ended, { ok: false, fault: { code: "cancelled" } });
  assert.equal(gateway.ranges.heldCount, 0);
  assert.equal(gateway.operationCount, 0);
  for (const release of cluster.heldLookups) release();
  cluster.heldLookups = null;
  await cluster.time.run(50);
  assert.ok((await readAt(bench, 0, sector)).equals(Buffer.alloc(sector)));
  assert.equal(cluster.mapWrites, 0);
});

test("its time, and the attachment's end, end it as they end a write", async () => {
  const bench = makeBench(makeCluster(6), { ...noCache, operationDeadlineMs: 300 });
  const { gateway, cluster } = bench;
  const codeOf = (result: VolumeDone) => (result.ok ? "ok" : result.fault.code);
  cluster.heldLookups = [];
  const late = gateway.compareAndWrite(0, [counter(0)], [counter(1)]);
  assert.equal(codeOf(await until(bench, late)), "unavailable");
  const cut = gateway.orWrite(0, [counter(1)]);
  await cluster.time.run(20);
  gateway.end("unavailable");
  assert.equal(codeOf(await until(bench, cut)), "unavailable");
  assert.equal(gateway.ranges.heldCount, 0);
  assert.equal(gateway.operationCount, 0);
  assert.equal(cluster.mapWrites, 0);
});

test("what is too long, uneven or outside is refused", async () => {
  const { gateway } = makeBench(makeCluster(7, { sizeBytes: 1 << 20 }), noCache);
  const codeOf = (result: VolumeDone) => (result.ok ? "ok" : result.fault.code);
  const long = Buffer.alloc(compareBytesMax + sector);
  assert.equal(codeOf(await gateway.compareAndWrite(0, [long], [long])), "unavailable");
  const one = counter(1);
  assert.equal(codeOf(await gateway.compareAndWrite(0, [one, one], [one])), "unavailable");
  const longest = Buffer.alloc(orBytesMax + sector);
  assert.equal(codeOf(await gateway.orWrite(0, [longest])), "unavailable");
  assert.equal(codeOf(await gateway.orWrite(1 << 20, [one])), "out_of_range");
});

test("an atomic write of several grains is one operation of the map", async () => {
  const bench = makeBench(makeCluster(8), noCache);
  const { gateway, cluster } = bench;
  const data = fillWith(3, 2048);
  // Grains of zeros in the middle, and a grain that is zeros in part.
  data.fill(0, 100 * KiB, 300 * KiB);
  for (const at of [sector, 40 * KiB, 0]) {
    const writesBefore = cluster.mapWrites;
    assert.deepEqual(await until(bench, gateway.writeAtomic(at, [data])), { ok: true });
    assert.equal(cluster.mapWrites, writesBefore + 1);
    assert.ok((await readAt(bench, at, data.length)).equals(data));
    gateway.map.clear();
    assert.ok((await readAt(bench, at, data.length)).equals(data));
  }
  const zeros = Buffer.alloc(data.length);
  assert.deepEqual(await until(bench, gateway.writeAtomic(sector, [zeros])), { ok: true });
  assert.ok((await readAt(bench, sector, data.length)).equals(zeros));
  const tooMuch = Buffer.alloc(atomicBytesMax + sector);
  const refused = await gateway.writeAtomic(0, [tooMuch]);
  assert.equal(refused.ok ? "ok" : refused.fault.code, "unavailable");
  assert.deepEqual(cluster.violations, []);
});

test("a group is stored again, whole, when any of its chunks may have been swept", async () => {
  const bench = makeBench(makeCluster(9), noCache);
  const { gateway, cluster } = bench;
  const data = fillWith(4, 256);
  // The holders are slow: epochs of garbage collection pass while some chunks wait for theirs.
  const order = cluster.state.gcEpoch;
  cluster.faults = { lossShare: 0, doubleShare: 0, delayMsMax: 300 };
  const write = gateway.writeAtomic(sector, [data]);
  await cluster.time.run(20);
  cluster.setState({ gcEpoch: order + 2 });
  assert.deepEqual(await until(bench, write), { ok: true });
  assert.equal(cluster.staleWrites, 1);
  assert.ok((await readAt(bench, sector, data.length)).equals(data));
  assert.equal(gateway.ranges.heldCount, 0);
});
