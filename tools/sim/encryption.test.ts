import assert from "node:assert/strict";
import { test } from "node:test";
import type { VolumeRecord } from "../../brick/cluster-state.ts";
import { isReachable } from "../../brick/cluster-state.ts";
import { decodeKeyStatus, encodeKey } from "../../brick/crypt/key-messages.ts";
import type { CallReply } from "../../brick/rpc/calls.ts";
import { messageType } from "../../brick/rpc/message-types.ts";
import type { BrickNumber } from "../../brick/units.ts";
import { grainBytes, MiB } from "../../brick/units.ts";
import { SimCluster, volumeName } from "./sim-cluster.ts";

/** Keys of encrypted volumes among bricks that crash, are away and lose files. */

const canary = Buffer.from("canary-of-an-encrypted-volume-".repeat(18)).subarray(0, 512);
const minuteMs = 60_000;
const readTriesMax = 5;

async function encrypted(seed: number, bricks = 3): Promise<SimCluster> {
  const cluster = new SimCluster({
    seed,
    bricks,
    shardCount: 4,
    volumeBytes: 64 * MiB,
    copies: 2,
    encrypt: true,
  });
  await cluster.create();
  return cluster;
}

function record(cluster: SimCluster): VolumeRecord {
  return cluster.anyNode()!.control.state().volumes[volumeName]!;
}

function keyFiles(cluster: SimCluster, brick: BrickNumber): string[] {
  return cluster.world
    .machine(brick)
    .disk.paths()
    .filter((path) => path.startsWith("keys/"));
}

function nameOf(domain: number): string {
  return `keys/${String(domain).padStart(5, "0")}.key`;
}

async function write(cluster: SimCluster, brick: BrickNumber, at: number, bytes: Buffer) {
  const written = cluster.volumeAt(brick)!.write(at, [bytes]);
  assert.deepEqual(await cluster.world.complete(written, 2 * minuteMs), { ok: true });
}

/** Tried again while nobody can serve it. */
async function read(cluster: SimCluster, brick: BrickNumber, at: number, lengthBytes: number) {
  for (let tries = 0; tries < readTriesMax; tries += 1) {
    const asked = cluster.volumeAt(brick)!.read(at, lengthBytes);
    const found = await cluster.world.complete(asked, 2 * minuteMs);
    if (found.ok) return Buffer.concat(found.buffers);
    assert.equal(found.fault.code, "unavailable");
  }
  return assert.fail("it cannot be read");
}

function startErase(cluster: SimCluster, brick: BrickNumber) {
  const nexus = { initiatorPort: "iqn.2026-11.example:a,i,0x00023d000001", targetPort: brick };
  const change = { type: "sanitizeStart", nexus, allowUnrestrictedExit: false } as const;
  return cluster.volumeAt(brick)!.changeUnit({ ...change, method: "crypto" });
}

function isErasing(cluster: SimCluster): boolean {
  const { units } = cluster.anyNode()!.control.state();
  return units?.[record(cluster).uuid]?.sanitize !== null;
}

/** Every brick runs, and knows that the erase is over. */
async function eraseEnded(cluster: SimCluster): Promise<void> {
  await cluster.world.runUntil(() => {
    if (cluster.anyNode() === undefined || isErasing(cluster)) return false;
    const { version } = cluster.anyNode()!.control.state();
    return cluster.bricks.every((brick) => {
      const state = cluster.nodes.get(brick)?.control.state();
      return state !== undefined && state.version >= version;
    });
  }, 10 * minuteMs);
}

