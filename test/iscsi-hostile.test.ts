import assert from "node:assert/strict";
import { test } from "node:test";
import { fuzzPortal } from "../tools/fuzz/portal-fuzz-io.ts";

/** A share of `npm run fuzz -- --connections 20000`: mutated streams, half-open ones, resets. */

const connections = 800;
for (const seed of [1, Math.floor(Math.random() * 2 ** 31)]) {
  test(`${connections} hostile connections harm nobody else, seed ${seed}`, async () => {
    const { violation, coverage } = await fuzzPortal(seed, connections);
    assert.equal(violation, null);
    assert(coverage.logins > connections / 10, `${coverage.logins} logins`);
    assert(coverage.mutated > connections / 4, `${coverage.mutated} mutated PDUs`);
  });
}
