import assert from "node:assert/strict";
import { test } from "node:test";
import { chunkKey } from "../chunk/key.ts";
import { KiB } from "../units.ts";
import { type PutResult, Store, type StoreParticipant } from "./store.ts";
import { DiskImage, TraceHost } from "./trace-disk.ts";

const identity = { clusterId: "00112233445566778899aabbccddeeff", brick: 7, uuid: "ab".repeat(16) };
const origin = { branch: 3, grain: 11, firstSector: 0, sequence: 5 };

function chunkOf(seed: number, lengthBytes = 1024): Buffer {
  const bytes = Buffer.alloc(lengthBytes, seed & 0xff);
  bytes.writeUInt32BE(seed, 0);
  return bytes;
}

function openStore(host: TraceHost, participants: StoreParticipant[] = [], more = {}) {
  const sizes = { capacityBytes: 8 * 64 * KiB, segmentBytes: 64 * KiB, diskFloorBytes: 0 };
  return Store.open(host, { ...sizes, participants, identity, ...more });
}

function put(store: Store, bytes: Buffer): Promise<PutResult> {
  return new Promise((resolve) => store.put(chunkKey(bytes), bytes, origin, resolve));
}

function append(store: Store, record: Buffer, reserve = false): Promise<boolean> {
  const claim = reserve ? "reserve" : "ordinary";
  return new Promise((resolve) => store.appendMap([record], null, resolve, { claim }));
}

/** The disk after a power cut that kept everything that was synced. */
function imageOf(host: TraceHost, before = new DiskImage()): DiskImage {
  const image = before.copy();
  for (const event of host.trace) image.note(event);
  return image;
}

test("a chunk is stored, found, read back and deduplicated", async () => {
  const host = new TraceHost();
  const store = await openStore(host);
  const bytes = chunkOf(1);
  assert.equal(store.has(chunkKey(bytes)), false);
  assert.deepEqual(await put(store, bytes), { ok: true, deduplicated: false });
  assert.equal(store.has(chunkKey(bytes)), true);
  assert.deepEqual(await store.readChunk(chunkKey(bytes)), { ok: true, bytes });
  assert.deepEqual(await put(store, chunkOf(1)), { ok: true, deduplicated: true });
  assert.equal(store.space().chunkCount, 1);
  assert.equal(store.space().dedupBytes, 1024);
  const absent = await store.readChunk(chunkKey(chunkOf(2)));
  assert.deepEqual(absent, { ok: false, fault: { code: "absent" } });
  await store.close();
});

test("equal chunks in one commit are written once and answered together, after the flush", async () => {
  const host = new TraceHost();
  const store = await openStore(host);
  const results = await Promise.all([put(store, chunkOf(1)), put(store, chunkOf(1))]);
  assert.deepEqual(
    results.map((result) => result.ok && result.deduplicated),
    [false, true],
  );
  assert.equal(store.counters.flushes <= 1, true);
  assert.equal(store.space().chunkCount, 1);
});

test("a clean shutdown leaves an uncut log, a power cut between commits too", async () => {
  const host = new TraceHost();
  const store = await openStore(host);
  await put(store, chunkOf(1));
  const cutBetween = await openStore(new TraceHost(imageOf(host)));
  assert.equal(cutBetween.cut, false);
  assert.equal(cutBetween.superblock.boot, 2);
  await store.close();
  const reopened = await openStore(new TraceHost(imageOf(host)));
  assert.equal(reopened.cut, false);
  assert.equal(reopened.has(chunkKey(chunkOf(1))), true);
  assert.equal(reopened.space().chunkCount, 1);
});

test("chunks inside map records are indexed; participants get the records back", async () => {
  const host = new TraceHost();
  const store = await openStore(host);
  const bytes = chunkOf(9, 2048);
  const head = Buffer.from("map record ");
  const chunk = { key: chunkKey(bytes), offsetBytes: head.length, lengthBytes: 2048, origin };
  const ok = await new Promise((resolve) => store.appendMap([head, bytes], chunk, resolve));
  assert.equal(ok, true);
  assert.deepEqual(await store.readChunk(chunk.key), { ok: true, bytes });
  const records: Buffer[] = [];
  const participant = collector(records);
  const reopened = await openStore(new TraceHost(imageOf(host)), [participant]);
  assert.deepEqual(records, [Buffer.concat([head, bytes])]);
  assert.deepEqual(await reopened.readChunk(chunk.key), { ok: true, bytes });
});

