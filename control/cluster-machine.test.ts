import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { Command, CommandOf, Envelope } from "./commands.ts";
import { commandBytesMax, decodeEnvelope, encodeEnvelope } from "./commands.ts";
import {
  applyEnvelope,
  decodeSnapshot,
  emptyMachine,
  encodeSnapshot,
  submitWindowMax,
} from "./replicated-machine.ts";
import { announcement, facts, TestCluster, uuid } from "./testing.ts";

const token = { type: "addJoinToken", id: "t", hash: "a".repeat(64), lifeMs: 1000 } as const;

function joining(number: number, changes: Partial<CommandOf<"joinBrick">> = {}): Command {
  return {
    type: "joinBrick",
    tokenId: "t",
    tokenHash: token.hash,
    ...facts(number, 0),
    ...changes,
  };
}

function viewOf(shard: number, expect: number, more: Partial<CommandOf<"changeView">>): Command {
  return {
    type: "changeView",
    shard,
    expect,
    primary: 1,
    members: [1],
    candidates: [],
    transfer: false,
    completed: [],
    released: false,
    recovery: false,
    ...more,
  };
}

function volume(name: string, more: Partial<CommandOf<"createVolume">> = {}): Command {
  const sizeBytes = 2 ** 30;
  return {
    type: "createVolume",
    name,
    uuid: uuid(50),
    sizeBytes,
    copies: 2,
    degradedWrites: true,
    ...more,
  };
}

test("a cluster is initialised once, and nothing may come before", () => {
  const cluster = new TestCluster(1);
  assert.equal(cluster.state.bricks[1]?.status, "up");
  assert.equal(cluster.state.shards.length, 4);
  const again = { type: "initCluster", clusterId: uuid(1), shardCount: 4, ...facts(1, 1) } as const;
  assert.equal(cluster.refused(again), "already_initialised");
  const { result } = applyEnvelope(emptyMachine, { id: null, timeMs: 0, command: token });
  assert.equal(!result.ok && result.fault.code, "not_initialised");
});

test("a token gives one brick its number; the same brick may ask again", () => {
  const cluster = new TestCluster(1);
  assert.equal(cluster.refused(joining(2)), "token_refused");
  cluster.ok(token);
  assert.equal(cluster.refused(token), "taken");
  assert.equal(cluster.refused(joining(2, { tokenHash: "b".repeat(64) })), "token_refused");
  assert.equal(cluster.refused(joining(1)), "taken");
  assert.equal(cluster.ok(joining(2)), 2);
  assert.equal(cluster.ok(joining(2)), 2);
  assert.equal(cluster.refused(joining(3)), "token_refused");
  assert.equal(cluster.state.bricks[2]?.status, "joining");
});

test("a token ends with the cluster's time, which never goes back", () => {
  const cluster = new TestCluster(1);
  cluster.ok(token);
  cluster.ok({ type: "advanceTime", toMs: 500 });
  cluster.ok({ type: "advanceTime", toMs: 400 });
  assert.equal(cluster.state.clusterTimeMs, 500);
  cluster.ok({ type: "advanceTime", toMs: 1001 });
  assert.equal(cluster.refused(joining(2)), "token_refused");
  assert.deepEqual(cluster.state.joinTokens, {});
});

test("an older store, another store and a second start of a copy are refused", () => {
  const cluster = new TestCluster(2);
  cluster.announce(2, 5);
  assert.equal(cluster.refused(announcement(2, 4)), "store_refused");
  assert.equal(cluster.refused(announcement(2, 5)), "no_change");
  assert.equal(cluster.refused(announcement(2, 5, { incarnation: "copy" })), "store_refused");
  const other = { ...announcement(2, 6), uuid: uuid(77) } as Command;
  assert.equal(cluster.refused(other), "store_refused");
  assert.equal(cluster.refused(announcement(9, 1)), "unknown");
});

test("down and up name the boot that they speak of", () => {
  const cluster = new TestCluster(2);
  assert.equal(cluster.refused({ type: "brickDown", number: 2, boot: 2 }), "stale");
  assert.equal(cluster.refused({ type: "brickUp", number: 2, boot: 1 }), "no_change");
  cluster.ok({ type: "advanceTime", toMs: 70 });
  cluster.down(2);
  assert.equal(cluster.state.bricks[2]?.downSinceMs, 70);
  assert.equal(cluster.refused({ type: "brickDown", number: 2, boot: 1 }), "no_change");
  cluster.up(2);
  assert.equal(cluster.state.bricks[2]?.downSinceMs, 0);
  assert.equal(cluster.refused({ type: "brickFailed", number: 2 }), "not_now");
});

