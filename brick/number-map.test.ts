import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { NumberMap } from "./number-map.ts";
import { Prng } from "./prng.ts";

describe("a map from numbers", () => {
  it("does what a Map does, in the same order", () => {
    for (let seed = 1; seed <= 40; seed += 1) {
      const prng = new Prng(seed);
      const map = new NumberMap<number>();
      const model = new Map<number, number>();
      const span = [10, 200, 2 ** 33, Number.MAX_SAFE_INTEGER][seed % 4]!;
      const known: number[] = [];
      for (let step = 0; step < 3000; step += 1) {
        const again = known.length > 0 && prng.chance(0.6);
        const key = again ? prng.pick(known) : Math.floor(prng.unit() * span);
        known.push(key);
        const grows = Math.floor(step / 500) % 2 === 0;
        if (prng.chance(grows ? 0.7 : 0.3)) {
          map.set(key, step);
          model.set(key, step);
        } else assert.equal(map.delete(key), model.delete(key));
        assert.equal(map.size, model.size);
        assert.equal(map.get(key), model.get(key));
        assert.equal(map.has(key), model.has(key));
        if (step % 100 === 0) {
          assert.deepEqual([...map], [...model]);
          assert.deepEqual([...map.keys()], [...model.keys()]);
          assert.deepEqual([...map.values()], [...model.values()]);
        }
        if (step === 2000) {
          map.clear();
          model.clear();
        }
      }
      for (const key of known) assert.equal(map.get(key), model.get(key));
    }
  });

  it("may lose keys while it is gone through", () => {
    const map = new NumberMap<string>();
    for (let key = 0; key < 100; key += 1) map.set(key, `${key}`);
    const seen: number[] = [];
    for (const [key] of map) {
      seen.push(key);
      map.delete(key);
      map.delete(key + 1);
    }
    assert.deepEqual(
      seen,
      Array.from({ length: 50 }, (_, at) => 2 * at),
    );
    assert.equal(map.size, 0);
  });

  it("keeps keys that share the low bits apart", () => {
    const map = new NumberMap<number>();
    for (let at = 0; at < 1000; at += 1) map.set(at * 2 ** 32 + 7, at);
    for (let at = 0; at < 1000; at += 1) assert.equal(map.get(at * 2 ** 32 + 7), at);
    assert.equal(map.get(7 + 2 ** 31), undefined);
  });
});
