import assert from "node:assert/strict";
import { test } from "node:test";
import type { VolumeTask } from "../brick/volume/volume.ts";
import {
  pattern,
  senseText,
  settled,
  TestInitiator,
  testNode,
  testUnitReady,
  write10,
} from "./initiator.test-double.ts";
import { decodeLun } from "./lun.ts";
import { MemoryVolume, memoryDirectory } from "./memory-volume.test-double.ts";
import { taskManagementRequest, taskManagementResponse } from "./pdu.ts";

const shared = "iqn.2026-11.endisk:shared";

/** Two volumes of targets of their own, and a target of both at LUNs 3 and 300. */
function twoDisks() {
  const volumes = [1, 2].map((at) => new MemoryVolume(`disk${at}`, 1 << 20, `${at}`.repeat(32)));
  const node = testNode(memoryDirectory(volumes));
  const show = (luns: [number, string][]) => {
    node.authority.extraTargets.set(shared, { name: shared, luns: new Map(luns) });
    node.authority.changed();
  };
  show([
    [300, "disk2"],
    [3, "disk1"],
  ]);
  return { volumes, node, show };
}

function login(node: ReturnType<typeof testNode>, wanted = shared, isid = 1): TestInitiator {
  const initiator = new TestInitiator(node);
  const answer = initiator.login({ target: wanted, isid, keys: [["iSCSIProtocolLevel", "2"]] });
  assert.equal(answer.values.statusClass, 0);
  return initiator;
}

const flat300 = { lunHigh: 0x412c_0000 };
const lun3 = { lunHigh: 0x0003_0000 };
const reportLuns = Buffer.from("a00000000000000001000000", "hex");
const inquiry = Buffer.from("120000006000", "hex");

async function senseOf(initiator: TestInitiator, lun: object): Promise<string> {
  initiator.command(testUnitReady, lun);
  return senseText((await initiator.outcome()).sense);
}

/** Takes the unit attention of a new nexus. */
async function clear(initiator: TestInitiator, ...luns: object[]): Promise<void> {
  for (const lun of luns) assert.equal(await senseOf(initiator, lun), "6/29/00");
}

for (const [high, low, number] of [
  [0, 0, 0],
  [0x0003_0000, 0, 3],
  [0x00ff_0000, 0, 255],
  [0x4000_0000, 0, 0],
  [0x412c_0000, 0, 300],
  [0x7fff_0000, 0, 0x3fff],
  [0x0103_0000, 0, undefined],
  [0x0003_0001, 0, undefined],
  [0x0003_0000, 1, undefined],
  [0x8003_0000, 0, undefined],
  [0xc101_0000, 0, undefined],
] as const) {
  test(`LUN ${high.toString(16).padStart(8, "0")} ${low} is ${number}`, () => {
    assert.equal(decodeLun(high, low), number);
  });
}

test("a target of several units: each answers at its LUN, LUN 0 says that it is not there", async () => {
  const { node } = twoDisks();
  const initiator = login(node);
  await clear(initiator, lun3, flat300);
  initiator.command(inquiry, { read: true, expectedLength: 96 });
  assert.equal((await initiator.outcome()).data[0], 0x7f);
  initiator.command(reportLuns, { read: true, expectedLength: 256 });
  const { data } = await initiator.outcome();
  assert.equal(
    data.toString("hex", 0, 24),
    "0000001000000000" + "0003000000000000" + "412c000000000000",
  );
  assert.equal(await senseOf(initiator, { lunHigh: 0 }), "5/25/00");
  assert.equal(await senseOf(initiator, { lunHigh: 0x0004_0000 }), "5/25/00");
  const options = { write: true, expectedLength: 512, ...flat300 };
  initiator.command(write10(0, 1), options, pattern(512));
  assert.equal((await initiator.outcome()).status, 0);
  initiator.command(Buffer.from("28000000000000000100", "hex"), {
    read: true,
    expectedLength: 512,
    ...lun3,
  });
  assert.deepEqual(
    (await initiator.outcome()).data,
    Buffer.alloc(512),
    "the other unit is its own",
  );
});

