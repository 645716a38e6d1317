import assert from "node:assert/strict";
import { test } from "node:test";
import { isRetired, keepersNeeded, liveKeys, wantedKey } from "../brick/crypt/key-domains.ts";
import { keyDomainMax } from "../brick/crypt/key-file.ts";
import { GiB } from "../brick/units.ts";
import type { Command } from "./commands.ts";
import { pendingKeyLifeMs } from "./pending-keys.ts";
import { TestCluster } from "./testing.ts";

const uuid = "ab".repeat(16);
const check = "12".repeat(16);
const nexus = { initiatorPort: "iqn.2026-11.example:a,i,0x00023d000001", targetPort: 1 };

function create(keyDomain?: number, of = uuid): Command {
  return {
    type: "createVolume",
    name: `disk-${of.slice(0, 2)}`,
    uuid: of,
    sizeBytes: GiB,
    copies: 2,
    degradedWrites: true,
    ...(keyDomain !== undefined && { keyDomain }),
  };
}

const reserve = (of = uuid): Command => ({ type: "reserveKeyDomain", uuid: of, check });
const erase = {
  type: "sanitizeStart",
  nexus,
  allowUnrestrictedExit: true,
  method: "crypto",
} as const;

function started(): TestCluster {
  const cluster = new TestCluster(3);
  if (Object.values(cluster.state.bricks).some((one) => one.unwitnessed)) {
    cluster.ok({ type: "witness" });
  }
  return cluster;
}

test("a number is given once, and the volume takes the key that was reserved for it", () => {
  const cluster = started();
  assert.equal(cluster.ok(reserve()), 1);
  assert.equal(cluster.ok(reserve("cd".repeat(16))), 2);
  assert.equal(cluster.refused(create(2)), "stale");
  assert.equal(cluster.refused(create(3)), "stale");
  cluster.ok(create(1));
  const { keyDomain, keyCheck } = cluster.state.volumes["disk-ab"]!;
  assert.deepEqual([keyDomain, keyCheck], [1, check]);
  assert.deepEqual(liveKeys(cluster.state), [{ domain: 1, uuid, check }]);
  assert.equal(wantedKey(cluster.state, 2)!.uuid, "cd".repeat(16));
  assert.equal(cluster.ok(reserve()), 3);
});

test("what nobody took in time, or was deleted, is retired; a number not given yet is not", () => {
  const cluster = started();
  cluster.ok(reserve());
  cluster.ok(reserve("cd".repeat(16)));
  cluster.ok(create(1));
  assert.deepEqual(
    [1, 2, 3].map((one) => isRetired(cluster.state, one)),
    [false, false, false],
  );
  cluster.ok({ type: "advanceTime", toMs: cluster.state.clusterTimeMs + pendingKeyLifeMs });
  assert.deepEqual(
    [1, 2, 3].map((one) => isRetired(cluster.state, one)),
    [false, true, false],
  );
  assert.equal(cluster.refused(create(2, "cd".repeat(16))), "stale");
  cluster.ok({ type: "deleteVolume", name: "disk-ab" });
  assert.equal(isRetired(cluster.state, 1), true);
});

test("only an erase gives a volume another key, and is not over before", () => {
  const cluster = started();
  cluster.ok(reserve());
  cluster.ok(create(1));
  cluster.ok(reserve());
  assert.equal(cluster.refused({ type: "rekeyVolume", uuid, keyDomain: 2 }), "no_change");
  cluster.ok({ type: "changeUnit", uuid, change: erase });
  const sanitize = () => cluster.state.units![uuid]!.sanitize;
  cluster.ok({ type: "changeUnit", uuid, change: { type: "sanitizeEnd", ok: true } });
  assert.equal(sanitize()?.state, "running");
  assert.equal(cluster.refused({ type: "rekeyVolume", uuid, keyDomain: 1 }), "stale");
  cluster.ok({ type: "rekeyVolume", uuid, keyDomain: 2 });
  assert.equal(sanitize()?.retiredKey, 1);
  assert.equal(isRetired(cluster.state, 1), true);
  cluster.ok(reserve());
  assert.equal(cluster.refused({ type: "rekeyVolume", uuid, keyDomain: 3 }), "no_change");
  cluster.ok({ type: "changeUnit", uuid, change: { type: "sanitizeEnd", ok: true } });
  assert.equal(sanitize(), null);
  assert.equal(cluster.state.volumes["disk-ab"]!.keyDomain, 2);
});

test("a volume that is not encrypted has no key to be erased", () => {
  const cluster = started();
  cluster.ok(create());
  cluster.ok({ type: "changeUnit", uuid, change: erase });
  assert.equal(cluster.state.units?.[uuid], undefined);
  assert.equal("keyDomain" in cluster.state.volumes["disk-ab"]!, false);
});

test("numbers come to an end, and are never used again", () => {
  const cluster = started();
  cluster.state = { ...cluster.state, keyDomainNext: keyDomainMax };
  assert.equal(cluster.ok(reserve()), keyDomainMax);
  assert.equal(cluster.refused(reserve()), "limit");
});

test("most bricks keep a new key, at least as many as the copies, and all of fewer than three", () => {
  const needed = [1, 2, 3, 4, 5, 7].map((count) => keepersNeeded(count, 2));
  assert.deepEqual(needed, [1, 2, 2, 3, 3, 4]);
  assert.equal(keepersNeeded(5, 4), 4);
  assert.equal(keepersNeeded(3, 4), 3);
});
