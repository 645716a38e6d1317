import assert from "node:assert/strict";
import { test } from "node:test";
import {
  type Answer,
  attach,
  blockCommand,
  pattern,
  read10,
  senseText,
  settled,
  testUnitReady,
  write10,
} from "./initiator.test-double.ts";
import {
  dataInTurnBytesMax,
  dataInTurnPdusMax,
  sessionDataBytesMax,
  transferBytesMax,
  unsentBytesMax,
} from "./limits.ts";
import {
  dataIn,
  dataOut,
  nopIn,
  noTag,
  readyToTransfer,
  scsiResponse,
  taskManagementRequest,
  taskManagementResponse,
} from "./pdu.ts";
import { admitTasks } from "./scsi-task.ts";

test("immediate, unsolicited and solicited data, in that order", async () => {
  const { initiator } = await attach([
    ["InitialR2T", "No"],
    ["FirstBurstLength", "2048"],
    ["MaxBurstLength", "4096"],
    ["MaxOutstandingR2T", "2"],
  ]);
  const data = pattern(16 * 512 * 2);
  const expectedLength = data.length;
  const tag = initiator.command(
    write10(5, 32),
    { write: true, final: false, expectedLength },
    data.subarray(0, 512),
  );
  const sendData = (
    from: number,
    to: number,
    transferTag: number,
    dataSn: number,
    final: boolean,
  ) =>
    initiator.send(
      dataOut,
      { initiatorTaskTag: tag, targetTransferTag: transferTag, bufferOffset: from, dataSn, final },
      data.subarray(from, to),
    );
  assert.deepEqual(initiator.take(), [], "nothing is asked for before the unsolicited data end");
  sendData(512, 1024, noTag, 0, false);
  sendData(1024, 2048, noTag, 1, true);
  const asked: Answer[] = initiator.take();
  assert.deepEqual(
    asked.map(({ values }) => [values.r2tSn, values.bufferOffset, values.desiredLength]),
    [
      [0, 2048, 4096],
      [1, 6144, 4096],
    ],
  );
  assert.equal(asked[0]?.opcode, readyToTransfer.opcode);
  sendData(2048, 4096, asked[0]!.values.targetTransferTag, 0, false);
  sendData(4096, 6144, asked[0]!.values.targetTransferTag, 1, true);
  const third = initiator.takeOne(readyToTransfer);
  assert.deepEqual([third.values.bufferOffset, third.values.desiredLength], [10_240, 4096]);
  sendData(6144, 10_240, asked[1]!.values.targetTransferTag, 0, true);
  const fourth = initiator.takeOne(readyToTransfer);
  sendData(10_240, 14_336, third.values.targetTransferTag, 0, true);
  sendData(14_336, 16_384, fourth.values.targetTransferTag, 0, true);
  assert.equal((await initiator.outcome()).status, 0);
  const back = await initiator.read(read10(5, 32), expectedLength);
  assert.deepEqual(back.data, data);
});

test("Data-In is cut by the initiator's limits, with the status in the last PDU", async () => {
  const { initiator } = await attach([
    ["MaxRecvDataSegmentLength", "1024"],
    ["MaxBurstLength", "2560"],
  ]);
  initiator.command(read10(0, 8), { read: true, expectedLength: 4096 });
  await settled();
  const answers = initiator.take();
  assert.deepEqual(
    answers.map(({ values, data }) => [
      values.dataSn,
      values.bufferOffset,
      data.length,
      values.final,
      values.hasStatus,
    ]),
    [
      [0, 0, 1024, false, false],
      [1, 1024, 1024, false, false],
      [2, 2048, 512, true, false],
      [3, 2560, 1024, false, false],
      [4, 3584, 512, true, true],
    ],
  );
});

