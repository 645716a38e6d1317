import assert from "node:assert/strict";
import { test } from "node:test";
import {
  attach,
  pattern,
  read10,
  senseText,
  settled,
  TestInitiator,
  target,
  testNode,
  testUnitReady,
  write10,
} from "./initiator.test-double.ts";
import {
  commandWindow,
  heldDataBytesMax,
  immediateTasksMax,
  outstandingR2tMax,
  receiveDataBytesMax,
  sessionDataBytesMax,
} from "./limits.ts";
import { MemoryVolume, memoryDirectory } from "./memory-volume.test-double.ts";
import {
  common,
  dataOut,
  logoutRequest,
  logoutResponse,
  nopIn,
  nopOut,
  noTag,
  readyToTransfer,
  reject,
  scsiCommand,
  scsiResponse,
  snackRequest,
  taskManagementRequest,
  taskManagementResponse,
} from "./pdu.ts";

/** What initiators must not do, and what becomes of it at error recovery level 0. */

test("a wrong header digest ends the connection without a word", async () => {
  const { initiator } = await attach([["HeaderDigest", "CRC32C"]]);
  const ping = { immediate: true, initiatorTaskTag: 7, targetTransferTag: noTag };
  const bytes = initiator.encode(nopOut, { ...ping, cmdSn: initiator.cmdSn });
  bytes[20]! ^= 1;
  initiator.receiveBytes(bytes);
  assert.deepEqual(initiator.take(), []);
  assert.equal(initiator.connection.closing, "afterFlush");
});

test("damaged Data-Out is rejected, and its command fails when all data have come", async () => {
  const { initiator } = await attach([
    ["DataDigest", "CRC32C"],
    ["MaxBurstLength", "1024"],
    ["MaxOutstandingR2T", "2"],
  ]);
  const data = pattern(2048);
  const tag = initiator.command(write10(0, 4), { write: true, expectedLength: 2048 });
  const asked = initiator.take();
  assert.equal(asked.length, 2);
  const part = (index: number) =>
    initiator.encode(
      dataOut,
      {
        initiatorTaskTag: tag,
        targetTransferTag: asked[index]!.values.targetTransferTag,
        bufferOffset: index * 1024,
        final: true,
      },
      data.subarray(index * 1024, (index + 1) * 1024),
    );
  const damaged = part(0);
  damaged[60]! ^= 1;
  initiator.receiveBytes(damaged);
  const rejected = initiator.takeOne(reject);
  assert.equal(rejected.values.reason, 0x02);
  assert.equal(common.opcode.get(rejected.data), dataOut.opcode);
  initiator.receiveBytes(part(1));
  const { status, sense } = await initiator.outcome();
  assert.equal(status, 2);
  assert.equal(senseText(sense), "b/47/05");
  assert.equal(initiator.connection.closing, null, "the session goes on");
  assert.deepEqual((await initiator.read(read10(0, 1), 512)).data, Buffer.alloc(512));
});

test("a task management function ends the wait for the rest of damaged data", async () => {
  const { initiator } = await attach([["DataDigest", "CRC32C"]]);
  const tag = initiator.command(write10(0, 2), { write: true, expectedLength: 1024 });
  const { targetTransferTag } = initiator.takeOne(readyToTransfer).values;
  const bytes = initiator.encode(
    dataOut,
    { initiatorTaskTag: tag, targetTransferTag },
    pattern(512),
  );
  bytes[60]! ^= 1;
  initiator.receiveBytes(bytes);
  initiator.takeOne(reject);
  const abort = { immediate: true, function: 1, referencedTaskTag: tag, cmdSn: initiator.cmdSn };
  initiator.send(taskManagementRequest, abort);
  assert.equal(initiator.takeOne(taskManagementResponse).values.response, 0);
});

test("a numbered request with damaged data ends the connection, an immediate one is dropped", async () => {
  const { initiator } = await attach([["DataDigest", "CRC32C"]]);
  const ping = { initiatorTaskTag: 7, targetTransferTag: noTag, cmdSn: initiator.cmdSn };
  const damaged = (bytes: Buffer) => {
    bytes[50]! ^= 1;
    return bytes;
  };
  const data = Buffer.from("data");
  initiator.receiveBytes(damaged(initiator.encode(nopOut, { ...ping, immediate: true }, data)));
  assert.equal(initiator.takeOne(reject).values.reason, 0x02);
  assert.equal(initiator.connection.closing, null);
  initiator.ping(data);
  initiator.takeOne(nopIn);
  const options = { initiatorTaskTag: 8, write: true, final: true, expectedLength: 512 };
  const command = { ...options, cmdSn: initiator.cmdSn, cdb: Buffer.alloc(16) };
  initiator.receiveBytes(damaged(initiator.encode(scsiCommand, command, pattern(512))));
  assert.equal(initiator.takeOne(reject).values.reason, 0x02);
  assert.equal(initiator.connection.closing, "afterFlush");
});

