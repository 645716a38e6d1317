import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { makeCluster } from "./gateway-bench.ts";
import { spaceOf, writableBytes } from "./space.ts";

test("as much can be written as leaves every copy on a brick of its own", () => {
  const free = fc.array(fc.nat(50), { maxLength: 6 });
  fc.assert(
    fc.property(free, fc.integer({ min: 1, max: 4 }), (free, copies) => {
      const fits = (bytes: number) =>
        free.reduce((sum, one) => sum + Math.min(one, bytes), 0) >= copies * bytes;
      const bytes = writableBytes(free, copies);
      assert.ok(fits(bytes) && !fits(bytes + 1), `${bytes}`);
    }),
  );
});

test("bricks that take no chunks give no room, and only those given up are no part of the pool", () => {
  const cluster = makeCluster(1);
  const { capacityBytes } = cluster.state.bricks["1"]!;
  const space = () => spaceOf(cluster.state, cluster.volume, 5);
  cluster.setBrick(1, { usedBytes: capacityBytes / 2 });
  assert.deepEqual(space(), {
    usedBytes: 5,
    freeBytes: (3.5 / 2) * capacityBytes,
    poolUsedBytes: capacityBytes / 2,
    poolBytes: 4 * capacityBytes,
  });
  cluster.setBrick(2, { status: "draining" });
  cluster.setBrick(3, { full: true });
  assert.equal(space().freeBytes, capacityBytes / 2);
  cluster.setBrick(4, { status: "failed", reachable: false });
  assert.equal(space().freeBytes, 0);
  assert.equal(space().poolBytes, 3 * capacityBytes);
});
