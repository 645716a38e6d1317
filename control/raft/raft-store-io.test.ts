import assert from "node:assert/strict";
import { test } from "node:test";
import { Prng } from "../../brick/prng.ts";
import { RaftStore, type StoreReport } from "./raft-store-io.ts";
import type { Entry, Loaded, PersistEffect } from "./raft-types.ts";
import { Medium } from "./testing.ts";
import { FakeDisk } from "./testing-disk.ts";

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

/** Work as a core would give it: dense entries, rising terms, cuts above what is committed. */
class Script {
  readonly model = new Medium();
  readonly works: PersistEffect[] = [];
  readonly #prng: Prng;
  #term = 1;
  #committed = 0;

  constructor(prng: Prng) {
    this.#prng = prng;
  }

  next(): PersistEffect {
    const prng = this.#prng;
    if (this.works.length > 0 && prng.chance(0.04)) return this.#install();
    const ticket = this.works.length + 1;
    const last = this.model.log.at(-1)?.index ?? this.model.snapshot?.index ?? 0;
    let from = last + 1;
    const newTerm = ticket === 1 || prng.chance(0.2);
    if (newTerm) {
      this.#term += 1;
      if (prng.chance(0.5)) from = prng.between(Math.min(this.#committed + 1, from), from);
    }
    const count = prng.between(1, 4);
    const entries = Array.from({ length: count }, (_, at) => this.#entry(from + at));
    const through = from + count - 1;
    const agreed = Math.min(this.#committed, last);
    this.#committed = Math.max(agreed, prng.between(agreed, through));
    const snapshots = prng.chance(0.08) && this.#committed > (this.model.snapshot?.index ?? 0);
    const work: PersistEffect = {
      type: "persist",
      ticket,
      hardState: newTerm ? { term: this.#term, votedFor: prng.between(0, 3), healing: null } : null,
      snapshot: null,
      resetsLog: false,
      cutAfterIndex: from <= last ? from - 1 : null,
      repairs: [],
      entries,
      compactThroughIndex: 0,
    };
    this.model.perform(work);
    this.works.push(work);
    if (!snapshots) return work;
    const index = this.#committed;
    const term = this.model.log.find((one) => one.index === index)!.term;
    const configuration = { voters: [1, 2, 3], learners: [] };
    const data = prng.fill(Buffer.alloc(prng.between(0, 900)));
    const snapshot = { index, term, configuration, data };
    const withSnapshot = { ...work, snapshot, compactThroughIndex: Math.max(0, index - 3) };
    this.model.perform({ ...withSnapshot, cutAfterIndex: null, entries: [] });
    this.works[ticket - 1] = withSnapshot;
    return withSnapshot;
  }

  /** A snapshot of a later leader takes the place of the log. */
  #install(): PersistEffect {
    const prng = this.#prng;
    const last = this.model.log.at(-1)?.index ?? this.model.snapshot?.index ?? 0;
    const least = Math.max(this.#committed, this.model.snapshot?.index ?? 0) + 1;
    const index = prng.between(least, Math.max(least, last) + 5);
    this.#term += 1;
    this.#committed = index;
    const configuration = { voters: [1, 2, 3], learners: [] };
    const data = prng.fill(Buffer.alloc(prng.between(0, 900)));
    const work: PersistEffect = {
      type: "persist",
      ticket: this.works.length + 1,
      hardState: { term: this.#term, votedFor: 0, healing: null },
      snapshot: { index, term: this.#term, configuration, data },
      resetsLog: true,
      cutAfterIndex: null,
      repairs: [],
      entries: [],
      compactThroughIndex: index,
    };
    this.model.perform(work);
    this.works.push(work);
    return work;
  }

  #entry(index: number): Entry {
    const payload = this.#prng.fill(Buffer.alloc(this.#prng.between(0, 700)));
    return { index, term: this.#term, kind: "command", payload };
  }
}

function modelAfter(works: readonly PersistEffect[], count: number): Loaded {
  const medium = new Medium();
  for (const work of works.slice(0, count)) medium.perform(work);
  return medium.load();
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

/** The log is as after some number of works not below `from`; the hard state may be ahead. */
function findModel(
  works: readonly PersistEffect[],
  { from, loaded }: { from: number; loaded: Loaded },
): number | null {
  for (let count = from; count <= works.length; count += 1) {
    const model = modelAfter(works, count);
    const term = loaded.hardState?.term ?? 0;
    if (term < (model.hardState?.term ?? 0)) continue;
    const last = loaded.entries.at(-1);
    const through = Math.max(model.snapshot?.index ?? 0, loaded.snapshot?.index ?? 0);
    const kept = model.entries.filter((entry) => entry.index > through);
    // Of the next work, the snapshot may be there already; with it the cut.
    const cut = works[count]?.cutAfterIndex ?? Number.POSITIVE_INFINITY;
    const isCut = through > cut;
    const expected = isCut ? kept.filter((entry) => entry.index <= cut) : kept;
    const got = loaded.entries.filter((entry) => entry.index > through);
    if ((loaded.snapshot?.index ?? 0) < (model.snapshot?.index ?? 0)) continue;
    if (last === undefined ? expected.length === 0 : same(expected, got)) return count;
  }
  return null;
}

function same(a: Loaded["entries"], b: Loaded["entries"]): boolean {
  if (a.length !== b.length) return false;
  return a.every((entry, at) => {
    const other = b[at]!;
    if (!("payload" in entry) || !("payload" in other)) return false;
    return (
      entry.index === other.index &&
      entry.term === other.term &&
      entry.payload.equals(other.payload)
    );
  });
}

function worksOf({ hardState, snapshot, entries }: Loaded): PersistEffect[] {
  if (hardState === null) return [];
  return [
    {
      type: "persist",
      ticket: 1,
      hardState,
      snapshot,
      resetsLog: false,
      cutAfterIndex: null,
      repairs: [],
      entries: entries as readonly Entry[],
      compactThroughIndex: 0,
    },
  ];
}

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