test("nothing that was written is in any file of any brick, and all of it is read", async () => {
  const cluster = await encrypted(1);
  const places = [0, 3 * 512, grainBytes - 512, 5 * grainBytes];
  for (const at of places) await write(cluster, 1, at, canary);
  const large = Buffer.concat(Array.from({ length: 256 }, () => canary));
  await write(cluster, 2, 16 * grainBytes, large);
  for (const brick of cluster.bricks) {
    for (const at of places) assert.deepEqual(await read(cluster, brick, at, 512), canary);
    assert.deepEqual(await read(cluster, brick, 16 * grainBytes, large.length), large);
    assert.deepEqual(await read(cluster, brick, 16 * grainBytes + 512, 512), canary);
  }
  const { disk } = cluster.world.machine(1);
  assert.ok(disk.paths().some((path) => path.startsWith("log/")));
  for (const brick of cluster.bricks) {
    const machine = cluster.world.machine(brick);
    for (const path of machine.disk.paths()) {
      const file = machine.disk.file(path)!;
      const found = file.read(0, file.sizeBytes).includes("canary-of");
      assert.equal(found, false, `brick ${brick}: ${path}`);
    }
  }
});

test("a brick that joins later, or has lost its keyring, has the keys from its peers", async () => {
  const cluster = await encrypted(2);
  await write(cluster, 1, 0, canary);
  const { keyDomain } = record(cluster);
  const joined = await cluster.join();
  await cluster.world.runUntil(() => keyFiles(cluster, joined).length === 1, minuteMs);
  assert.deepEqual(await read(cluster, joined, 0, 512), canary);
  cluster.crash(2);
  const { disk } = cluster.world.machine(2);
  // One bit of the sealed key: what is left of it opens for nobody.
  disk.file(nameOf(keyDomain!))!.flipBit(8 * 40);
  cluster.start(2);
  const healed = () => cluster.nodes.get(2)?.keys.keyring.keyCount === 1;
  await cluster.world.runUntil(() => healed() && cluster.volumeAt(2) !== undefined, minuteMs);
  assert.equal(cluster.nodes.get(2)!.keys.keyring.damagedFiles, 1);
  assert.deepEqual(await read(cluster, 2, 0, 512), canary);
});

test("a brick that lacks a key says so when that lasts, and when it is over", async () => {
  const cluster = await encrypted(7);
  const { keyDomain } = record(cluster);
  cluster.crash(2);
  cluster.world
    .machine(2)
    .disk.file(nameOf(keyDomain!))!
    .flipBit(8 * 40);
  const { network } = cluster.world;
  network.filter = (_from, to, { type, reply }) => reply || to === 2 || type !== messageType.keyGet;
  const kinds = () => {
    const { records } = cluster.anyNode()!.control.events();
    return records.filter(({ kind }) => kind.startsWith("key_")).map(({ kind }) => kind);
  };
  cluster.start(2);
  await cluster.world.runUntil(() => kinds().length > 0, minuteMs);
  assert.deepEqual(kinds(), ["key_missing"]);
  const names = cluster.nodes.get(2)!.keys.lackingVolumes.map(({ name }) => name);
  assert.deepEqual(names, [volumeName]);
  network.filter = null;
  await cluster.world.runUntil(() => kinds().length > 1, minuteMs);
  assert.deepEqual(kinds(), ["key_missing", "key_found"]);
  // Made good before long: nobody is told.
  network.filter = (_from, to, { type, reply }) => reply || to === 3 || type !== messageType.keyGet;
  cluster.crash(3);
  cluster.world
    .machine(3)
    .disk.file(nameOf(keyDomain!))!
    .flipBit(8 * 40);
  cluster.start(3);
  await cluster.world.runUntil(() => cluster.nodes.get(3) !== undefined, minuteMs);
  await cluster.world.runFor(4000);
  network.filter = null;
  await cluster.world.runUntil(() => cluster.nodes.get(3)?.keys.keyring.keyCount === 1, minuteMs);
  await cluster.world.runFor(10_000);
  assert.equal(kinds().length, 2);
});

