import assert from "node:assert/strict";
import { test } from "node:test";
import type { BrickNumber } from "../brick/units.ts";
import { peersOf } from "./peers.ts";
import { facts, TestCluster } from "./testing.ts";

const addressOf = (number: BrickNumber) => facts(number, 1).peerAddress;
const numbers = (peers: ReadonlyMap<BrickNumber, string>) => [...peers.keys()].sort();

test("a brick that reads the history of its cluster keeps the addresses of those who joined later", () => {
  const old = new TestCluster(3);
  const told = new Map([8, 9].map((number) => [number, addressOf(number)]));
  const peers = peersOf(10, old.state, told);
  assert.deepEqual(numbers(peers), [1, 2, 3, 8, 9]);
  assert.equal(peers.get(8), addressOf(8));
  // The next state is a little newer, and still knows neither.
  old.join(4);
  assert.deepEqual(numbers(peersOf(10, old.state, peers)), [1, 2, 3, 4, 8, 9]);
});

test("of bricks that a state has known, it alone tells", () => {
  const cluster = new TestCluster(4);
  const elsewhere = new Map([1, 2, 3, 4, 5].map((number) => [number, "elsewhere:1"]));
  cluster.ok({ type: "removeBrick", number: 3, emptied: false, force: true });
  const peers = peersOf(2, cluster.state, elsewhere);
  assert.deepEqual(numbers(peers), [1, 4, 5]);
  assert.equal(peers.get(1), addressOf(1));
  assert.equal(peers.get(5), "elsewhere:1");
  assert.equal(peersOf(5, cluster.state, elsewhere).has(5), false);
});
