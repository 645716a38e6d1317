import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { openSimKv, SimKvStore } from "../../tools/sim/sim-kv.ts";
import type { Kv } from "../host.ts";
import { Prng } from "../prng.ts";
import { encodeGrain, type Grain } from "./grain.ts";
import { MapTable } from "./map-table.ts";
import { type GrainKey, MapTableError, type TableKind } from "./map-table-keys.ts";

const kinds = ["base", "overlay"] as const;
const big = 2 ** 37 - 2;

function kvOf(store: SimKvStore): Kv {
  return openSimKv(store, {
    dials: { kvErrorChance: 0 },
    prng: new Prng(1),
    guard: () => {},
    hasRoom: () => true,
    later: setImmediate,
  });
}

/** A record that tells its op, and is large enough for the byte bound to matter. */
function record(op: number): Grain {
  const key = Buffer.alloc(32, 1 + (op % 255));
  const chunk = { chunkSector: 0, chunkSectors: 1, key, holders: [1, 2] };
  const extents = [0, 5, 9].slice(0, op % 4).map((firstSector) => ({ firstSector, ...chunk }));
  return { op, extents: extents.map((extent) => ({ ...extent, sectorCount: 1 })) };
}

/** Everything the table should hold, by a name of its place; all bricks' shards are 7 and 8. */
class Model {
  readonly records = new Map<string, Grain>();
  readonly states = new Map<number, Buffer>();
  readonly notes = new Map<string, Buffer>();

  static place(kind: TableKind, shard: number, incarnation: number, key: GrainKey): string {
    return [kind, shard, incarnation, key.branch, key.grain, key.generation].join(" ");
  }

  /** The records of one table in order of branch, grain, newest generation first. */
  table(kind: TableKind, shard: number, incarnation: number): (GrainKey & { value: Grain })[] {
    const found: (GrainKey & { value: Grain })[] = [];
    for (const [place, value] of this.records) {
      const [itsKind, ...rest] = place.split(" ");
      const [itsShard, itsIncarnation, branch, grain, generation] = rest.map(Number);
      if (itsKind !== kind || itsShard !== shard || itsIncarnation !== incarnation) continue;
      found.push({ branch: branch!, grain: grain!, generation: generation!, value });
    }
    return found.sort(
      (a, b) => a.branch - b.branch || a.grain - b.grain || b.generation - a.generation,
    );
  }
}

// Mostly few places, so that changes meet.
const kind = fc.constantFrom("base" as const, "base" as const, ...kinds);
const shard = fc.constantFrom(7, 7, 7, 8);
const incarnation = fc.constantFrom(1, 1, 1, 2 ** 32 - 1);
const key = fc.record({
  branch: fc.constantFrom(1, 1, 1, 1, 2, 2 ** 48 - 1),
  grain: fc.oneof({ weight: 6, arbitrary: fc.nat(5) }, fc.constantFrom(big, big + 1)),
  generation: fc.constantFrom(0, 1, 1, 1, 2, 2, 2 ** 32 - 1),
});
const place = fc.record({ kind, shard, incarnation, key });

