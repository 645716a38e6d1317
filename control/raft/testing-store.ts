import assert from "node:assert/strict";
import { isDeepStrictEqual } from "node:util";
import { Prng } from "../../brick/prng.ts";
import { RaftStore, type StoreReport } from "./raft-store-io.ts";
import type { Loaded } from "./raft-types.ts";
import { FakeDisk } from "./testing-disk.ts";
import { Script } from "./testing-script.ts";

/** Raft's files on a disk in memory: filled by a script, opened, and examined after damage. */

/** Little enough to be used up now and then. */
const testAheadBytes = 2048;

export interface Opened {
  store: RaftStore;
  loaded: Loaded;
  report: StoreReport;
  persisted: { ticket: number };
}

export async function openStore(disk: FakeDisk): Promise<Opened> {
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
    untilAsked: () => new Promise((resolve) => setImmediate(resolve)),
    aheadBytes: testAheadBytes,
  });
  assert(opened.ok);
  const { store, loaded, report } = opened;
  return { store, loaded, report, persisted };
}

export async function settle(opened: Opened, ticket: number): Promise<void> {
  for (let turn = 0; opened.persisted.ticket < ticket; turn += 1) {
    assert(turn < 10_000, "the store answers");
    await new Promise((resolve) => setImmediate(resolve));
  }
}

/** All works of the script, and one more, are durable; now and then it was opened anew. */
export async function filledStore(seed: number, count: number) {
  const disk = new FakeDisk();
  const prng = new Prng(seed);
  const script = new Script(prng);
  let opened = await openStore(disk);
  for (let at = 0; at < count; at += 1) {
    const work = script.next();
    opened.store.persist(work);
    if (prng.chance(0.7)) await settle(opened, work.ticket);
    if (prng.chance(0.05)) {
      await settle(opened, work.ticket);
      await opened.store.close();
      opened = await openStore(disk);
      assert.deepEqual(opened.loaded, script.model.load());
      assert.equal(opened.report.damage.length, 0);
    }
  }
  opened.store.persist(script.next());
  await settle(opened, script.works.length);
  await opened.store.close();
  return { disk, script };
}

/** After damage to one file: what may be missing is said to be, and the rest is as it was. */
export function checkHarmed(found: {
  loaded: Loaded;
  report: StoreReport;
  truth: Loaded;
  what: string;
}): void {
  const { loaded, report, truth, what } = found;
  const { lostThroughIndex } = report;
  assert.equal(loaded.hardState?.term, truth.hardState?.term, what);
  assert.equal(loaded.hardState?.votedFor, truth.hardState?.votedFor, what);
  // Behind the last flush the file has zeros: what is found there is of a flush that never ended. If it
  // came there from elsewhere in the file, it is missed there, and that is said.
  const isWhole = isDeepStrictEqual(loaded.entries, truth.entries);
  const isSaid = report.damage.length > 0 && (report.holes > 0 || lostThroughIndex !== null);
  assert(report.torn === null || isWhole || isSaid, `${what}: taken for a torn write`);
  const from = loaded.snapshot?.index ?? 0;
  const trueFrom = truth.snapshot?.index ?? 0;
  assert(from <= trueFrom, `${what}: a snapshot that nobody took`);
  if (from === trueFrom) {
    assert(isDeepStrictEqual(loaded.snapshot, truth.snapshot), `${what}: another snapshot`);
  }
  const known = new Map(truth.entries.map((entry) => [entry.index, entry]));
  for (const entry of loaded.entries) {
    const original = known.get(entry.index);
    if (original === undefined) {
      // Below the newer snapshot entries were there once; what voided others may be lost.
      const mayBe = entry.index <= trueFrom || lostThroughIndex !== null;
      assert(mayBe, `${what}: entry ${entry.index} was written by nobody`);
      continue;
    }
    // Before the end that is lost may stand what was voided there; its healing will tell.
    if (lostThroughIndex !== null && original.term !== entry.term) continue;
    assert.equal(entry.term, original.term, what);
    if ("payload" in entry) assert.deepEqual(entry, original, what);
  }
  const reached = loaded.entries.at(-1)?.index ?? from;
  const lastIndex = truth.entries.at(-1)?.index ?? trueFrom;
  if (lostThroughIndex === null) assert.equal(reached, lastIndex, `${what}: silently lost`);
  else {
    assert(lostThroughIndex >= lastIndex, what);
    assert.deepEqual(loaded.hardState?.healing?.throughIndex, lostThroughIndex, what);
  }
}