test("a draining brick keeps draining through a restart, and may be kept after all", () => {
  const cluster = new TestCluster(2);
  cluster.ok({ type: "drainBrick", number: 2, drain: true });
  assert.equal(cluster.refused({ type: "drainBrick", number: 2, drain: true }), "no_change");
  assert.equal(cluster.refused({ type: "drainBrick", number: 1, drain: true }), "not_now");
  cluster.down(2);
  assert.deepEqual(
    [cluster.state.bricks[2]?.status, cluster.state.bricks[2]?.reachable],
    ["draining", false],
  );
  cluster.announce(2, 2);
  assert.deepEqual(
    [cluster.state.bricks[2]?.status, cluster.state.bricks[2]?.reachable],
    ["draining", true],
  );
  cluster.ok({ type: "drainBrick", number: 2, drain: false });
  assert.equal(cluster.state.bricks[2]?.status, "up");
});

test("not even force removes a brick that may still answer", () => {
  const cluster = new TestCluster(2);
  const remove = { type: "removeBrick", number: 1, emptied: true, force: true } as const;
  assert.equal(cluster.refused(remove), "not_now");
  cluster.ok({ type: "setVoter", number: 1, voter: false });
  assert.equal(cluster.refused(remove), "not_now");
  cluster.ok({ type: "setVoter", number: 1, voter: true });
  cluster.down(1);
  assert.equal(cluster.refused({ ...remove, force: false }), "not_now");
  cluster.ok(remove);
  assert.equal(cluster.refused(announcement(1, 2)), "store_refused");
});

test("a drained brick goes once its boot serves nothing, whatever an earlier one served", () => {
  const cluster = new TestCluster(3);
  cluster.ok(volume("disk"));
  const by = { brick: 2, boot: 1 };
  cluster.ok({ type: "attach", uuid: uuid(50), brick: 2, boot: 1, expectEpoch: 0, by });
  cluster.ok({ type: "drainBrick", number: 2, drain: true });
  const remove = { type: "removeBrick", number: 2, emptied: true, force: false } as const;
  assert.equal(cluster.refused(remove), "not_now");
  cluster.announce(2, 2);
  cluster.ok(remove);
});

test("a view follows the one it names, and only by its complete members", () => {
  const cluster = new TestCluster(3, 1);
  assert.equal(cluster.refused(viewOf(0, 2, {})), "stale");
  assert.equal(cluster.refused(viewOf(1, 1, {})), "unknown");
  assert.equal(cluster.refused(viewOf(0, 1, { members: [1, 2] })), "not_now");
  assert.equal(cluster.refused(viewOf(0, 1, { members: [1, 2], completed: [2] })), "not_now");
  assert.equal(cluster.refused(viewOf(0, 1, { candidates: [1] })), "not_now");
  assert.equal(cluster.refused(viewOf(0, 1, { candidates: [3, 2] })), "not_now");
  assert.equal(cluster.refused(viewOf(0, 1, { candidates: [9] })), "not_now");
  assert.equal(cluster.refused(viewOf(0, 1, { members: [2] })), "not_now");
  assert.equal(cluster.ok(viewOf(0, 1, { candidates: [2, 3] })), 2);
  assert.equal(cluster.state.shards[0]!.chain.length, 1);
  assert.equal(cluster.refused(viewOf(0, 1, { candidates: [2] })), "stale");
  assert.equal(cluster.refused(viewOf(0, 2, { members: [1, 2] })), "not_now");
  // Candidate 2 completed, but may not lead in the same step.
  const completed = { members: [1, 2], completed: [2] };
  assert.equal(
    cluster.refused(viewOf(0, 2, { ...completed, primary: 2, released: true })),
    "not_now",
  );
  assert.equal(cluster.ok(viewOf(0, 2, completed)), 3);
  assert.deepEqual(cluster.state.shards[0]!.chain, []);
});

test("a living primary is replaced only once it has given way", () => {
  const cluster = new TestCluster(2, 1);
  cluster.ok(viewOf(0, 1, { candidates: [2] }));
  cluster.ok(viewOf(0, 2, { members: [1, 2], completed: [2] }));
  const other = { primary: 2, members: [1, 2] };
  assert.equal(cluster.refused(viewOf(0, 3, other)), "not_now");
  const before = cluster.state;
  cluster.ok(viewOf(0, 3, { ...other, released: true }));
  cluster.state = before;
  cluster.announce(1, 2);
  cluster.ok(viewOf(0, 3, other));
});