const step = fc.oneof(
  { weight: 12, arbitrary: place.map((at) => ({ type: "put" as const, ...at })) },
  { weight: 5, arbitrary: place.map((at) => ({ type: "remove" as const, ...at })) },
  { weight: 6, arbitrary: place.map((at) => ({ type: "get" as const, ...at })) },
  {
    weight: 3,
    arbitrary: fc.record({
      type: fc.constant("scan" as const),
      ...{ kind, shard, incarnation },
      limit: fc.constantFrom(1, 2, 3, 7, 50),
      /** A change in the middle of the scan. */
      between: fc.option(place),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      type: fc.constant("lookup" as const),
      ...{ shard, incarnation, key },
      count: fc.integer({ min: 1, max: 8 }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ type: fc.constant("state" as const), shard, gone: fc.boolean() }),
  },
  { weight: 1, arbitrary: fc.record({ type: fc.constant("note" as const), gone: fc.boolean() }) },
  {
    weight: 3,
    arbitrary: fc.constantFrom({ type: "collect" as const }, { type: "write" as const }),
  },
  { weight: 3, arbitrary: fc.constant({ type: "collected" as const }) },
  { weight: 1, arbitrary: fc.constant({ type: "reopen" as const }) },
  { weight: 1, arbitrary: fc.constant({ type: "sweep" as const }) },
);

type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

class Trial {
  readonly store = new SimKvStore();
  readonly model = new Model();
  table = this.open();
  handedOut: ReturnType<MapTable["collect"]> | null = null;
  /** What sweeps ended; never used again. */
  readonly ended = new Set<string>();
  op = 0;

  open(): MapTable {
    const table = new MapTable({ cacheEntriesMax: 6, cacheBytesMax: 1500 });
    table.attach(kvOf(this.store));
    return table;
  }

  keep(): void {
    this.handedOut ??= this.table.collect();
    kvOf(this.store).write(this.handedOut, { sync: true });
    this.table.collected();
    this.handedOut = null;
  }

  put(kind: TableKind, shard: number, incarnation: number, key: GrainKey, remove: boolean): void {
    if (this.ended.has(`${shard} ${incarnation}`)) return;
    const grain = remove ? null : record((this.op += 1));
    this.table.put(kind, shard, incarnation, key, grain);
    const place = Model.place(kind, shard, incarnation, key);
    if (grain === null) this.model.records.delete(place);
    else this.model.records.set(place, grain);
  }

  take(step: Step): void {
    const { table, model } = this;
    switch (step.type) {
      case "put":
      case "remove":
        this.put(step.kind, step.shard, step.incarnation, step.key, step.type === "remove");
        return;
      case "get": {
        if (this.ended.has(`${step.shard} ${step.incarnation}`)) return;
        const { kind, shard, incarnation, key } = step;
        const place = Model.place(kind, shard, incarnation, key);
        assert.deepEqual(table.get(kind, shard, incarnation, key), model.records.get(place));
        return;
      }
      case "scan":
        this.scan(step);
        return;
      case "lookup":
        this.lookup(step);
        return;
      case "state": {
        const state = Buffer.from(`state ${(this.op += 1)}`);
        table.putState(step.shard, step.gone ? null : state);
        if (step.gone) model.states.delete(step.shard);
        else model.states.set(step.shard, state);
        return;
      }
      case "note": {
        const note = Buffer.from(`note ${(this.op += 1)}`);
        table.putNote("a", step.gone ? null : note);
        if (step.gone) model.notes.delete("a");
        else model.notes.set("a", note);
        return;
      }
      case "collect":
        this.handedOut = table.collect();
        return;
      case "write":
        if (this.handedOut !== null) kvOf(this.store).write(this.handedOut, { sync: true });
        return;
      case "collected":
        if (this.handedOut !== null) this.keep();
        return;
      case "reopen":
        this.keep();
        this.keep();
        assert.equal(table.dirtyCount(), 0);
        this.table = this.open();
        return;
      case "sweep":
        this.sweep();
        return;
    }
  }

  scan(step: Step & { type: "scan" }): void {
    const { kind, shard, incarnation, limit, between } = step;
    if (this.ended.has(`${shard} ${incarnation}`)) return;
    const before = this.model.table(kind, shard, incarnation);
    const seen: (GrainKey & { value: Grain })[] = [];
    let after: GrainKey | null = null;
    for (let page = 0; ; page += 1) {
      const { entries, done } = this.table.scan(kind, shard, incarnation, after, limit);
      assert(entries.length <= limit && (done || entries.length === limit));
      for (const { bytes, ...entry } of entries) {
        assert.deepEqual(bytes, encodeGrain(entry.value));
        seen.push(entry);
      }
      if (done) break;
      const { branch, grain, generation } = entries.at(-1)!;
      after = { branch, grain, generation };
      if (page === 0 && between !== null) {
        this.put(between.kind, between.shard, between.incarnation, between.key, false);
      }
    }
    if (between === null) assert.deepEqual(seen, before);
    // A change in between is seen or not, and nothing else is missed or doubled.
    const rest = this.model.table(kind, shard, incarnation);
    const name = (entry: GrainKey) => `${entry.branch} ${entry.grain} ${entry.generation}`;
    const steady = new Set(before.map(name));
    const other = seen.filter((entry) => steady.has(name(entry)));
    assert.deepEqual(other.map(name), before.map(name));
    const allowed = new Set(rest.map(name));
    assert(seen.every((entry) => allowed.has(name(entry))));
  }

  lookup(step: Step & { type: "lookup" }): void {
    const { shard, incarnation, key, count } = step;
    if (this.ended.has(`${shard} ${incarnation}`)) return;
    const { branch, grain, generation } = key;
    const expected = new Map<number, Grain>();
    for (const entry of this.model.table("base", shard, incarnation)) {
      if (entry.branch !== branch || entry.generation > generation) continue;
      if (entry.grain < grain || entry.grain >= grain + count) continue;
      if (!expected.has(entry.grain)) expected.set(entry.grain, entry.value);
    }
    const found = this.table.lookup(shard, incarnation, branch, grain, count, generation);
    assert.deepEqual(
      found,
      [...expected].map(([grain, value]) => ({ grain, value })),
    );
  }

  sweep(): void {
    const isLive = (shard: number, incarnation: number) => shard !== 8 || incarnation !== 1;
    this.ended.add("8 1");
    for (const kind of kinds) {
      for (const entry of this.model.table(kind, 8, 1)) {
        this.model.records.delete(Model.place(kind, 8, 1, entry));
      }
    }
    assert(this.table.sweep(isLive, 2) <= 2);
    this.keep();
    this.keep();
    for (let round = 0; round < 40; round += 1) this.table.sweep(isLive, 2);
    this.keep();
    const prefixes = kinds.map((_, index) => Buffer.from([2, index + 1, 0, 8, 0, 0, 0, 1]));
    for (const prefix of prefixes) {
      const end = Buffer.concat([prefix, Buffer.alloc(17, 0xff)]);
      assert.deepEqual(kvOf(this.store).range(prefix, end, 10), []);
    }
  }

  check(): void {
    const { model, table } = this;
    const states = [...model.states].map(([shard, state]) => ({ shard, state }));
    assert.deepEqual(
      table.states(),
      states.sort((a, b) => a.shard - b.shard),
    );
    for (const shard of [7, 8]) assert.deepEqual(table.getState(shard), model.states.get(shard));
    assert.deepEqual(table.getNote("a"), model.notes.get("a"));
  }
}

test("the table does what a plain map does, whatever has been collected", () => {
  fc.assert(
    fc.property(fc.array(step, { minLength: 20, maxLength: 120 }), (steps) => {
      const trial = new Trial();
      for (const step of steps) {
        trial.take(step);
        trial.check();
      }
      trial.take({ type: "reopen" });
      trial.check();
      for (const kind of kinds) {
        for (const shard of [7, 8] as const) {
          for (const incarnation of [1, 2 ** 32 - 1]) {
            trial.scan({ type: "scan", kind, shard, incarnation, limit: 3, between: null });
          }
        }
      }
    }),
    { numRuns: 300 },
  );
});

test("a change put after collecting is handed out again", () => {
  const store = new SimKvStore();
  const table = new MapTable();
  table.attach(kvOf(store));
  const key = { branch: 1, grain: 2, generation: 3 };
  table.put("base", 1, 1, key, record(1));
  const first = table.collect();
  table.put("base", 1, 1, key, record(2));
  kvOf(store).write(first, { sync: true });
  table.collected();
  assert.deepEqual(
    table.collect().map(({ value }) => value),
    [encodeGrain(record(2))],
  );
  // Not confirmed, so handed out once more.
  assert.equal(table.collect().length, 1);
  table.collected();
  assert.deepEqual(table.collect(), []);
});

test("keys sort by branch, grain and newest generation, and stay as they are", () => {
  const table = new MapTable();
  table.attach(kvOf(new SimKvStore()));
  const key = { branch: 0x010203040506, grain: 0x0708090a0b0c, generation: 1 };
  table.put("overlay", 0x1122, 0x33445566, key, record(0));
  table.putState(0x1122, Buffer.from("s"));
  table.putNote("gc", Buffer.from("n"));
  assert.deepEqual(
    table.collect().map(({ key }) => key.toString("hex")),
    ["0202112233445566010203040506" + "0708090a0b0cfffffffe", "02031122", "02046763"],
  );
});

test("a damaged record is never taken for an absent one", () => {
  const store = new SimKvStore();
  const table = new MapTable();
  table.attach(kvOf(store));
  const key = { branch: 1, grain: 1, generation: 1 };
  table.put("base", 1, 1, key, record(1));
  const changes = table.collect();
  for (const { value } of changes) value![0] = 9;
  kvOf(store).write(changes, { sync: true });
  const reopened = new MapTable();
  reopened.attach(kvOf(store));
  assert.throws(() => reopened.lookup(1, 1, 1, 0, 4, 1), MapTableError);
  assert.throws(() => reopened.scan("base", 1, 1, null, 4), MapTableError);
  assert.throws(() => reopened.get("base", 1, 1, key), MapTableError);
});

function keep(table: MapTable, store: SimKvStore): void {
  kvOf(store).write(table.collect(), { sync: true });
  table.collected();
}

test("a scan of many changes in memory goes on where it ended", () => {
  const table = new MapTable();
  table.attach(kvOf(new SimKvStore()));
  const grains = [...new Array(50).keys()].map((index) => (index * 37) % 50);
  for (const grain of grains) {
    table.put("base", 1, 1, { branch: 1, grain, generation: 1 }, record(grain));
  }
  const seen: number[] = [];
  let after: GrainKey | null = null;
  for (let done = false; !done; ) {
    const page = table.scan("base", 1, 1, after, 2);
    for (const { grain } of page.entries) seen.push(grain);
    after = page.entries.at(-1) ?? after;
    done = page.done;
  }
  assert.deepEqual(
    seen,
    grains.sort((a, b) => a - b),
  );
});

test("a look-up takes the newest generation, wherever it is", () => {
  const store = new SimKvStore();
  const before = new MapTable();
  before.attach(kvOf(store));
  for (let generation = 1; generation <= 60; generation += 1) {
    for (const grain of [4, 5]) {
      before.put("base", 1, 1, { branch: 1, grain, generation }, record(generation));
    }
  }
  keep(before, store);
  const table = new MapTable();
  table.attach(kvOf(store));
  // In memory: an older one of grain 4, and the newest of grain 5 removed.
  table.put("base", 1, 1, { branch: 1, grain: 4, generation: 3 }, record(100));
  table.put("base", 1, 1, { branch: 1, grain: 5, generation: 60 }, null);
  const ops = (generation: number) =>
    table.lookup(1, 1, 1, 3, 4, generation).map(({ grain, value }) => [grain, value.op]);
  assert.deepEqual(ops(60), [
    [4, 60],
    [5, 59],
  ]);
  assert.deepEqual(ops(3), [
    [4, 100],
    [5, 3],
  ]);
  assert.deepEqual(ops(0), []);
});

test("a place that the cache has just let go takes changes again", () => {
  const store = new SimKvStore();
  const table = new MapTable({ cacheEntriesMax: 4 });
  table.attach(kvOf(store));
  for (let grain = 0; grain < 40; grain += 1) {
    table.put("base", 1, 1, { branch: 1, grain, generation: 1 }, record(grain));
  }
  const other = { branch: 2, grain: 0, generation: 1 };
  assert.equal(table.get("base", 1, 1, other), undefined);
  keep(table, store);
  table.put("base", 1, 1, other, record(41));
  assert.deepEqual(table.scan("base", 1, 1, { ...other, branch: 1, grain: 39 }, 5).entries, [
    { ...other, value: record(41), bytes: encodeGrain(record(41)) },
  ]);
});
