import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { membersOf, offer, rest, span, stand } from "./backup-spread.test-support.ts";
import { emptyModel, event, happen, writeAll } from "./planner-model.test-support.ts";

const volumeCount = 10;
const brickCountMax = 8;

const history = fc.record({
  bricks: fc.integer({ min: 2, max: 4 }),
  more: fc.integer({ min: 0, max: brickCountMax - 4 }),
  domains: fc.array(fc.constantFrom("", "a", "b", "c"), {
    minLength: brickCountMax,
    maxLength: brickCountMax,
  }),
  sizes: fc.array(fc.integer({ min: 1, max: 4 }), {
    minLength: brickCountMax,
    maxLength: brickCountMax,
  }),
  before: fc.array(event, { maxLength: 40 }),
  gateways: fc.array(fc.nat(), { minLength: volumeCount, maxLength: volumeCount }),
  after: fc.array(event, { maxLength: 60 }),
  copies: fc.constantFrom(2, 2, 2, 3),
});

test("from any history backups come to rest, and then a reboot moves nothing", () => {
  fc.assert(
    fc.property(history, ({ bricks, more, domains, sizes, before, gateways, after, copies }) => {
      const cluster = emptyModel(bricks, volumeCount * span, span);
      const serve = () => {
        for (const [at, gateway] of gateways.entries()) {
          const up = Object.values(cluster.state.bricks).filter(({ reachable }) => reachable);
          if (up.length > 0) cluster.attach(`v${at}`, up[gateway % up.length]!.number);
        }
      };
      serve();
      for (const one of before) happen(cluster, one);
      for (let number = bricks + 1; number <= bricks + more; number += 1) cluster.join(number);
      serve();
      if (copies === 3) {
        const size = { sizeBytes: 2 ** 30, copies, degradedWrites: true };
        cluster.ok({ type: "createVolume", name: "three", uuid: "3".repeat(32), ...size });
      }
      for (const one of after) happen(cluster, one);
      for (const { number, reachable, full } of Object.values(cluster.state.bricks)) {
        if (!reachable) cluster.up(number);
        if (full) cluster.setFull(number, false);
      }
      offer(cluster, sizes, domains);
      writeAll(cluster);
      stand(cluster);
      cluster.settle();
      rest(cluster, 2 * volumeCount);
      cluster.assertWhole();
      const still = membersOf(cluster);
      for (const { number, boot } of Object.values(cluster.state.bricks)) {
        cluster.down(number);
        cluster.plan();
        writeAll(cluster);
        cluster.announce(number, boot + 1);
        offer(cluster, sizes, domains);
        cluster.settle();
        assert.equal(rest(cluster, 0), 0);
        assert.deepEqual(membersOf(cluster), still);
      }
    }),
    { numRuns: 60 },
  );
});
