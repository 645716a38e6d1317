import assert from "node:assert/strict";
import { test } from "node:test";
import type { ReserveOut, UnitChange } from "../unit/unit-changes.ts";
import { type NexusId, reservationType } from "../unit/unit-record.ts";
import { MiB } from "../units.ts";
import { atomicBytesMax } from "./limits.ts";
import { fillWith } from "./sector-model.ts";
import { type Volume, VolumeTask } from "./volume.ts";
import { VolumesBench } from "./volumes-bench.test-support.ts";

const options = { chunkCacheBytes: 0, mapTimeoutMs: 100, chunkTimeoutMs: 200 };
const x: NexusId = { initiatorPort: "iqn.2026-11.example:x,i,0x00023d000001", targetPort: 3 };
const y: NexusId = { initiatorPort: "iqn.2026-11.example:y,i,0x00023d000002", targetPort: 1 };
const keyOf = (nexus: NexusId) => (nexus === x ? "00000000000000aa" : "00000000000000bb");

function reserveOut(nexus: NexusId, change: Partial<ReserveOut>): UnitChange {
  return {
    type: "reserveOut",
    nexus,
    action: "register",
    reservation: null,
    key: keyOf(nexus),
    actionKey: "0000000000000000",
    aptpl: false,
    allTargetPorts: false,
    initiatorPorts: [],
    move: null,
    ...change,
  };
}

function register(nexus: NexusId): UnitChange {
  return reserveOut(nexus, { key: "0000000000000000", actionKey: keyOf(nexus) });
}

const reservation = reservationType.writeExclusiveRegistrantsOnly;
const done = { ok: true, outcome: "done" };

/** Both are registered, and x has reserved. */
async function reserved(bench: VolumesBench): Promise<void> {
  const { until } = bench;
  for (const change of [
    register(x),
    register(y),
    reserveOut(x, { action: "reserve", reservation }),
  ]) {
    assert.deepEqual(await until.call(bench, bench.at(1).changeUnit(change)), done);
  }
}

function taskOf(volume: Volume, nexus: NexusId): VolumeTask {
  return new VolumeTask(nexus, volume.unit().noticeNext);
}

const preempt = reserveOut(y, { action: "preemptAndAbort", reservation, actionKey: keyOf(x) });

test("who opens a volume attaches it; ports tell where it is", async () => {
  const bench = new VolumesBench(1, options);
  assert.equal(
    bench
      .at(2)
      .ports()
      .find(({ state }) => state === "optimized")?.targetPort,
    2,
  );
  await bench.run(50);
  assert.equal(bench.holder(), 2);
  bench.cluster.kill(4);
  await bench.run(1000);
  for (const brick of [1, 2, 3]) {
    assert.deepEqual(bench.at(brick).ports(), [
      { targetPort: 1, state: "nonOptimized" },
      { targetPort: 2, state: "optimized" },
      { targetPort: 3, state: "nonOptimized" },
      { targetPort: 4, state: "unavailable" },
    ]);
  }
  assert.equal(bench.holder(), 2);
});

test("a counter through all portals at once loses no count", async () => {
  const bench = new VolumesBench(2, options);
  bench.cluster.faults = { lossShare: 0, doubleShare: 0.05, delayMsMax: 4 };
  let late = 0;
  const countUp = async (brick: number) => {
    const volume = bench.at(brick);
    for (let counted = 0; counted < 20; ) {
      const found = await volume.read(0, 512);
      assert.ok(found.ok);
      const old = Buffer.concat(found.buffers);
      const next = Buffer.alloc(512);
      next.writeUInt32BE(old.readUInt32BE(0) + 1);
      const result = await volume.compareAndWrite(0, [old], [next]);
      if (result.ok) counted += 1;
      else if (result.fault.code === "miscompare") late += 1;
      else assert.fail(result.fault.code);
    }
  };
  await bench.until(Promise.all([1, 2, 3, 4, 1, 2].map(countUp)));
  const found = await bench.until(bench.at(4).read(0, 512));
  assert.equal(found.ok && Buffer.concat(found.buffers).readUInt32BE(0), 120);
  assert.ok(late > 0, "nobody was ever too late");
});