test("residuals, over and under", async () => {
  const { initiator } = await attach();
  const under = await initiator.read(read10(0, 1), 2000);
  assert.equal(under.data.length, 512);
  assert.equal(under.answer.values.underflow, true);
  assert.equal(under.answer.values.residualCount, 2000 - 512);
  const over = await initiator.read(read10(0, 4), 512);
  assert.equal(over.data.length, 512);
  assert.equal(over.answer.values.overflow, true);
  assert.equal(over.answer.values.residualCount, 1536);
  const none = await initiator.read(read10(0, 1), 0);
  assert.equal(none.answer.opcode, scsiResponse.opcode);
  assert.equal(none.answer.values.residualCount, 512);
  const short = await initiator.write(write10(0, 2), pattern(512));
  assert.equal(short.status, 0);
  assert.equal(short.answer.values.overflow, true);
  assert.equal((await initiator.read(read10(1, 1), 512)).data.equals(Buffer.alloc(512)), true);
  const long = await initiator.write(write10(0, 1), pattern(1024));
  assert.equal(long.answer.values.underflow, true);
  assert.equal((await initiator.read(read10(1, 1), 512)).data.equals(Buffer.alloc(512)), true);
  const partial = await initiator.write(write10(0, 1), pattern(200));
  assert.equal(senseText(partial.sense), "5/0e/03");
});

test("data that break the agreement end their command, and nobody else's", async () => {
  const { initiator } = await attach([
    ["InitialR2T", "Yes"],
    ["ImmediateData", "No"],
  ]);
  const immediate = await initiator.write(write10(0, 1), pattern(512));
  assert.equal(senseText(immediate.sense), "b/0c/0c");
  const offsets = { write: true, expectedLength: 1024 };
  const tag = initiator.command(write10(0, 2), offsets);
  const { targetTransferTag } = initiator.takeOne(readyToTransfer).values;
  const part = { initiatorTaskTag: tag, targetTransferTag };
  initiator.send(dataOut, { ...part, bufferOffset: 512, final: true }, pattern(512));
  assert.equal(senseText((await initiator.outcome()).sense), "b/0c/0d");
  // What was under way for the ended command is dropped.
  initiator.send(dataOut, { ...part, bufferOffset: 0, final: true }, pattern(1024));
  assert.deepEqual(initiator.take(), []);
  assert.equal((await initiator.read(testUnitReady, 0)).status, 0);
});

test("a write announced as a read is refused, and nothing is asked for", async () => {
  const { initiator } = await attach();
  const outcome = await initiator.read(write10(0, 1), 512);
  assert.equal(senseText(outcome.sense), "5/0e/03");
});

test("more data than was agreed to, or asked for, is refused", async () => {
  const { initiator } = await attach([
    ["InitialR2T", "No"],
    ["FirstBurstLength", "1024"],
  ]);
  const expected = (expectedLength: number) => ({ write: true, expectedLength });
  initiator.command(write10(0, 1), expected(512), pattern(1024));
  assert.equal(senseText((await initiator.outcome()).sense), "b/0c/0d");
  initiator.command(write10(0, 8), expected(4096), pattern(1536));
  assert.equal(senseText((await initiator.outcome()).sense), "b/0c/0d");
  const sent = initiator.command(write10(0, 8), { ...expected(4096), final: false }, pattern(512));
  const unsolicited = { initiatorTaskTag: sent, targetTransferTag: noTag, bufferOffset: 512 };
  initiator.send(dataOut, { ...unsolicited, final: true }, pattern(1024));
  assert.equal(senseText((await initiator.outcome()).sense), "b/0c/0d");
  for (const [length, final, tagOffset] of [
    [1024, true, 0],
    [512, false, 0],
    [256, true, 0],
    [512, true, 1],
  ] as const) {
    const initiatorTaskTag = initiator.command(write10(0, 1), expected(512));
    const r2t = initiator.takeOne(readyToTransfer).values;
    const targetTransferTag = r2t.targetTransferTag + tagOffset;
    initiator.send(dataOut, { initiatorTaskTag, targetTransferTag, final }, pattern(length));
    assert.equal(senseText((await initiator.outcome()).sense), "b/0c/0d");
  }
});

