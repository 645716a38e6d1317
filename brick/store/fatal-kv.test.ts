import assert from "node:assert/strict";
import { test } from "node:test";
import type { Host, Kv } from "../host.ts";
import { FatalKv } from "./fatal-kv.ts";

const fails = () => {
  throw new Error("the disk does not answer");
};
const broken: Kv = {
  get: fails,
  getMany: fails,
  write: fails,
  writeLater: fails,
  range: fails,
  hasFailed: () => false,
  unflushedBytes: () => 0,
  reopen: fails,
  close: async () => {},
};
const key = Buffer.from("key");

test("a failure of the index stops a brick that has started, and fails the start of one that has not", () => {
  let stopped = 0;
  const crash = (): never => {
    stopped += 1;
    throw new Error("stopped");
  };
  const kv = new FatalKv({ crash } as unknown as Host, broken);
  const calls = [
    () => kv.get(key),
    () => kv.getMany([key]),
    () => kv.write([], { sync: true }),
    () => kv.writeLater([], () => {}),
    () => kv.range(key, key, 1),
    () => kv.reopen(),
  ];
  for (const call of calls) assert.throws(call, /does not answer/);
  assert.equal(stopped, 0);
  kv.start();
  for (const call of calls) assert.throws(call, /stopped/);
  assert.equal(stopped, 6);
});
