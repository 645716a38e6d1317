import assert from "node:assert/strict";
import { test } from "node:test";
import type { UnitChange } from "../brick/unit/unit-changes.ts";
import { decodeEnvelope, encodeEnvelope, leaderOnly } from "./commands.ts";
import {
  arrivalCommand,
  awaitsWitness,
  beginBook,
  defaultTiming,
  hear,
  type LeaderBook,
  membershipCommands,
} from "./membership.ts";
import { applyEnvelope, decodeSnapshot, encodeSnapshot } from "./replicated-machine.ts";
import { facts, TestCluster, uuid } from "./testing.ts";
import { earlyRefusal, mayHaveLostPower } from "./unit-commands.ts";

const disk = uuid(77);
/** A leader that is itself no brick of the state. */
const nobody = { brick: 99, boot: 1 };
const nexus = { initiatorPort: "iqn.2026-11.example:host,i,0x00023d000001", targetPort: 2 };

function clusterWithDisk(bricks: number): TestCluster {
  const cluster = new TestCluster(bricks);
  cluster.ok({
    type: "createVolume",
    name: "disk",
    uuid: disk,
    sizeBytes: 2 ** 30,
    copies: 1,
    degradedWrites: true,
  });
  return cluster;
}

function change(cluster: TestCluster, change: UnitChange) {
  const command = { type: "changeUnit", uuid: disk, change };
  const bytes = encodeEnvelope({ id: null, timeMs: 0, command: command as never });
  const decoded = decodeEnvelope(bytes);
  assert.ok(decoded.ok, "it passes the check of what comes from outside");
  return cluster.run(decoded.envelope.command);
}

function register(aptpl: boolean): UnitChange {
  return {
    type: "reserveOut",
    nexus,
    action: "register",
    reservation: null,
    key: "0000000000000000",
    actionKey: "00000000000000aa",
    aptpl,
    allTargetPorts: false,
    initiatorPorts: [],
    move: null,
  };
}

function registrations(cluster: TestCluster): number {
  return cluster.state.units?.[disk]?.reservations.registrations.length ?? 0;
}

function keepalive(number: number, boot: number) {
  const rest = { clusterId: "", sentMs: 0, usedBytes: 0, full: false, cut: false };
  return { ...facts(number, boot), ...rest, discarded: false, shards: [] };
}

/** A brick's keepalive reaches the leader: what comes of it is applied. */
function arrive(cluster: TestCluster, book: LeaderBook, number: number, boot: number): void {
  hear(book, number, keepalive(number, boot), 0);
  const arrival = arrivalCommand(book, cluster.state, number, keepalive(number, boot));
  if (arrival !== null) cluster.ok(arrival);
  for (const command of membershipCommands(book, cluster.state, 1, 0)) cluster.ok(command);
}

test("a change of a unit answers the device server's outcome, and a refusal changes nothing", () => {
  const cluster = clusterWithDisk(2);
  assert.deepEqual(change(cluster, register(false)), { ok: true, value: 1, outcome: "done" });
  const { state } = cluster;
  const again = change(cluster, register(false));
  assert.deepEqual(again, { ok: true, value: 1, outcome: "reservation_conflict" });
  assert.equal(cluster.state, state);
});

test("a retry of a change is answered again, not applied again", () => {
  const cluster = clusterWithDisk(2);
  const id = { brick: 1, boot: 1, sequence: 1, settled: 1 };
  const command = { type: "changeUnit", uuid: disk, change: register(false) } as const;
  const first = applyEnvelope(
    { cluster: cluster.state, remembered: {} },
    { id, timeMs: 0, command },
  );
  const retry = applyEnvelope(first.machine, { id, timeMs: 0, command });
  assert.deepEqual(retry.result, { ok: true, value: 1, outcome: "done" });
  assert.equal(retry.machine, first.machine);
});

test("a volume that is deleted takes no changes, and its unit goes with it", () => {
  const cluster = clusterWithDisk(2);
  change(cluster, register(true));
  cluster.ok({ type: "deleteVolume", name: "disk" });
  assert.equal(
    cluster.refused({ type: "changeUnit", uuid: disk, change: register(true) }),
    "unknown",
  );
  cluster.ok({ type: "forgetVolume", uuid: disk });
  assert.deepEqual(cluster.state.units, {});
});

