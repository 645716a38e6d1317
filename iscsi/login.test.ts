import assert from "node:assert/strict";
import { test } from "node:test";
import { checkIdle } from "./connection.ts";
import { settled, TestInitiator, testNode, textOf } from "./initiator.test-double.ts";
import {
  loginAnswerBytesMax,
  loginRequestsMax,
  loginTimeoutMs,
  sessionsPerInitiatorMax,
  sessionsPerTargetMax,
  textBytesMax,
  textPairsMax,
} from "./limits.ts";
import { MemoryVolume, memoryDirectory } from "./memory-volume.test-double.ts";
import { loginRequest, loginResponse, nopOut, noTag, textRequest, textResponse } from "./pdu.ts";
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
    "an initiator without a proper name",
    [
      ["InitiatorName", "host"],
      ["TargetName", target],
    ],
    {},
    0x0200,
  ],
  ["a target name that is none", [name, ["TargetName", "disk"]], {}, 0x0203],
  [
    "an ISID of the reserved type",
    [name, ["TargetName", target]],
    { isid: Buffer.alloc(6, 0xff) },
    0x0200,
  ],
  ["the reserved next stage", [name, ["TargetName", target]], { nextStage: 2 }, 0x0200],
  ["full feature as current stage", [name, ["TargetName", target]], { currentStage: 3 }, 0x0200],
  ["a key without a name", [name, ["TargetName", target], ["", "1"]], {}, 0x0200],
  ["a key with a bad name", [name, ["TargetName", target], ["a b", "1"]], {}, 0x0200],
  ["a key with too long a name", [name, ["TargetName", target], ["X".repeat(64), "1"]], {}, 0x0200],
  [
    "more keys than anyone needs",
    [
      name,
      ["TargetName", target],
      ...Array.from({ length: textPairsMax }, (_, at): TextPair => [`X-${at}`, "1"]),
    ],
    {},
    0x0200,
  ],
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

test("text that is no UTF-8 is no text", () => {
  const initiator = new TestInitiator(oneDisk());
  const text = Buffer.concat([
    encodeText([name, ["TargetName", target]]),
    Buffer.from("X-a=\xff\0", "latin1"),
  ]);
  const stage = { transit: true, currentStage: 1, nextStage: 3, immediate: true };
  initiator.send(loginRequest, { ...stage, isid: Buffer.from("800000000001", "hex") }, text);
  assert.equal(statusOf(initiator.takeOne(loginResponse)), 0x0200);
});

test("a login is as long as it may be, in bytes and in requests", () => {
  const stage = { currentStage: 1, isid: Buffer.from("800000000001", "hex"), continue: true };
  const long = new TestInitiator(oneDisk());
  const piece: TextPair[] = [["X-a", "y".repeat(8000)]];
  let answers = 0;
  for (; long.connection.closing === null; answers += 1) {
    long.sendLogin(piece, stage);
    long.takeOne(loginResponse);
  }
  assert.equal(answers, Math.floor(textBytesMax / encodeText(piece).length) + 1);
  const patient = new TestInitiator(oneDisk());
  for (answers = 0; patient.connection.closing === null; answers += 1) {
    patient.sendLogin([], stage);
    patient.takeOne(loginResponse);
  }
  assert.equal(answers, loginRequestsMax + 1);
});

test("a long answer goes out in parts, the stage changes with the last", () => {
  const initiator = new TestInitiator(oneDisk());
  const isid = Buffer.from("800000000001", "hex");
  const stage = { currentStage: 1, isid };
  const keys = Array.from({ length: 200 }, (_, at): TextPair => [`X-${at}-${"k".repeat(54)}`, "1"]);
  const text = encodeText([name, ["TargetName", target], ...keys]);
  const half = 8000;
  const send = (part: Buffer, values: object) => {
    const fixed = { immediate: true, initiatorTaskTag: 1, cmdSn: initiator.cmdSn, connectionId: 3 };
    initiator.send(loginRequest, { ...fixed, ...stage, ...values }, part);
    return initiator.takeOne(loginResponse);
  };
  send(text.subarray(0, half), { continue: true });
  const last = { transit: true, nextStage: 3 };
  const parts = [send(text.subarray(half), last)];
  assert.equal(parts[0]!.values.continue, true);
  assert.equal(parts[0]!.values.transit, false);
  while (parts.at(-1)!.values.continue) parts.push(send(Buffer.alloc(0), last));
  assert.equal(parts.length, 2);
  assert(parts.every(({ data }) => data.length <= loginAnswerBytesMax));
  assert.equal(parts.at(-1)!.values.transit, true);
  assert.equal(initiator.connection.phase, "full");
  const whole = Buffer.concat(parts.map(({ data }) => data)).toString();
  assert.equal(whole.match(/NotUnderstood/g)?.length, 200);

  const rude = new TestInitiator(oneDisk());
  const talk = (part: Buffer, values: object) => {
    const fixed = { immediate: true, initiatorTaskTag: 1, cmdSn: rude.cmdSn, connectionId: 3 };
    rude.send(loginRequest, { ...fixed, ...stage, ...values }, part);
    return rude.takeOne(loginResponse);
  };
  talk(text.subarray(0, half), { continue: true });
  talk(text.subarray(half), {});
  assert.equal(statusOf(talk(encodeText([["X-z", "1"]]), {})), 0x0200);
});

