import assert from "node:assert/strict";
import { test } from "node:test";
import type { ClusterState } from "../cluster-state.ts";
import {
  type NexusId,
  newUnit,
  reservationType,
  type UnitNotice,
  type UnitRecord,
} from "../unit/unit-record.ts";
import { type Bench, makeBench, makeCluster } from "./gateway-bench.ts";
import type { Origin } from "./operation.ts";
import { fillWith } from "./sector-model.ts";
import { isEnded } from "./unit-check.ts";
import { VolumeTask } from "./volume.ts";

const noCache = { chunkCacheBytes: 0, mapCacheGrainsMax: 5, mapCacheCellsMax: 300 };
const here = { initiatorPort: "iqn.2026-11.example:a,i,0x00023d000001", targetPort: 1 };
const there = { initiatorPort: "iqn.2026-11.example:b,i,0x00023d000002", targetPort: 2 };

function notice(sequence: number, change: Partial<UnitNotice> = {}): UnitNotice {
  const base = { condition: "reservationsPreempted", nexuses: null, except: null } as const;
  return { sequence, ...base, endsTasks: true, ...change };
}

function unitOf(notices: readonly UnitNotice[], change: Partial<UnitRecord> = {}): UnitRecord {
  const noticeNext = (notices.at(-1)?.sequence ?? 0) + 1;
  return { ...newUnit, version: noticeNext, notices, noticeNext, ...change };
}

function setUnit({ cluster }: Bench, unit: UnitRecord): void {
  cluster.setState({ units: { [cluster.volume.uuid]: unit } });
}

function by(nexus: NexusId, noticeNext: number): Origin & { task: VolumeTask } {
  return { task: new VolumeTask(nexus, noticeNext) };
}

const cancelled = { ok: false, fault: { code: "cancelled" } };

test("a notice ends the commands of whom it concerns that began before it", () => {
  const unit = unitOf([notice(4, { nexuses: [here] }), notice(5, { endsTasks: false })]);
  assert.equal(isEnded(unit, here, 4), true);
  assert.equal(isEnded(unit, here, 5), false);
  assert.equal(isEnded(unit, there, 4), false);
  assert.equal(isEnded(unit, here, 6), false);
  // Notices 1 to 3 have made room: nobody can tell what they were.
  assert.equal(isEnded(unit, there, 3), true);
  assert.equal(isEnded(unitOf([notice(1, { except: here })]), here, 1), false);
});

test("what began before a notice takes effect no more, and what began after does", async () => {
  const bench = makeBench(makeCluster(1), noCache);
  const { gateway, cluster } = bench;
  setUnit(bench, unitOf([notice(1, { nexuses: [here] })]));
  const until = cluster.time.until.bind(cluster.time);
  const late = by(here, 1);
  assert.deepEqual(await until(gateway.write(0, [fillWith(1, 8)], late)), cancelled);
  assert.deepEqual(await until(gateway.read(0, 512, late)), cancelled);
  assert.deepEqual(await until(gateway.unmap(0, 512, late)), cancelled);
  assert.deepEqual(await until(gateway.allocation(0, 512, 8, late)), cancelled);
  const zeros = [Buffer.alloc(512)];
  assert.deepEqual(await until(gateway.compareAndWrite(0, zeros, zeros, late)), cancelled);
  assert.equal(cluster.mapWrites, 0);
  for (const origin of [by(here, 2), by(there, 1)]) {
    assert.deepEqual(await until(gateway.write(0, [fillWith(1, 8)], origin)), { ok: true });
  }
});

test("commands under way that a notice ends settle before it counts as settled", async () => {
  const bench = makeBench(makeCluster(2), noCache);
  const { gateway, cluster } = bench;
  await cluster.time.until(gateway.write(0, [fillWith(9, 8)]));
  for (const brick of cluster.bricks.values()) brick.frozen = true;
  const first = gateway.write(0, [fillWith(1, 8)], by(here, 1));
  // Behind the first one.
  const second = gateway.write(0, [fillWith(2, 8)], by(here, 1));
  const other = gateway.write(4096, [fillWith(3, 8)], by(there, 1));
  const read = gateway.read(8192, 512, by(here, 1));
  await cluster.time.run(50);
  const unit = unitOf([notice(1, { nexuses: [here] })]);
  assert.equal(gateway.hasSettled(unit.version), false);
  setUnit(bench, unit);
  assert.deepEqual(await read, cancelled);
  assert.equal(gateway.hasSettled(unit.version), false);
  for (const brick of cluster.bricks.values()) brick.frozen = false;
  assert.deepEqual(await cluster.time.until(second), cancelled);
  assert.deepEqual(await cluster.time.until(other), { ok: true });
  await cluster.time.until(first);
  assert.equal(gateway.hasSettled(unit.version), true);
  assert.equal(gateway.hasSettled(unit.version + 1), false);
});