test("fields of a change are checked before it is proposed", () => {
  const wrong: object[] = [
    { ...register(false), key: "AA" },
    { ...register(false), reservation: 2 },
    { ...register(false), nexus: { ...nexus, targetPort: 0 } },
    { ...register(false), nexus: { ...nexus, initiatorPort: "x".repeat(241) } },
    { type: "sanitizeProgress", progress: 65_536 },
    // What bricks and power do is the cluster's own to judge.
    { type: "portLost", targetPort: 1 },
    { type: "powerLost" },
  ];
  for (const one of wrong) {
    const command = { type: "changeUnit", uuid: disk, change: one };
    const decoded = decodeEnvelope(encodeEnvelope({ id: null, timeMs: 0, command } as never));
    assert.ok(!decoded.ok && decoded.fault.code === "malformed", JSON.stringify(one));
  }
});

test("RESERVE(6) ends when its portal's brick is down, or starts anew", () => {
  const cluster = clusterWithDisk(3);
  const reserved = () => cluster.state.units?.[disk]?.reservations.reserve6 ?? null;
  change(cluster, { type: "reserve6", nexus });
  cluster.down(3);
  assert.deepEqual(reserved(), nexus);
  cluster.down(2);
  assert.equal(reserved(), null);
  cluster.up(2);
  change(cluster, { type: "reserve6", nexus });
  assert.deepEqual(reserved(), nexus);
  cluster.announce(2, 2);
  assert.equal(reserved(), null);
});

test("a brick's absences are counted", () => {
  const cluster = new TestCluster(2);
  assert.equal(cluster.state.bricks[2]!.absences, undefined);
  for (const expected of [1, 2]) {
    cluster.down(2);
    assert.equal(cluster.state.bricks[2]!.absences, expected);
    cluster.up(2);
  }
  cluster.announce(2, 2);
  assert.equal(cluster.state.bricks[2]!.absences, 2);
});

for (const aptpl of [false, true]) {
  test(`all bricks without power at once: APTPL=${Number(aptpl)}`, () => {
    const cluster = clusterWithDisk(3);
    change(cluster, register(aptpl));
    const book = beginBook(defaultTiming, 0, nobody);
    arrive(cluster, book, 2, 2);
    arrive(cluster, book, 1, 2);
    assert.equal(registrations(cluster), 1, "brick 3 may have run all along");
    const early = { type: "changeUnit", uuid: disk, change: register(aptpl) } as const;
    assert.equal(cluster.refused(early), "not_now", "nobody reserves before that is known");
    arrive(cluster, book, 3, 2);
    assert.equal(registrations(cluster), aptpl ? 1 : 0);
    assert.equal(mayHaveLostPower(cluster.state), false);
    const after = change(cluster, register(aptpl));
    assert.deepEqual(after.ok && after.outcome, aptpl ? "reservation_conflict" : "done");
  });
}

test("a brick that does not come back after the power cut counts once its lease has ended", () => {
  const cluster = clusterWithDisk(3);
  change(cluster, register(false));
  const book = beginBook(defaultTiming, 0, nobody);
  arrive(cluster, book, 1, 2);
  arrive(cluster, book, 2, 2);
  assert.equal(registrations(cluster), 1);
  cluster.down(3);
  assert.equal(registrations(cluster), 0);
});

test("the only brick's restart is a power loss", () => {
  const cluster = clusterWithDisk(1);
  change(cluster, register(false));
  arrive(cluster, beginBook(defaultTiming, 0, nobody), 1, 2);
  assert.equal(registrations(cluster), 0);
});

test("restarts one after the other, and changes of leader, keep all", () => {
  const cluster = clusterWithDisk(3);
  change(cluster, register(false));
  for (let boot = 2; boot <= 4; boot += 1) {
    for (const number of [1, 2, 3]) {
      // The brick that starts is elected before anyone else is heard: it knows nothing of them.
      const book = beginBook(defaultTiming, 0, nobody);
      arrive(cluster, book, number, boot);
      for (const other of [1, 2, 3])
        arrive(cluster, book, other, cluster.state.bricks[other]!.boot);
      assert.equal(registrations(cluster), 1, `brick ${number} boot ${boot}`);
      assert.equal(mayHaveLostPower(cluster.state), false);
    }
  }
});

