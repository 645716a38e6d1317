import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { type Disk, DiskError, type Message } from "../brick/host.ts";
import { Prng } from "../brick/prng.ts";
import { KiB, sectorBytes } from "../brick/units.ts";
import { type SimHost, SimWorld } from "../tools/sim/sim-host.ts";
import { examineDisk, examineNetwork, messageOf } from "./host-suite.ts";

examineDisk("simulated", async () => {
  const world = new SimWorld(1);
  return {
    disk: world.host(1).disk,
    complete: (promise) => world.complete(promise),
    close: async () => {},
  };
});

examineNetwork("simulated", async () => {
  const world = new SimWorld(1);
  const join = (host: SimHost, peer: number) => {
    host.network.setPeers(new Map([[peer, `sim:${peer}`]]));
    return host.network;
  };
  return {
    a: join(world.host(1), 2),
    b: join(world.host(2), 1),
    until: async (holds) => {
      for (let round = 0; !holds(); round += 1) {
        assert.ok(round < 10_000, "it did not come to pass");
        await world.runFor(1);
      }
    },
    restartB: async () => {
      world.machine(2).crash();
      return join(world.host(2), 1);
    },
    close: async () => {},
  };
});

describe("simulated: a power cut", () => {
  /** The world after: brick 1's disk as its next boot finds it. */
  async function cut(seed: number, before: (disk: Disk, world: SimWorld) => Promise<void>) {
    const world = new SimWorld(seed);
    await world.complete(before(world.host(1).disk, world));
    world.machine(1).crash();
    return { world, disk: world.host(1).disk };
  }

  test("keeps what was synced, and of the rest each sector old or new", async () => {
    const seen = new Set<string>();
    for (let seed = 1; seed <= 40; seed += 1) {
      const sectors = 16;
      const { world, disk } = await cut(seed, async (disk, world) => {
        const file = await disk.open("d/file", { create: true });
        await file.write(0, [Buffer.alloc(sectors * sectorBytes, "1")]);
        await file.sync();
        await disk.syncFolder("d");
        await file.write(0, [Buffer.alloc(sectors * sectorBytes, "2")]);
        // One more is under way when the power goes, behind the file's end.
        void file.write(sectors * sectorBytes, [Buffer.alloc(4 * sectorBytes, "3")]);
        if (world.prng.chance(0.5)) void file.sync();
      });
      const file = await world.complete(disk.open("d/file"));
      const bytes = await world.complete(file.read(0, 100 * KiB));
      assert.ok(bytes.length >= sectors * sectorBytes);
      let picture = "";
      for (let at = 0; at < bytes.length; at += sectorBytes) {
        const sector = bytes.subarray(at, at + sectorBytes);
        assert.ok(sector.every((byte) => byte === sector[0]));
        picture += String.fromCharCode(sector[0]! || 48);
      }
      assert.match(picture, /^[12]{16}[03]{0,4}$/);
      seen.add(picture);
    }
    assert.ok(seen.has("1".repeat(16)) && seen.size > 10, "power cuts must differ");
  });

  test("never touches a synced file, whatever happened after to others", async () => {
    for (let seed = 1; seed <= 20; seed += 1) {
      const content = new Prng(seed).fill(Buffer.alloc(70 * KiB));
      const { world, disk } = await cut(seed, async (disk) => {
        const file = await disk.open("kept", { create: true });
        await file.write(0, [content.subarray(0, 1000)]);
        await file.write(1000, [content.subarray(1000)]);
        await file.truncate(100 * KiB);
        await file.truncate(content.length);
        await file.sync();
        await disk.syncFolder("");
        const other = await disk.open("other", { create: true });
        await other.write(0, [content]);
      });
      const file = await world.complete(disk.open("kept"));
      assert.ok((await world.complete(file.read(0, 1e6))).equals(content));
    }
  });

  test("may lose names that no syncFolder made durable, and only those", async () => {
    const found = new Set<string>();
    for (let seed = 1; seed <= 40; seed += 1) {
      const { world, disk } = await cut(seed, async (disk) => {
        await disk.open("d/old", { create: true });
        await disk.syncFolder("d");
        await disk.rename("d/old", "d/new");
        await disk.open("d/late", { create: true });
      });
      found.add((await world.complete(disk.list("d"))).join(" "));
    }
    assert.deepEqual([...found].sort(), ["late new", "new", "old"]);
  });

  test("keeps key-value batches whole and in order, the synced ones always", async () => {
    const found = new Set<number>();
    for (let seed = 1; seed <= 40; seed += 1) {
      const key = (number: number) => Buffer.from([number]);
      const { world, disk } = await cut(seed, async (disk) => {
        const kv = await disk.openKv("kv");
        for (let batch = 1; batch <= 10; batch += 1) {
          const value = Buffer.from([batch]);
          const changes = [
            { key: key(0), value },
            { key: key(batch), value },
          ];
          kv.write(changes, { sync: batch === 4 });
        }
      });
      const kv = await world.complete(disk.openKv("kv"));
      const last = kv.get(key(0))![0]!;
      assert.ok(last >= 4);
      assert.equal(kv.range(key(1), key(99), 100).length, last);
      found.add(last);
    }
    assert.ok(found.size >= 5 && found.has(4));
  });

  test("ends everything of that boot, and nothing of the others", async () => {
    const world = new SimWorld(3);
    const host = world.host(1);
    const other = world.host(2);
    let fired = 0;
    let settled = false;
    let received = 0;
    other.network.onMessage(() => (received += 1));
    host.network.setPeers(new Map([[2, "sim"]]));
    host.clock.after(5, () => (fired += 1));
    host.clock.soon(() => (fired += 1));
    other.clock.after(5, () => (fired += 10));
    void host.disk.freeBytes().finally(() => (settled = true));
    host.network.send(2, messageOf(1, 1));
    world.machine(1).crash();
    host.network.send(2, messageOf(1, 2));
    assert.throws(() => host.disk.list(""));
    await world.runFor(100);
    assert.deepEqual([fired, settled, received], [10, false, 0]);
  });
});

