import assert from "node:assert/strict";
import { test } from "node:test";
import { chunkKey } from "../chunk/key.ts";
import { KiB, MiB } from "../units.ts";
import { type PutResult, Store, type StoreParticipant } from "./store.ts";
import { DiskImage, TraceHost } from "./trace-disk.ts";

/** A store whose file system is full: by others, at any moment, for any time. */

const identity = { clusterId: "00112233445566778899aabbccddeeff", brick: 7, uuid: "ab".repeat(16) };
const origin = { branch: 3, grain: 11, firstSector: 0, sequence: 5 };
const segmentBytes = 64 * KiB;
const diskFloorBytes = 1 * MiB;

function chunkOf(seed: number): Buffer {
  const bytes = Buffer.alloc(8192, seed & 0xff);
  bytes.writeUInt32BE(seed, 0);
  return bytes;
}

function openStore(host: TraceHost, participants: StoreParticipant[] = []) {
  const sizes = { capacityBytes: 16 * segmentBytes, segmentBytes, diskFloorBytes };
  return Store.open(host, { ...sizes, participants, identity });
}

function put(store: Store, seed: number): Promise<PutResult> {
  const bytes = chunkOf(seed);
  return new Promise((resolve) => store.put(chunkKey(bytes), bytes, origin, resolve));
}

function append(store: Store): Promise<boolean> {
  return new Promise((resolve) =>
    store.appendMap([Buffer.alloc(8192)], null, resolve, { claim: "reserve" }),
  );
}

async function turns(count = 20): Promise<"waits"> {
  for (let turn = 0; turn < count; turn += 1) await new Promise((resolve) => setImmediate(resolve));
  return "waits";
}

/** Timers that are due fire, and what they begin comes to its end. */
async function later(host: TraceHost): Promise<void> {
  host.fireTimers();
  await turns();
}

/** After a power cut that kept what was synced. */
function afterPowerCut(host: TraceHost): TraceHost {
  const image = new DiskImage();
  for (const event of host.trace) image.note(event);
  return new TraceHost(image);
}

test("others fill the file system: the brick is full, and what must be logged has room still", async () => {
  const host = new TraceHost();
  const store = await openStore(host);
  await turns();
  let told = 0;
  store.watchSpace(() => (told += 1));
  host.freeBytes = diskFloorBytes - 1;
  await later(host);
  assert.equal(store.isFileSystemFull, true);
  // Of the zeros at hand, ordinary records may take what is not kept.
  for (let seed = 0; (await put(store, seed)).ok; seed += 1) assert.ok(seed < 100);
  await later(host);
  assert.deepEqual([store.space().full, told], [true, 1]);
  for (let record = 0; record < 2; record += 1) assert.equal(await append(store), true);
  assert.equal(host.crashed, null);
  // A little more than the floor is not yet room: nobody is told of it in vain.
  host.freeBytes = diskFloorBytes + 4 * KiB;
  await later(host);
  await later(host);
  assert.equal(store.isFileSystemFull, true);
  host.freeBytes = 2 * diskFloorBytes;
  await later(host);
  await later(host);
  assert.deepEqual([store.isFileSystemFull, store.space().full, told], [false, false, 2]);
  assert.deepEqual(await put(store, 1000), { ok: true, deduplicated: false });
});

test("a record that must be logged waits for room, holds nobody else up, and is not said to be there", async () => {
  const host = new TraceHost();
  const store = await openStore(host);
  await turns();
  host.freeBytes = 0;
  let waiting: Promise<boolean>;
  for (let record = 0; ; record += 1) {
    assert.ok(record < 200);
    waiting = append(store);
    if ((await Promise.race([waiting, turns()])) === "waits") break;
  }
  assert.deepEqual(await put(store, 1), { ok: false, fault: { code: "no_space" } });
  assert.equal(host.crashed, null);
  host.freeBytes = Number.MAX_SAFE_INTEGER;
  await later(host);
  assert.equal(await waiting, true);
  assert.deepEqual(await put(store, 1), { ok: true, deduplicated: false });
});