test("a brick that is removed destroys its keys, also when it dies over that", async () => {
  for (const dies of [false, true]) {
    const cluster = await encrypted(8, 4);
    await write(cluster, 1, 0, canary);
    const state = () => cluster.nodes.get(1)!.control.state();
    const leaving = 4;
    await cluster.submit({ type: "drainBrick", number: leaving, drain: true });
    await cluster.world.runUntil(() => {
      const { bricks, shards, attachments } = state();
      const holds = shards.some(({ primary, members, candidates }) =>
        [primary, ...members, ...candidates].includes(leaving),
      );
      const serves = Object.values(attachments).some(({ brick }) => brick === leaving);
      return !holds && !serves && !bricks[leaving]!.voter;
    }, 5 * minuteMs);
    assert.equal(keyFiles(cluster, leaving).length, 1, "it drains, and may be kept after all");
    const emptied = { emptied: true, force: false };
    await cluster.submit({ type: "removeBrick", number: leaving, ...emptied });
    if (dies) {
      cluster.crash(leaving);
      cluster.start(leaving);
    }
    await cluster.world.runUntil(() => keyFiles(cluster, leaving).length === 0, minuteMs);
    await cluster.world.runFor(10_000);
    assert.deepEqual(keyFiles(cluster, leaving), []);
    for (const brick of [1, 2, 3]) assert.equal(keyFiles(cluster, brick).length, 1);
    assert.deepEqual(await read(cluster, 2, 0, 512), canary);
  }
});

test("a brick that was away around its removal destroys its keys when it comes back", async () => {
  for (const away of ["off", "cut off"]) {
    const cluster = await encrypted(9, 4);
    await write(cluster, 1, 0, canary);
    const { network } = cluster.world;
    const state = () => cluster.nodes.get(1)!.control.state();
    const lost = 4;
    if (away === "off") cluster.crash(lost);
    else network.partition([lost], [1, 2, 3]);
    await cluster.world.runUntil(() => !isReachable(state().bricks[lost]), minuteMs);
    await cluster.world.runFor(2 * minuteMs);
    await cluster.submit({ type: "removeBrick", number: lost, emptied: false, force: true });
    // Longer than the others keep it as a peer.
    await cluster.world.runFor(2 * minuteMs);
    assert.equal(keyFiles(cluster, lost).length, 1);
    if (away === "off") cluster.start(lost);
    else network.heal();
    await cluster.world.runUntil(() => keyFiles(cluster, lost).length === 0, minuteMs);
    await cluster.world.runFor(10_000);
    assert.deepEqual(keyFiles(cluster, lost), []);
    for (const brick of [1, 2, 3]) assert.equal(keyFiles(cluster, brick).length, 1);
    assert.deepEqual(await read(cluster, 2, 0, 512), canary);
  }
});

test("a cryptographic erase destroys the key on every brick, and the volume goes on", async () => {
  const cluster = await encrypted(3);
  await write(cluster, 1, 0, canary);
  const old = record(cluster).keyDomain!;
  assert.ok((await cluster.world.complete(startErase(cluster, 1), minuteMs)).ok);
  await eraseEnded(cluster);
  const { keyDomain } = record(cluster);
  assert.notEqual(keyDomain, old);
  for (const brick of cluster.bricks) {
    assert.deepEqual(keyFiles(cluster, brick), [nameOf(keyDomain!)]);
  }
  assert.deepEqual(await read(cluster, 1, 0, 512), Buffer.alloc(512));
  await write(cluster, 1, 512, canary);
  assert.deepEqual(await read(cluster, 2, 512, 512), canary);
  assert.deepEqual(await read(cluster, 2, 0, 512), Buffer.alloc(512));
});

test("with a brick away an erase is not over before that one, too, has destroyed the key", async () => {
  const cluster = await encrypted(4);
  await write(cluster, 1, 0, canary);
  const old = record(cluster).keyDomain!;
  cluster.crash(3);
  await cluster.world.runUntil(() => {
    const { bricks } = cluster.anyNode()!.control.state();
    return !isReachable(bricks["3"]);
  }, minuteMs);
  assert.ok((await cluster.world.complete(startErase(cluster, 1), minuteMs)).ok);
  await cluster.world.runUntil(() => record(cluster).keyDomain !== old, minuteMs);
  const waitMs = cluster.world.clock.nowMs + minuteMs;
  await cluster.world.runUntil(() => cluster.world.clock.nowMs >= waitMs, 2 * minuteMs);
  assert.ok(isErasing(cluster));
  assert.ok(keyFiles(cluster, 3).includes(nameOf(old)));
  assert.ok(!keyFiles(cluster, 1).includes(nameOf(old)));
  cluster.start(3);
  await eraseEnded(cluster);
  assert.ok(!keyFiles(cluster, 3).includes(nameOf(old)));
});

