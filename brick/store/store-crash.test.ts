import assert from "node:assert/strict";
import { test } from "node:test";
import { chunkKey } from "../chunk/key.ts";
import type { Kv } from "../host.ts";
import { Prng } from "../prng.ts";
import { KiB } from "../units.ts";
import { Store, type StoreParticipant } from "./store.ts";
import { kvPrefix } from "./store-keys.ts";
import { DiskImage, TraceHost } from "./trace-disk.ts";

/**
 * Every state that a power cut could leave: a run is traced, cut at each of its disk operations
 * with several choices of which unsynced sectors arrived, and each of the states is opened. Some
 * are run on and cut again, in the middle of the restart or right after it.
 */

const identity = { clusterId: "00112233445566778899aabbccddeeff", brick: 7, uuid: "ab".repeat(16) };
const origin = { branch: 3, grain: 11, firstSector: 0, sequence: 5 };

/** What was asked of a store and what it answered, over all its lives. */
class Model {
  submittedChunks = new Map<number, number>();
  ackedChunks = new Set<number>();
  /** Given up: may be there or not. */
  dropped = new Set<number>();
  submittedRecord = 0;
  ackedRecord = 0;

  copy(): Model {
    const model = new Model();
    model.submittedChunks = new Map(this.submittedChunks);
    model.ackedChunks = new Set(this.ackedChunks);
    model.dropped = new Set(this.dropped);
    model.submittedRecord = this.submittedRecord;
    model.ackedRecord = this.ackedRecord;
    return model;
  }

  apply(mark: Mark): void {
    if (mark.type === "submitChunk") this.submittedChunks.set(mark.seed, mark.lengthBytes);
    else if (mark.type === "ackChunk") this.ackedChunks.add(mark.seed);
    else if (mark.type === "drop") this.dropped.add(mark.seed);
    else if (mark.type === "submitRecord") this.submittedRecord = mark.id;
    else this.ackedRecord = mark.id;
  }
}

type Mark =
  | { type: "submitChunk"; seed: number; lengthBytes: number }
  | { type: "ackChunk"; seed: number }
  | { type: "drop"; seed: number }
  | { type: "submitRecord"; id: number }
  | { type: "ackRecord"; id: number };

/** Records are numbered; the participant's state is the last number, and it sees every gap. */
class Counting implements StoreParticipant {
  applied = 0;
  gap = false;
  readonly #key = Buffer.from([kvPrefix.map, 1]);