test("a checkpoint without room is put off, and what it would have held is kept until there is", async () => {
  const host = new TraceHost();
  const kept: string[] = [];
  const participant: StoreParticipant = {
    replay: () => {},
    collect: () => [{ key: Buffer.from("participant"), value: Buffer.from("its state") }],
    collected: () => void kept.push("kept"),
    dirtyCount: () => 0,
  };
  const store = await openStore(host, [participant]);
  assert.equal((await put(store, 1)).ok, true);
  host.fail = (kind) => (kind === "kv" ? "ENOSPC" : null);
  store.checkpoint();
  store.checkpoint();
  await store.checkpointed();
  assert.deepEqual([host.crashed, kept, store.counters.checkpoints], [null, [], 0]);
  assert.deepEqual([store.putsOffCheckpoints, store.space().full], [true, true]);
  assert.equal(store.has(chunkKey(chunkOf(1))), true);
  // Its log alone has all.
  const meanwhile = await openStore(afterPowerCut(host));
  assert.equal(meanwhile.has(chunkKey(chunkOf(1))), true);
  // Room for a batch, and none yet for the index to be opened anew.
  host.fail = null;
  host.freeBytes = diskFloorBytes - 1;
  await later(host);
  assert.equal(store.putsOffCheckpoints, true);
  host.freeBytes = 2 * diskFloorBytes;
  await later(host);
  assert.deepEqual([kept, store.counters.checkpoints], [["kept"], 1]);
  assert.equal(store.putsOffCheckpoints, false);
  const reopened = await openStore(afterPowerCut(host));
  assert.equal(reopened.has(chunkKey(chunkOf(1))), true);
});

test("a segment is not used anew while the index has no room to say so", async () => {
  const host = new TraceHost();
  const store = await openStore(host);
  for (let seed = 0; seed < 12; seed += 1) assert.equal((await put(store, seed)).ok, true);
  for (let seed = 0; seed < 12; seed += 1) store.dropChunk(chunkKey(chunkOf(seed)));
  store.checkpoint();
  await store.checkpointed();
  host.fail = (kind) => (kind === "kv" ? "ENOSPC" : null);
  assert.equal(await store.recycle(), 0);
  assert.equal(store.superblock.recycled, 0);
  host.fail = null;
  await later(host);
  assert.ok((await store.recycle()) > 0);
  assert.ok(store.superblock.recycled > 0);
  assert.equal(host.crashed, null);
});

test("an index that cannot be opened anew ends the brick", async () => {
  const host = new TraceHost();
  const store = await openStore(host);
  host.fail = (kind) => (kind === "kv" || kind === "openKv" ? "ENOSPC" : null);
  store.checkpoint();
  await store.checkpointed();
  assert.equal(host.crashed, null);
  const others = process.listeners("unhandledRejection");
  process.removeAllListeners("unhandledRejection");
  const ended = new Promise((resolve) => process.once("unhandledRejection", resolve));
  await later(host);
  await ended;
  for (const other of others) process.on("unhandledRejection", other);
  assert.notEqual(host.crashed, null);
});

test("a start without room says what is full and what it needs, once, and begins when there is some", async () => {
  const host = new TraceHost();
  const before = await openStore(host);
  assert.equal((await put(before, 1)).ok, true);
  await before.close();
  host.freeBytes = 1 * MiB;
  const opening = openStore(host);
  await turns();
  await later(host);
  const said = host.lines.filter((line) => line.startsWith("store: "));
  const facts = "1MiB are free, 3MiB are needed; it is asked again every 2 s";
  assert.deepEqual(said, [`store: cannot start, the file system is full: ${facts}`]);
  // There is room by what the file system says, but a quota gives none yet.
  host.freeBytes = 64 * MiB;
  host.fail = (kind) => (kind === "openKv" ? "ENOSPC" : null);
  await later(host);
  host.fail = null;
  await later(host);
  const store = await opening;
  assert.equal(store.superblock.boot, before.superblock.boot + 1);
  assert.equal(store.has(chunkKey(chunkOf(1))), true);
  assert.equal(host.crashed, null);
});

test("control records pass others that wait for room, but none of their own order", async () => {
  const host = new TraceHost();
  const store = await openStore(host);
  await turns();
  host.freeBytes = 0;
  const logged: string[] = [];
  const log = (name: string, claim: "reserve" | "control", order: number) =>
    store.appendMap([Buffer.alloc(1024)], null, (ok) => void logged.push(`${name} ${ok}`), {
      claim,
      order,
    });
  while (!store.waitsForRoom) {
    log("filling", "reserve", 1);
    await turns();
  }
  logged.length = 0;
  log("entry of 2", "reserve", 2);
  log("facts of 2", "control", 2);
  log("facts of 3", "control", 3);
  await turns();
  assert.deepEqual(logged, ["facts of 3 true"]);
  assert.equal(store.giveUp(2), true);
  assert.deepEqual(logged.slice(1), ["entry of 2 false", "facts of 2 false"]);
  log("facts of 2", "control", 2);
  await turns();
  assert.deepEqual(logged.slice(3), ["facts of 2 true"]);
  host.freeBytes = Number.MAX_SAFE_INTEGER;
  await later(host);
  assert.deepEqual(logged.slice(4), ["filling true"]);
});