test("a crash anywhere in an erase leaves one that comes to its end", async () => {
  for (const afterMs of [0, 1, 2, 5, 10, 20, 40, 80, 160, 320, 640]) {
    const cluster = await encrypted(100 + afterMs);
    await write(cluster, 1, 0, canary);
    const old = record(cluster).keyDomain!;
    const holder = cluster.volumeHolder(volumeName)!;
    const other = cluster.bricks.find((brick) => brick !== holder)!;
    startErase(cluster, holder);
    const atMs = cluster.world.clock.nowMs + afterMs;
    await cluster.world.runUntil(() => cluster.world.clock.nowMs >= atMs, minuteMs);
    cluster.crash(holder);
    const backMs = cluster.world.clock.nowMs + 2_000;
    await cluster.world.runUntil(() => cluster.world.clock.nowMs >= backMs, minuteMs);
    cluster.start(holder);
    await cluster.settled();
    await cluster.world.complete(startErase(cluster, other), minuteMs);
    await eraseEnded(cluster);
    for (const brick of cluster.bricks) {
      assert.ok(!keyFiles(cluster, brick).includes(nameOf(old)), `after ${afterMs} ms`);
    }
    assert.deepEqual(await read(cluster, other, 0, 512), Buffer.alloc(512));
  }
});

test("a crash while a key is made leaves nothing of it, or a volume that can be used", async () => {
  for (const afterMs of [0, 1, 3, 6, 12, 25, 50, 100]) {
    const cluster = await encrypted(200 + afterMs);
    const first = record(cluster).keyDomain!;
    const uuid = "0f".repeat(16);
    const made = cluster.nodes.get(1)!.keys.make(uuid, 2);
    const atMs = cluster.world.clock.nowMs + afterMs;
    await cluster.world.runUntil(() => cluster.world.clock.nowMs >= atMs, minuteMs);
    cluster.crash(1);
    void made;
    const overMs = cluster.world.clock.nowMs + 3 * minuteMs;
    cluster.start(1);
    await cluster.settled();
    await cluster.world.runUntil(() => cluster.world.clock.nowMs >= overMs, 4 * minuteMs);
    for (const brick of cluster.bricks) {
      assert.deepEqual(keyFiles(cluster, brick), [nameOf(first)], `after ${afterMs} ms`);
    }
    await write(cluster, 2, 0, canary);
    assert.deepEqual(await read(cluster, 1, 0, 512), canary);
  }
});

test("a key that is not the one reserved is not kept, whoever sends it", async () => {
  const cluster = await encrypted(6);
  const uuid = "0e".repeat(16);
  const check = "00".repeat(16);
  const domain = await cluster.submit({ type: "reserveKeyDomain", uuid, check });
  const { clusterId } = cluster.anyNode()!.control.state();
  const address = { clusterId, domain, to: 2 };
  const secret = Buffer.alloc(32, 7);
  const body = encodeKey(secret, address, Buffer.from(canary.subarray(0, 64)), Buffer.alloc(12));
  const { calls } = cluster.nodes.get(1)!;
  const reply = new Promise<CallReply>((resolve) => {
    calls.call(2, messageType.keyPut, body, minuteMs, resolve);
  });
  const answered = await cluster.world.complete(reply, 2 * minuteMs);
  assert.ok(answered.ok && !decodeKeyStatus(answered.body));
  assert.ok(!keyFiles(cluster, 2).includes(nameOf(domain)));
});

test("a deleted volume's key is destroyed everywhere", async () => {
  const cluster = await encrypted(5);
  await cluster.submit({ type: "deleteVolume", name: volumeName });
  await cluster.world.runUntil(
    () => cluster.bricks.every((brick) => keyFiles(cluster, brick).length === 0),
    minuteMs,
  );
});