test("a command whose time was over is waited for as well", async () => {
  const bench = makeBench(makeCluster(3), { ...noCache, operationDeadlineMs: 200 });
  const { gateway, cluster } = bench;
  await cluster.time.until(gateway.write(0, [fillWith(1, 8)]));
  for (const brick of cluster.bricks.values()) brick.frozen = true;
  const result = await cluster.time.until(gateway.write(0, [fillWith(2, 8)], by(here, 1)));
  assert.equal(!result.ok && result.fault.code, "unavailable");
  const unit = unitOf([notice(1, { nexuses: [here] })]);
  setUnit(bench, unit);
  assert.equal(gateway.hasSettled(unit.version), false);
  for (const brick of cluster.bricks.values()) brick.frozen = false;
  await cluster.time.run(2000);
  assert.equal(gateway.hasSettled(unit.version), true);
});

test("another's reservation keeps commands out, and holds back no answer that it needs not", async () => {
  const bench = makeBench(makeCluster(6), noCache);
  const { gateway, cluster } = bench;
  const until = cluster.time.until.bind(cluster.time);
  const conflict = { ok: false, fault: { code: "reservation_conflict" } };
  const write = (nexus: NexusId) => until(gateway.write(0, [fillWith(1, 8)], by(nexus, 1)));
  await write(there);
  for (const brick of cluster.bricks.values()) brick.frozen = true;
  // Had begun when the unit was reserved: it may land, but nobody is told before it has.
  const early = gateway.write(0, [fillWith(2, 8)], by(there, 1));
  const type = reservationType.writeExclusive;
  const held = { type, holder: here };
  const registrations = [{ nexus: here, key: "0000000000000001" }];
  const reservations = { ...newUnit.reservations, registrations, held };
  const unit = { ...newUnit, version: 2, reservations };
  setUnit(bench, unit);
  assert.equal(gateway.hasSettled(2), false);
  for (const brick of cluster.bricks.values()) brick.frozen = false;
  assert.deepEqual(await until(early), { ok: true });
  assert.equal(gateway.hasSettled(2), true);
  assert.deepEqual(await write(there), conflict);
  assert.deepEqual(await write(here), { ok: true });
  assert.ok((await until(gateway.read(0, 512, by(there, 1)))).ok);
  const exclusive = { ...held, type: reservationType.exclusiveAccess };
  setUnit(bench, { ...unit, version: 3, reservations: { ...reservations, held: exclusive } });
  assert.deepEqual(await until(gateway.read(0, 512, by(there, 1))), conflict);
  assert.deepEqual(await until(gateway.allocation(0, 512, 4, by(there, 1))), conflict);
  // The cluster's own work is not asked.
  assert.ok((await until(gateway.read(0, 512))).ok);
});

test("while it is sanitized, and when that was in vain, nothing is read or written", async () => {
  const bench = makeBench(makeCluster(4), noCache);
  const { gateway, cluster } = bench;
  const until = cluster.time.until.bind(cluster.time);
  const sanitizing = { ok: false, fault: { code: "sanitizing" } };
  for (const state of ["running", "failed"] as const) {
    const sanitize = { state, progress: 0, allowUnrestrictedExit: false };
    setUnit(bench, unitOf([], { sanitize }));
    assert.deepEqual(await until(gateway.write(0, [fillWith(1, 8)], by(here, 1))), sanitizing);
    assert.deepEqual(await until(gateway.read(0, 512)), sanitizing);
  }
  setUnit(bench, unitOf([]));
  assert.ok((await until(gateway.read(0, 512))).ok);
});

test("a command from before its portal's absence, or restart, does not begin any more", async () => {
  const bench = makeBench(makeCluster(5), noCache);
  const { gateway, cluster } = bench;
  const until = cluster.time.until.bind(cluster.time);
  const portal = { brick: 3, boot: 1, absences: 2 };
  const write = () => until(gateway.write(0, [fillWith(1, 8)], { portal }));
  const setPortal = (absences: number, boot: number) => {
    const record = { ...cluster.state.bricks["3"]!, absences, boot };
    const bricks: ClusterState["bricks"] = { ...cluster.state.bricks, 3: record };
    cluster.setState({ bricks });
  };
  assert.deepEqual(await write(), { ok: true });
  setPortal(2, 1);
  assert.deepEqual(await write(), { ok: true });
  for (const [absences, boot] of [
    [3, 1],
    [2, 2],
  ] as const) {
    setPortal(absences, boot);
    const result = await write();
    assert.equal(!result.ok && result.fault.code, "unavailable");
  }
  // Down, or drained and removed: its initiator is elsewhere.
  for (const status of ["down", "failed", null] as const) {
    const { "3": record, ...others } = cluster.state.bricks;
    const gone = status === null ? {} : { 3: { ...record!, status, absences: 2, boot: 1 } };
    cluster.setState({ bricks: { ...others, ...gone } });
    const result = await write();
    assert.equal(!result.ok && result.fault.code, "unavailable", `${status}`);
    cluster.setState({ bricks: { ...others, 3: record! } });
  }
  // Waiting for its turn when the portal went away.
  setPortal(2, 1);
  for (const brick of cluster.bricks.values()) brick.frozen = true;
  const first = gateway.write(0, [fillWith(4, 8)]);
  const second = gateway.write(0, [fillWith(5, 8)], { portal });
  await cluster.time.run(20);
  setPortal(3, 1);
  for (const brick of cluster.bricks.values()) brick.frozen = false;
  assert.deepEqual(await until(first), { ok: true });
  const result = await until(second);
  assert.equal(!result.ok && result.fault.code, "unavailable");
});
