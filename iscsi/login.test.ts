import assert from "node:assert/strict";
import { test } from "node:test";
import { checkIdle } from "./connection.ts";
import { settled, TestInitiator, testNode, textOf } from "./initiator.test-double.ts";
import { loginTimeoutMs } from "./limits.ts";
import { MemoryVolume, memoryDirectory } from "./memory-volume.test-double.ts";
import { loginResponse, nopOut, noTag, textRequest, textResponse } from "./pdu.ts";
import { encodeText, type TextPair } from "./text-keys.ts";

const target = "iqn.2026-11.endisk:disk";
const name: TextPair = ["InitiatorName", "iqn.2026-11.test:initiator"];

function oneDisk() {
  return testNode(memoryDirectory([new MemoryVolume("disk", 1 << 20)]));
}

function statusOf(answer: { values: { statusClass: number; statusDetail: number } }): number {
  return (answer.values.statusClass << 8) | answer.values.statusDetail;
}

test("a normal login in one request", () => {
  const initiator = new TestInitiator(oneDisk());
  const answer = initiator.login({
    target,
    keys: [
      ["HeaderDigest", "CRC32C,None"],
      ["DataDigest", "None"],
      ["InitialR2T", "No"],
      ["ImmediateData", "Yes"],
      ["MaxRecvDataSegmentLength", "262144"],
      ["MaxBurstLength", "16776192"],
      ["FirstBurstLength", "262144"],
      ["MaxOutstandingR2T", "16"],
      ["MaxConnections", "4"],
      ["DefaultTime2Wait", "0"],
      ["DefaultTime2Retain", "20"],
      ["DataPDUInOrder", "No"],
      ["ErrorRecoveryLevel", "2"],
      ["X-com.example.key", "1"],
      ["IFMarker", "No"],
    ],
  });
  assert.equal(statusOf(answer), 0);
  assert.equal(answer.values.transit, true);
  assert.equal(answer.values.nextStage, 3);
  assert.notEqual(answer.values.tsih, 0);
  assert.deepEqual(Object.fromEntries(textOf(answer)), {
    TargetPortalGroupTag: "7",
    HeaderDigest: "CRC32C",
    DataDigest: "None",
    InitialR2T: "No",
    ImmediateData: "Yes",
    MaxBurstLength: "1048576",
    FirstBurstLength: "262144",
    MaxOutstandingR2T: "8",
    MaxConnections: "1",
    DefaultTime2Wait: "2",
    DefaultTime2Retain: "0",
    DataPDUInOrder: "Yes",
    ErrorRecoveryLevel: "0",
    "X-com.example.key": "NotUnderstood",
    IFMarker: "No",
    MaxRecvDataSegmentLength: "1048576",
  });
  initiator.ping(Buffer.from("under a header digest"));
  assert.equal(initiator.take()[0]?.data.toString(), "under a header digest");
});

test("keys that are not offered keep RFC 7143's defaults", () => {
  const initiator = new TestInitiator(oneDisk());
  initiator.login({ target, keys: [] });
  const { parameters } = initiator.connection.session!;
  assert.equal(parameters.initialR2t, true);
  assert.equal(parameters.maxBurstBytes, 262_144);
  assert.equal(parameters.firstBurstBytes, 65_536);
  assert.equal(parameters.outstandingR2tMax, 1);
  assert.equal(parameters.initiatorDataBytesMax, 8192);
});