test("data beyond what we declared are refused by their header", async () => {
  const { initiator } = await attach();
  const bhs = Buffer.alloc(48);
  bhs[0] = dataOut.opcode;
  common.dataLength.set(bhs, 0xff_ffff);
  initiator.receiveBytes(bhs);
  assert.equal(initiator.takeOne(reject).values.reason, 0x04);
  assert.equal(initiator.connection.closing, "afterFlush");
});

test("before it has been said that more is taken, 8192 bytes are the most", () => {
  const node = testNode(memoryDirectory([new MemoryVolume("disk", 1 << 20)]));
  const initiator = new TestInitiator(node);
  // From the security stage into the full feature phase: nothing operational was negotiated.
  initiator.sendLogin(
    [
      ["InitiatorName", "iqn.2026-11.test:initiator"],
      ["TargetName", target],
    ],
    { transit: true, currentStage: 0, nextStage: 3, isid: Buffer.from("800000000001", "hex") },
  );
  initiator.take();
  assert.equal(initiator.connection.phase, "full");
  initiator.ping(Buffer.alloc(8192));
  initiator.takeOne(nopIn);
  const other = new TestInitiator(node);
  other.login({ target, isid: 2 });
  const most = other.connection.session!.parameters.targetDataBytesMax;
  assert.equal(most, receiveDataBytesMax);
  initiator.ping(Buffer.alloc(8196));
  assert.equal(initiator.takeOne(reject).values.reason, 0x04);
});

for (const [what, fields, reason] of [
  ["an opcode of the target", { opcode: nopIn.opcode }, 0x05],
  ["an opcode of nobody, immediate", { opcode: 0x07 | 0x40 }, 0x05],
  ["a SNACK", { opcode: snackRequest.opcode }, 0x03],
  ["a numbered NOP-Out without a tag", { opcode: nopOut.opcode, tag: noTag }, 0x04],
  ["a command without a tag", { opcode: scsiCommand.opcode, tag: noTag }, 0x04],
  ["a command with ACA", { opcode: scsiCommand.opcode, flags: 0x84 }, 0x09],
  ["a logout for no reason", { opcode: logoutRequest.opcode, flags: 0x85 }, 0x09],
] as const) {
  test(`${what} is rejected with ${reason}, and the session goes on`, async () => {
    const { initiator } = await attach();
    const bhs = Buffer.alloc(48);
    bhs[0] = fields.opcode;
    bhs[1] = "flags" in fields ? fields.flags : 0x80;
    bhs.writeUInt32BE("tag" in fields ? fields.tag : 9, 16);
    bhs.writeUInt32BE(noTag, 20);
    bhs.writeUInt32BE(initiator.cmdSn, 24);
    initiator.receiveBytes(bhs);
    const answer = initiator.takeOne(reject);
    assert.equal(answer.values.reason, reason);
    assert.deepEqual(answer.data, bhs);
    initiator.cmdSn = initiator.connection.session!.expCmdSn;
    assert.equal((await initiator.read(testUnitReady, 0)).status, 0);
  });
}

test("Data-Out of nobody's task is dropped: it was under way when its task ended", async () => {
  const { initiator } = await attach();
  initiator.send(dataOut, { initiatorTaskTag: 99, targetTransferTag: 5 }, pattern(512));
  assert.deepEqual(initiator.take(), []);
  assert.equal((await initiator.read(testUnitReady, 0)).status, 0);
});

test("more immediate commands than there is room for are rejected", async () => {
  const { initiator, volume } = await attach();
  volume.read = () => new Promise(() => {});
  const options = { immediate: true, read: true, expectedLength: 512 };
  for (let at = 0; at < immediateTasksMax; at += 1) initiator.command(read10(0, 1), options);
  assert.deepEqual(initiator.take(), []);
  initiator.command(read10(0, 1), options);
  assert.equal(initiator.takeOne(reject).values.reason, 0x06);
});

