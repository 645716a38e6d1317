import assert from "node:assert/strict";
import { test } from "node:test";
import { Demand, type GarbageView } from "./demand.ts";
import { gcOptionsDefault } from "./gc-options.ts";

const rested: GarbageView = {
  nowMs: 0,
  gcEpoch: 7,
  marked: 7,
  maySweep: true,
  releasedBytes: 0,
  capacityBytes: 64_000,
  freeBytes: 60_000,
};

/** A brick that has been up for a while and swept what it found. */
function settled(): Demand {
  const demand = new Demand(gcOptionsDefault);
  assert.deepEqual(demand.look(rested), { wantedEpoch: 9, urgent: false });
  demand.swept(9);
  assert.equal(demand.look({ ...rested, gcEpoch: 9, marked: 9 }), undefined);
  return demand;
}

const later = { ...rested, gcEpoch: 9, marked: 9 };

test("after a start garbage is looked for once, then a brick at rest asks for nothing", () => {
  const demand = settled();
  assert.equal(demand.look({ ...later, nowMs: 10 * gcOptionsDefault.idleMs }), undefined);
});

test("epochs are asked for when a share of the capacity was released, or anything for long", () => {
  const demand = settled();
  assert.equal(demand.look({ ...later, releasedBytes: 999 }), undefined);
  assert.deepEqual(demand.look({ ...later, releasedBytes: 1000 }), {
    wantedEpoch: 11,
    urgent: false,
  });
  const other = settled();
  const nowMs = gcOptionsDefault.idleMs;
  assert.equal(other.look({ ...later, releasedBytes: 1, nowMs: nowMs - 1 }), undefined);
  assert.equal(other.look({ ...later, releasedBytes: 1, nowMs })?.wantedEpoch, 11);
});

test("garbage is urgent when space is short, or would be soon", () => {
  const demand = settled();
  assert.deepEqual(demand.look({ ...later, releasedBytes: 1, freeBytes: 15_999 }), {
    wantedEpoch: 11,
    urgent: true,
  });
  const other = settled();
  assert.equal(other.look({ ...later, releasedBytes: 15_000 })?.urgent, false);
  assert.equal(other.look({ ...later, releasedBytes: 15_500 })?.urgent, true);
  other.swept(11);
  const next = { ...later, gcEpoch: 11, marked: 11, releasedBytes: 16_600 };
  assert.equal(other.look(next)?.urgent, false);
});

test("what was asked for is swept before more is asked for, but for much more", () => {
  const demand = settled();
  const short = { ...later, freeBytes: 9_600 };
  assert.equal(demand.look({ ...short, releasedBytes: 10 })?.wantedEpoch, 11);
  const next = { ...short, gcEpoch: 11, marked: 11 };
  assert.equal(demand.look({ ...next, releasedBytes: 610 }), undefined);
  assert.equal(demand.look({ ...next, releasedBytes: 611 })?.wantedEpoch, 13);
  demand.swept(13);
  const swept = { ...next, gcEpoch: 13, marked: 13 };
  assert.equal(demand.look({ ...swept, releasedBytes: 612 })?.wantedEpoch, 15);
});

test("a brick that was away for part of an epoch asks for two more", () => {
  const demand = new Demand(gcOptionsDefault);
  demand.look(rested);
  const missed = { ...rested, gcEpoch: 9, marked: 9, maySweep: false };
  assert.equal(demand.look(missed)?.wantedEpoch, 11);
});

test("a deleted volume is garbage at once", () => {
  const demand = settled();
  demand.deleted(9);
  assert.deepEqual(demand.look(later), { wantedEpoch: 11, urgent: true });
});
