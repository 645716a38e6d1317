import assert from "node:assert/strict";
import { test } from "node:test";
import type { ChapRecord } from "../brick/cluster-state.ts";
import type { UnitChange } from "../brick/unit/unit-changes.ts";
import type { Command, CommandOf, Envelope } from "./commands.ts";
import { decodeEnvelope, encodeEnvelope } from "./commands.ts";
import { eventsOf } from "./event-rules.ts";
import { type EventRecord, emptyEventLog, eventsSince, eventText, withEvents } from "./events.ts";
import {
  applyEnvelope,
  decodeSnapshot,
  emptyMachine,
  encodeSnapshot,
} from "./replicated-machine.ts";
import { announcement, facts, TestCluster, uuid } from "./testing.ts";

/** The events of one command. */
function said(cluster: TestCluster, command: Command): string[] {
  const before = cluster.state;
  cluster.ok(command);
  const drafts = eventsOf(before, cluster.state, command);
  const stamp = { clusterMs: cluster.state.clusterTimeMs, wallMs: 0 };
  return withEvents(emptyEventLog, drafts, stamp).records.map(
    (record) => `${record.kind}/${record.severity}: ${eventText(record)}`,
  );
}

function down(number: number, cluster: TestCluster): Command {
  return { type: "brickDown", number, boot: cluster.state.bricks[number]!.boot };
}

