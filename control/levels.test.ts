import assert from "node:assert/strict";
import { test } from "node:test";
import { levelOf, levelRefusal } from "../brick/feature-level.ts";
import type { Command } from "./commands.ts";
import type { Keepalive } from "./keepalive.ts";
import { levelCommand, levelTooLow } from "./levels.ts";
import { beginBook, defaultTiming, hear, strangeness } from "./membership.ts";
import { decodeSnapshot, emptyMachine, encodeSnapshot } from "./replicated-machine.ts";
import { facts, TestCluster, uuid } from "./testing.ts";

function keepalive(number: number, boot: number, newest: number | null, oldest = 1): Keepalive {
  const base = { sentMs: 0, usedBytes: 0, full: false, cut: false, discarded: false, shards: [] };
  const levels = newest === null ? {} : { levels: { oldest, newest } };
  return { ...base, ...facts(number, boot), clusterId: uuid(999), ...levels };
}

function scene() {
  const cluster = new TestCluster(3);
  const book = beginBook(defaultTiming, 0, { brick: 99, boot: 1 });
  const say = (number: number, newest: number | null, boot = 1) =>
    hear(book, number, keepalive(number, boot, newest), 0);
  return { cluster, book, say, next: () => levelCommand(book, cluster.state) };
}

const raise = { type: "raiseLevel", expect: 1 } as const;

test("the level rises once every brick has said that it knows the next", () => {
  const { say, next, cluster } = scene();
  say(1, 2);
  say(2, 2);
  assert.equal(next(), null, "brick 3 was not heard");
  say(3, null);
  assert.equal(next(), null, "brick 3 says nothing of levels");
  cluster.announce(3, 2);
  assert.equal(next(), null, "brick 3 has started anew, and was not heard since");
  say(3, 2, 2);
  assert.deepEqual(next(), raise);
  cluster.ok(raise);
  assert.equal(levelOf(cluster.state), 2);
  assert.equal(next(), null);
  assert.equal(cluster.refused(raise), "stale");
});

test("a brick that is away keeps the level where it is, until it is given up", () => {
  const { say, next, cluster } = scene();
  for (const number of [1, 2, 3]) say(number, 2);
  cluster.down(3);
  assert.equal(next(), null);
  cluster.ok({ type: "brickFailed", number: 3 });
  assert.deepEqual(next(), raise);
});

test("a brick that is older than the cluster's level is told so, and what to do", () => {
  const { cluster } = scene();
  assert.equal(strangeness(cluster.state, 1, keepalive(1, 1, null)), null);
  cluster.ok(raise);
  assert.equal(strangeness(cluster.state, 1, keepalive(1, 1, 2)), null);
  const old =
    /^brick 1 is refused: it knows feature levels up to 1, and the cluster is at level 2, .* run a newer build on it$/;
  assert.match(strangeness(cluster.state, 1, keepalive(1, 1, null))!, old);
  assert.match(strangeness(cluster.state, 1, keepalive(1, 1, 1))!, old);
  assert.match(strangeness(cluster.state, 1, keepalive(1, 1, 4, 3))!, /from 3 on/);
  assert.equal(levelRefusal(3, { oldest: 3, newest: 4 }), null);
});

test("what needs a later level is not proposed before", () => {
  const { cluster } = scene();
  const later = ({ type }: Command) => (type === "setRebalance" ? 2 : 1);
  const command = { type: "setRebalance", mode: "on" } as const;
  assert.match(levelTooLow(cluster.state, command, later)!, /^setRebalance needs feature level 2/);
  assert.equal(levelTooLow(cluster.state, raise, later), null);
  cluster.ok(raise);
  assert.equal(levelTooLow(cluster.state, command, later), null);
});

test("TAS waits until every brick knows it", () => {
  const { cluster } = scene();
  const nexus = { initiatorPort: "iqn.2026-11.example:host,i,0x000000000001", targetPort: 1 };
  const setMode = (taskAborted?: boolean): Command => {
    const mode = { descriptorSense: false, writeProtected: false, taskAborted };
    return { type: "changeUnit", uuid: uuid(1), change: { type: "setMode", nexus, mode } };
  };
  assert.match(levelTooLow(cluster.state, setMode(true))!, /^changeUnit needs feature level 2/);
  for (const off of [false, undefined]) {
    assert.equal(levelTooLow(cluster.state, setMode(off)), null);
  }
  cluster.ok(raise);
  assert.equal(levelTooLow(cluster.state, setMode(true)), null);
});

test("a snapshot of a level is refused by who knows none, and read by who does", () => {
  const { cluster } = scene();
  const of = () => encodeSnapshot({ ...emptyMachine, cluster: cluster.state });
  const versionOf = (snapshot: Buffer) => JSON.parse(snapshot.toString("utf8")).version;
  assert.equal(versionOf(of()), 1);
  cluster.ok(raise);
  const snapshot = of();
  assert.equal(versionOf(snapshot), 2);
  const decoded = decodeSnapshot(snapshot);
  assert.ok(decoded.ok);
  assert.equal(levelOf(decoded.machine.cluster), 2);
  const newer = Buffer.from(snapshot.toString("utf8").replace('"version":2', '"version":3'));
  const refused = decodeSnapshot(newer);
  assert.ok(!refused.ok && /run a newer build/.test(refused.message));
});
