import assert from "node:assert/strict";
import { test } from "node:test";
import { CounterHistory, decodeCounter, encodeCounter } from "./counter-history.ts";

const zero = { value: 0, mark: 0 };

test("a counter tells its value and its mark, and a mixture is none", () => {
  const [one, two] = [encodeCounter({ value: 5, mark: 9 }), encodeCounter({ value: 6, mark: 10 })];
  assert.deepEqual(decodeCounter(one), { value: 5, mark: 9 });
  assert.deepEqual(decodeCounter(Buffer.alloc(512)), zero);
  assert.equal(decodeCounter(Buffer.concat([one.subarray(0, 256), two.subarray(256)])), null);
});

test("steps that follow each other, and a miscompare with a reason, are right", () => {
  const history = new CounterHistory();
  history.read(zero);
  const first = history.begin(0, 1);
  const late = history.begin(0, 2);
  first("written");
  late("miscompared");
  history.read({ value: 1, mark: 1 });
  history.begin(1, 3)("written");
  assert.deepEqual(history.violations({ value: 2, mark: 3 }), []);
});

test("an attempt of unknown outcome may have landed, and explains the miscompare of its retry", () => {
  const landed = new CounterHistory();
  landed.begin(0, 1)("unknown");
  landed.begin(0, 1)("miscompared");
  assert.deepEqual(landed.violations({ value: 1, mark: 1 }), []);
  const dropped = new CounterHistory();
  dropped.begin(0, 1)("unknown");
  dropped.begin(0, 1)("written");
  assert.deepEqual(dropped.violations({ value: 1, mark: 1 }), []);
});

test("a miscompare without a reason is false", () => {
  const alone = new CounterHistory();
  alone.begin(0, 1)("miscompared");
  assert.match(alone.violations(zero).join(), /told a miscompare while 0 was there/);
  const tooEarly = new CounterHistory();
  tooEarly.begin(0, 1)("miscompared");
  tooEarly.begin(0, 2)("written");
  assert.match(tooEarly.violations({ value: 1, mark: 2 }).join(), /1 was told a miscompare/);
});

test("a lost update shows, whether another took its place or nobody", () => {
  const both = new CounterHistory();
  both.begin(0, 1)("written");
  both.begin(0, 2)("written");
  assert.match(both.violations({ value: 1, mark: 2 }).join(), /update of 0 by 1 was lost/);
  const gone = new CounterHistory();
  gone.begin(0, 1)("written");
  assert.match(gone.violations(zero).join(), /update of 0 by 1 was lost: nobody/);
});

test("a value that flips back, was doubled, or comes from nowhere shows", () => {
  const back = new CounterHistory();
  back.begin(0, 1)("written");
  back.read({ value: 1, mark: 1 });
  assert.match(back.violations(zero).join(), /value 1 was read, but 0 is there/);
  const fork = new CounterHistory();
  fork.begin(0, 1)("written");
  fork.begin(0, 2)("unknown");
  fork.read({ value: 1, mark: 1 });
  assert.match(fork.violations({ value: 1, mark: 2 }).join(), /made by 1 and by 2/);
  const twice = new CounterHistory();
  twice.begin(0, 1)("written");
  twice.begin(0, 1)("written");
  assert.match(twice.violations({ value: 1, mark: 1 }).join(), /written twice/);
  assert.match(new CounterHistory().violations({ value: 1, mark: 4 }).join(), /made by nobody/);
});