test("a recovery is refused while a complete member answers, and begins with one member", () => {
  const cluster = new TestCluster(3, 1);
  cluster.ok(viewOf(0, 1, { candidates: [2] }));
  const recovery = { primary: 2, members: [2], recovery: true };
  assert.equal(cluster.refused(viewOf(0, 2, recovery)), "not_now");
  cluster.down(1);
  assert.equal(cluster.refused(viewOf(0, 2, { primary: 2, members: [2] })), "not_now");
  assert.equal(cluster.refused(viewOf(0, 2, { ...recovery, primary: 3, members: [3] })), "not_now");
  cluster.ok(viewOf(0, 2, recovery));
  const views = cluster.state.shards[0]!.chain.map((view) => view.view);
  assert.deepEqual(views, [1], "view 2 tells nothing that 1 and 3 do not");
});

test("a brick whose log was cut is no complete member until it has caught up", () => {
  const cluster = new TestCluster(2, 1);
  cluster.ok(viewOf(0, 1, { candidates: [2] }));
  cluster.ok(viewOf(0, 2, { members: [1, 2], completed: [2] }));
  assert.equal(cluster.state.shards[0]!.shortSinceMs, 0);
  cluster.announce(2, 2, { cut: true });
  assert.deepEqual(cluster.state.shards[0]!.damaged, [2]);
  assert.ok(cluster.state.shards[0]!.shortSinceMs > 0);
  assert.equal(cluster.refused(viewOf(0, 3, { members: [1, 2] })), "not_now");
  cluster.ok(viewOf(0, 3, { candidates: [2], transfer: true }));
  assert.equal(cluster.state.shards[0]!.damaged, undefined);
  assert.equal(cluster.state.shards[0]!.chain.length, 1);
});

test("transfer is set for the view that it names, if there is anyone to transfer to", () => {
  const cluster = new TestCluster(2, 1);
  assert.equal(
    cluster.refused({ type: "setTransfer", shard: 0, view: 1, transfer: true }),
    "not_now",
  );
  cluster.ok(viewOf(0, 1, { candidates: [2] }));
  assert.equal(
    cluster.refused({ type: "setTransfer", shard: 0, view: 1, transfer: true }),
    "stale",
  );
  cluster.ok({ type: "setTransfer", shard: 0, view: 2, transfer: true });
  assert.equal(
    cluster.refused({ type: "setTransfer", shard: 0, view: 2, transfer: true }),
    "no_change",
  );
});

test("volumes are made, grow, are deleted and forgotten", () => {
  const cluster = new TestCluster(1);
  const branch = cluster.ok(volume("disk"));
  assert.deepEqual([branch, cluster.state.volumes.disk?.family], [1, 1]);
  assert.equal(cluster.refused(volume("disk", { uuid: uuid(51) })), "taken");
  assert.equal(cluster.refused(volume("other")), "taken");
  assert.equal(cluster.refused(volume("other", { uuid: uuid(51), copies: 0 })), "bad_value");
  assert.equal(cluster.refused(volume("other", { uuid: uuid(51), sizeBytes: 1000 })), "bad_value");
  const resize = { type: "resizeVolume", name: "disk", shrink: false } as const;
  assert.equal(cluster.refused({ ...resize, sizeBytes: 2 ** 29 }), "bad_value");
  assert.equal(cluster.refused({ ...resize, sizeBytes: 2 ** 30 }), "no_change");
  cluster.ok({ ...resize, sizeBytes: 2 ** 40 });
  cluster.ok({ ...resize, sizeBytes: 2 ** 29, shrink: true });
  assert.equal(cluster.refused({ type: "forgetVolume", uuid: uuid(50) }), "not_now");
  cluster.ok({ type: "deleteVolume", name: "disk" });
  assert.equal(cluster.refused({ type: "deleteVolume", name: "disk" }), "unknown");
  cluster.ok({ type: "forgetVolume", uuid: uuid(50) });
  assert.equal(cluster.ok(volume("disk")), 2, "branches are never reused");
});

