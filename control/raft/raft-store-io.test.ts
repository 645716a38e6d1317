import assert from "node:assert/strict";
import { test } from "node:test";
import { Prng } from "../../brick/prng.ts";
import { RaftStore, type StoreReport } from "./raft-store-io.ts";
import type { Entry, Loaded } from "./raft-types.ts";
import { Medium } from "./testing.ts";
import { FakeDisk } from "./testing-disk.ts";
import { findModel, Script, worksOf } from "./testing-script.ts";

interface Opened {
  store: RaftStore;
  loaded: Loaded;
  report: StoreReport;
  persisted: { ticket: number };
}

async function open(disk: FakeDisk): Promise<Opened> {
  const persisted = { ticket: 0 };
  const opened = await RaftStore.open({
    disk: disk.mount(),
    folder: "raft",
    onPersisted: (ticket) => {
      persisted.ticket = ticket;
    },
    onFailure: (reason) => {
      throw reason;
    },
  });
  assert(opened.ok);
  const { store, loaded, report } = opened;
  return { store, loaded, report, persisted };
}

async function settle(opened: Opened, ticket: number): Promise<void> {
  for (let turn = 0; opened.persisted.ticket < ticket; turn += 1) {
    assert(turn < 10_000, "the store answers");
    await new Promise((resolve) => setImmediate(resolve));
  }
}

async function filled(seed: number, count: number) {
  const disk = new FakeDisk();
  const prng = new Prng(seed);
  const script = new Script(prng);
  let opened = await open(disk);
  for (let at = 0; at < count; at += 1) {
    const work = script.next();
    opened.store.persist(work);
    if (prng.chance(0.7)) await settle(opened, work.ticket);
    if (prng.chance(0.05)) {
      await settle(opened, work.ticket);
      await opened.store.close();
      opened = await open(disk);
      assert.deepEqual(opened.loaded, script.model.load());
      assert.equal(opened.report.damage.length, 0);
    }
  }
  opened.store.persist(script.next());
  await settle(opened, script.works.length);
  await opened.store.close();
  return { disk, script };
}

test("what was persisted comes back, through reopenings and snapshots", async () => {
  for (let seed = 1; seed <= 30; seed += 1) {
    const { disk, script } = await filled(seed, 60);
    const { loaded, report } = await open(disk);
    assert.deepEqual(loaded, script.model.load(), `seed ${seed}`);
    assert.deepEqual(report.damage, []);
    assert.equal(report.torn, null);
  }
});

test("a power cut at any operation keeps what was acknowledged, and finds no damage", async () => {
  for (let seed = 1; seed <= 150; seed += 1) {
    const prng = new Prng(seed);
    const disk = new FakeDisk();
    const script = new Script(prng);
    let base = 0;
    for (let boot = 0; boot < 4; boot += 1) {
      const opened = await open(disk);
      const kept = script.works.slice(0, base);
      opened.persisted.ticket = base;
      const from = kept.length;
      disk.operationsLeft = prng.between(1, 120);
      for (let at = 0; at < 15; at += 1) {
        opened.store.persist(script.next());
        if (prng.chance(0.6)) await new Promise((resolve) => setImmediate(resolve));
      }
      const acknowledged = opened.persisted.ticket;
      disk.powerCut(prng);
      const { store, loaded, report } = await open(disk);
      assert.deepEqual(report.damage, [], `seed ${seed}`);
      assert.equal(report.lostThroughIndex, null);
      const found = findModel(script.works, { from: Math.max(from, acknowledged), loaded });
      assert(found !== null, `seed ${seed} boot ${boot}: what is found was never so`);
      // What was not kept never was: the story goes on from what is there.
      await store.close();
      base = found;
      script.works.length = 0;
      script.works.push(...worksOf(loaded));
      Object.assign(script.model, new Medium());
      for (const work of script.works) script.model.perform(work);
      base = script.works.length;
    }
  }
});

/** Changes the bytes in place, or gives others. */
type Harm = (bytes: Buffer, prng: Prng) => Buffer | undefined;
const harms: Record<string, Harm> = {
  "one bit": (bytes, prng) => {
    const at = prng.between(0, bytes.length - 1);
    bytes[at] = bytes[at]! ^ (1 << prng.between(0, 7));
    return undefined;
  },
  "a sector of zeros": (bytes, prng) => {
    const at = 512 * prng.between(0, Math.floor((bytes.length - 1) / 512));
    bytes.fill(0, at, Math.min(bytes.length, at + 512));
    return undefined;
  },
  "a page of junk": (bytes, prng) => {
    const at = 4096 * prng.between(0, Math.floor((bytes.length - 1) / 4096));
    prng.fill(bytes.subarray(at, at + 4096));
    return undefined;
  },
  "an end that is gone": (bytes, prng) => bytes.subarray(0, prng.between(0, bytes.length - 1)),
  "all content": () => Buffer.alloc(0),
};

