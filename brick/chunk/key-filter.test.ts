import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { KeyFilter } from "./key-filter.ts";

const nameOf = (number: number) =>
  createHash("sha256").update(String(number)).digest().toString("latin1");

test("what was added is never denied, what was not hardly ever claimed", () => {
  const filter = new KeyFilter(20_000);
  for (let number = 0; number < 40_000; number += 1) filter.add(nameOf(number));
  assert.ok(!filter.isWorn);
  for (let number = 0; number < 40_000; number += 1) assert.ok(filter.mayHave(nameOf(number)));
  let wrong = 0;
  for (let number = 40_000; number < 60_000; number += 1) wrong += +filter.mayHave(nameOf(number));
  assert.ok(wrong > 0 && wrong < 20_000 * 0.004, `${wrong} of 20000`);
  filter.add(nameOf(1));
  assert.ok(filter.isWorn);
});