test("security, then operational, then full feature, with text in two parts", () => {
  const initiator = new TestInitiator(oneDisk());
  const isid = Buffer.from("800000000001", "hex");
  const text: TextPair[] = [name, ["TargetName", target], ["AuthMethod", "CHAP,None"]];
  const stage = { currentStage: 0, isid };
  // The first part ends in the middle of the second key.
  const whole = encodeText(text).toString("latin1");
  initiator.sendLogin([], { ...stage, continue: true });
  assert.equal(initiator.takeOne(loginResponse).values.transit, false);
  initiator.sendLogin([["InitiatorName", whole.slice(14, -1)]], {
    ...stage,
    transit: true,
    nextStage: 1,
  });
  const first = initiator.takeOne(loginResponse);
  assert.equal(statusOf(first), 0);
  assert.equal(first.values.nextStage, 1);
  assert.equal(textOf(first).get("AuthMethod"), "None");
  initiator.sendLogin([["MaxBurstLength", "4096"]], { currentStage: 1, isid });
  assert.equal(initiator.takeOne(loginResponse).values.transit, false);
  initiator.sendLogin([], { currentStage: 1, isid, transit: true, nextStage: 3 });
  const last = initiator.takeOne(loginResponse);
  assert.equal(last.values.transit, true);
  assert.equal(initiator.connection.phase, "full");
  assert.equal(initiator.connection.session?.parameters.firstBurstBytes, 4096);
});

const refusals: [string, TextPair[], object, number][] = [
  ["no InitiatorName", [["TargetName", target]], {}, 0x0207],
  ["no TargetName", [name], {}, 0x0207],
  ["an unknown target", [name, ["TargetName", `${target}2`]], {}, 0x0203],
  ["a foreign target", [name, ["TargetName", "iqn.2000-01.other:disk"]], {}, 0x0203],
  ["an unknown session type", [name, ["SessionType", "Other"]], {}, 0x0209],
  ["a session that is not there", [name, ["TargetName", target]], { tsih: 99 }, 0x020a],
  ["a version to come", [name, ["TargetName", target]], { versionMin: 1 }, 0x0205],
  ["a stage that does not exist", [name, ["TargetName", target]], { currentStage: 2 }, 0x0200],
  ["a step back", [name, ["TargetName", target]], { nextStage: 0 }, 0x0200],
  ["C and T together", [name, ["TargetName", target]], { continue: true }, 0x0200],
  ["a key twice", [name, ["TargetName", target], name], {}, 0x0200],
  [
    "CHAP alone",
    [name, ["TargetName", target], ["AuthMethod", "CHAP"]],
    { currentStage: 0 },
    0x0201,
  ],
];

for (const [what, pairs, values, status] of refusals) {
  test(`refused: ${what}`, () => {
    const initiator = new TestInitiator(oneDisk());
    initiator.sendLogin(pairs, { transit: true, currentStage: 1, nextStage: 3, ...values });
    assert.equal(statusOf(initiator.takeOne(loginResponse)), status);
    assert.equal(initiator.connection.closing, "afterFlush");
    assert.equal(initiator.connection.session, null);
  });
}

test("values out of range are refused one by one", () => {
  const initiator = new TestInitiator(oneDisk());
  const answer = initiator.login({
    target,
    keys: [
      ["MaxBurstLength", "1"],
      ["InitialR2T", "Perhaps"],
      ["MaxOutstandingR2T", "1e3"],
      ["HeaderDigest", "MD5"],
      ["FirstBurstLength", "0x200"],
    ],
  });
  const text = textOf(answer);
  for (const key of ["MaxBurstLength", "InitialR2T", "MaxOutstandingR2T", "HeaderDigest"]) {
    assert.equal(text.get(key), "Reject", key);
  }
  assert.equal(text.get("FirstBurstLength"), "512");
});

test("anything but a login first closes the connection without a word", () => {
  const initiator = new TestInitiator(oneDisk());
  initiator.send(nopOut, { initiatorTaskTag: 1 });
  assert.deepEqual(initiator.take(), []);
  assert.notEqual(initiator.connection.closing, null);
});

test("a login that takes too long is let go", () => {
  const node = oneDisk();
  const initiator = new TestInitiator(node);
  checkIdle(initiator.connection, loginTimeoutMs);
  assert.equal(initiator.connection.closing, null);
  checkIdle(initiator.connection, loginTimeoutMs + 1);
  assert.equal(initiator.connection.closing, "now");
});

test("a draining node takes no new logins", () => {
  const node = oneDisk();
  node.draining = true;
  assert.equal(statusOf(new TestInitiator(node).login({ target })), 0x0301);
});

