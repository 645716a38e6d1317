import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { type HeldRange, RangeLock } from "./range-lock.ts";

const kinds = ["read", "wholeRead", "write", "wholeWrite"] as const;
type Kind = (typeof kinds)[number];

interface Tracked {
  kind: Kind;
  start: number;
  end: number;
  granted: boolean;
  released: boolean;
  range: HeldRange | null;
}

const step = fc.oneof(
  fc.record({
    kind: fc.constantFrom(...kinds),
    start: fc.nat(20),
    length: fc.integer({ min: 1, max: 6 }),
  }),
  fc.record({ kind: fc.constant("release" as const), pick: fc.nat(1000) }),
);

/** Whether a command waits for another one that came before it. */
function waitsFor(one: Tracked, other: Tracked): boolean {
  if (other.kind === "wholeRead") return one.kind === "wholeWrite";
  return other.kind !== "read";
}

test("overlapping commands run in order of arrival; nothing waits without a cause", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 80, size: "max" }), (steps) => {
      const lock = new RangeLock();
      const all: Tracked[] = [];
      const blocked = (one: Tracked) =>
        all
          .slice(0, all.indexOf(one))
          .some(
            (other) =>
              waitsFor(one, other) &&
              !other.released &&
              other.start < one.end &&
              one.start < other.end,
          );
      for (const { kind, ...rest } of steps) {
        if ("pick" in rest) {
          const held = all.filter((one) => one.range && one.granted && !one.released);
          const one = held[rest.pick % (held.length || 1)];
          if (one === undefined) continue;
          one.released = true;
          lock.release(one.range!);
        } else {
          const one: Tracked = {
            kind: kind as Kind,
            start: rest.start,
            end: rest.start + rest.length,
            granted: false,
            released: false,
            range: null,
          };
          const granted = () => {
            assert.equal(one.granted, false);
            one.granted = true;
          };
          all.push(one);
          if (kind !== "read") {
            one.range =
              kind === "wholeRead"
                ? lock.readWhole(one.start, one.end, granted)!
                : lock.write(one.start, one.end, granted, kind === "wholeWrite")!;
            if (one.range.blockers === 0) one.granted = true;
          } else if (lock.read(one.start, one.end, granted)) one.granted = true;
        }
        for (const one of all) {
          if (!one.released) assert.equal(one.granted, !blocked(one) || one.granted);
          if (!one.released && !one.granted) assert.ok(blocked(one));
        }
        const writes = all.filter(
          (one) => one.kind.endsWith("rite") && one.granted && !one.released,
        );
        for (const a of writes) {
          for (const b of writes) {
            if (a !== b) assert.ok(a.end <= b.start || b.end <= a.start);
          }
        }
      }
    }),
  );
});

test("a waiting write that gives up lets the ones behind it pass", () => {
  const lock = new RangeLock();
  const first = lock.write(0, 10, () => {})!;
  const second = lock.write(5, 15, () => assert.fail("released before its turn"))!;
  let third = false;
  lock.write(12, 20, () => {
    third = true;
  });
  assert.equal(second.blockers, 1);
  lock.release(second);
  assert.equal(third, true);
  lock.release(first);
  assert.equal(lock.waitingCount, 0);
});