test("two of three start anew at once: the third has run all along, and says so", () => {
  const cluster = clusterWithDisk(3);
  change(cluster, register(false));
  const first = beginBook(defaultTiming, 0, nobody);
  arrive(cluster, first, 1, 2);
  // Another leader, of whom the first was no witness.
  const second = beginBook(defaultTiming, 0, nobody);
  arrive(cluster, second, 2, 2);
  assert.equal(mayHaveLostPower(cluster.state), true);
  arrive(cluster, second, 3, 1);
  assert.equal(mayHaveLostPower(cluster.state), false);
  arrive(cluster, second, 3, 2);
  assert.equal(registrations(cluster), 1, "bricks 1 and 2 were witnessed by then");
});

test("a power loss is seen by the next leader, when the first fell before it was certain", () => {
  const cluster = clusterWithDisk(3);
  change(cluster, register(false));
  arrive(cluster, beginBook(defaultTiming, 0, nobody), 1, 2);
  const next = beginBook(defaultTiming, 0, nobody);
  arrive(cluster, next, 1, 2);
  arrive(cluster, next, 2, 2);
  assert.equal(mayHaveLostPower(cluster.state), true);
  arrive(cluster, next, 3, 2);
  assert.equal(registrations(cluster), 0);
});

test("a leader that ran before is a witness itself", () => {
  const cluster = clusterWithDisk(2);
  change(cluster, register(false));
  arrive(cluster, beginBook(defaultTiming, 0, { brick: 2, boot: 1 }), 1, 2);
  assert.equal(mayHaveLostPower(cluster.state), false);
  arrive(cluster, beginBook(defaultTiming, 0, { brick: 1, boot: 2 }), 2, 2);
  assert.equal(mayHaveLostPower(cluster.state), false);
  assert.equal(registrations(cluster), 1);
});

test("a start waits for a witness as long as one may be heard, and no longer", () => {
  const { state } = new TestCluster(3);
  const self = { brick: 1, boot: 2 };
  const quietMs = defaultTiming.keepaliveEveryMs * defaultTiming.missedRounds;
  const book = beginBook(defaultTiming, 1000, self);
  hear(book, 1, keepalive(1, 2), 1000);
  assert.equal(awaitsWitness(book, state, 1000), true);
  assert.equal(awaitsWitness(book, state, 1000 + quietMs - 1), true);
  assert.equal(awaitsWitness(book, state, 1000 + quietMs), false, "those have had their time");
  hear(book, 2, keepalive(2, 2), 1001);
  assert.equal(awaitsWitness(book, state, 1001), true, "brick 3 may have run before");
  hear(book, 3, keepalive(3, 2), 1002);
  assert.equal(awaitsWitness(book, state, 1002), false, "all have started anew");
  const other = beginBook(defaultTiming, 1000, self);
  hear(other, 3, keepalive(3, 1), 1001);
  assert.equal(awaitsWitness(other, state, 1001), false, "brick 3 is a witness");
});

test("a unit is changed for a brick whose start is announced", () => {
  const cluster = clusterWithDisk(2);
  const ask = (boot: number) => {
    const command = { type: "changeUnit", uuid: disk, change: register(false) } as const;
    return earlyRefusal(cluster.state, { brick: 2, boot, sequence: 1, settled: 1 }, command);
  };
  assert.equal(ask(1), null);
  assert.equal(ask(2)?.code, "not_now");
  cluster.announce(2, 2);
  assert.equal(ask(2), null);
  cluster.down(2);
  assert.equal(ask(2)?.code, "not_now");
});

test("only the leader witnesses", () => {
  assert.ok(leaderOnly.has("witness"));
  const cluster = new TestCluster(2);
  assert.equal(cluster.refused({ type: "witness" }), "no_change");
});

test("a state of before units were known is a state without any", () => {
  const cluster = clusterWithDisk(2);
  const bytes = encodeSnapshot({ cluster: cluster.state, remembered: {} });
  assert.equal("units" in cluster.state, false);
  const decoded = decodeSnapshot(bytes);
  assert.ok(decoded.ok);
  cluster.state = decoded.machine.cluster;
  const outcome = change(cluster, register(false));
  assert.deepEqual(outcome, { ok: true, value: 1, outcome: "done" });
});