  begin(kv: Kv): void {
    this.applied = kv.get(this.#key)?.readUInt32BE(0) ?? 0;
  }

  replay(record: Buffer): void {
    const id = record.readUInt32BE(0);
    if (id > this.applied + 1) this.gap = true;
    this.applied = Math.max(this.applied, id);
  }

  collect() {
    const value = Buffer.alloc(4);
    value.writeUInt32BE(this.applied);
    return [{ key: this.#key, value }];
  }

  collected(): void {}
  dirtyCount(): number {
    return 0;
  }
}

function chunkOf(seed: number, lengthBytes: number): Buffer {
  return new Prng(seed).fill(Buffer.alloc(lengthBytes));
}

async function open(host: TraceHost): Promise<{ store: Store; counting: Counting }> {
  const counting = new Counting();
  const store = await Store.open(host, {
    capacityBytes: 12 * 16 * KiB,
    segmentBytes: 16 * KiB,
    diskFloorBytes: 0,
    participants: [counting],
    identity,
  });
  return { store, counting };
}

/** Bursts of puts and records, checkpoints, drops, sweeps, compaction and recycling. */
async function work(
  host: TraceHost,
  { store, counting }: { store: Store; counting: Counting },
  prng: Prng,
  model: Model,
  bursts: number,
): Promise<void> {
  const mark = (what: Mark) => {
    model.apply(what);
    host.mark(what);
  };
  for (let burst = 0; burst < bursts; burst += 1) {
    const waiting: Promise<void>[] = [];
    for (let count = prng.between(1, 4); count > 0; count -= 1) {
      if (prng.chance(0.5)) waiting.push(putOne(store, prng, mark));
      else waiting.push(appendOne(store, counting, prng, model, mark));
    }
    if (prng.chance(0.15)) store.checkpoint();
    await Promise.all(waiting);
    if (prng.chance(0.25)) await giveUpSome(store, prng, model, mark);
  }
}

/** What garbage collection does, at times without the checkpoint that its next step waits for. */
async function giveUpSome(
  store: Store,
  prng: Prng,
  model: Model,
  mark: (what: Mark) => void,
): Promise<void> {
  const unwanted = new Set<string>();
  for (const seed of [...model.ackedChunks].slice(0, -3)) {
    // A few stay among the dead, for compaction to carry on.
    if (model.dropped.has(seed) || prng.chance(0.1)) continue;
    mark({ type: "drop", seed });
    const key = chunkKey(chunkOf(seed, model.submittedChunks.get(seed)!));
    if (prng.chance(0.5)) store.dropChunk(key);
    else unwanted.add(key.toString("hex"));
  }
  if (unwanted.size > 0) {
    store.checkpoint();
    const step = store.sweepStep(null, 1000, (key) => unwanted.has(key.toString("hex")));
    assert.equal(step.droppedChunks, unwanted.size, "a sweep finds every chunk");
  }
  if (prng.chance(0.7)) {
    let step = await store.compactStep(prng.between(4, 64) * KiB, 0.9);
    while (!step.idle && prng.chance(0.9)) step = await store.compactStep(64 * KiB, 0.9);
  }
  if (prng.chance(0.9)) store.checkpoint();
  await store.recycle();
}

function putOne(store: Store, prng: Prng, mark: (what: Mark) => void) {
  const seed = prng.uint32();
  const lengthBytes = 512 * prng.between(1, 6);
  mark({ type: "submitChunk", seed, lengthBytes });
  const bytes = chunkOf(seed, lengthBytes);
  return new Promise<void>((resolve) => {
    store.put(chunkKey(bytes), bytes, origin, (result) => {
      assert.equal(result.ok, true);
      mark({ type: "ackChunk", seed });
      resolve();
    });
  });
}

function appendOne(
  store: Store,
  counting: Counting,
  prng: Prng,
  model: Model,
  mark: (what: Mark) => void,
) {
  const id = model.submittedRecord + 1;
  mark({ type: "submitRecord", id });
  const head = Buffer.alloc(4 + prng.between(0, 300));
  head.writeUInt32BE(id);
  const seed = prng.uint32();
  const lengthBytes = 512 * prng.between(1, 3);
  const inline = prng.chance(0.5);
  const bytes = inline ? chunkOf(seed, lengthBytes) : Buffer.alloc(0);
  const chunk = inline
    ? { key: chunkKey(bytes), offsetBytes: head.length, lengthBytes, origin }
    : null;
  if (inline) mark({ type: "submitChunk", seed, lengthBytes });
  return new Promise<void>((resolve) => {
    store.appendMap([head, bytes], chunk, (ok) => {
      assert.equal(ok, true);
      counting.applied = id;
      // Inside the callbacks of a commit: it must cover this record and not the next.
      if (prng.chance(0.1)) store.checkpoint();
      mark({ type: "ackRecord", id });
      if (inline) mark({ type: "ackChunk", seed });
      resolve();
    });
  });
}

/** Nothing acknowledged is missing, nothing is there that was never asked for. */
async function verify(
  { store, counting }: { store: Store; counting: Counting },
  model: Model,
  what: string,
): Promise<void> {
  assert.equal(counting.gap, false, `${what}: a gap between records`);
  assert.ok(counting.applied >= model.ackedRecord, `${what}: record ${model.ackedRecord} is lost`);
  assert.ok(counting.applied <= model.submittedRecord, `${what}: a record nobody wrote`);
  assert.equal(store.damage.length, 0, `${what}: damage that never happened`);
  for (const [seed, lengthBytes] of model.submittedChunks) {
    const bytes = chunkOf(seed, lengthBytes);
    const read = await store.readChunk(chunkKey(bytes));
    if (read.ok) assert.ok(read.bytes.equals(bytes), `${what}: wrong bytes`);
    else assert.equal(read.fault.code, "absent", `${what}: chunk ${seed}`);
    const expected = model.ackedChunks.has(seed) && !model.dropped.has(seed);
    if (expected) assert.ok(read.ok, `${what}: chunk ${seed} is lost`);
  }
  checkTotals(store, model, what);
}

/** The totals that the space is told by are those of what is there. */
function checkTotals(store: Store, model: Model, what: string): void {
  let chunkCount = 0;
  let chunkBytes = 0;
  for (const [seed, lengthBytes] of model.submittedChunks) {
    if (!store.has(chunkKey(chunkOf(seed, lengthBytes)))) continue;
    chunkCount += 1;
    chunkBytes += lengthBytes;
  }
  const space = store.space();
  assert.deepEqual([space.chunkCount, space.chunkBytes], [chunkCount, chunkBytes], what);
  assert.ok(space.reclaimableBytes >= 0, `${what}: ${space.reclaimableBytes} reclaimable`);
}

/** What survived without an answer counts as written once a restart has shown it. */
function afterCrash(model: Model, { store, counting }: { store: Store; counting: Counting }) {
  const next = model.copy();
  for (const [seed, lengthBytes] of model.submittedChunks) {
    if (store.has(chunkKey(chunkOf(seed, lengthBytes)))) next.ackedChunks.add(seed);
  }
  next.ackedRecord = counting.applied;
  next.submittedRecord = counting.applied;
  return next;
}

function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
}

async function explore(seed: number, bursts: number) {
  const prng = new Prng(seed);
  const host = new TraceHost();
  const first = await open(host);
  await work(host, first, prng, new Model(), bursts);
  await settle();
  if (prng.chance(0.5)) await first.store.close();
  const image = new DiskImage();
  const model = new Model();
  let states = 0;
  let cut = 0;
  for (let at = 0; at < host.trace.length; at += 1) {
    const event = host.trace[at]!;
    image.note(event);
    if (event.type === "mark") {
      model.apply(event.mark as Mark);
      continue;
    }
    for (const chance of image.pendingCount === 0 ? [0] : [0, 1, 0.5, 0.9, 0.1]) {
      const what = `seed ${seed}, operation ${at}, chance ${chance}`;
      const left = image.cut(prng, chance);
      const nextHost = new TraceHost(left);
      const next = await open(nextHost);
      await verify(next, model, what);
      states += 1;
      if (next.store.cut) cut += 1;
      if (chance === 0) assert.equal(next.store.cut, false, `${what}: nothing was torn`);
      if (!prng.chance(0.3)) continue;
      // Some work in the second life; then the power goes in it, as early as in its start-up.
      const nextModel = afterCrash(model, next);
      await work(nextHost, next, prng, nextModel.copy(), prng.between(0, 3));
      await settle();
      states += await cutAgain(nextHost, left, nextModel, prng, what);
    }
  }
  const { recycledSegments, compactedBytes } = first.store.counters;
  return { states, cut, recycled: recycledSegments, compactedBytes };
}

async function cutAgain(
  host: TraceHost,
  before: DiskImage,
  model: Model,
  prng: Prng,
  what: string,
): Promise<number> {
  const image = before.copy();
  const stopAt = prng.between(0, host.trace.length);
  for (const event of host.trace.slice(0, stopAt)) {
    image.note(event);
    if (event.type === "mark") model.apply(event.mark as Mark);
  }
  for (const chance of [0, 1, 0.5]) {
    const third = await open(new TraceHost(image.cut(prng, chance)));
    await verify(third, model, `${what}; again at ${stopAt}, chance ${chance}`);
  }
  return 3;
}

const more = Number(process.env.SEEDS ?? 0);
const seeds = [1, 2, 1020, ...Array.from({ length: more }, (_, at) => 1000 + at)];
for (const seed of seeds) {
  test(`no power cut loses or invents anything, seed ${seed}`, async () => {
    const { states, cut, recycled, compactedBytes } = await explore(seed, 30);
    assert.ok(states > 600, `only ${states} states`);
    assert.ok(cut > 0, "no state has a torn tail");
    assert.ok(recycled > 0, "no segment was used twice");
    assert.ok(compactedBytes > 0, "nothing was carried to another segment");
  });
}

test("one flipped bit anywhere is noticed or harmless", async () => {
  const prng = new Prng(99);
  const host = new TraceHost();
  const first = await open(host);
  const model = new Model();
  await work(host, first, prng, model, 6);
  await settle();
  const image = new DiskImage();
  for (const event of host.trace) image.note(event);
  for (const [path, bytes] of image.files) {
    for (let at = 0; at < bytes.length; at += path.startsWith("log/") ? 61 : 9) {
      const flipped = image.copy();
      flipped.files.get(path)![at]! ^= 1 << prng.between(0, 7);
      const { store, counting } = await open(new TraceHost(flipped));
      const what = `${path} at ${at}`;
      let missing = counting.gap || counting.applied < model.ackedRecord;
      for (const seed of model.ackedChunks) {
        if (model.dropped.has(seed)) continue;
        const expected = chunkOf(seed, model.submittedChunks.get(seed)!);
        const read = await store.readChunk(chunkKey(expected));
        if (read.ok) assert.ok(read.bytes.equals(expected), what);
        else if (read.fault.code === "absent") missing = true;
      }
      if (missing) assert.ok(store.cut || store.damaged, `${what}: a silent loss`);
    }
  }
});