test("an attachment is taken by compare-and-set, and only from who cannot serve or agrees", () => {
  const cluster = new TestCluster(2);
  cluster.ok(volume("disk"));
  const by = { brick: 2, boot: 1 };
  const attach = { type: "attach", uuid: uuid(50), brick: 1, boot: 1, expectEpoch: 0, by } as const;
  assert.equal(cluster.refused({ ...attach, uuid: uuid(51) }), "unknown");
  assert.equal(cluster.refused({ ...attach, boot: 2 }), "not_now");
  assert.equal(cluster.refused({ ...attach, expectEpoch: 3 }), "stale");
  assert.equal(cluster.ok(attach), 1);
  const take = { ...attach, brick: 2, expectEpoch: 1 };
  assert.equal(cluster.refused(take), "not_now");
  assert.equal(cluster.ok({ ...take, by: { brick: 1, boot: 1 } }), 2, "the holder agrees");
  assert.equal(
    cluster.refused({ ...attach, expectEpoch: 2, by: { brick: 1, boot: 1 } }),
    "not_now",
  );
  cluster.announce(2, 2);
  assert.equal(cluster.ok({ ...attach, expectEpoch: 2 }), 3, "the holder restarted");
  cluster.down(1);
  const after = { ...attach, brick: 2, boot: 2, expectEpoch: 3 };
  assert.equal(cluster.ok(after), 4, "the holder is down");
  assert.equal(cluster.refused({ type: "detach", uuid: uuid(50), epoch: 3 }), "stale");
  cluster.ok({ type: "detach", uuid: uuid(50), epoch: 4 });
  assert.equal(cluster.ok({ ...after, expectEpoch: 0 }), 5, "epochs are never reused");
});

test("an envelope comes back as it was; a newer one and garbage are told apart", () => {
  const id = { brick: 3, boot: 9, sequence: 7, settled: 5 };
  const envelope: Envelope = { id, timeMs: 12, command: token };
  assert.deepEqual(decodeEnvelope(encodeEnvelope(envelope)), { ok: true, envelope });
  const fault = (text: string) => {
    const decoded = decodeEnvelope(Buffer.from(text));
    return decoded.ok ? "none" : decoded.fault.code;
  };
  assert.equal(fault(`{"version":2}`), "newer_version");
  assert.equal(fault(`{"version":1,"command":{"type":"moveMoon"}}`), "newer_version");
  assert.equal(fault(`{"version":1,"command":{"type":"brickUp"}}`), "malformed");
  assert.equal(fault(`[]`), "malformed");
  assert.equal(fault(" ".repeat(commandBytesMax + 1)), "malformed");
  fc.assert(fc.property(fc.uint8Array(), (bytes) => !decodeEnvelope(Buffer.from(bytes)).ok));
});

test("a command submitted twice under one id is applied once", () => {
  const init = { type: "initCluster", clusterId: uuid(1), shardCount: 1, ...facts(1, 1) } as const;
  let machine = applyEnvelope(emptyMachine, { id: null, timeMs: 0, command: init }).machine;
  const send = (sequence: number, settled: number, boot = 1) => {
    const id = { brick: 1, boot, sequence, settled };
    const command = volume(`v${sequence}`, { uuid: uuid(100 + sequence) });
    const applied = applyEnvelope(machine, { id, timeMs: 0, command });
    machine = applied.machine;
    return applied.result.ok ? applied.result.value : applied.result.fault.code;
  };
  assert.equal(send(1, 1), 1);
  assert.equal(send(1, 1), 1);
  assert.equal(send(3, 2), 2);
  assert.equal(send(2, 1), 3, "passed on the way, but not settled");
  assert.equal(send(1, 1), "expired");
  assert.equal(send(4, 4), 4);
  assert.deepEqual(Object.keys(machine.remembered["1"]!.results), ["4"]);
  assert.equal(send(5 + submitWindowMax, 5), "limit");
  assert.equal(send(1, 1, 2), "taken", "a new boot counts anew");
  assert.equal(send(9, 4, 1), "expired");
  assert.deepEqual(Object.keys(machine.cluster.volumes).sort(), ["v1", "v2", "v3", "v4"]);
});

test("a snapshot comes back as it was; one flipped bit is noticed", () => {
  const cluster = new TestCluster(3, 2);
  const machine = { cluster: cluster.state, remembered: {} };
  const bytes = encodeSnapshot(machine);
  const decoded = decodeSnapshot(bytes);
  assert.deepEqual(decoded, { ok: true, machine: JSON.parse(JSON.stringify(machine)) });
  fc.assert(
    fc.property(fc.nat(bytes.length - 1), fc.nat(7), (at, bit) => {
      const bad = Buffer.from(bytes);
      bad[at]! ^= 1 << bit;
      const read = decodeSnapshot(bad);
      assert.ok(!read.ok || JSON.stringify(read.machine) === JSON.stringify(machine));
    }),
  );
  assert.equal(decodeSnapshot(Buffer.from("{}")).ok, false);
});
