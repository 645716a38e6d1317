import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { PlaceCache } from "./place-cache.ts";

/** Few keys, some in one slot: the first bytes are the slot, the last tell them apart. */
const nameOf = (number: number) =>
  Buffer.alloc(32)
    .fill(number % 5, 0, 4)
    .fill(number, 4)
    .toString("latin1");

test("what it says of a key was put for that key last, and not dropped since", () => {
  const step = fc.record({
    act: fc.constantFrom("put", "drop", "get"),
    number: fc.nat(20),
    offsetBytes: fc.nat(2 ** 32 - 1),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200, size: "max" }), (steps) => {
      const cache = new PlaceCache(4);
      const model = new Map<number, number>();
      for (const { act, number, offsetBytes } of steps) {
        const name = nameOf(number);
        if (act === "put") {
          const place = { segment: number, epoch: 7, offsetBytes, lengthBytes: 512 };
          cache.put(name, { damaged: false, ...place });
          model.set(number, offsetBytes);
          assert.equal(cache.get(name)?.offsetBytes, offsetBytes);
        } else if (act === "drop") {
          cache.drop(name);
          model.delete(number);
          assert.equal(cache.get(name), undefined);
        } else {
          const entry = cache.get(name);
          if (entry === undefined) continue;
          assert.equal(entry.segment, number);
          assert.equal(entry.offsetBytes, model.get(number));
        }
      }
    }),
  );
});

test("a damaged chunk is not kept", () => {
  const cache = new PlaceCache(4);
  const place = { segment: 1, epoch: 1, offsetBytes: 0, lengthBytes: 512 };
  cache.put(nameOf(1), { damaged: true, ...place });
  assert.equal(cache.get(nameOf(1)), undefined);
});
