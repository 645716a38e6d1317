import assert from "node:assert/strict";
import { test } from "node:test";
import { restMs, restMsMax } from "./pace.ts";

test("steps take their share of the time, and a short one has its pause", () => {
  assert.equal(restMs(10, 0.5, 2), 10);
  assert.equal(restMs(10, 0.25, 2), 30);
  assert.equal(restMs(0, 0.5, 2), 2);
});

test("a step that took a minute is no reason to rest for many", () => {
  assert.equal(restMs(60_000, 0.1, 2), restMsMax);
});