test("one unit by two targets: a reset through one is told through the other", async () => {
  const { node } = twoDisks();
  const own = login(node, "iqn.2026-11.endisk:disk1");
  const common = login(node, shared, 2);
  await clear(own, {});
  await clear(common, lun3, flat300);
  own.send(taskManagementRequest, { immediate: true, function: 5, cmdSn: own.cmdSn });
  await settled();
  assert.equal(own.takeOne(taskManagementResponse).values.response, 0);
  assert.equal(await senseOf(common, lun3), "6/29/03");
  assert.equal(await senseOf(common, flat300), "none");
});

test("units come and go in a live session", async () => {
  const { node, show, volumes } = twoDisks();
  const initiator = login(node);
  await clear(initiator, lun3, flat300);
  show([[3, "disk1"]]);
  await settled();
  assert.equal(await senseOf(initiator, lun3), "6/3f/0e");
  assert.equal(await senseOf(initiator, flat300), "5/25/00");
  assert.deepEqual([...node.units.keys()], [volumes[0]!.info.uuid]);
  show([
    [3, "disk1"],
    [300, "disk2"],
  ]);
  await settled();
  assert.equal(await senseOf(initiator, lun3), "6/3f/0e");
  assert.equal(await senseOf(initiator, flat300), "6/29/00");
  // Another volume in the same place is another unit.
  show([
    [3, "disk1"],
    [300, "disk1"],
  ]);
  await settled();
  assert.equal(await senseOf(initiator, flat300), "6/29/00");
});

test("a command at a unit that is taken away is answered once it has settled", async () => {
  const { node, show, volumes } = twoDisks();
  const initiator = login(node);
  await clear(initiator, lun3, flat300);
  const running: { task: VolumeTask; end(): void }[] = [];
  volumes[0]!.write = (_offset, _data, task) =>
    new Promise((resolve) => {
      const end = () => resolve({ ok: false, fault: { code: "cancelled" } });
      running.push({ task: task!, end });
    });
  initiator.command(write10(0, 1), { write: true, expectedLength: 512, ...lun3 }, pattern(512));
  show([[300, "disk2"]]);
  await settled();
  assert.equal(running[0]?.task.cancelled, true);
  assert.equal(node.units.size, 2, "the unit stays until the write has settled");
  running[0]!.end();
  assert.equal((await initiator.outcome()).status, 0x40, "TASK ABORTED");
  assert.equal(node.units.size, 1);
});

test("a session ends when its initiator may use nothing of its target any more", async () => {
  const { node, show } = twoDisks();
  const initiator = login(node);
  const other = login(node, "iqn.2026-11.endisk:disk2");
  show([]);
  await settled();
  assert.equal(initiator.connection.closing, "now");
  assert.equal(other.connection.closing, null);
  node.authority.forbidden.add("iqn.2026-11.endisk:disk2");
  node.authority.changed();
  await settled();
  assert.equal(other.connection.closing, "now");
  assert.equal(node.sessions.size + node.units.size, 0);
});

test("RESERVE(6) goes with its nexus, also when the cluster is away at first", async () => {
  const { node, volumes } = twoDisks();
  const volume = volumes[0]!;
  const initiator = login(node, "iqn.2026-11.endisk:disk1");
  const [at] = initiator.connection.session!.luns.values();
  await volume.changeUnit({ type: "reserve6", nexus: at!.nexus.id });
  assert.notEqual(volume.unit().reservations.reserve6, null);
  volume.fault = { code: "unavailable", reason: "test" };
  initiator.lose();
  await settled();
  assert.notEqual(volume.unit().reservations.reserve6, null);
  volume.fault = null;
  node.clock.advance(10_000);
  await settled();
  assert.equal(volume.unit().reservations.reserve6, null);
});