test("the same nexus again: the older session ends first, its tasks settled", async () => {
  const volume = new MemoryVolume("disk", 1 << 20);
  const node = testNode(memoryDirectory([volume]));
  let land = () => {};
  const cancelled: boolean[] = [];
  volume.write = (_offset, _data, task) => {
    return new Promise((resolve) => {
      land = () => {
        cancelled.push(task!.cancelled);
        resolve({ ok: true });
      };
    });
  };
  const older = new TestInitiator(node);
  older.login({ target });
  await older.clearAttention();
  older.command(
    Buffer.from("2a000000000000000100", "hex"),
    { write: true, expectedLength: 512 },
    Buffer.alloc(512),
  );
  const newer = new TestInitiator(node);
  assert.equal(newer.login({ target }).opcode, -1, "the answer must wait");
  assert.equal(older.connection.closing, "now");
  land();
  await settled();
  assert.deepEqual(cancelled, [true]);
  assert.equal(statusOf(newer.takeOne(loginResponse)), 0);
  assert.deepEqual(older.take(), [], "the cancelled write is not answered");
  assert.equal(node.sessions.size, 1);

  // Without running tasks the step is immediate; another ISID is another nexus.
  const third = new TestInitiator(node);
  assert.equal(statusOf(third.login({ target })), 0);
  assert.equal(newer.connection.phase, "ended");
  const beside = new TestInitiator(node);
  assert.equal(statusOf(beside.login({ target, isid: 2 })), 0);
  assert.equal(third.connection.phase, "full");
  third.lose();
  beside.lose();
  assert.equal(node.sessions.size, 0);
  assert.equal(node.nexuses.size, 0);
  assert.equal(node.units.size, 0);
});

test("SendTargets names every target with every portal, in as many PDUs as it takes", () => {
  const volumes = Array.from({ length: 50 }, (_, at) => new MemoryVolume(`disk${at}`, 1 << 20));
  const portals = [
    { address: "192.0.2.1:3260", tag: 1 },
    { address: "[2001:db8::2]:3260", tag: 2 },
  ];
  const initiator = new TestInitiator(testNode(memoryDirectory(volumes, portals)));
  initiator.login({ target: "", keys: [["MaxRecvDataSegmentLength", "512"]] });
  const request = { final: true, initiatorTaskTag: 9, immediate: true };
  const asked = encodeText([["SendTargets", "All"]]);
  initiator.send(textRequest, { ...request, targetTransferTag: noTag }, asked);
  const parts: Buffer[] = [];
  for (;;) {
    const answer = initiator.takeOne(textResponse);
    assert(answer.data.length <= 512);
    parts.push(answer.data);
    if (answer.values.final) break;
    assert.equal(answer.values.continue, true);
    const { targetTransferTag } = answer.values;
    initiator.send(textRequest, { ...request, targetTransferTag });
  }
  const expected = volumes.map(
    ({ info }) =>
      `TargetName=iqn.2026-11.endisk:${info.name}\0` +
      "TargetAddress=192.0.2.1:3260,1\0TargetAddress=[2001:db8::2]:3260,2\0",
  );
  assert.equal(Buffer.concat(parts).toString(), expected.join(""));
});

test("a normal session may ask for its own target alone", () => {
  const volumes = [new MemoryVolume("disk", 1 << 20), new MemoryVolume("other", 1 << 20)];
  const initiator = new TestInitiator(testNode(memoryDirectory(volumes)));
  initiator.login({ target });
  const ask = (value: string) => {
    const tags = { initiatorTaskTag: 9, targetTransferTag: noTag, cmdSn: initiator.cmdSn };
    const text = encodeText([["SendTargets", value]]);
    initiator.send(textRequest, { ...tags, final: true, immediate: true }, text);
    return textOf(initiator.takeOne(textResponse));
  };
  assert.equal(ask("").get("TargetName"), target);
  assert.equal(ask("").get("TargetAddress"), "192.0.2.1:3260,7");
  // An examiner that asks for all is not refused, but told no more.
  assert.equal(ask("All").get("TargetName"), target);
  assert.equal(ask("iqn.2026-11.endisk:other").get("SendTargets"), "Reject");
});