describe("simulated: faults by dials", () => {
  test("failing reads, writes, syncs and a full disk are DiskErrors", async () => {
    const world = new SimWorld(4);
    const { disk } = world.host(1);
    const { dials } = world.machine(1).disk;
    const file = await world.complete(disk.open("f", { create: true }));
    const fails = (promise: Promise<unknown>, code: string) =>
      assert.rejects(
        world.complete(promise),
        (error) => error instanceof DiskError && error.code === code,
      );
    dials.readErrorChance = dials.writeErrorChance = dials.syncErrorChance = 1;
    await fails(file.read(0, 10), "EIO");
    await fails(file.write(0, [Buffer.from("x")]), "EIO");
    await fails(file.sync(), "EIO");
    dials.readErrorChance = dials.writeErrorChance = dials.syncErrorChance = 0;
    dials.capacityBytes = 128 * KiB;
    await world.complete(file.write(0, [Buffer.alloc(128 * KiB)]));
    assert.equal(await world.complete(disk.freeBytes()), 0);
    await fails(file.write(128 * KiB, [Buffer.from("x")]), "ENOSPC");
    await world.complete(file.write(0, [Buffer.from("an overwrite needs no space")]));
    dials.flipChance = 1;
    const bytes = await world.complete(file.read(4096, 4096));
    assert.equal(bytes.filter((byte) => byte !== 0).length, 1);
  });

  test("after a sync that failed, no later sync saves what it should have", async () => {
    let lost = 0;
    for (let seed = 1; seed <= 30; seed += 1) {
      const world = new SimWorld(seed);
      const { disk } = world.host(1);
      const file = await world.complete(disk.open("f", { create: true }));
      await world.complete(disk.syncFolder(""));
      await world.complete(file.write(0, [Buffer.alloc(512, "a"), Buffer.alloc(512, "b")]));
      world.machine(1).disk.dials.syncErrorChance = 1;
      await assert.rejects(world.complete(file.sync()));
      world.machine(1).disk.dials.syncErrorChance = 0;
      await world.complete(file.write(512, [Buffer.alloc(512, "c")]));
      await world.complete(file.sync());
      world.machine(1).crash();
      const again = await world.complete(world.host(1).disk.open("f"));
      const bytes = await world.complete(again.read(0, 1024));
      assert.equal(bytes[512], "c".charCodeAt(0));
      if (bytes[0] === 0) lost += 1;
    }
    assert.ok(lost > 0);
  });

  test("partitions, clogs, loss, duplicates and reordering", async () => {
    const world = new SimWorld(5);
    const [a, b] = [world.host(1), world.host(2)];
    const got: number[] = [];
    b.network.onMessage((_from: number, message: Message) => got.push(message.request));
    a.network.setPeers(new Map([[2, "sim"]]));
    const send = async (from: number, to: number) => {
      for (let request = from; request <= to; request += 1)
        a.network.send(2, messageOf(1, request));
      await world.runFor(50);
    };
    world.network.set(1, 2, { cut: true });
    await send(1, 5);
    assert.deepEqual(got, []);
    world.network.heal();
    world.network.set(1, 2, { clogged: true });
    await send(6, 8);
    assert.deepEqual(got, []);
    world.network.heal();
    await world.runFor(10);
    assert.deepEqual(got.splice(0), [6, 7, 8]);
    world.network.set(1, 2, { lossChance: 0.3, duplicateChance: 0.3, reorderChance: 0.3 });
    await send(1, 300);
    const distinct = new Set(got);
    assert.ok(distinct.size > 150 && distinct.size < 260 && got.length > distinct.size);
    assert.notDeepEqual(
      got,
      [...got].sort((x, y) => x - y),
    );
  });

  test("a frozen brick does everything late; clocks may drift", async () => {
    const world = new SimWorld(6);
    const host = world.host(1);
    const ran: number[] = [];
    host.clock.after(10, () => ran.push(world.clock.nowMs));
    host.clock.after(20, () => ran.push(world.clock.nowMs));
    world.machine(1).freeze(500);
    await world.runFor(600);
    assert.deepEqual(ran, [500, 500]);
    world.machine(1).clock.setRate(2);
    const before = host.clock.nowMs();
    await world.runFor(100);
    assert.equal(host.clock.nowMs() - before, 200);
  });

  test("host.crash stops that brick alone, and a bug ends the run", async () => {
    const world = new SimWorld(7);
    const host = world.host(1);
    const other = world.host(2);
    let ticks = 0;
    const tick = () => {
      ticks += 1;
      other.clock.after(1, tick);
    };
    tick();
    host.clock.after(5, async () => {
      await host.disk.freeBytes();
      host.crash(new DiskError("EIO", "flush failed"));
    });
    await world.runFor(50);
    assert.ok(ticks > 45);
    assert.deepEqual(
      world.crashes.map(({ brick, cause }) => [brick, cause]),
      [[1, "self"]],
    );
    assert.equal(world.machine(1).running, false);
    world.host(1).clock.after(1, () => {
      throw new TypeError("a bug");
    });
    await assert.rejects(world.runFor(5), TypeError);
  });
});

