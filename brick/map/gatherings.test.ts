import assert from "node:assert/strict";
import { test } from "node:test";
import { Gatherings } from "./gatherings.ts";

/** Gatherings that end when the test says so, and how many were begun. */
function begin() {
  const gatherings = new Gatherings();
  const ends: ((made: boolean) => void)[] = [];
  const ask = (view: number, plan: string) =>
    gatherings.gather(7, view, Buffer.from(plan), () => {
      const { promise, resolve } = Promise.withResolvers<boolean>();
      ends.push(resolve);
      return promise;
    });
  return { gatherings, ends, ask };
}

test("a union that is asked for again is gathered once, and told once more when it is", async () => {
  const { ends, ask } = begin();
  const asked = [ask(3, "plan"), ask(3, "plan")];
  assert.equal(ends.length, 1);
  ends[0]!(true);
  assert.deepEqual(await Promise.all([...asked, ask(3, "plan")]), [true, true, true]);
  assert.equal(ends.length, 1);
});

test("while one union is gathered no other is", async () => {
  const { ends, ask } = begin();
  const first = ask(3, "plan");
  assert.equal(await ask(3, "another"), false);
  ends[0]!(true);
  await first;
  const other = ask(3, "another");
  ends[1]!(true);
  assert.equal(await other, true);
});

test("a union that could not be gathered is tried again", async () => {
  const { ends, ask } = begin();
  const first = ask(3, "plan");
  ends[0]!(false);
  assert.equal(await first, false);
  const again = ask(3, "plan");
  assert.equal(ends.length, 2);
  ends[1]!(true);
  assert.equal(await again, true);
});

test("what was gathered is forgotten once its view has begun", async () => {
  const { gatherings, ends, ask } = begin();
  const first = ask(3, "plan");
  ends[0]!(true);
  await first;
  gatherings.begun(7, 2);
  assert.equal(await ask(3, "plan"), true);
  assert.equal(ends.length, 1);
  gatherings.begun(7, 3);
  void ask(3, "plan");
  assert.equal(ends.length, 2);
});