test("more task management than there is room for is rejected, behind a reset too", async () => {
  const { initiator, volume } = await attach();
  volume.changeUnit = () => new Promise(() => {});
  const request = { immediate: true, initiatorTaskTag: 5, function: 5, cmdSn: initiator.cmdSn };
  for (let at = 0; at < immediateTasksMax; at += 1) {
    initiator.send(taskManagementRequest, request);
  }
  assert.deepEqual(initiator.take(), []);
  initiator.send(taskManagementRequest, request);
  assert.equal(initiator.takeOne(reject).values.reason, 0x06);
});

test("what waits for a missing CmdSN may not be large", async () => {
  const { initiator } = await attach();
  const first = initiator.cmdSn;
  const ping = { initiatorTaskTag: 7, targetTransferTag: noTag };
  initiator.send(nopOut, { ...ping, cmdSn: first + 1 }, Buffer.alloc(heldDataBytesMax));
  assert.deepEqual(initiator.take(), []);
  initiator.send(nopOut, { ...ping, cmdSn: first + 2 }, Buffer.alloc(heldDataBytesMax + 4));
  assert.equal(initiator.takeOne(reject).values.reason, 0x04);
  initiator.command(testUnitReady, { cmdSn: first });
  await settled();
  const [status, echo] = initiator.take();
  assert.equal(status?.opcode, scsiResponse.opcode);
  assert.equal(echo?.data.length, heldDataBytesMax);
  const { expCmdSn, maxCmdSn } = initiator.connection.session!;
  assert.deepEqual([expCmdSn, maxCmdSn], [first + 3, first + 3 + commandWindow - 1]);
});

test("a flood of writes without data: what is asked for stays within the session's memory", async () => {
  const { initiator } = await attach(
    [
      ["MaxBurstLength", "65536"],
      ["MaxOutstandingR2T", "65535"],
    ],
    128 << 20,
  );
  const blocks = 0xffff;
  const tags = new Set<number>();
  for (let at = 0; at < commandWindow; at += 1) {
    tags.add(initiator.command(write10(0, blocks), { write: true, expectedLength: blocks * 512 }));
  }
  const asked = initiator.take();
  const byTask = new Map<number, number>();
  let bytes = 0;
  for (const { opcode, values } of asked) {
    assert.equal(opcode, readyToTransfer.opcode);
    byTask.set(values.initiatorTaskTag, (byTask.get(values.initiatorTaskTag) ?? 0) + 1);
    bytes += values.desiredLength;
  }
  assert.equal(Math.max(...byTask.values()), outstandingR2tMax);
  assert(byTask.size * blocks * 512 <= sessionDataBytesMax, `${byTask.size} commands`);
  assert(bytes <= byTask.size * outstandingR2tMax * 65_536);
  // A window more of them takes no place: they are outside, and ignored.
  for (let at = 0; at < commandWindow; at += 1) {
    initiator.command(write10(0, blocks), { write: true, expectedLength: blocks * 512 });
  }
  assert.deepEqual(initiator.take(), []);
  assert.equal(initiator.connection.session!.tasks.size, commandWindow);
});

test("a command that is missing and aborted counts as received", async () => {
  const { initiator } = await attach();
  const first = initiator.cmdSn;
  const late = initiator.command(testUnitReady, { cmdSn: first + 1 });
  const abort = { immediate: true, initiatorTaskTag: 5, function: 1, referencedTaskTag: 77 };
  initiator.send(taskManagementRequest, { ...abort, refCmdSn: first, cmdSn: first + 2 });
  await settled();
  const [status, response] = initiator.take();
  assert.equal(status?.values.initiatorTaskTag, late, "nothing is missing before it any more");
  assert.equal(response?.values.response, 0);
  assert.equal(response?.values.maxCmdSn, first + 2 + commandWindow - 1);
  initiator.command(testUnitReady, { cmdSn: first });
  await settled();
  assert.deepEqual(initiator.take(), [], "the aborted one is not carried out");
  // One whose turn has passed does not exist, nor does one that could not have been sent.
  for (const refCmdSn of [first, first + 2, first + commandWindow + 5]) {
    initiator.send(taskManagementRequest, { ...abort, refCmdSn, cmdSn: first + 2 });
    assert.equal(initiator.takeOne(taskManagementResponse).values.response, 1);
  }
});

