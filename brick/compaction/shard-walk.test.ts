import assert from "node:assert/strict";
import { test } from "node:test";
import { compactionOptionsDefault } from "./compaction-options.ts";
import { ShardWalk } from "./shard-walk.ts";

const options = { ...compactionOptionsDefault, idleMs: 100, walkEveryMs: 1000 };

test("a shard is walked once it was left alone, and again only after it was changed", () => {
  const walk = new ShardWalk(1, 0, options);
  assert.ok(!walk.isDue(99));
  assert.ok(walk.isDue(100));
  walk.goesOn(100);
  walk.ended();
  assert.ok(!walk.isDue(5000), "nothing has changed since");
  walk.changed(5000);
  assert.ok(!walk.isDue(5099));
  assert.ok(walk.isDue(5100));
});

test("walks keep their distance, and one that was cut short goes on before that", () => {
  const walk = new ShardWalk(1, 0, options);
  walk.goesOn(100);
  walk.changed(150);
  assert.ok(!walk.isDue(200), "initiators are back");
  assert.ok(walk.isDue(250));
  walk.ended();
  assert.ok(!walk.isDue(1099));
  assert.ok(walk.isDue(1100), "what was changed during the walk may have been passed");
});

test("what could not be rewritten is tried again", () => {
  const walk = new ShardWalk(1, 0, options);
  walk.goesOn(100);
  walk.failed();
  walk.ended();
  assert.ok(!walk.isDue(1099));
  assert.ok(walk.isDue(1100));
  walk.goesOn(1100);
  walk.ended();
  assert.ok(!walk.isDue(9000));
});