describe("simulated: determinism", () => {
  async function story(seed: number): Promise<{ hash: string; events: number }> {
    const world = new SimWorld(seed);
    world.network.defaults.lossChance = 0.05;
    world.network.defaults.reorderChance = 0.1;
    const start = (brick: number) => {
      const host = world.host(brick);
      host.network.setPeers(new Map([1, 2, 3].map((peer) => [peer, "sim"])));
      host.network.onMessage(async (from, message) => {
        const file = await host.disk.open("log", { create: true });
        await file.write(message.request * 512, [message.body[0]!]);
        if (host.prng.chance(0.3)) await file.sync();
        const next = host.prng.pick([1, 2, 3].filter((peer) => peer !== from));
        host.network.send(next, messageOf(1, message.request + 1, message.body[0]!));
      });
      for (let request = 0; request < 5; request += 1) {
        host.network.send(host.prng.between(1, 3), messageOf(2, request, Buffer.alloc(600, brick)));
      }
    };
    for (const brick of [1, 2, 3]) start(brick);
    const havoc = () => {
      const brick = world.prng.between(1, 3);
      world.machine(brick).crash();
      start(brick);
      world.after(world.prng.between(5, 50), havoc);
    };
    world.after(20, havoc);
    await world.clock.run({ eventsMax: 5000 });
    return { hash: world.traceHash, events: world.clock.eventCount };
  }

  test("the same seed gives the same history, another seed another", async () => {
    const first = await story(1);
    assert.equal(first.events, 5000);
    assert.deepEqual(await story(1), first);
    assert.notEqual((await story(2)).hash, first.hash);
  });

  test("speed, printed only", async (context) => {
    const world = new SimWorld(1);
    const { clock, prng } = world.host(1);
    const tick = async () => {
      await null;
      clock.after(prng.unit(), tick);
    };
    for (let timers = 0; timers < 50; timers += 1) tick();
    const before = performance.now();
    await world.clock.run({ eventsMax: 100_000 });
    context.diagnostic(`${Math.round(100_000 / (performance.now() - before))} k events/s`);
  });
});