test("a long read through any portal sees an atomic write whole or not at all", async () => {
  const bench = new VolumesBench(7, options);
  bench.cluster.faults = { lossShare: 0, doubleShare: 0.05, delayMsMax: 6 };
  const lengthBytes = atomicBytesMax;
  // Where one shard's run ends and another's begins.
  const at = 64 * MiB - 512 * 1024;
  const generation = (number: number) => Buffer.alloc(lengthBytes, number);
  assert.ok((await bench.until(bench.at(2).writeAtomic(at, [generation(1)]))).ok);
  let isWriting = true;
  const write = async () => {
    for (let number = 2; number < 14; number += 1) {
      const portal = bench.at(1 + (number % 4));
      const landed = await portal.writeAtomic(at, [generation(number)]);
      assert.ok(landed.ok, JSON.stringify(landed));
    }
    isWriting = false;
  };
  const seen = new Set<number>();
  const read = async (brick: number) => {
    while (isWriting) {
      const found = await bench.at(brick).read(at, lengthBytes);
      // Not as the message of an assertion: a megabyte would be made a text of for each read.
      if (!found.ok) assert.fail(JSON.stringify(found.fault));
      const bytes = Buffer.concat(found.buffers);
      assert.ok(bytes.equals(generation(bytes[0]!)), `brick ${brick} has read parts of two writes`);
      seen.add(bytes[0]!);
    }
  };
  await bench.until(Promise.all([write(), ...[1, 2, 3, 4].map(read)]));
  assert.ok(seen.size > 6, "hardly any write was seen");
});

test("bits set through all portals at once are all set", async () => {
  const bench = new VolumesBench(3, options);
  const all = Array.from({ length: 16 }, (_, bit) => {
    const bytes = Buffer.alloc(512);
    bytes.writeUInt16BE(1 << bit);
    return bench.at(1 + (bit % 4)).orWrite(1024, [bytes]);
  });
  for (const result of await bench.until(Promise.all(all))) assert.deepEqual(result, { ok: true });
  const found = await bench.until(bench.at(4).read(1024, 512));
  assert.equal(found.ok && Buffer.concat(found.buffers).readUInt16BE(0), 0xffff);
});

test("a change is answered once every brick acts by it", async () => {
  const bench = new VolumesBench(4, options);
  bench.lagMs.set(4, 3000);
  const changed = await bench.until(bench.at(2).changeUnit(register(x)));
  assert.deepEqual(changed, done);
  for (const brick of [1, 2, 3, 4]) {
    assert.equal(bench.at(brick).unit().reservations.registrations.length, 1, `brick ${brick}`);
  }
  const refused = await bench.until(bench.at(2).changeUnit(reserveOut(y, { action: "clear" })));
  assert.deepEqual(refused, { ok: true, outcome: "reservation_conflict" });
});

test("a change waits for what portals still do because of it, wherever", async () => {
  const bench = new VolumesBench(5, options);
  const { promise, resolve } = Promise.withResolvers<void>();
  const told: number[] = [];
  const watching = bench.at(3).watchUnit((unit) => {
    told.push(unit.version);
    return promise;
  });
  let changed = false;
  const change = bench
    .at(1)
    .changeUnit({ type: "clearTaskSet", nexus: y })
    .finally(() => {
      changed = true;
    });
  await bench.run(2000);
  assert.deepEqual([told, changed], [[1], false]);
  resolve();
  assert.deepEqual(await bench.until(change), done);
  watching.stop();
  assert.deepEqual(await bench.until(bench.at(1).changeUnit(register(y))), done);
  assert.deepEqual(told, [1]);
});

test("a brick that does not answer is waited for until it is committed to be down", async () => {
  const bench = new VolumesBench(6, options);
  await bench.until(bench.at(1).changeUnit(register(x)));
  bench.cluster.brick(3).alive = false;
  let changed = false;
  const change = bench
    .at(1)
    .changeUnit(register(y))
    .finally(() => {
      changed = true;
    });
  await bench.run(5000);
  assert.equal(changed, false);
  bench.cluster.setBrick(3, { status: "down", reachable: false });
  assert.deepEqual(await bench.until(change), done);
});

test("what has not settled in time is unavailable, and found when it is asked for again", async () => {
  const bench = new VolumesBench(7, { ...options, operationDeadlineMs: 1000 });
  bench.cluster.brick(3).frozen = true;
  const early = await bench.until(bench.at(1).changeUnit({ type: "clearTaskSet", nexus: y }));
  assert.equal(!early.ok && early.fault.code, "unavailable");
  assert.equal(bench.at(1).unit().version, 1);
  const lost = bench.at(1).changeUnit({ type: "nexusLost", nexus: y });
  await bench.run(100);
  bench.cluster.brick(3).frozen = false;
  // It changes nothing, and yet it waits for what came before.
  assert.deepEqual(await bench.until(lost), done);
  assert.equal(bench.at(3).unit().version, 1);
});

