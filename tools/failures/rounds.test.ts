import assert from "node:assert/strict";
import { test } from "node:test";
import { broken, isDisturbed, type Promised, percentile, type Round, roundsRow } from "./rounds.ts";

const strict: Promised = { pauseMsMax: 5000, refusals: "none", disconnects: false, repair: false };
const lenient: Promised = {
  pauseMsMax: null,
  refusals: "retryable",
  disconnects: true,
  repair: true,
};

function round(different: Partial<Round> = {}): Round {
  return {
    stalledMs: 0,
    pauseMs: 100,
    rejoinMs: 900,
    wholeMs: 1200,
    refusals: {},
    disconnects: 0,
    checkedBytes: 1,
    violations: [],
    copied: { repair: 0, rebalance: 0, settle: 7 },
    ...different,
  };
}

test("a promise that is kept, and each way to break one", () => {
  assert.deepEqual(broken(strict, round()), []);
  const breaks: Partial<Round>[] = [
    { pauseMs: 5001 },
    { refusals: { "status 8": 1 } },
    { refusals: { "sense 3/11/00": 1 } },
    { disconnects: 1 },
    { violations: ["sector 1 holds zeros"] },
    { copied: { repair: 1, rebalance: 0, settle: 0 } },
    { copied: { repair: 0, rebalance: 1, settle: 0 } },
    { checkedBytes: 0 },
  ];
  for (const one of breaks) assert.equal(broken(strict, round(one)).length, 1, JSON.stringify(one));
});

test("without a quorum commands may wait and be sent again, but not fail, and nothing is wrong", () => {
  const waiting = round({
    pauseMs: 60_000,
    refusals: { "status 8": 9, "status 40": 1 },
    disconnects: 3,
    copied: { repair: 1, rebalance: 1, settle: 0 },
  });
  assert.deepEqual(broken(lenient, waiting), []);
  assert.equal(broken(lenient, round({ refusals: { "sense 3/11/00": 2 } })).length, 1);
  assert.equal(broken(lenient, round({ violations: ["sector 1 holds zeros"] })).length, 1);
});

test("a row sums up its rounds", () => {
  const rounds = [1, 2, 3, 4].map((n) =>
    round({ pauseMs: n * 10, refusals: { "status 8": n, "sense 3/11/00": 1 } }),
  );
  const row = roundsRow("a", [...rounds, round({ pauseMs: 900, rejoinMs: null })]);
  assert.deepEqual(row.slice(0, 8), ["a", 5, 30, 900, 900, 4, 10, "900 / 900"]);
  assert.equal(percentile([], 50), 0);
  assert.equal(percentile([5, 1, 3], 50), 3);
});

test("a round in which the measuring process stood still does not count, but wrong data does", () => {
  assert.equal(isDisturbed(round({ stalledMs: 100 })), false);
  assert.equal(isDisturbed(round({ stalledMs: 900 })), true);
  assert.equal(isDisturbed(round({ stalledMs: 900, violations: ["sector 1"] })), false);
});
