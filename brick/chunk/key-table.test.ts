import assert from "node:assert/strict";
import { test } from "node:test";
import { Prng } from "../prng.ts";
import { type Keyed, KeyTable } from "./key-table.ts";

interface Entry extends Keyed<Entry> {
  readonly value: number;
}

test("a table holds what a Map would, and what is removed leads nowhere", () => {
  const prng = new Prng(1);
  const table = new KeyTable<Entry>();
  const model = new Map<string, Entry>();
  // Few first bytes, so that buckets have several entries.
  const names = Array.from({ length: 200 }, (_, at) => {
    return String.fromCharCode(at % 7, 0) + String(at).padStart(30);
  });
  for (let step = 0; step < 5000; step += 1) {
    const name = prng.pick(names);
    const known = model.get(name);
    assert.equal(table.get(name), known);
    if (known === undefined) {
      const entry: Entry = { name, next: null, value: step };
      model.set(name, entry);
      table.add(entry);
    } else if (prng.chance(0.6)) {
      model.delete(name);
      table.remove(known);
      assert.equal(known.next, null);
    }
    assert.equal(table.size, model.size);
  }
  const all = table.clear();
  assert.deepEqual(new Set(all), new Set(model.values()));
  assert.equal(table.size, 0);
  for (const { name, next } of all) {
    assert.equal(next, null);
    assert.equal(table.get(name), undefined);
  }
});
