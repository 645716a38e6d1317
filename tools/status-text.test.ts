import assert from "node:assert/strict";
import { test } from "node:test";
import type { BrickSummary } from "../control/api.ts";
import { levelText } from "./commands/status.ts";

const brick = (number: number, levelNewest: number) => ({ number, levelNewest }) as BrickSummary;

test("the status says for whom the feature level waits", () => {
  const text = (level: number, ...newest: number[]) =>
    levelText({ level, bricks: newest.map((one, at) => brick(at + 1, one)) });
  assert.equal(text(2, 2, 2, 2), "2, which every brick knows");
  assert.equal(text(2, 2, 0, 2), "2, which every brick knows");
  assert.equal(text(1, 2, 1, 2), "1, until all know 2: older builds on brick 2");
  assert.equal(
    text(1, 2, 0, 1),
    "1, until all know 2: older builds on brick 3; no answer from brick 2",
  );
  assert.equal(text(1, 2, 2), "1, until all know 2");
});
