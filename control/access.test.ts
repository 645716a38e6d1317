import assert from "node:assert/strict";
import { test } from "node:test";
import type { ChapRecord } from "../brick/cluster-state.ts";
import {
  type Admission,
  admission,
  commonLuns,
  discoveryProof,
  isLoopback,
  redirectTarget,
} from "./access.ts";
import { initiatorsMax } from "./access-commands.ts";
import { TestCluster, uuid } from "./testing.ts";

const prover = "iqn.2026-11.example:prover";
const namely = "iqn.2026-11.example:by-name-alone";
const stranger = "iqn.2026-11.example:stranger";

function chapOf(fingerprint: number, mutual: number | null = null): ChapRecord {
  const secret = (one: number) => ({ sealed: "00", fingerprint: uuid(one) });
  return {
    user: "user",
    secret: secret(fingerprint),
    weakest: "sha256",
    mutual: mutual === null ? null : { user: "target", secret: secret(mutual) },
  };
}

function clusterWith(...names: string[]): TestCluster {
  const cluster = new TestCluster(2);
  for (const [index, name] of names.entries()) {
    cluster.ok({
      type: "createVolume",
      name,
      uuid: uuid(100 + index),
      sizeBytes: 2 ** 30,
      copies: 1,
      degradedWrites: true,
    });
  }
  cluster.ok({ type: "setInitiator", name: prover, chap: chapOf(1) });
  cluster.ok({ type: "setInitiator", name: namely, chap: null });
  return cluster;
}

function allow(cluster: TestCluster, name: string, initiator: string, lun: number | null = null) {
  return cluster.ok({ type: "allowVolume", name, initiator, lun });
}

/** What the volume "disk" says to each of the three, at a loopback portal and at another. */
function admissions(cluster: TestCluster): [Admission, Admission][] {
  const volume = cluster.state.volumes.disk!;
  return [prover, namely, stranger].map((initiator) => [
    admission(cluster.state, volume, { initiator, loopback: true }),
    admission(cluster.state, volume, { initiator, loopback: false }),
  ]);
}

test("nobody named: anyone at loopback portals, nobody at others", () => {
  const all: [Admission, Admission] = ["unproven", "refused"];
  assert.deepEqual(admissions(clusterWith("disk")), [all, all, all]);
});

test("initiators named: they alone, and who has CHAP proves itself everywhere", () => {
  const cluster = clusterWith("disk");
  allow(cluster, "disk", prover);
  const none: [Admission, Admission] = ["refused", "refused"];
  assert.deepEqual(admissions(cluster), [["proven", "proven"], none, none]);
  allow(cluster, "disk", namely);
  assert.deepEqual(admissions(cluster), [["proven", "proven"], ["unproven", "refused"], none]);
});

test("an open volume is everyone's, but whom it names with CHAP still proves it", () => {
  const cluster = clusterWith("disk");
  cluster.ok({ type: "openVolume", name: "disk", open: true });
  const all: [Admission, Admission] = ["unproven", "unproven"];
  assert.deepEqual(admissions(cluster), [all, all, all]);
  allow(cluster, "disk", prover);
  assert.deepEqual(admissions(cluster), [["proven", "proven"], all, all]);
});

test("a volume that is being deleted is nobody's", () => {
  const cluster = clusterWith("disk");
  cluster.ok({ type: "openVolume", name: "disk", open: true });
  cluster.ok({ type: "deleteVolume", name: "disk" });
  const none: [Admission, Admission] = ["refused", "refused"];
  assert.deepEqual(admissions(cluster), [none, none, none]);
});

test("the common target shows each initiator its own LUNs, in order, and only what it may use", () => {
  const cluster = clusterWith("disk", "other", "third");
  allow(cluster, "disk", prover, 7);
  allow(cluster, "other", prover, 0);
  allow(cluster, "third", prover);
  allow(cluster, "other", namely, 3);
  const luns = (initiator: string, loopback: boolean) =>
    [...commonLuns(cluster.state, { initiator, loopback })].map(([lun, { name }]) => [lun, name]);
  assert.deepEqual(luns(prover, false), [
    [0, "other"],
    [7, "disk"],
  ]);
  assert.deepEqual(luns(namely, true), [[3, "other"]]);
  assert.deepEqual(luns(namely, false), []);
  assert.deepEqual(luns(stranger, true), []);
});

test("a LUN is one volume for one initiator, whatever it is for others", () => {
  const cluster = clusterWith("disk", "other");
  allow(cluster, "disk", prover, 1);
  const again = { type: "allowVolume", name: "other", initiator: prover, lun: 1 } as const;
  assert.equal(cluster.refused(again), "taken");
  allow(cluster, "other", namely, 1);
  allow(cluster, "disk", prover, 2);
  allow(cluster, "other", prover, 1);
  const same = { type: "allowVolume", name: "other", initiator: prover, lun: 1 } as const;
  assert.equal(cluster.refused(same), "no_change");
});