function collector(records: Buffer[]): StoreParticipant {
  return {
    replay: (record) => void records.push(record),
    collect: () => [],
    collected: () => {},
    dirtyCount: () => 0,
  };
}

test("a full brick refuses chunks and ordinary records but still logs what uses the reserve", async () => {
  const host = new TraceHost();
  const store = await openStore(host, [], { capacityBytes: 4 * 64 * KiB });
  let stored = 0;
  for (let seed = 0; seed < 100; seed += 1) {
    const result = await put(store, chunkOf(seed, 8192));
    if (result.ok) stored += 1;
    else assert.equal(result.fault.code, "no_space");
  }
  // 12 KiB a batch, 5 batches a segment, and one segment of four is the reserve.
  assert.equal(stored, 15);
  assert.equal(store.space().full, true);
  assert.equal(await append(store, Buffer.alloc(8192)), false);
  assert.equal(await append(store, Buffer.alloc(8192), true), true);
  assert.equal(host.crashed, null);
  // The last of it is for control records.
  for (let logged = 1; logged < 4; logged += 1) {
    assert.equal(await append(store, Buffer.alloc(8192), true), true);
  }
  // Without a reserve it waits, and only a brick that stops gives it up.
  const waiting = append(store, Buffer.alloc(8192), true);
  assert.equal(await Promise.race([waiting, turns(10)]), "waits");
  assert.equal((await put(store, chunkOf(500, 8192))).ok, false);
  assert.equal(host.crashed, null);
  await store.close();
  assert.equal(await waiting, false);
});

async function turns(count: number): Promise<"waits"> {
  for (let turn = 0; turn < count; turn += 1) await new Promise((resolve) => setImmediate(resolve));
  return "waits";
}

test("a full disk is a full brick, until space returns", async () => {
  const host = new TraceHost();
  const store = await openStore(host);
  host.freeBytes = 0;
  const results: PutResult[] = [];
  for (let seed = 0; seed < 20; seed += 1) results.push(await put(store, chunkOf(seed, 8192)));
  assert.equal(results.at(-1)!.ok, false);
  assert.equal(store.space().full, true);
  assert.equal(await append(store, Buffer.alloc(512), true), true);
  assert.equal(host.crashed, null);
  host.freeBytes = Number.MAX_SAFE_INTEGER;
  host.fireTimers();
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(await put(store, chunkOf(99, 8192)), { ok: true, deduplicated: false });
});

test("a failed flush ends the brick and answers nothing", async () => {
  const host = new TraceHost();
  const store = await openStore(host);
  let answered = false;
  const others = process.listeners("unhandledRejection");
  process.removeAllListeners("unhandledRejection");
  const ended = new Promise((resolve) => process.once("unhandledRejection", resolve));
  host.fail = (kind, path) => (kind === "sync" && path.startsWith("log/") ? "EIO" : null);
  store.put(chunkKey(chunkOf(1)), chunkOf(1), origin, () => (answered = true));
  await ended;
  for (const other of others) process.on("unhandledRejection", other);
  assert.equal(answered, false);
  assert.notEqual(host.crashed, null);
});

test("a checkpoint shortens the replay and loses nothing", async () => {
  const host = new TraceHost();
  const records: Buffer[] = [];
  const store = await openStore(host);
  await put(store, chunkOf(1));
  await append(store, Buffer.from("before"));
  store.checkpoint();
  await store.checkpointed();
  await append(store, Buffer.from("after"));
  await put(store, chunkOf(2));
  const reopened = await openStore(new TraceHost(imageOf(host)), [collector(records)]);
  assert.deepEqual(records.map(String), ["after"]);
  assert.equal(reopened.space().chunkCount, 2);
  assert.deepEqual(await reopened.readChunk(chunkKey(chunkOf(1))), { ok: true, bytes: chunkOf(1) });
});

