import assert from "node:assert/strict";
import { test } from "node:test";
import { BlockingPace } from "./blocking-pace.ts";

const options = { meanMsMax: 0.4, oneMsMax: 2 };

test("quick calls are waited for, until one is slow", () => {
  const pace = new BlockingPace(options);
  for (let call = 0; call < 100; call += 1) {
    assert.ok(pace.mayBlock(call));
    pace.took(0.2, call);
  }
  pace.took(2.1, 100);
  assert.ok(!pace.mayBlock(100));
  assert.ok(!pace.mayBlock(299));
  assert.ok(pace.mayBlock(300));
});

test("calls that are slow in the mean end it, too", () => {
  const pace = new BlockingPace(options);
  let calls = 0;
  while (pace.mayBlock(0)) {
    pace.took(1, 0);
    calls += 1;
    assert.ok(calls < 100);
  }
  assert.ok(calls > 1);
});

test("a disk that stays slow is tried ever less often, and a quick one is forgiven", () => {
  const pace = new BlockingPace(options);
  let nowMs = 0;
  const pauseMs = () => {
    pace.took(50, nowMs);
    const fromMs = nowMs;
    while (!pace.mayBlock(nowMs)) nowMs += 1;
    return nowMs - fromMs;
  };
  const pauses = Array.from({ length: 8 }, pauseMs);
  assert.deepEqual(pauses, [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
  for (let call = 0; call < 1000; call += 1) pace.took(0.1, nowMs);
  assert.equal(pauseMs(), 200);
});

test("a call that was slow without waiting for the device ends nothing", () => {
  let waited = false;
  const pace = new BlockingPace({ ...options, mayHaveWaited: () => waited });
  pace.took(50, 0);
  for (let call = 0; call < 100; call += 1) pace.took(1, 0);
  assert.ok(pace.mayBlock(0));
  waited = true;
  pace.took(50, 0);
  assert.ok(!pace.mayBlock(0));
});