function viewOf(shard: number, more: Partial<CommandOf<"changeView">>): Command {
  return {
    type: "changeView",
    shard,
    expect: 1,
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

/** Three bricks; every shard whole on bricks 1 and 2, led by 1. */
function wholeCluster(): TestCluster {
  const cluster = new TestCluster(3, 4);
  for (let shard = 0; shard < 4; shard += 1) {
    cluster.ok(viewOf(shard, { candidates: [2] }));
    cluster.ok(viewOf(shard, { expect: 2, members: [1, 2], completed: [2] }));
  }
  return cluster;
}

const volume: CommandOf<"createVolume"> = {
  type: "createVolume",
  name: "disk0",
  uuid: uuid(50),
  sizeBytes: 2 ** 40,
  copies: 2,
  degradedWrites: true,
};

test("a brick joins, goes, comes back and is given up", () => {
  const cluster = new TestCluster(2);
  const token = { type: "addJoinToken", id: "t", hash: "a".repeat(64), lifeMs: 1000 } as const;
  assert.deepEqual(said(cluster, token), [
    "token_made/info: a token was made with which one brick may join",
  ]);
  const join = { type: "joinBrick", tokenId: "t", tokenHash: token.hash, ...facts(3, 0) } as const;
  assert.deepEqual(said(cluster, join), [
    "brick_joined/info: brick 3 joined from 10.0.0.3:1, with 1GiB",
  ]);
  assert.deepEqual(said(cluster, announcement(3, 1)), ["brick_up/info: brick 3 takes part now"]);
  assert.deepEqual(said(cluster, down(3, cluster)), [
    "brick_down/warning: brick 3 is down: it has not been heard, and its lease has ended",
  ]);
  cluster.ok({ type: "advanceTime", toMs: 125_000 });
  assert.deepEqual(said(cluster, announcement(3, 2)), [
    "brick_returned/info: brick 3 is back, 2 min after it went down",
  ]);
  assert.deepEqual(said(cluster, announcement(3, 3)), [
    "brick_restarted/info: brick 3 has started anew (boot 3)",
  ]);
  assert.deepEqual(said(cluster, { type: "drainBrick", number: 3, drain: true }), [
    "brick_draining/info: brick 3 is being emptied",
  ]);
  assert.deepEqual(said(cluster, { type: "drainBrick", number: 3, drain: false }), [
    "drain_ended/info: brick 3 is being emptied no more",
  ]);
  cluster.down(3);
  cluster.ok({ type: "advanceTime", toMs: 125_000 + 26 * 3_600_000 });
  assert.deepEqual(said(cluster, { type: "brickFailed", number: 3 }), [
    "brick_failed/critical: brick 3 counts as failed, 1 d 2 h after it went down: its copies are made anew on others",
  ]);
  const remove = { type: "removeBrick", number: 3, emptied: true, force: true } as const;
  assert.deepEqual(said(cluster, remove), ["brick_removed/info: brick 3 was removed"]);
});

test("a log that lost its end, and votes", () => {
  const cluster = new TestCluster(2);
  const [restarted, cut] = said(cluster, announcement(2, 2, { cut: true }));
  assert.match(restarted!, /^brick_restarted/);
  assert.match(cut!, /^log_damaged\/warning: brick 2 lost the end of its log/);
  assert.deepEqual(said(cluster, { type: "setVoter", number: 2, voter: true }), [
    "voter_changed/info: brick 2 is now a voter of the control plane",
  ]);
});

test("a cluster that was without power starts anew, and says so once", () => {
  const cluster = new TestCluster(2);
  const first = said(cluster, announcement(1, 2, { witnessed: false }));
  assert.deepEqual(first, ["brick_restarted/info: brick 1 has started anew (boot 2)"]);
  const last = said(cluster, announcement(2, 2, { witnessed: false }));
  assert.deepEqual(last.slice(1), [
    "cold_start/warning: all bricks were without power at once: the cluster has started anew",
  ]);
});

test("a cluster of one brick is without power whenever it starts", () => {
  const lines = said(new TestCluster(1), announcement(1, 2, { witnessed: false }));
  assert.match(lines[1]!, /^cold_start/);
});

test("bricks that a witness saw had power", () => {
  const cluster = new TestCluster(3);
  said(cluster, announcement(1, 2, { witnessed: false }));
  assert.deepEqual(said(cluster, { type: "witness" }), []);
  assert.equal(said(cluster, announcement(2, 2, { witnessed: true })).length, 1);
});

test("space: thresholds, full, room again", () => {
  const cluster = new TestCluster(1);
  const space = (share: number, full: boolean): Command => {
    const usedBytes = Math.floor(share * 2 ** 30);
    return { type: "brickSpace", number: 1, capacityBytes: 2 ** 30, usedBytes, full };
  };
  assert.deepEqual(said(cluster, space(0.79, false)), []);
  assert.deepEqual(said(cluster, space(0.85, false)), [
    "space_threshold/warning: brick 1 is 80 % full",
  ]);
  assert.deepEqual(said(cluster, space(0.99, true)), [
    "space_threshold/warning: brick 1 is 90 % full",
    "brick_full/critical: brick 1 is full: new data goes to others",
  ]);
  assert.deepEqual(said(cluster, space(0.5, false)), [
    "space_threshold/info: brick 1 is less than 80 % full again",
    "space_threshold/info: brick 1 is less than 90 % full again",
    "brick_has_room/info: brick 1 has room again",
  ]);
});

test("keys that a brick lacks, until it has them", () => {
  const cluster = new TestCluster(1);
  const health = (keysLacking?: number): Command => ({
    type: "brickSpace",
    number: 1,
    capacityBytes: 2 ** 30,
    usedBytes: 0,
    full: false,
    health: { corruptChunks: 0, repairPending: 0, keysLacking },
  });
  assert.deepEqual(said(cluster, health(1)), [
    "key_missing/warning: brick 1 lacks the keys of 1 encrypted volume: others serve them, and it asks them for the keys",
  ]);
  assert.equal(cluster.refused(health(1)), "no_change");
  assert.match(said(cluster, health(3))[0]!, /lacks the keys of 3 encrypted volumes/);
  assert.deepEqual(said(cluster, health(2)), []);
  assert.deepEqual(said(cluster, health()), [
    "key_found/info: brick 1 has the keys of all encrypted volumes again",
  ]);
});

test("a cryptographic erase says when the old key is given up, and when nobody has it", () => {
  const cluster = new TestCluster(1);
  const check = "12".repeat(16);
  const reserve: Command = { type: "reserveKeyDomain", uuid: volume.uuid, check };
  cluster.ok(reserve);
  cluster.ok({ ...volume, keyDomain: 1 });
  cluster.ok(reserve);
  const nexus = { initiatorPort: "iqn.2026-11.example:host,i,0x000000000001", targetPort: 1 };
  const unit = (change: UnitChange): Command => ({ type: "changeUnit", uuid: volume.uuid, change });
  const start = { type: "sanitizeStart", nexus, allowUnrestrictedExit: true } as const;
  said(cluster, unit({ ...start, method: "crypto" }));
  assert.deepEqual(said(cluster, { type: "rekeyVolume", uuid: volume.uuid, keyDomain: 2 }), [
    "key_retired/warning: volume disk0 has a new key: its old one is destroyed, and what was written with it is lost for good",
  ]);
  assert.deepEqual(said(cluster, unit({ type: "sanitizeProgress", progress: 9 })), []);
  assert.deepEqual(said(cluster, unit({ type: "sanitizeEnd", ok: true })), [
    "sanitize_ended/info: volume disk0 is sanitized",
    "key_destroyed/info: no brick of the cluster has the old key of volume disk0 any more",
  ]);
  said(cluster, unit(start));
  assert.equal(said(cluster, unit({ type: "sanitizeEnd", ok: true })).length, 1, "another kind");
});

test("damage that a brick finds, and its repair", () => {
  const cluster = new TestCluster(1);
  const health = (corruptChunks: number, repairPending: number): Command => ({
    type: "brickSpace",
    number: 1,
    capacityBytes: 2 ** 30,
    usedBytes: 0,
    full: false,
    health: { corruptChunks, repairPending },
  });
  assert.deepEqual(said(cluster, health(2, 0)), [
    "damage_found/critical: brick 1 found 2 damaged chunks: they are read from other bricks",
  ]);
  assert.equal(cluster.refused(health(2, 0)), "no_change");
  assert.match(said(cluster, health(2, 40))[0]!, /^repair_begun\/info: .* through 40 map shards/);
  assert.match(said(cluster, health(2, 1))[0]!, /^repair_progress\/info: .* 1 map shard left/);
  assert.match(said(cluster, health(2, 0))[0]!, /^repair_done\/info/);
  // A new start counts from nothing.
  cluster.announce(1, 2);
  assert.match(said(cluster, health(1, 0))[0]!, /found 1 damaged chunk:/);
});

test("a brick's death in the address map: one event a kind, not one a shard", () => {
  const cluster = wholeCluster();
  assert.deepEqual(said(cluster, down(1, cluster)).slice(1), [
    "shards_short/warning: 4 map shards with fewer complete replicas up than wanted",
  ]);
  const step = { expect: 3, primary: 2, members: [2], candidates: [3] };
  assert.deepEqual(said(cluster, viewOf(0, step)), [
    "shards_led/info: 1 map shard led by brick 2 now, because brick 1 is down",
  ]);
  const complete = { expect: 4, primary: 2, members: [2, 3], completed: [3] };
  assert.deepEqual(said(cluster, viewOf(0, complete)), [
    "shards_whole/info: 1 map shard with enough complete replicas again",
  ]);
  assert.deepEqual(said(cluster, down(2, cluster)).slice(1), [
    "shards_short/warning: 1 map shard with fewer complete replicas up than wanted",
    "shards_unavailable/critical: 3 map shards unavailable, because bricks 1, 2 are away",
  ]);
  assert.deepEqual(said(cluster, announcement(1, 2)).slice(1), [
    "shards_available/info: 3 map shards available again",
  ]);
});

test("a shard is recovered from what the bricks of its chain hold", () => {
  const cluster = wholeCluster();
  cluster.down(1);
  cluster.ok(viewOf(0, { expect: 3, primary: 2, members: [2], candidates: [3] }));
  cluster.down(2);
  cluster.announce(1, 2);
  const recovery = { expect: 4, primary: 3, members: [3], recovery: true };
  assert.deepEqual(said(cluster, viewOf(0, recovery)), [
    "shards_led/info: 1 map shard led by brick 3 now, because brick 2 is down",
    "shards_recovered/info: 1 map shard recovered from what the bricks hold together",
  ]);
});

test("a damaged replica, and a view that heals it", () => {
  const cluster = wholeCluster();
  const damaged = { type: "markDamaged", shard: 0, view: 3, brick: 2 } as const;
  assert.match(said(cluster, damaged).at(-1)!, /^replica_damaged\/warning: 1 map shard found/);
  const healed = said(cluster, viewOf(0, { expect: 3, members: [1], candidates: [2] }));
  assert.match(healed[0]!, /^replica_healed\/info: 1 map shard of brick 2 no longer damaged/);
});

test("a volume's life", () => {
  const cluster = new TestCluster(2);
  assert.deepEqual(said(cluster, volume), [
    "volume_created/info: volume disk0 created: 1TiB in 2 copies",
  ]);
  const resize = {
    type: "resizeVolume",
    name: "disk0",
    sizeBytes: 2 ** 41,
    shrink: false,
  } as const;
  assert.deepEqual(said(cluster, resize), [
    "volume_resized/info: volume disk0 resized from 1TiB to 2TiB",
  ]);
  const attach = (brick: number, by: number, expectEpoch: number): Command => ({
    type: "attach",
    uuid: uuid(50),
    brick,
    boot: 1,
    expectEpoch,
    by: { brick: by, boot: 1 },
  });
  assert.deepEqual(said(cluster, attach(1, 1, 0)), [
    "volume_attached/info: volume disk0 is served by brick 1 now",
  ]);
  assert.deepEqual(said(cluster, attach(2, 1, 1)), [
    "volume_moved/info: volume disk0 is served by brick 2 now, by brick 1 before",
  ]);
  assert.deepEqual(said(cluster, { type: "detach", uuid: uuid(50), epoch: 2 }), [
    "volume_detached/info: volume disk0 is served by no brick now; brick 2 gave it up",
  ]);
  assert.deepEqual(said(cluster, { type: "deleteVolume", name: "disk0" }), [
    "volume_deleted/info: volume disk0 deleted",
  ]);
  assert.deepEqual(said(cluster, { type: "forgetVolume", uuid: uuid(50) }), []);
});

test("access, without a word of a secret", () => {
  const cluster = new TestCluster(2);
  cluster.ok(volume);
  const initiator = "iqn.2026-11.example:host";
  const chap: ChapRecord = {
    user: "user-of-host",
    secret: { sealed: "5ea1ed".repeat(10), fingerprint: "f".repeat(32) },
    weakest: "sha256",
    mutual: null,
  };
  const steps: Command[] = [
    { type: "setInitiator", name: initiator, chap },
    { type: "setInitiator", name: initiator, chap: null },
    { type: "allowVolume", name: "disk0", initiator, lun: 3 },
    { type: "openVolume", name: "disk0", open: true },
    { type: "openVolume", name: "disk0", open: false },
    { type: "denyVolume", name: "disk0", initiator },
    { type: "removeInitiator", name: initiator },
    { type: "setDiscoveryChap", chap },
    { type: "setDiscoveryChap", chap: null },
  ];
  const lines = steps.flatMap((command) => said(cluster, command));
  assert.deepEqual(lines, [
    `access_changed/info: initiator ${initiator} added, which proves itself by CHAP`,
    `access_changed/info: initiator ${initiator} replaced, known by its name alone`,
    `access_changed/info: volume disk0 allowed to ${initiator} as LUN 3`,
    "access_changed/info: volume disk0 is open to everyone, unproven",
    "access_changed/info: volume disk0 is open to everyone no more",
    `access_changed/info: volume disk0 denied to ${initiator}`,
    `access_changed/info: initiator ${initiator} removed`,
    "access_changed/info: discovery has new credentials of its own",
    "access_changed/info: discovery has no credentials of its own",
  ]);
  assert.doesNotMatch(lines.join(), /5ea1ed|ffff|user-of-host/);
});

test("what initiators do to a unit that others feel", () => {
  const cluster = new TestCluster(2);
  cluster.ok(volume);
  const nexus = { initiatorPort: "iqn.2026-11.example:host,i,0x00023d000001", targetPort: 1 };
  const unit = (change: UnitChange): Command => ({ type: "changeUnit", uuid: uuid(50), change });
  const out = {
    type: "reserveOut",
    nexus,
    reservation: null,
    key: "0".repeat(16),
    actionKey: "0".repeat(15).concat("1"),
    aptpl: false,
    allTargetPorts: false,
    initiatorPorts: [],
    move: null,
  } as const;
  assert.deepEqual(said(cluster, unit({ ...out, action: "register" })), []);
  const key = out.actionKey;
  assert.deepEqual(said(cluster, unit({ ...out, key, action: "preempt", reservation: 1 })), [
    "reservations_preempted/info: reservations of volume disk0 preempted by iqn.2026-11.example:host",
  ]);
  assert.deepEqual(said(cluster, unit({ type: "reset", nexus })), [
    "unit_reset/info: volume disk0 reset by iqn.2026-11.example:host",
  ]);
  const start: UnitChange = { type: "sanitizeStart", nexus, allowUnrestrictedExit: true };
  assert.deepEqual(said(cluster, unit(start)), [
    "sanitize_begun/warning: volume disk0 is being sanitized",
  ]);
  assert.deepEqual(said(cluster, unit({ type: "sanitizeProgress", progress: 9 })), []);
  assert.deepEqual(said(cluster, unit({ type: "sanitizeEnd", ok: false })), [
    "sanitize_ended/critical: sanitizing volume disk0 failed",
  ]);
  said(cluster, unit(start));
  assert.deepEqual(said(cluster, unit({ type: "sanitizeEnd", ok: true })), [
    "sanitize_ended/info: volume disk0 is sanitized",
  ]);
});

test("the log is replicated with the state: same on every brick, over snapshots, and from older ones", () => {
  const init = { type: "initCluster", clusterId: uuid(9), shardCount: 4, ...facts(1, 1) } as const;
  const steps: Envelope[] = [
    { id: null, timeMs: 0, wallMs: 5000, leader: 1, command: init },
    { id: null, timeMs: 7, wallMs: 5007, leader: 1, command: volume },
    { id: null, timeMs: 9, wallMs: 5009, leader: 2, command: { type: "advanceTime", toMs: 9 } },
    // An entry of an older END: no wall clock, no leader.
    { id: null, timeMs: 10, command: { type: "deleteVolume", name: "disk0" } },
  ];
  let machine = emptyMachine;
  for (const step of steps) {
    const decoded = decodeEnvelope(encodeEnvelope(step));
    assert.ok(decoded.ok);
    ({ machine } = applyEnvelope(machine, decoded.envelope));
    const restored = decodeSnapshot(encodeSnapshot(machine));
    assert.ok(restored.ok);
    machine = restored.machine;
  }
  assert.deepEqual(
    machine.events!.records.map(({ sequence, kind, wallMs }: EventRecord) => [
      sequence,
      kind,
      wallMs,
    ]),
    [
      [1, "leader_elected", 5000],
      [2, "cluster_begun", 5000],
      [3, "brick_joined", 5000],
      [4, "volume_created", 5007],
      [5, "leader_elected", 5009],
      [6, "volume_deleted", 0],
    ],
  );
  // A snapshot of before there were events.
  const { events: _events, leader: _leader, ...older } = machine;
  const old = decodeSnapshot(encodeSnapshot(older));
  assert.ok(old.ok);
  const command = { ...volume, name: "disk1", uuid: uuid(51) };
  const { machine: after } = applyEnvelope(old.machine, { id: null, timeMs: 11, command });
  assert.equal(after.events!.records.length, 1);
});

test("what a newer build has noted, and this one does not know, is kept and told as it is", () => {
  const init = { type: "initCluster", clusterId: uuid(9), shardCount: 4, ...facts(1, 1) } as const;
  const begun = applyEnvelope(emptyMachine, { id: null, timeMs: 0, wallMs: 1, command: init });
  const { next, records } = begun.machine.events!;
  const gathered = { count: 3, noun: "comet", sinceMs: 0 };
  const stamp = { clusterMs: 0, wallMs: 2, text: "seen from brick 1" };
  const newer = {
    ...{ sequence: next, ...stamp, severity: "fatal", kind: "comet_seen", subject: "sky" },
    ...{ gathered, tail: "long" },
  } as unknown as EventRecord;
  const events = { next: next + 1, records: [...records, newer] };
  const restored = decodeSnapshot(encodeSnapshot({ ...begun.machine, events }));
  assert.ok(restored.ok);
  const command = { ...volume, name: "disk2", uuid: uuid(52) };
  const { machine } = applyEnvelope(restored.machine, { id: null, timeMs: 3, wallMs: 3, command });
  const told = eventsSince(machine.events!, next - 1);
  assert.deepEqual(
    told.map(({ sequence, kind }) => [sequence, kind]),
    [
      [next, "comet_seen"],
      [next + 1, "volume_created"],
    ],
  );
  assert.deepEqual(told[0], newer);
  assert.equal(eventText(told[0]!), "3 comets seen from brick 1");
});

test("a retry makes no second event", () => {
  const init = { type: "initCluster", clusterId: uuid(9), shardCount: 4, ...facts(1, 1) } as const;
  const id = { brick: 1, boot: 1, sequence: 1, settled: 1 };
  const envelope: Envelope = { id, timeMs: 0, wallMs: 1, leader: 1, command: init };
  const once = applyEnvelope(emptyMachine, envelope).machine;
  assert.deepEqual(applyEnvelope(once, envelope).machine.events, once.events);
});