test("CmdSN, the window and StatSN go around at 2^32", async () => {
  const node = testNode(memoryDirectory([new MemoryVolume("disk", 1 << 20)]));
  const initiator = new TestInitiator(node);
  initiator.cmdSn = 0xffff_fff0;
  initiator.connection.statSn = 0xffff_fff8;
  initiator.login({ target });
  await initiator.clearAttention();
  let statSn = initiator.connection.statSn;
  for (let at = 0; at < 40; at += 1) {
    initiator.command(testUnitReady, { cmdSn: initiator.cmdSn });
    initiator.cmdSn = (initiator.cmdSn + 1) >>> 0;
    await settled();
    const { values } = initiator.takeOne(scsiResponse);
    assert.equal(values.expCmdSn, initiator.cmdSn);
    assert.equal(values.maxCmdSn, (initiator.cmdSn + commandWindow - 1) >>> 0);
    assert.equal(values.statSn, statSn);
    statSn = (statSn + 1) >>> 0;
  }
  assert.equal(initiator.cmdSn, 25);
  assert.equal(initiator.connection.statSn, statSn);
});

test("a discovery session has no tasks, and says what it may not do", () => {
  const node = testNode(memoryDirectory([new MemoryVolume("disk", 1 << 20)]));
  const initiator = new TestInitiator(node);
  initiator.login({ target: "" });
  initiator.command(testUnitReady);
  assert.equal(initiator.takeOne(reject).values.reason, 0x04);
  initiator.send(taskManagementRequest, { immediate: true, function: 6, cmdSn: initiator.cmdSn });
  assert.equal(initiator.takeOne(reject).values.reason, 0x04);
  initiator.ping(Buffer.from("still here"));
  initiator.takeOne(nopIn);
});

test("what follows a Logout Request is not heard, and the session ends", async () => {
  const { initiator, volume } = await attach();
  let end = () => {};
  volume.write = () =>
    new Promise((resolve) => {
      end = () => resolve({ ok: true });
    });
  initiator.command(write10(0, 1), { write: true, expectedLength: 512 }, pattern(512));
  initiator.send(logoutRequest, { immediate: true, initiatorTaskTag: 6, cmdSn: initiator.cmdSn });
  initiator.command(testUnitReady);
  initiator.ping(Buffer.from("late"));
  await settled();
  assert.deepEqual(initiator.take(), []);
  end();
  await settled();
  assert.equal(initiator.takeOne(logoutResponse).values.response, 0);
});

test("logout of a connection that is not there, and recovery, are refused", async () => {
  const { initiator } = await attach();
  const ask = (fields: object) => {
    const request = { immediate: true, initiatorTaskTag: 6, cmdSn: initiator.cmdSn };
    initiator.send(logoutRequest, { ...request, ...fields });
    return initiator.takeOne(logoutResponse).values.response;
  };
  assert.equal(ask({ reason: 1, connectionId: 9 }), 1);
  assert.equal(ask({ reason: 2, connectionId: 3 }), 2);
  assert.equal(ask({ reason: 1, connectionId: 3 }), 0);
  assert.equal(initiator.connection.closing, "afterFlush");
});

test("small pieces of data do not keep the chunks that they came in", async () => {
  const { initiator, volume } = await attach([["InitialR2T", "No"]], 1 << 20);
  const written: Buffer[] = [];
  const write = volume.write.bind(volume);
  volume.write = (offset, data, task) => {
    written.push(...data);
    return write(offset, data, task);
  };
  const data = pattern(64 << 10);
  const options = { write: true, final: false, expectedLength: data.length };
  const tag = initiator.command(write10(0, 128), options);
  const pieceBytes = 64;
  for (let at = 0; at < data.length; at += pieceBytes) {
    const fields = { initiatorTaskTag: tag, targetTransferTag: noTag, bufferOffset: at };
    const final = at + pieceBytes === data.length;
    const piece = data.subarray(at, at + pieceBytes);
    const bytes = initiator.encode(dataOut, { ...fields, dataSn: at / pieceBytes, final }, piece);
    // As a socket gives it: at the start of a large chunk of its own.
    const chunk = Buffer.allocUnsafeSlow(64 << 10);
    bytes.copy(chunk);
    initiator.receiveBytes(chunk.subarray(0, bytes.length));
  }
  assert.equal((await initiator.outcome()).status, 0);
  assert(written.length <= 2, `${written.length} buffers`);
  const kept = new Set(written.map((buffer) => buffer.buffer));
  const bytesKept = [...kept].reduce((sum, { byteLength }) => sum + byteLength, 0);
  assert(bytesKept <= 2 * data.length, `${bytesKept} B`);
  assert.deepEqual((await initiator.read(read10(0, 128), data.length)).data, data);
});
