import assert from "node:assert/strict";
import { test } from "node:test";
import { gcOf, sweepBefore } from "../../brick/gc/epochs.ts";
import { GcRace, type RaceRules, rightRules } from "./gc-race.ts";

test("no operation that races with garbage collection loses a chunk", () => {
  for (const seed of [1, 2, 3]) {
    const report = new GcRace(seed).run(150_000);
    assert.equal(report.violation, null, `seed ${seed}`);
    // What the race is for has happened.
    assert.ok(report.dropped > 1000, `only ${report.dropped} chunks dropped`);
    assert.ok(report.hits > 1000 && report.refusedAsStale > 10 && report.restarts > 10);
    assert.ok(report.epochs > 100, `only ${report.epochs} epochs`);
  }
});

/** Rules that are wrong in one way each. */
const wrong: Readonly<Record<string, Partial<RaceRules>>> = {
  "sweeps one epoch early": {
    sweepBefore: (...args) => {
      const before = sweepBefore(...args);
      return before === null ? null : before + 1;
    },
  },
  "sweeps under a new boot": {
    sweepBefore: (state, self) => sweepBefore(state, self, gcOf(state).steady[self]?.boot ?? -1),
  },
  "sweeps whatever the brick has missed": {
    sweepBefore: (state) => gcOf(state).marked - 1,
  },
  "a hit protects nothing": { stampsHits: false },
  "takes a reference however old its chunk is": { isTooOld: () => false },
  "takes a reference that is two epochs old": {
    isTooOld: (protectedIn, present) => protectedIn < present - 2,
  },
  "a walk forgets what is on its way": { marksPending: false },
  "a mark is not repeated": { marksAgain: false },
};
for (const [what, rules] of Object.entries(wrong)) {
  test(`caught: ${what}`, () => {
    for (let seed = 1; seed <= 20; seed += 1) {
      const { violation } = new GcRace(seed, { ...rightRules, ...rules }).run(200_000);
      if (violation !== null) return;
    }
    assert.fail("never caught");
  });
}