test("what changes while a checkpoint is written is of the next one", async () => {
  const host = new TraceHost();
  const store = await openStore(host);
  const [kept, dropped, added] = [1, 2, 3].map((seed) => chunkOf(seed, 8192)) as [
    Buffer,
    Buffer,
    Buffer,
  ];
  await put(store, kept);
  await put(store, dropped);
  store.checkpoint();
  store.dropChunk(chunkKey(dropped));
  const adding = put(store, added);
  assert.equal(store.counters.checkpoints, 0);
  assert.deepEqual([store.has(chunkKey(kept)), store.has(chunkKey(dropped))], [true, false]);
  await store.checkpointed();
  await adding;
  assert.equal(store.counters.checkpoints, 1);
  assert.deepEqual([store.has(chunkKey(kept)), store.has(chunkKey(dropped))], [true, false]);
  // That it is gone was not written.
  const before = await openStore(new TraceHost(imageOf(host)));
  assert.deepEqual([before.has(chunkKey(dropped)), before.space().chunkCount], [true, 3]);
  store.checkpoint();
  await store.checkpointed();
  const after = await openStore(new TraceHost(imageOf(host)));
  assert.deepEqual([after.has(chunkKey(dropped)), after.space().chunkCount], [false, 2]);
  for (const bytes of [kept, added]) {
    assert.deepEqual(await after.readChunk(chunkKey(bytes)), { ok: true, bytes });
  }
});

test("a store that closes ends the checkpoint under way, and begins no other", async () => {
  const host = new TraceHost();
  const store = await openStore(host);
  await put(store, chunkOf(1));
  let isClosed = false;
  const closing = store.close().then(() => (isClosed = true));
  while (!isClosed) {
    store.checkpoint();
    await new Promise((resolve) => setImmediate(resolve));
  }
  await closing;
  const { checkpoints } = store.counters;
  store.checkpoint();
  await store.checkpointed();
  assert.equal(store.counters.checkpoints, checkpoints);
  assert.equal(host.crashed, null);
});

test("a segment that lost its last chunk while a checkpoint was written is kept until the next", async () => {
  const host = new TraceHost();
  const store = await openStore(host);
  const seeds = [...Array(12).keys()];
  for (const seed of seeds) await put(store, chunkOf(seed, 8192));
  store.checkpoint();
  for (const seed of seeds) store.dropChunk(chunkKey(chunkOf(seed, 8192)));
  assert.equal(await store.recycle(), 0);
  store.checkpoint();
  assert.equal(await store.recycle(), 2);
  const reopened = await openStore(new TraceHost(imageOf(host)));
  assert.equal(reopened.space().chunkCount, 0);
});

test("a dead segment is recycled; what pointed into its old use is a miss", async () => {
  const host = new TraceHost();
  const store = await openStore(host);
  const seeds = [...Array(12).keys()];
  for (const seed of seeds) await put(store, chunkOf(seed, 8192));
  const usedBytes = store.space().usedBytes;
  for (const seed of seeds) store.dropChunk(chunkKey(chunkOf(seed, 8192)));
  assert.equal(await store.recycle(), 0, "nothing before a checkpoint has passed");
  store.checkpoint();
  await store.checkpointed();
  assert.equal(await store.recycle(), 2);
  assert.equal(store.space().usedBytes < usedBytes, true);
  assert.equal(store.has(chunkKey(chunkOf(0, 8192))), false);
  for (const seed of seeds) {
    const result = await put(store, chunkOf(seed + 100, 8192));
    assert.deepEqual(result, { ok: true, deduplicated: false });
  }
  const image = imageOf(host);
  const reopened = await openStore(new TraceHost(image));
  assert.equal(reopened.damage.length, 0);
  for (const seed of seeds) {
    const bytes = chunkOf(seed + 100, 8192);
    assert.deepEqual(await reopened.readChunk(chunkKey(bytes)), { ok: true, bytes });
    assert.equal(reopened.has(chunkKey(chunkOf(seed, 8192))), false);
  }
});

test("an index entry into an earlier use of a segment is a miss, for puts too", async () => {
  const host = new TraceHost();
  const store = await openStore(host);
  for (let seed = 0; seed < 6; seed += 1) await put(store, chunkOf(seed, 8192));
  store.checkpoint();
  await store.checkpointed();
  const kvKey = Buffer.concat([Buffer.from([1]), chunkKey(chunkOf(0, 8192))]);
  const stale = store.kv.get(kvKey)!;
  for (let seed = 0; seed < 6; seed += 1) store.dropChunk(chunkKey(chunkOf(seed, 8192)));
  store.checkpoint();
  await store.checkpointed();
  assert.equal(await store.recycle(), 1);
  store.kv.write([{ key: kvKey, value: stale }], { sync: true });
  assert.equal(store.has(chunkKey(chunkOf(0, 8192))), false);
  assert.deepEqual(await put(store, chunkOf(0, 8192)), { ok: true, deduplicated: false });
});