test("what is not there cannot be allowed, denied or removed", () => {
  const cluster = clusterWith("disk");
  const rest = { name: "disk", initiator: stranger, lun: null };
  assert.equal(cluster.refused({ type: "allowVolume", ...rest }), "unknown");
  assert.equal(cluster.refused({ type: "denyVolume", ...rest }), "unknown");
  assert.equal(cluster.refused({ type: "removeInitiator", name: stranger }), "unknown");
  const nowhere = { name: "nowhere", initiator: prover, lun: null };
  assert.equal(cluster.refused({ type: "allowVolume", ...nowhere }), "unknown");
  assert.equal(cluster.refused({ type: "openVolume", name: "nowhere", open: true }), "unknown");
  assert.equal(cluster.refused({ type: "openVolume", name: "disk", open: false }), "no_change");
});

test("an initiator is removed after it was denied: its volumes must not open by accident", () => {
  const cluster = clusterWith("disk");
  allow(cluster, "disk", prover);
  assert.equal(cluster.refused({ type: "removeInitiator", name: prover }), "not_now");
  cluster.ok({ type: "denyVolume", name: "disk", initiator: prover });
  cluster.ok({ type: "removeInitiator", name: prover });
  assert.deepEqual(Object.keys(cluster.state.initiators ?? {}), [namely]);
});

test("one secret does not serve two, nor both directions (RFC 7143 §9.2.1)", () => {
  const cluster = clusterWith("disk");
  const set = (name: string, chap: ChapRecord) => ({ type: "setInitiator", name, chap }) as const;
  assert.equal(cluster.refused(set(stranger, chapOf(1))), "bad_value");
  assert.equal(cluster.refused(set(stranger, chapOf(5, 5))), "bad_value");
  assert.equal(cluster.refused(set(stranger, chapOf(5, 1))), "bad_value");
  cluster.ok(set(stranger, chapOf(5, 6)));
  assert.equal(cluster.refused(set(namely, chapOf(6))), "bad_value");
  // An initiator that is replaced may keep its secret.
  cluster.ok(set(stranger, chapOf(5, 7)));
  assert.equal(cluster.refused({ type: "setDiscoveryChap", chap: chapOf(7) }), "bad_value");
  cluster.ok({ type: "setDiscoveryChap", chap: chapOf(8) });
  cluster.ok({ type: "setDiscoveryChap", chap: chapOf(8) });
  assert.equal(cluster.refused(set(namely, chapOf(8))), "bad_value");
});

test("initiators are bounded", () => {
  const cluster = new TestCluster(1);
  for (let index = 0; index < initiatorsMax; index += 1) {
    cluster.ok({ type: "setInitiator", name: `iqn.2026-11.example:${index}`, chap: null });
  }
  const more = { type: "setInitiator", name: stranger, chap: null } as const;
  assert.equal(cluster.refused(more), "limit");
  cluster.ok({ type: "setInitiator", name: "iqn.2026-11.example:0", chap: chapOf(1) });
});

test("discovery: its own credentials when set, else those of the initiator that has some", () => {
  const cluster = clusterWith("disk");
  const asks = (initiator: string, loopback: boolean) =>
    discoveryProof(cluster.state, { initiator, loopback });
  assert.deepEqual([asks(prover, true), asks(prover, false)], ["own", "own"]);
  assert.deepEqual([asks(stranger, true), asks(stranger, false)], ["none", "unknown"]);
  cluster.ok({ type: "openVolume", name: "disk", open: true });
  assert.equal(asks(stranger, false), "none", "what is open to all may be found by all");
  cluster.ok({ type: "setDiscoveryChap", chap: chapOf(9) });
  assert.deepEqual([asks(prover, true), asks(stranger, false)], ["discovery", "discovery"]);
  cluster.ok({ type: "setDiscoveryChap", chap: null });
  assert.equal(asks(prover, true), "own");
  assert.equal(cluster.refused({ type: "setDiscoveryChap", chap: null }), "no_change");
});

test("loopback addresses, and what only looks like one", () => {
  for (const host of ["127.0.0.1", "127.1.2.3", "::1", "localhost"]) assert.ok(isLoopback(host));
  for (const host of ["0.0.0.0", "::", "10.0.0.1", "127.0.0.1.example", "localhost.example"]) {
    assert.ok(!isLoopback(host), host);
  }
});

test("a draining brick sends initiators to the next that is up, and nobody while it serves", () => {
  const cluster = new TestCluster(3);
  assert.equal(redirectTarget(cluster.state, 2), null);
  cluster.ok({ type: "drainBrick", number: 2, drain: true });
  assert.equal(redirectTarget(cluster.state, 2), "10.0.0.3:2");
  assert.equal(redirectTarget(cluster.state, 1), null);
  cluster.down(3);
  assert.equal(redirectTarget(cluster.state, 2), "10.0.0.1:2");
  cluster.down(1);
  assert.equal(redirectTarget(cluster.state, 2), null);
});

test("the common target's name cannot be a volume's", () => {
  const cluster = new TestCluster(1);
  const volume = { sizeBytes: 2 ** 30, copies: 1, degradedWrites: true, uuid: uuid(5) };
  const name = `cluster-${cluster.state.clusterId.slice(0, 8)}`;
  assert.equal(cluster.refused({ type: "createVolume", name, ...volume }), "taken");
});
