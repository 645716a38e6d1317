import assert from "node:assert/strict";
import { test } from "node:test";
import type { ChapRecord } from "../brick/cluster-state.ts";
import { sealIvBytes, sealSecret } from "../control/secret-seal.ts";
import { TestCluster, uuid } from "../control/testing.ts";
import { ClusterAuthority } from "./authority.ts";

const clusterSecret = Buffer.alloc(32, 3);
const prover = "iqn.2026-11.example:prover";
const stranger = "iqn.2026-11.example:stranger";
const target = (name: string) => `iqn.2026-11.endisk:${name}`;

function sealed(
  initiator: string | null,
  prover: "initiator" | "target",
  user: string,
  clear: string,
) {
  const iv = Buffer.alloc(sealIvBytes, clear.length);
  return sealSecret(clusterSecret, { initiator, prover, user }, Buffer.from(clear), iv);
}

function chapOf(initiator: string | null): ChapRecord {
  return {
    user: "one",
    secret: sealed(initiator, "initiator", "one", `secret of ${initiator}`),
    weakest: "sha1",
    mutual: {
      user: "two",
      secret: sealed(initiator, "target", "two", `of ${initiator} in return`),
    },
  };
}

function setUp(loopback: boolean) {
  const cluster = new TestCluster(2);
  for (const [index, name] of ["disk", "other"].entries()) {
    const rest = { sizeBytes: 2 ** 30, copies: 1, degradedWrites: true };
    cluster.ok({ type: "createVolume", name, uuid: uuid(100 + index), ...rest });
  }
  cluster.ok({ type: "setInitiator", name: prover, chap: chapOf(prover) });
  cluster.ok({ type: "allowVolume", name: "disk", initiator: prover, lun: 4 });
  const logged: string[] = [];
  const authority = new ClusterAuthority({
    self: 1,
    state: () => cluster.state,
    secret: clusterSecret,
    loopback,
    log: (line) => logged.push(line),
  });
  const common = target(`cluster-${cluster.state.clusterId.slice(0, 8)}`);
  return { cluster, authority, logged, common };
}

test("an initiator sees the targets that it may use, the common one among them", () => {
  const { authority, common } = setUp(false);
  assert.deepEqual(authority.targets(prover), [
    { name: common, luns: new Map([[4, "disk"]]) },
    { name: target("disk"), luns: new Map([[0, "disk"]]) },
  ]);
  assert.deepEqual(authority.targets(prover.toUpperCase()), authority.targets(prover));
  assert.deepEqual(authority.targets(stranger), []);
  const atLoopback = setUp(true).authority;
  assert.deepEqual(
    atLoopback.targets(stranger).map(({ name }) => name),
    [target("other")],
  );
});

test("a target is a view, forbidden or absent", () => {
  const { authority, common } = setUp(false);
  assert.deepEqual(authority.target(prover, common), {
    name: common,
    luns: new Map([[4, "disk"]]),
  });
  assert.equal(authority.target(stranger, common), "forbidden");
  assert.equal(authority.target(stranger, target("disk")), "forbidden");
  assert.equal(authority.target(prover, target("other")), "forbidden");
  assert.equal(authority.target(prover, target("nowhere")), "absent");
  assert.equal(authority.target(prover, "iqn.2026-11.example:elsewhere"), "absent");
});

test("the account is the initiator's, with its secrets in clear and the strongest first", () => {
  const { authority, common } = setUp(false);
  const account = {
    user: "one",
    secret: Buffer.from(`secret of ${prover}`),
    algorithms: [8, 7, 6],
    mutual: { user: "two", secret: Buffer.from(`of ${prover} in return`) },
  };
  for (const name of [target("disk"), common, target("other"), target("nowhere"), null]) {
    assert.deepEqual(authority.proof(prover, name), { method: "chap", account }, String(name));
  }
});

test("whoever is not let in is asked like anyone, for targets that are there and others", () => {
  const { authority, common } = setUp(false);
  for (const name of [target("disk"), common, target("other"), target("nowhere"), null]) {
    assert.deepEqual(authority.proof(stranger, name), { method: "chap", account: null });
  }
});

test("at a loopback portal strangers use what names nobody, and find what is there", () => {
  const { authority } = setUp(true);
  assert.deepEqual(authority.proof(stranger, target("other")), { method: "none" });
  assert.deepEqual(authority.proof(stranger, null), { method: "none" });
  assert.deepEqual(authority.proof(stranger, target("nowhere")), { method: "none" });
  assert.deepEqual(authority.proof(stranger, target("disk")), { method: "chap", account: null });
});

test("discovery proves its own credentials when it has some", () => {
  const { cluster, authority } = setUp(true);
  cluster.ok({ type: "setDiscoveryChap", chap: chapOf(null) });
  for (const name of [prover, stranger]) {
    const proof = authority.proof(name, null);
    assert.ok(proof.method === "chap" && proof.account !== null);
    assert.deepEqual(proof.account.secret, Buffer.from("secret of null"));
  }
});

test("a secret that does not open lets nobody in, and is said", () => {
  const { cluster, authority, logged } = setUp(false);
  // Sealed for someone else: moved from one record to another.
  cluster.ok({ type: "setInitiator", name: stranger, chap: { ...chapOf(null), weakest: "md5" } });
  cluster.ok({ type: "allowVolume", name: "disk", initiator: stranger, lun: null });
  const proof = authority.proof(stranger, target("disk"));
  assert.deepEqual(proof, { method: "chap", account: null });
  assert.ok(logged.length > 0 && logged.every((line) => line.includes(stranger)));
});

test("listeners hear of what matters to them, and of nothing else", () => {
  const { cluster, authority } = setUp(false);
  let heard = 0;
  authority.onState(cluster.state);
  const { stop } = authority.onChange(() => {
    heard += 1;
  });
  const after = (expected: number, act: () => unknown) => {
    act();
    authority.onState(cluster.state);
    assert.equal(heard, expected);
  };
  after(0, () => cluster.down(2));
  after(0, () => cluster.up(2));
  after(1, () => cluster.ok({ type: "openVolume", name: "disk", open: true }));
  after(2, () => cluster.ok({ type: "drainBrick", number: 1, drain: true }));
  assert.deepEqual(authority.redirect(), { address: "10.0.0.2:2" });
  after(3, () => cluster.ok({ type: "setDiscoveryChap", chap: chapOf(null) }));
  stop();
  after(3, () => cluster.ok({ type: "setDiscoveryChap", chap: null }));
});