for (const [what, changed] of [
  ["ISID", { isid: Buffer.from("800000000002", "hex") }],
  ["TSIH", { tsih: 5 }],
  ["CID", { connectionId: 4 }],
  ["task tag", { initiatorTaskTag: 2 }],
  ["CmdSN", { cmdSn: 7 }],
  ["stage", { currentStage: 0 }],
] as const) {
  test(`the ${what} may not change during login`, () => {
    const initiator = new TestInitiator(oneDisk());
    const isid = Buffer.from("800000000001", "hex");
    initiator.sendLogin([name, ["TargetName", target]], { currentStage: 1, isid });
    assert.equal(statusOf(initiator.takeOne(loginResponse)), 0);
    initiator.sendLogin([], { currentStage: 1, isid, ...(changed as object) });
    assert.equal(statusOf(initiator.takeOne(loginResponse)), 0x0200);
  });
}

test("an initiator may name itself again in the next stage, but not otherwise", () => {
  const login = (again: TextPair) => {
    const initiator = new TestInitiator(oneDisk());
    const isid = Buffer.from("800000000001", "hex");
    const first: TextPair[] = [name, ["TargetName", target]];
    initiator.sendLogin(first, { currentStage: 0, isid, transit: true, nextStage: 1 });
    initiator.takeOne(loginResponse);
    initiator.sendLogin([again], { currentStage: 1, isid, transit: true, nextStage: 3 });
    return statusOf(initiator.takeOne(loginResponse));
  };
  assert.equal(login(name), 0);
  assert.equal(login(["InitiatorName", "iqn.2026-11.test:another"]), 0x0200);
  assert.equal(login(["TargetName", `${target}2`]), 0x0200);
});

test("keys that a discovery session does not have, and those that only the target says", () => {
  const initiator = new TestInitiator(oneDisk());
  const text = textOf(
    initiator.login({
      target: "",
      keys: [
        ["MaxBurstLength", "4096"],
        ["HeaderDigest", "None"],
        ["TargetAlias", "mine"],
        ["TargetAddress", "192.0.2.1"],
        ["AuthMethod", "None"],
        ["X#NodeArchitecture", "a machine"],
        ["iSCSIProtocolLevel", "5"],
      ],
    }),
  );
  assert.deepEqual(Object.fromEntries(text), {
    MaxBurstLength: "Irrelevant",
    HeaderDigest: "None",
    TargetAlias: "Reject",
    TargetAddress: "Reject",
    AuthMethod: "Reject",
    iSCSIProtocolLevel: "2",
    MaxRecvDataSegmentLength: "1048576",
  });
});