test("a command whose range came into being while its data came is to be repeated", async () => {
  const { initiator, volume } = await attach(undefined, 1 << 20);
  for (const cdb of [write10(2048, 1), blockCommand(0x41, 2048, 1)]) {
    const end = volume.info.sizeBytes / 512;
    cdb.writeUInt32BE(end, 2);
    const values = { write: true, final: false, expectedLength: 512 };
    const initiatorTaskTag = initiator.command(cdb, values);
    volume.grow(volume.info.sizeBytes + (1 << 20));
    // The attention that tells of it is taken by another command.
    assert.equal(senseText((await initiator.read(testUnitReady, 0)).sense), "6/2a/09");
    const unsolicited = { initiatorTaskTag, targetTransferTag: noTag, final: true };
    initiator.send(dataOut, unsolicited, pattern(512));
    assert.equal((await initiator.outcome()).status, 0x08);
  }
});

test("a session's data are bounded: commands wait for memory", async () => {
  const { initiator, volume } = await attach(undefined, 2 * sessionDataBytesMax);
  const blocks = transferBytesMax / 512;
  const finish: (() => void)[] = [];
  volume.read = (_offset, lengthBytes) =>
    new Promise((resolve) => {
      finish.push(() => resolve({ ok: true, buffers: [Buffer.alloc(lengthBytes)] }));
    });
  for (let at = 0; at < 4; at += 1) {
    const options = { read: true, expectedLength: transferBytesMax };
    initiator.command(read10(0, blocks - 1), options);
  }
  assert.equal(finish.length, sessionDataBytesMax / transferBytesMax);
  finish[0]!();
  // Its place is free when its data have gone out, in several turns.
  for (let turn = 0; turn <= transferBytesMax / dataInTurnBytesMax; turn += 1) await settled();
  assert.equal(finish.length, sessionDataBytesMax / transferBytesMax + 1);
});

test("nothing is started while the socket does not take what it was given", async () => {
  const { initiator } = await attach();
  const { connection } = initiator;
  connection.unsentBytes = unsentBytesMax + 1;
  initiator.command(read10(0, 1), { read: true, expectedLength: 512 });
  await settled();
  assert.deepEqual(initiator.take(), []);
  connection.unsentBytes = 0;
  admitTasks(connection.session!);
  await settled();
  initiator.takeOne(dataIn);
});

test("a read of very many Data-In PDUs is sent in several turns, and may be aborted between", async () => {
  const bytes = 4 * dataInTurnPdusMax * 512;
  const { initiator } = await attach([["MaxRecvDataSegmentLength", "512"]], bytes);
  const ask = () =>
    initiator.command(read10(0, bytes / 512), { read: true, expectedLength: bytes });
  ask();
  const counts: number[] = [];
  let data: Answer[] = [];
  while (data.at(-1)?.values.hasStatus !== true) {
    // Others are served in between.
    initiator.ping(Buffer.alloc(0));
    const answers = initiator.take();
    assert.equal(answers.at(-1)!.opcode, nopIn.opcode);
    data = answers.slice(0, -1);
    counts.push(data.length);
    await settled();
  }
  assert.deepEqual(
    counts.filter((count) => count > 0),
    new Array(4).fill(dataInTurnPdusMax),
  );
  const tag = ask();
  await settled();
  assert(initiator.take().length < 4 * dataInTurnPdusMax);
  const abort = { immediate: true, function: 1, initiatorTaskTag: 9_999, referencedTaskTag: tag };
  initiator.send(taskManagementRequest, { ...abort, cmdSn: initiator.cmdSn });
  await settled();
  await settled();
  assert.equal(initiator.take().at(-1)!.opcode, taskManagementResponse.opcode);
  assert.equal(initiator.connection.session!.tasks.size, 0);
});