test("scrub finds exactly the chunks whose bytes changed", async () => {
  const host = new TraceHost();
  const store = await openStore(host);
  for (let seed = 0; seed < 12; seed += 1) await put(store, chunkOf(seed, 8192));
  const clean = await store.scrubStep(2 ** 30);
  assert.deepEqual(clean, {
    scannedBytes: 12 * 12288,
    chunksVerified: 12,
    damagedKeys: [],
    damagedRanges: [],
    finished: true,
  });
  // One flipped bit in a body, and one batch header gone.
  const file = host.files.get("log/segment-00000001")!;
  file[4096]! ^= 1;
  file[12288 + 20]! ^= 4;
  const keys: string[] = [];
  for (;;) {
    const step = await store.scrubStep(16 * KiB);
    keys.push(...step.damagedKeys.map((key) => key.toString("hex")));
    if (step.finished) break;
  }
  assert.deepEqual(keys, [chunkKey(chunkOf(0, 8192)).toString("hex")]);
  assert.equal(store.has(chunkKey(chunkOf(0, 8192))), false);
  // A damaged chunk is no duplicate: it is written again, and whole again.
  assert.deepEqual(await put(store, chunkOf(0, 8192)), { ok: true, deduplicated: false });
  const read = await store.readChunk(chunkKey(chunkOf(0, 8192)));
  assert.deepEqual(read, { ok: true, bytes: chunkOf(0, 8192) });
});

test("a chunk whose bytes changed is not given out, and counts as not stored", async () => {
  const host = new TraceHost();
  const store = await openStore(host);
  await put(store, chunkOf(1, 8192));
  host.files.get("log/segment-00000001")![4096]! ^= 1;
  const key = chunkKey(chunkOf(1, 8192));
  assert.deepEqual(await store.readChunk(key), { ok: false, fault: { code: "corrupt" } });
  assert.equal(store.has(key), false);
});

test("corruption in the middle is a fault, and both sides of it are kept", async () => {
  const host = new TraceHost();
  const store = await openStore(host);
  for (let seed = 0; seed < 4; seed += 1) await put(store, chunkOf(seed));
  for (const at of [0, 4096 + 30, 4096 + 64 + 50, 4096 + 300]) {
    const image = imageOf(host);
    image.files.get("log/segment-00000001")![at]! ^= 0x10;
    const reopened = await openStore(new TraceHost(image));
    assert.equal(reopened.damage.length, 1, `flip at ${at}`);
    assert.equal(reopened.damaged, true);
    assert.equal(reopened.cut, false);
    const seen: boolean[] = [];
    for (let seed = 0; seed < 4; seed += 1) {
      const read = await reopened.readChunk(chunkKey(chunkOf(seed)));
      if (read.ok) assert.deepEqual(read.bytes, chunkOf(seed));
      seen.push(read.ok);
    }
    // With its batch's header gone a record is still found by its own.
    const lost = at === 0 || at === 4096 + 30 ? -1 : 1;
    assert.deepEqual(
      seen,
      [0, 1, 2, 3].map((seed) => seed !== lost),
      `flip at ${at}`,
    );
  }
});

test("a torn tail is cut, and stays known until the loss is settled", async () => {
  const host = new TraceHost();
  const store = await openStore(host);
  for (let seed = 0; seed < 3; seed += 1) await put(store, chunkOf(seed));
  const image = imageOf(host);
  image.files.get("log/segment-00000001")![2 * 4096 + 300]! ^= 1;
  const secondHost = new TraceHost(image);
  const second = await openStore(secondHost);
  assert.equal(second.cut, true);
  assert.equal(second.has(chunkKey(chunkOf(2))), false);
  assert.equal(second.has(chunkKey(chunkOf(1))), true);
  // The torn batch is gone for good, and what comes after it stands elsewhere.
  const torn = secondHost.files.get("log/segment-00000001")!.subarray(2 * 4096, 3 * 4096);
  assert.ok(torn.equals(Buffer.alloc(4096)));
  await put(second, chunkOf(5));
  assert.ok(
    secondHost.files
      .get("log/segment-00000001")!
      .subarray(2 * 4096)
      .every((byte) => byte === 0),
  );
  const third = await openStore(new TraceHost(imageOf(secondHost, image)));
  assert.equal(third.cut, true);
  assert.equal(third.damage.length, 0);
  assert.equal(third.has(chunkKey(chunkOf(5))), true);
  await third.settleLoss();
  assert.equal(third.cut, false);
});
