import assert from "node:assert/strict";
import { test } from "node:test";
import { bitRot } from "./bit-rot.ts";

/** A share of what `npm run bit-rot` does. */
test("damaged pages are healed, and nothing of them is served", async () => {
  const report = await bitRot(3, 300);
  assert.ok(report.healedChunks > 20, `only ${report.healedChunks} chunks were healed`);
});