for (const [key, value, answer] of [
  ["MaxBurstLength", "511", "Reject"],
  ["MaxBurstLength", "512", "512"],
  ["MaxBurstLength", "16777215", "1048576"],
  ["MaxBurstLength", "16777216", "Reject"],
  ["MaxBurstLength", "0x1000", "4096"],
  ["MaxBurstLength", "0X1000", "4096"],
  ["MaxBurstLength", "-1", "Reject"],
  ["MaxBurstLength", "", "Reject"],
  ["FirstBurstLength", "16777215", "262144"],
  ["MaxOutstandingR2T", "0", "Reject"],
  ["MaxOutstandingR2T", "65535", "8"],
  ["MaxOutstandingR2T", "65536", "Reject"],
  ["MaxConnections", "65535", "1"],
  ["DefaultTime2Wait", "3600", "3600"],
  ["DefaultTime2Wait", "3601", "Reject"],
  ["DefaultTime2Retain", "3600", "0"],
  ["ErrorRecoveryLevel", "2", "0"],
  ["ErrorRecoveryLevel", "3", "Reject"],
  ["InitialR2T", "Yes", "Yes"],
  ["InitialR2T", "yes", "Reject"],
  ["ImmediateData", "No", "No"],
  ["DataPDUInOrder", "No", "Yes"],
  ["DataSequenceInOrder", "No", "Yes"],
  ["HeaderDigest", "None,CRC32C", "None"],
  ["HeaderDigest", "X-other,CRC32C", "CRC32C"],
  ["DataDigest", "x".repeat(256), "Reject"],
  ["TaskReporting", "FastAbort,RFC3720", "RFC3720"],
  ["TaskReporting", "FastAbort", "Reject"],
  ["iSCSIProtocolLevel", "0", "0"],
  ["iSCSIProtocolLevel", "1", "1"],
  ["iSCSIProtocolLevel", "2", "2"],
  ["OFMarkInt", "1~2", "Irrelevant"],
  ["X-com.example.thing", "", "NotUnderstood"],
] as const) {
  test(`${key}=${value.slice(0, 40)} is answered with ${answer}`, () => {
    const initiator = new TestInitiator(oneDisk());
    assert.equal(textOf(initiator.login({ target, keys: [[key, value]] })).get(key), answer);
  });
}

test("a drained portal sends normal sessions elsewhere; others may still discover", () => {
  const node = oneDisk();
  node.authority.redirectTo = { address: "192.0.2.7:3260" };
  const initiator = new TestInitiator(node);
  const answer = initiator.login({ target });
  assert.equal(statusOf(answer), 0x0101);
  assert.equal(textOf(answer).get("TargetAddress"), "192.0.2.7:3260");
  assert.equal(initiator.connection.closing, "afterFlush");
  assert.equal(statusOf(new TestInitiator(node).login({ target: "" })), 0);
});

test("a target that is for others is forbidden, not absent", () => {
  const node = oneDisk();
  node.authority.forbidden.add(target);
  assert.equal(statusOf(new TestInitiator(node).login({ target })), 0x0202);
});

test("a session has one connection; the same one again takes its place", async () => {
  const node = oneDisk();
  const first = new TestInitiator(node);
  const { tsih } = first.login({ target }).values;
  const login = (changes: { isid?: number; connectionId?: number; name?: string }) => {
    const initiator = new TestInitiator(node);
    initiator.sendLogin(
      [
        ["InitiatorName", changes.name ?? name[1]],
        ["TargetName", target],
      ],
      {
        transit: true,
        currentStage: 1,
        nextStage: 3,
        isid: Buffer.from([0x80, 0, 0, 0, 0, changes.isid ?? 1]),
        tsih,
        connectionId: changes.connectionId ?? 3,
      },
    );
    return { initiator, answer: initiator.takeOne(loginResponse) };
  };
  assert.equal(statusOf(login({ connectionId: 4 }).answer), 0x0206);
  assert.equal(statusOf(login({ isid: 2 }).answer), 0x020a);
  assert.equal(statusOf(login({ name: "iqn.2026-11.test:another" }).answer), 0x020a);
  assert.equal(first.connection.closing, null, "none of them has harmed the session");
  const { initiator, answer } = login({});
  assert.equal(statusOf(answer), 0);
  assert.equal(answer.values.tsih, tsih);
  assert.equal(first.connection.closing, "now");
  await initiator.clearAttention();
});

test("sessions are as many as the limits say, of an initiator and of a target", () => {
  const node = oneDisk();
  const login = (isid: number, from: string) => {
    const options = { target, isid, name: `iqn.2026-11.test:${from}` };
    return statusOf(new TestInitiator(node).login(options));
  };
  for (let at = 1; at <= sessionsPerInitiatorMax; at += 1) assert.equal(login(at, "a"), 0);
  assert.equal(login(200, "a"), 0x0302);
  assert.equal(login(1, "a"), 0, "one that takes the place of an older one is let in");
  for (let at = sessionsPerInitiatorMax; at < sessionsPerTargetMax; at += 1) {
    assert.equal(login(at, "b"), 0);
  }
  assert.equal(login(1, "c"), 0x0302);
  assert.equal(node.sessions.size, sessionsPerTargetMax);
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