test("once a preempt and abort is answered, nothing of the preempted one lands", async () => {
  for (const seed of [8, 9, 10, 11, 12]) {
    const bench = new VolumesBench(seed, options);
    bench.cluster.faults = { lossShare: 0.05, doubleShare: 0.05, delayMsMax: 30 };
    await reserved(bench);
    // A command whose message was lost is over when its portal says that no answer came.
    const fates = new Set(["cancelled", "reservation_conflict", "unavailable"]);
    const portal = bench.at(3);
    await bench.until(portal.write(0, [fillWith(1, 64)], taskOf(portal, x)));
    const late = Array.from({ length: 40 }, (_, at) =>
      portal.write(at * 4096, [fillWith(100 + at, 8)], taskOf(portal, x)),
    );
    await bench.run(seed % 2 === 0 ? 5 : 25);
    assert.deepEqual(await bench.until(bench.at(1).changeUnit(preempt)), done);
    const mine = await bench.until(bench.at(1).read(0, 40 * 4096, taskOf(bench.at(1), y)));
    assert.ok(mine.ok);
    const before = Buffer.concat(mine.buffers);
    const ends = await bench.until(Promise.all(late));
    for (const end of ends) assert.ok(end.ok || fates.has(end.fault.code), JSON.stringify(end));
    await bench.run(5000);
    const after = await bench.until(bench.at(2).read(0, 40 * 4096));
    assert.ok(after.ok && Buffer.concat(after.buffers).equals(before));
    bench.cluster.faults = { lossShare: 0, doubleShare: 0, delayMsMax: 1 };
    const write = await bench.until(portal.write(0, [fillWith(3, 8)], taskOf(portal, x)));
    assert.deepEqual(write, { ok: false, fault: { code: "reservation_conflict" } });
    assert.deepEqual(
      await bench.until(bench.at(2).write(0, [fillWith(4, 8)], taskOf(bench.at(2), y))),
      { ok: true },
    );
  }
});

test("the attachment moves where it is asked to, and commands under way end well", async () => {
  const bench = new VolumesBench(13, options);
  await bench.until(bench.at(1).write(0, [fillWith(1, 8)]));
  assert.equal(bench.holder(), 1);
  const under = Array.from({ length: 20 }, (_, at) =>
    bench.at(1 + (at % 3)).write(at * 4096, [fillWith(10 + at, 8)]),
  );
  await bench.run(2);
  assert.deepEqual(await bench.until(bench.at(2).moveTo(3)), { ok: true });
  assert.equal(bench.holder(), 3);
  for (const result of await bench.until(Promise.all(under))) {
    assert.deepEqual(result, { ok: true });
  }
  assert.equal(
    bench
      .at(2)
      .ports()
      .find(({ state }) => state === "optimized")?.targetPort,
    3,
  );
  assert.deepEqual(await bench.until(bench.at(2).moveTo(3)), { ok: true });
});

test("a volume does not move to a brick that is away", async () => {
  const bench = new VolumesBench(14, { ...options, operationDeadlineMs: 1000 });
  await bench.until(bench.at(1).write(0, [fillWith(1, 8)]));
  bench.cluster.kill(4);
  await bench.run(1000);
  const moved = await bench.until(bench.at(1).moveTo(4));
  assert.equal(!moved.ok && moved.fault.code, "unavailable");
  assert.equal(bench.holder(), 1);
});

test("a sanitize leaves zeros, whoever has to bring it to its end", async () => {
  const bench = new VolumesBench(15, options, { sizeBytes: 1024 * MiB });
  const { cluster } = bench;
  for (const at of [0, 500, 1023]) {
    await bench.until(bench.at(1).write(at * MiB, [fillWith(at + 1, 8)]));
  }
  assert.equal(bench.holder(), 1);
  const start = { type: "sanitizeStart", nexus: y, allowUnrestrictedExit: false } as const;
  assert.deepEqual(await bench.until(bench.at(2).changeUnit(start)), done);
  const refused = await bench.until(bench.at(2).read(0, 512));
  assert.deepEqual(refused, { ok: false, fault: { code: "sanitizing" } });
  // The shards stand still; the gateway's brick dies in the middle of it.
  for (const brick of cluster.bricks.values()) brick.frozen = brick.number !== 2;
  await bench.run(50);
  for (const brick of cluster.bricks.values()) brick.frozen = false;
  cluster.kill(1);
  assert.equal(bench.at(2).unit().sanitize?.state, "running");
  await bench.run(20_000);
  assert.notEqual(bench.holder(), 1);
  assert.equal(bench.at(2).unit().sanitize, null);
  for (const at of [0, 500, 1023]) {
    const read = await bench.until(bench.at(3).read(at * MiB, 4096));
    assert.ok(read.ok && Buffer.concat(read.buffers).equals(Buffer.alloc(4096)));
  }
});

test("mapped bytes are asked for while somebody wants them", async () => {
  const bench = new VolumesBench(16, options);
  const { branch } = bench.cluster.volume;
  bench.mapped.set(1, new Map([[branch, 1000]]));
  bench.mapped.set(2, new Map([[branch, 20]]));
  // Leads no shard.
  bench.mapped.set(4, new Map([[branch, 7]]));
  assert.equal(bench.at(3).space().usedBytes, 0);
  await bench.run(10);
  assert.equal(bench.at(3).space().usedBytes, 1020);
  bench.mapped.set(2, new Map([[branch, 30]]));
  await bench.run(1100);
  assert.equal(bench.at(3).space().usedBytes, 1030);
});
