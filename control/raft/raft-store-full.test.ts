import assert from "node:assert/strict";
import { test } from "node:test";
import { Prng } from "../../brick/prng.ts";
import type { Loaded } from "./raft-types.ts";
import { FakeDisk } from "./testing-disk.ts";
import { Script } from "./testing-script.ts";
import { type Opened, openStore, settle } from "./testing-store.ts";

/** Raft's files in a file system that is full now and then. */

/** A store that waits would keep a test that failed from ending. */
function makeRoom(disk: FakeDisk): void {
  disk.isFull = false;
}

async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}

/** All that is durable is there; of snapshots the log holds, an older one may be the last. */
function checkKept(loaded: Loaded, truth: Loaded, what: string): void {
  assert.deepEqual(loaded.hardState, truth.hardState, what);
  const from = loaded.snapshot?.index ?? 0;
  const trueFrom = truth.snapshot?.index ?? 0;
  assert.ok(from <= trueFrom, what);
  if (from === trueFrom) assert.deepEqual(loaded.snapshot, truth.snapshot, what);
  const kept = loaded.entries.filter(({ index }) => index > trueFrom);
  assert.deepEqual(kept, truth.entries, what);
  assert.equal(loaded.entries[0]?.index ?? from + 1, from + 1, what);
}

test("a full disk delays what it has no room for, and loses none of it", async (context) => {
  let waited = 0;
  let skipped = 0;
  for (let seed = 1; seed <= 25; seed += 1) {
    const disk = new FakeDisk();
    context.after(() => makeRoom(disk));
    const prng = new Prng(seed);
    const script = new Script(prng);
    let opened = await openStore(disk);
    for (let at = 0; at < 60; at += 1) {
      if (prng.chance(0.1)) disk.isFull = !disk.isFull;
      const work = script.next();
      opened.store.persist(work);
      if (prng.chance(0.7)) await turns(20);
      if (opened.persisted.ticket < work.ticket && disk.isFull) waited += 1;
      if (!prng.chance(0.05)) continue;
      disk.isFull = false;
      await settle(opened, work.ticket);
      opened = await reopened(opened, disk);
      opened.persisted.ticket = work.ticket;
      const truth = script.model.load();
      checkKept(opened.loaded, truth, `seed ${seed}`);
      if (opened.loaded.snapshot?.index !== truth.snapshot?.index) skipped += 1;
      assert.deepEqual(opened.report.damage, []);
    }
    disk.isFull = false;
    await settle(opened, script.works.length);
    const { loaded } = await reopened(opened, disk);
    checkKept(loaded, script.model.load(), `seed ${seed}`);
  }
  assert.ok(waited > 20 && skipped > 1, `${waited} waited, ${skipped} snapshots were left out`);
});

async function reopened(opened: Opened, disk: FakeDisk): Promise<Opened> {
  await opened.store.close();
  return openStore(disk);
}

test("votes and entries have room in a full file system, until the zeros ahead are used up", async (context) => {
  const disk = new FakeDisk();
  context.after(() => makeRoom(disk));
  const opened = await openStore(disk);
  const script = new Script(new Prng(3));
  opened.store.persist(script.next());
  await settle(opened, 1);
  await turns(20);
  disk.isFull = true;
  const small = { ...script.next(), snapshot: null, resetsLog: false, cutAfterIndex: null };
  const [entry] = small.entries;
  const payload = Buffer.alloc(16);
  for (let ticket = 2; ; ticket += 1) {
    assert.ok(ticket < 100, "the zeros have an end");
    const entries = [{ ...entry!, index: entry!.index + ticket, payload }];
    const hardState = { term: 50 + ticket, votedFor: 2, healing: null };
    opened.store.persist({ ...small, ticket, hardState, entries });
    await turns(20);
    if (opened.persisted.ticket === ticket) continue;
    assert.ok(ticket > 8, `only ${ticket} works had room`);
    disk.isFull = false;
    await settle(opened, ticket);
    return;
  }
});

test("a store is closed while it waits for room", async (context) => {
  const disk = new FakeDisk();
  context.after(() => makeRoom(disk));
  const opened = await openStore(disk);
  const script = new Script(new Prng(4));
  disk.isFull = true;
  opened.store.persist(script.next());
  await turns(20);
  assert.equal(opened.persisted.ticket, 0);
  await opened.store.close();
  assert.equal(opened.persisted.ticket, 0);
});