for (const [name, harm] of Object.entries(harms)) {
  test(`damage of ${name} in any file is known, and nothing false is read`, async () => {
    const seen = { holes: 0, lost: 0, none: 0 };
    for (let seed = 1; seed <= 25; seed += 1) {
      const { disk, script } = await filled(seed, 40);
      const truth = script.model.load();
      const lastIndex = truth.entries.at(-1)?.index ?? truth.snapshot?.index ?? 0;
      for (let round = 0; round < 12; round += 1) {
        const prng = new Prng(seed * 1000 + round);
        const copy = disk.copy();
        const path = prng.pick([...copy.names.keys()].sort());
        const file = copy.names.get(path)!;
        if (file.content.length === 0) continue;
        file.content = harm(file.content, prng) ?? file.content;
        const { loaded, report, store } = await open(copy);
        checkHarmed({ loaded, report, truth, lastIndex, what: `seed ${seed}.${round} ${path}` });
        if (report.lostThroughIndex !== null) seen.lost += 1;
        else if (report.holes > 0) seen.holes += 1;
        else seen.none += 1;
        await healAndReopen(copy, { loaded, truth, store, lost: report.lostThroughIndex !== null });
      }
    }
    assert(seen.holes + seen.lost > 0, JSON.stringify(seen));
  });
}

function checkHarmed(found: {
  loaded: Loaded;
  report: StoreReport;
  truth: Loaded;
  lastIndex: number;
  what: string;
}): void {
  const { loaded, report, truth, lastIndex, what } = found;
  assert.equal(loaded.hardState?.term, truth.hardState?.term, what);
  assert.equal(loaded.hardState?.votedFor, truth.hardState?.votedFor, what);
  assert.equal(report.torn, null, `${what}: taken for a torn write`);
  const known = new Map(truth.entries.map((entry) => [entry.index, entry]));
  for (const entry of loaded.entries) {
    const original = known.get(entry.index);
    if (original === undefined) continue;
    // Before the end that is lost may stand what was voided there; its healing will tell.
    if (report.lostThroughIndex !== null && original.term !== entry.term) continue;
    assert.equal(entry.term, original.term, what);
    if ("payload" in entry) assert.deepEqual(entry, original, what);
  }
  const reached = loaded.entries.at(-1)?.index ?? loaded.snapshot?.index ?? 0;
  if (report.lostThroughIndex === null) assert.equal(reached, lastIndex, `${what}: silently lost`);
  else {
    assert(report.lostThroughIndex >= lastIndex, what);
    assert.deepEqual(loaded.hardState?.healing?.throughIndex, report.lostThroughIndex, what);
  }
}

/** What peers give back is kept, and damage is found once only. */
async function healAndReopen(
  disk: FakeDisk,
  at: { loaded: Loaded; truth: Loaded; store: RaftStore; lost: boolean },
): Promise<void> {
  const { loaded, truth, store, lost } = at;
  const repairs = loaded.entries.flatMap((entry) => {
    const original = truth.entries.find((one) => one.index === entry.index);
    return "payload" in entry || original === undefined ? [] : [original as Entry];
  });
  if (!lost && repairs.length > 0) {
    const { promise, resolve } = Promise.withResolvers<void>();
    const work = worksOf(truth)[0]!;
    store.persist({ ...work, hardState: null, snapshot: null, entries: [], repairs });
    setImmediate(resolve);
    await promise;
    await store.close();
  }
  const again = await open(disk);
  assert.deepEqual(again.report.damage, []);
  assert.equal(again.report.lostThroughIndex, null);
  if (lost) assert.deepEqual(again.loaded.hardState, loaded.hardState);
  else if (repairs.length > 0 || loaded.snapshot?.index === truth.snapshot?.index) {
    assert.deepEqual(again.loaded.entries.at(-1), truth.entries.at(-1));
  }
}

test("a server that lost both copies of its vote does not open", async () => {
  const { disk } = await filled(5, 10);
  for (const name of ["state-a", "state-b"]) disk.names.get(`raft/${name}`)!.content.fill(0);
  const opened = await RaftStore.open({
    disk: disk.mount(),
    folder: "raft",
    onPersisted: () => {},
    onFailure: () => {},
  });
  assert.deepEqual(opened, { ok: false, fault: { code: "hard_state_lost" } });
});

test("everything that waits is flushed at once", async () => {
  const disk = new FakeDisk();
  const opened = await open(disk);
  const script = new Script(new Prng(9));
  opened.store.persist(script.next());
  await settle(opened, 1);
  const before = disk.operationCount;
  for (let at = 0; at < 50; at += 1) {
    const work = script.next();
    opened.store.persist({ ...work, hardState: null, snapshot: null });
  }
  await settle(opened, 51);
  // The first goes alone, the other 49 together: two writes, two flushes, two marks.
  assert(disk.operationCount - before <= 8, `${disk.operationCount - before} operations`);
});
