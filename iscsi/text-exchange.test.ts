import assert from "node:assert/strict";
import { test } from "node:test";
import { attach, TestInitiator, testNode, textOf } from "./initiator.test-double.ts";
import { textBytesMax, textRequestsMax } from "./limits.ts";
import { MemoryVolume, memoryDirectory } from "./memory-volume.test-double.ts";
import { noTag, reject, textRequest, textResponse } from "./pdu.ts";
import { encodeText } from "./text-keys.ts";

function discovery(volumeCount = 1, bytesMax = "8192"): TestInitiator {
  const volumes = Array.from(
    { length: volumeCount },
    (_, at) => new MemoryVolume(`disk${at}`, 1 << 20),
  );
  const initiator = new TestInitiator(testNode(memoryDirectory(volumes)));
  initiator.login({ target: "", keys: [["MaxRecvDataSegmentLength", bytesMax]] });
  return initiator;
}

function send(initiator: TestInitiator, text: string, fields: object = {}): void {
  const fixed = { immediate: true, initiatorTaskTag: 9, targetTransferTag: noTag, final: true };
  const values = { ...fixed, cmdSn: initiator.cmdSn, ...fields };
  initiator.send(textRequest, values, Buffer.from(text));
}

test("a request in parts, cut anywhere, is one text", () => {
  const initiator = discovery();
  send(initiator, "SendTar", { continue: true, final: false });
  const more = initiator.takeOne(textResponse);
  assert.equal(more.values.final, false);
  assert.equal(more.data.length, 0);
  const { targetTransferTag } = more.values;
  assert.notEqual(targetTransferTag, noTag);
  send(initiator, "gets=All\0", { targetTransferTag });
  const answer = initiator.takeOne(textResponse);
  assert.equal(answer.values.final, true);
  assert.equal(answer.values.targetTransferTag, noTag);
  assert.equal(textOf(answer).get("TargetName"), "iqn.2026-11.endisk:disk0");
});

test("a request that is not the last gets an answer that is not the last", () => {
  const initiator = discovery();
  send(initiator, "X-a=1\0", { final: false });
  const first = initiator.takeOne(textResponse);
  assert.equal(first.values.final, false);
  assert.equal(textOf(first).get("X-a"), "NotUnderstood");
  const { targetTransferTag } = first.values;
  send(initiator, "X-b=1\0", { targetTransferTag });
  const last = initiator.takeOne(textResponse);
  assert.equal(last.values.final, true);
  assert.deepEqual([...textOf(last).keys()], ["X-b"]);
});

test("a request without a transfer tag begins anew, whatever was under way", () => {
  const initiator = discovery(60, "512");
  send(initiator, "SendTargets=All\0");
  const { targetTransferTag } = initiator.takeOne(textResponse).values;
  send(initiator, "X-a=1\0");
  assert.equal(textOf(initiator.takeOne(textResponse)).get("X-a"), "NotUnderstood");
  send(initiator, "", { targetTransferTag });
  assert.equal(initiator.takeOne(reject).values.reason, 0x09);
});

for (const [what, text, fields, reason] of [
  ["C and F together", "X-a=1\0", { continue: true }, 0x04],
  ["a transfer tag of nobody", "X-a=1\0", { targetTransferTag: 77 }, 0x09],
  ["no task tag", "X-a=1\0", { initiatorTaskTag: noTag }, 0x04],
  ["no pairs", "hello\0", {}, 0x04],
  ["a key twice", "X-a=1\0X-a=2\0", {}, 0x04],
] as const) {
  test(`a text request with ${what} is rejected`, () => {
    const initiator = discovery();
    send(initiator, text, fields);
    assert.equal(initiator.takeOne(reject).values.reason, reason);
    send(initiator, "X-a=1\0");
    initiator.takeOne(textResponse);
  });
}

test("while an answer is under way there is nothing to say", () => {
  const initiator = discovery(60, "512");
  send(initiator, "SendTargets=All\0");
  const { targetTransferTag } = initiator.takeOne(textResponse).values;
  send(initiator, "X-a=1\0", { targetTransferTag });
  assert.equal(initiator.takeOne(reject).values.reason, 0x04);
});

test("an exchange is as long as it may be, in bytes and in requests", () => {
  for (const [piece, most] of [
    [`X-a=${"y".repeat(8000)}`, Math.floor(textBytesMax / 8004)],
    ["y", textRequestsMax],
  ] as const) {
    const initiator = discovery();
    let targetTransferTag = noTag;
    for (let at = 0; at < most; at += 1) {
      send(initiator, piece, { targetTransferTag, continue: true, final: false });
      targetTransferTag = initiator.takeOne(textResponse).values.targetTransferTag;
    }
    send(initiator, piece, { targetTransferTag, continue: true, final: false });
    assert.equal(initiator.takeOne(reject).values.reason, 0x04);
    assert.equal(initiator.connection.session?.text, null);
  }
});

test("the initiator's data length may be declared anew, other keys are the login's", async () => {
  const { initiator } = await attach();
  const pairs = encodeText([
    ["MaxRecvDataSegmentLength", "1024"],
    ["MaxBurstLength", "4096"],
    ["X-a", "1"],
  ]);
  send(initiator, pairs.toString());
  assert.deepEqual(Object.fromEntries(textOf(initiator.takeOne(textResponse))), {
    MaxBurstLength: "Reject",
    "X-a": "NotUnderstood",
  });
  assert.equal(initiator.connection.session?.parameters.initiatorDataBytesMax, 1024);
  send(initiator, "MaxRecvDataSegmentLength=1\0");
  const answer = textOf(initiator.takeOne(textResponse));
  assert.equal(answer.get("MaxRecvDataSegmentLength"), "Reject");
});
