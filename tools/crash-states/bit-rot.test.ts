import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";
import { bitRot } from "./bit-rot.ts";
import { indexRot } from "./index-rot.ts";
import { raftRot } from "./raft-rot.ts";

/** A share of what `npm run bit-rot` does. */
test("damaged pages are healed, and nothing of them is served", async () => {
  const report = await bitRot(3, 300);
  assert.ok(report.healedChunks > 20, `only ${report.healedChunks} chunks were healed`);
});

test("a damaged file of the index is refused, or everything is known", async () => {
  const folder = mkdtempSync(path.join(tmpdir(), "endisk-rot-"));
  try {
    const report = await indexRot({ seed: 1, damagesMin: 60, folder });
    assert.ok(report.refused > 0 && report.whole > 0, JSON.stringify(report));
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("of Raft's damaged files nothing is taken for what was acknowledged, and no loss is silent", async () => {
  const { damages, whole, holes, lost } = await raftRot(7, 1500);
  assert.equal(whole + holes + lost, damages, "one damage takes no vote");
  assert.ok(whole > 0 && holes > 0 && lost > 0);
});
