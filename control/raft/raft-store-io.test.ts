import assert from "node:assert/strict";
import { test } from "node:test";
import { Prng } from "../../brick/prng.ts";
import { RaftStore } from "./raft-store-io.ts";
import type { Entry, Loaded } from "./raft-types.ts";
import { Medium } from "./testing.ts";
import { FakeDisk } from "./testing-disk.ts";
import { findModel, Script, worksOf } from "./testing-script.ts";
import { checkHarmed, filledStore, openStore, settle } from "./testing-store.ts";

test("what was persisted comes back, through reopenings and snapshots", async () => {
  for (let seed = 1; seed <= 30; seed += 1) {
    const { disk, script } = await filledStore(seed, 60);
    const { loaded, report } = await openStore(disk);
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
      const opened = await openStore(disk);
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
      const { store, loaded, report } = await openStore(disk);
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
      const { disk, script } = await filledStore(seed, 40);
      const truth = script.model.load();
      for (let round = 0; round < 12; round += 1) {
        const prng = new Prng(seed * 1000 + round);
        const copy = disk.copy();
        const path = prng.pick([...copy.names.keys()].sort());
        const file = copy.names.get(path)!;
        if (file.content.length === 0) continue;
        file.content = harm(file.content, prng) ?? file.content;
        const { loaded, report, store } = await openStore(copy);
        checkHarmed({ loaded, report, truth, what: `seed ${seed}.${round} ${path}` });
        if (report.lostThroughIndex !== null) seen.lost += 1;
        else if (report.holes > 0) seen.holes += 1;
        else seen.none += 1;
        await healAndReopen(copy, { loaded, truth, store, lost: report.lostThroughIndex !== null });
      }
    }
    assert(seen.holes + seen.lost > 0, JSON.stringify(seen));
  });
}

test("what a power cut and damage take together is known: the end of the log, and a mark of it", async () => {
  let lost = 0;
  for (let seed = 1; seed <= 200; seed += 1) {
    const prng = new Prng(seed);
    const { disk, script } = await filledStore(seed, prng.between(3, 40));
    const truth = script.model.load();
    disk.powerCut(prng);
    const newest = [...disk.names.keys()].filter((name) => name.startsWith("raft/log-")).sort();
    const { content } = disk.names.get(newest.at(-1)!)!;
    const end = content.findLastIndex((byte) => byte !== 0) + 1;
    content.fill(0xa5, Math.max(0, end - prng.between(1, 2000)), end);
    if (prng.chance(0.5)) {
      const tail = disk.names.get("raft/tail")!.content;
      for (const at of [0, 512]) if (prng.chance(0.5) && tail.length > at + 9) tail[at + 9]! ^= 1;
    }
    const { loaded, report, store } = await openStore(disk);
    checkHarmed({ loaded, report, truth, what: `seed ${seed}` });
    if (report.lostThroughIndex !== null) lost += 1;
    await store.close();
  }
  assert.ok(lost > 20, `${lost} times was something lost`);
});

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
  const again = await openStore(disk);
  assert.deepEqual(again.report.damage, []);
  assert.equal(again.report.lostThroughIndex, null);
  if (lost) assert.deepEqual(again.loaded.hardState, loaded.hardState);
  else if (repairs.length > 0 || loaded.snapshot?.index === truth.snapshot?.index) {
    assert.deepEqual(again.loaded.entries.at(-1), truth.entries.at(-1));
  }
}

test("a server that lost both copies of its vote does not open", async () => {
  const { disk } = await filledStore(5, 10);
  for (const name of ["state-a", "state-b"]) disk.names.get(`raft/${name}`)!.content.fill(0);
  const opened = await RaftStore.open({
    disk: disk.mount(),
    folder: "raft",
    onPersisted: () => {},
    onFailure: () => {},
    untilAsked: () => Promise.reject(new Error("there is room")),
  });
  assert.deepEqual(opened, { ok: false, fault: { code: "hard_state_lost" } });
});

test("everything that waits is flushed at once", async () => {
  const disk = new FakeDisk();
  const opened = await openStore(disk);
  const script = new Script(new Prng(9));
  opened.store.persist(script.next());
  await settle(opened, 1);
  const before = disk.operationCount;
  for (let at = 0; at < 50; at += 1) {
    const work = script.next();
    opened.store.persist({ ...work, hardState: null, snapshot: null });
  }
  await settle(opened, 51);
  // The first goes alone, the other 49 together: two writes, two marks, and a flush of each.
  assert(disk.operationCount - before <= 10, `${disk.operationCount - before} operations`);
});