test("what comes behind a reset waits for its answer and is not lost with the others", async () => {
  const { node, volumes } = twoDisks();
  const initiator = login(node, "iqn.2026-11.endisk:disk1");
  await clear(initiator, {});
  const change = volumes[0]!.changeUnit.bind(volumes[0]);
  let decide = () => {};
  volumes[0]!.changeUnit = async (wanted) => {
    await new Promise<void>((resolve) => {
      decide = resolve;
    });
    return change(wanted);
  };
  const reset = { immediate: true, initiatorTaskTag: 77, function: 5, cmdSn: initiator.cmdSn };
  initiator.send(taskManagementRequest, reset);
  const behind = initiator.command(testUnitReady);
  initiator.send(taskManagementRequest, { ...reset, initiatorTaskTag: 78 });
  const last = initiator.command(testUnitReady);
  await settled();
  assert.deepEqual(initiator.take(), []);
  decide();
  await settled();
  const [first, status] = initiator.take();
  assert.equal(first?.opcode, taskManagementResponse.opcode);
  assert.equal(status?.values.initiatorTaskTag, behind);
  assert.equal(senseText(status!.data.subarray(2)), "6/29/03");
  decide();
  await settled();
  const [second, lastStatus] = initiator.take();
  assert.equal(second?.values.initiatorTaskTag, 78);
  assert.equal(lastStatus?.values.initiatorTaskTag, last);
});

test("a reset that the cluster cannot decide is rejected", async () => {
  const { node, volumes } = twoDisks();
  const initiator = login(node);
  await clear(initiator, lun3, flat300);
  volumes[1]!.fault = { code: "unavailable", reason: "test" };
  const request = { immediate: true, initiatorTaskTag: 77, cmdSn: initiator.cmdSn };
  for (const wanted of [
    { function: 5, ...flat300 },
    { function: 4, ...flat300 },
    { function: 6 },
  ]) {
    initiator.send(taskManagementRequest, { ...request, ...wanted });
    await settled();
    assert.equal(initiator.takeOne(taskManagementResponse).values.response, 255);
  }
});

test("a reset waits for writes of a session that has just been lost", async () => {
  const { node, volumes } = twoDisks();
  const lost = login(node, "iqn.2026-11.endisk:disk1", 1);
  await clear(lost, {});
  let end = () => {};
  volumes[0]!.write = () =>
    new Promise((resolve) => {
      end = () => resolve({ ok: true });
    });
  lost.command(write10(0, 1), { write: true, expectedLength: 512 }, pattern(512));
  lost.lose();
  const initiator = login(node, "iqn.2026-11.endisk:disk1", 2);
  initiator.send(taskManagementRequest, { immediate: true, function: 5, cmdSn: initiator.cmdSn });
  await settled();
  assert.deepEqual(initiator.take(), []);
  end();
  await settled();
  assert.equal(initiator.takeOne(taskManagementResponse).values.response, 0);
});

test("RFC 7144: queries, and the reset of a nexus alone", async () => {
  const { node, volumes } = twoDisks();
  const initiator = login(node);
  const other = login(node, shared, 2);
  await clear(other, lun3);
  const ask = async (fields: object) => {
    const request = { immediate: true, initiatorTaskTag: 0x500, cmdSn: initiator.cmdSn };
    initiator.send(taskManagementRequest, { ...request, ...fields });
    await settled();
    const { response, information } = initiator.takeOne(taskManagementResponse).values;
    return [response, information];
  };
  assert.deepEqual(await ask({ function: 12, ...lun3 }), [7, 0x16_29_00]);
  await clear(initiator, lun3, flat300);
  assert.deepEqual(await ask({ function: 12, ...lun3 }), [0, 0]);
  const ends: (() => void)[] = [];
  volumes[0]!.write = (_offset, _data, task) =>
    new Promise((resolve) => {
      ends.push(() => resolve({ ok: true }));
      task!.onCancel = ends.at(-1)!;
    });
  const options = { write: true, expectedLength: 512, ...lun3 };
  const tag = initiator.command(write10(0, 1), options, pattern(512));
  other.command(write10(0, 1), options, pattern(512));
  assert.deepEqual(await ask({ function: 9, referencedTaskTag: tag, ...lun3 }), [7, 0]);
  assert.deepEqual(await ask({ function: 9, referencedTaskTag: tag, ...flat300 }), [0, 0]);
  assert.deepEqual(await ask({ function: 10, ...lun3 }), [7, 0]);
  assert.deepEqual(await ask({ function: 10, ...flat300 }), [0, 0]);
  assert.deepEqual(await ask({ function: 11 }), [0, 0]);
  assert.deepEqual(await ask({ function: 10, ...lun3 }), [0, 0]);
  assert.equal(await senseOf(initiator, flat300), "6/29/07");
  assert.deepEqual(other.take(), [], "another nexus is not concerned");
  ends[1]!();
  assert.equal((await other.outcome()).status, 0);
});
