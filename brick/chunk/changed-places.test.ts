import assert from "node:assert/strict";
import { test } from "node:test";
import { Prng } from "../prng.ts";
import type { ChunkEntry } from "../store/store-keys.ts";
import { ChangedPlaces } from "./changed-places.ts";

const prng = new Prng(1);

/** Keys of few different beginnings, so that many meet. */
function keyOf(number: number): Buffer {
  const key = Buffer.alloc(32);
  key[0] = number % 7;
  key.writeUInt32BE(number, 28);
  return key;
}

function anyEntry(): ChunkEntry | null {
  if (prng.chance(0.2)) return null;
  const word = () => prng.between(0, 2 ** 32 - 1);
  const place = { segment: word(), epoch: word(), offsetBytes: word(), lengthBytes: word() };
  return { damaged: prng.chance(0.3), ...place };
}

test("what was set last of a key is found, and all of it in the order of its coming", () => {
  const places = new ChangedPlaces();
  for (let round = 0; round < 3; round += 1) {
    const model = new Map<string, ChunkEntry | null>();
    for (let change = 0; change < 9000; change += 1) {
      const name = keyOf(prng.between(0, 5000)).toString("latin1");
      const entry = anyEntry();
      places.set(name, entry);
      model.set(name, entry);
    }
    assert.equal(places.size, model.size);
    for (let number = 0; number < 6000; number += 1) {
      const name = keyOf(number).toString("latin1");
      assert.deepEqual(places.get(name), model.get(name));
    }
    const listed = [...places].map(([key, entry]) => [key.toString("latin1"), entry]);
    assert.deepEqual(listed, [...model]);
    places.clear();
    assert.equal(places.size, 0);
    assert.equal(places.get(keyOf(1).toString("latin1")), undefined);
    assert.deepEqual([...places], []);
  }
});
