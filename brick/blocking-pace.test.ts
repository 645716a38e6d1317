import assert from "node:assert/strict";
import { test } from "node:test";
import { BlockingPace } from "./blocking-pace.ts";

const options = { quickMs: 0.4 };

/** Calls that take `elapsedMs` each, at a fixed distance, for `forMs`: those that blocked, and what they lost. */
function run(pace: BlockingPace, elapsedMs: (call: number) => number, forMs: number, fromMs = 0) {
  let blocked = 0;
  let calls = 0;
  let lostMs = 0;
  for (let nowMs = fromMs; nowMs < fromMs + forMs; calls += 1) {
    const takes = elapsedMs(calls);
    if (pace.mayBlock(nowMs)) {
      blocked += 1;
      lostMs += Math.max(0, takes - options.quickMs);
      pace.took(takes);
      nowMs += takes;
    }
    nowMs += 1;
  }
  return { share: blocked / calls, lostMs };
}

test("quick calls are waited for", () => {
  assert.equal(run(new BlockingPace(options), () => 0.3, 10_000).share, 1);
});

test("a stall now and then ends nothing", () => {
  const stalls = (call: number) => (call % 1000 === 999 ? 5 : 0.2);
  assert.equal(run(new BlockingPace(options), stalls, 60_000).share, 1);
});

test("a disk that is slow as a rule is hardly waited for: a fiftieth of the time at most is lost", () => {
  for (const slowMs of [0.6, 2, 10, 50]) {
    const { share, lostMs } = run(new BlockingPace(options), () => slowMs, 60_000);
    assert.ok(lostMs <= 10 + slowMs + 60_000 / 50, `${slowMs} ms: ${lostMs} ms were lost`);
    assert.ok(share < (slowMs < 1 ? 0.2 : 0.05), `${slowMs} ms: ${share} of the calls blocked`);
  }
});

test("ten seconds after the longest stall calls may block again", () => {
  const pace = new BlockingPace(options);
  assert.ok(pace.mayBlock(0));
  pace.took(100_000);
  assert.ok(!pace.mayBlock(9_900));
  assert.ok(pace.mayBlock(10_100));
  assert.equal(run(pace, () => 0.3, 1000, 10_100).share, 1);
});

test("a call that was slow without waiting for the device ends nothing", () => {
  let waited = false;
  const pace = new BlockingPace({ ...options, mayHaveWaited: () => waited });
  pace.took(50);
  for (let call = 0; call < 100; call += 1) pace.took(1);
  assert.ok(pace.mayBlock(0));
  waited = true;
  pace.took(50);
  assert.ok(!pace.mayBlock(0));
});
