import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { VolumeTask } from "../brick/volume/volume.ts";
import { sendAsyncMessage } from "./answers.ts";
import { checkIdle } from "./connection.ts";
import {
  attach,
  pattern,
  read10,
  senseText,
  settled,
  TestInitiator,
  target,
  testUnitReady,
  write10,
} from "./initiator.test-double.ts";
import { commandWindow, pingAfterIdleMs, pingAnswerMs } from "./limits.ts";
import type { MemoryVolume } from "./memory-volume.test-double.ts";
import {
  asyncMessage,
  dataIn,
  dataOut,
  layouts,
  logoutRequest,
  logoutResponse,
  nopIn,
  nopOut,
  noTag,
  readyToTransfer,
  reject,
  scsiCommand,
  snackRequest,
  taskManagementRequest,
  taskManagementResponse,
} from "./pdu.ts";

test("commands outside the window are ignored, early ones wait for their turn", async () => {
  const { initiator } = await attach();
  const first = initiator.cmdSn;
  initiator.command(testUnitReady, { cmdSn: first - 1 });
  initiator.command(testUnitReady, { cmdSn: first + commandWindow });
  assert.deepEqual(initiator.take(), []);
  const data = pattern(1024);
  const early = initiator.command(
    write10(3, 2),
    { cmdSn: first + 1, write: true, final: false, expectedLength: 1024 },
    data.subarray(0, 512),
  );
  initiator.send(
    dataOut,
    { initiatorTaskTag: early, targetTransferTag: noTag, bufferOffset: 512, final: true },
    data.subarray(512),
  );
  await settled();
  assert.deepEqual(initiator.take(), [], "a CmdSN before it is missing");
  const late = initiator.command(testUnitReady, { cmdSn: first });
  await settled();
  const answers = initiator.take();
  assert.deepEqual(
    answers.map(({ values }) => values.initiatorTaskTag),
    [late, early],
  );
  assert.equal(answers[1]?.values.expCmdSn, first + 2);
  assert.equal(answers[1]?.values.maxCmdSn, first + 2 + commandWindow - 1);
  initiator.cmdSn = first + 2;
  assert.deepEqual((await initiator.read(read10(3, 2), 1024)).data, data);
});

test("what is refused or aborted before its turn does not widen the window", async () => {
  const { initiator } = await attach();
  const first = initiator.cmdSn;
  const maxCmdSn = initiator.connection.session!.maxCmdSn;
  const early = (cmdSn: number, initiatorTaskTag: number) =>
    initiator.command(testUnitReady, { cmdSn, initiatorTaskTag });
  for (let cmdSn = first + 1; cmdSn < first + 11; cmdSn += 1) early(cmdSn, 7);
  assert.equal(initiator.take().filter(({ opcode }) => opcode === reject.opcode).length, 9);
  const abort = { immediate: true, function: 1, initiatorTaskTag: 8, referencedTaskTag: 7 };
  initiator.send(taskManagementRequest, { ...abort, cmdSn: first });
  assert.equal(initiator.take()[0]!.values.maxCmdSn, maxCmdSn);
  // When the missing one comes, all their places are free.
  early(first, 9);
  await settled();
  initiator.ping(Buffer.alloc(0));
  assert.equal(initiator.take().at(-1)!.values.maxCmdSn, maxCmdSn + 11);
});

test("the window closes as commands run, and opens as they end", async () => {
  const { initiator, volume } = await attach();
  const finish: (() => void)[] = [];
  volume.read = () =>
    new Promise((resolve) => {
      finish.push(() => resolve({ ok: true, buffers: [Buffer.alloc(512)] }));
    });
  const last = initiator.connection.session!.maxCmdSn;
  for (let at = 0; at < commandWindow + 3; at += 1) {
    initiator.command(read10(at, 1), { read: true, expectedLength: 512 });
  }
  assert.equal(finish.length, commandWindow);
  assert.equal(initiator.connection.session!.maxCmdSn, last);
  assert.equal(initiator.connection.session!.expCmdSn, last + 1);
  finish[0]!();
  await settled();
  assert.equal(initiator.takeOne(dataIn).values.maxCmdSn, last + 1);
});

test("an ORDERED command waits for those before it and holds those behind it", async () => {
  const { initiator, volume } = await attach();
  const finish: (() => void)[] = [];
  volume.read = () =>
    new Promise((resolve) => {
      finish.push(() => resolve({ ok: true, buffers: [Buffer.alloc(512)] }));
    });
  for (const attribute of [1, 2, 1]) {
    initiator.command(read10(0, 1), { attribute, read: true, expectedLength: 512 });
  }
  for (const running of [1, 2, 3]) {
    assert.equal(finish.length, running);
    finish[running - 1]!();
    await settled();
  }
});

/** A volume whose writes end when they are told to, and note their cancellation. */
function slowWrites(volume: MemoryVolume) {
  const running: { task: VolumeTask; end(ok: boolean): void }[] = [];
  volume.write = (_offset, _data, task) =>
    new Promise((resolve) => {
      running.push({
        task: task!,
        end: (ok) => resolve(ok ? { ok } : { ok, fault: { code: "cancelled" } }),
      });
    });
  return running;
}

for (const [what, fn] of [
  ["ABORT TASK", 1],
  ["ABORT TASK SET", 2],
  ["CLEAR TASK SET", 4],
  ["LOGICAL UNIT RESET", 5],
  ["TARGET WARM RESET", 6],
] as const) {
  test(`${what} answers when the write has settled, and the write is not answered`, async () => {
    const { initiator, volume } = await attach();
    const running = slowWrites(volume);
    const options = { write: true, expectedLength: 512 };
    const tag = initiator.command(write10(0, 1), options, pattern(512));
    initiator.send(taskManagementRequest, {
      immediate: true,
      initiatorTaskTag: 0x500,
      function: fn,
      referencedTaskTag: fn === 1 ? tag : noTag,
      cmdSn: initiator.cmdSn,
    });
    await settled();
    assert.equal(running[0]?.task.cancelled, true);
    assert.deepEqual(initiator.take(), [], "not before the write has settled");
    running[0]?.end(false);
    await settled();
    const answer = initiator.takeOne(taskManagementResponse);
    assert.equal(answer.values.response, 0);
    assert.equal(answer.values.maxCmdSn, initiator.cmdSn + commandWindow - 1);
    if (fn >= 5) {
      assert.equal(senseText((await initiator.read(testUnitReady, 0)).sense), "6/29/03");
    }
  });
}

test("task management that cannot be done says why", async () => {
  const { initiator } = await attach();
  const ask = (fields: object) => {
    const common = { immediate: true, initiatorTaskTag: 0x500, cmdSn: initiator.cmdSn };
    initiator.send(taskManagementRequest, { ...common, ...fields });
    return initiator.takeOne(taskManagementResponse).values.response;
  };
  assert.equal(ask({ function: 1, referencedTaskTag: 77, refCmdSn: initiator.cmdSn - 1 }), 1);
  assert.equal(ask({ function: 5, lunHigh: 0x0001_0000 }), 2);
  assert.equal(ask({ function: 3 }), 5);
  assert.equal(ask({ function: 8 }), 4);
  assert.equal(ask({ function: 9, referencedTaskTag: 77 }), 5, "RFC 7144 was not negotiated");
  assert.equal(ask({ function: 100 }), 5);
});

for (const landed of [true, false]) {
  const what = landed ? "is answered when it had landed" : "gets no answer when it had not";
  test(`a reset of one session ends another's write, which ${what}`, async () => {
    const { initiator, volume, node } = await attach();
    const other = new TestInitiator(node);
    other.login({ target, isid: 2 });
    await other.clearAttention();
    const running = slowWrites(volume);
    const options = { write: true, expectedLength: 512 };
    other.command(write10(0, 1), options, pattern(512));
    const reset = { immediate: true, initiatorTaskTag: 1, function: 5, cmdSn: initiator.cmdSn };
    initiator.send(taskManagementRequest, reset);
    await settled();
    assert.deepEqual(initiator.take(), []);
    running[0]?.end(landed);
    await settled();
    assert.equal(initiator.takeOne(taskManagementResponse).values.response, 0);
    if (landed) assert.equal((await other.outcome()).status, 0);
    else assert.deepEqual(other.take(), []);
    assert.equal(senseText((await other.read(testUnitReady, 0)).sense), "6/29/03");
  });
}

/** MODE SELECT(6) of the control mode page with TAS. */
async function setTaskAborted(initiator: TestInitiator): Promise<void> {
  const list = Buffer.from("000000000a0a001000400000ffff0000", "hex");
  const cdb = Buffer.from([0x15, 0x10, 0, 0, list.length, 0]);
  assert.equal((await initiator.write(cdb, list)).status, 0);
}

for (const fn of [4, 5]) {
  const what = fn === 4 ? "CLEAR TASK SET" : "LOGICAL UNIT RESET";
  test(`with TAS 1 what a ${what} of another session aborts is answered TASK ABORTED`, async () => {
    const { initiator, volume, node } = await attach();
    const other = new TestInitiator(node);
    other.login({ target, isid: 2 });
    await other.clearAttention();
    await setTaskAborted(initiator);
    assert.equal(senseText((await other.read(testUnitReady, 0)).sense), "6/2a/01");
    const running = slowWrites(volume);
    const options = { write: true, expectedLength: 512 };
    initiator.command(write10(0, 1), options, pattern(512));
    const tag = other.command(write10(8, 1), options, pattern(512));
    const landedTag = other.command(write10(16, 1), options, pattern(512));
    // It waits for data that were asked for.
    const asking = other.command(write10(24, 1), options);
    const { targetTransferTag } = other.takeOne(readyToTransfer).values;
    const management = { immediate: true, initiatorTaskTag: 0x500, function: fn };
    initiator.send(taskManagementRequest, { ...management, cmdSn: initiator.cmdSn });
    await settled();
    assert.deepEqual(
      running.map(({ task }) => task.cancelled),
      [true, true, true],
    );
    assert.deepEqual(other.take(), []);
    for (const [index, one] of running.entries()) one.end(index === 2);
    await settled();
    // The session's own command ends without a word.
    assert.equal(initiator.takeOne(taskManagementResponse).values.response, 0);
    const answers = other.take().map(({ values }) => [values.initiatorTaskTag, values.status]);
    assert.deepEqual(answers, [
      [tag, 0x40],
      [landedTag, 0],
    ]);
    const data = { initiatorTaskTag: asking, targetTransferTag, final: true };
    other.send(dataOut, data, pattern(512));
    assert.equal((await other.outcome()).status, 0x40);
    assert.equal(running.length, 3, "it has begun after it was aborted");
    const next = await other.read(testUnitReady, 0);
    assert.equal(next.sense === null ? "" : senseText(next.sense), fn === 4 ? "" : "6/29/03");
    assert.equal(volume.unit().mode.taskAborted ?? false, fn === 4, "a reset restores the mode");
  });
}

test("with TAS 1 a session's own ABORT TASK SET answers nothing for what it aborts", async () => {
  const { initiator, volume } = await attach();
  await setTaskAborted(initiator);
  const running = slowWrites(volume);
  initiator.command(write10(0, 1), { write: true, expectedLength: 512 }, pattern(512));
  const management = { immediate: true, initiatorTaskTag: 0x500, function: 2 };
  initiator.send(taskManagementRequest, { ...management, cmdSn: initiator.cmdSn });
  running[0]!.end(false);
  await settled();
  assert.equal(initiator.takeOne(taskManagementResponse).values.response, 0);
});

test("TARGET COLD RESET answers, then ends every session of the target", async () => {
  const { initiator, node } = await attach();
  const other = new TestInitiator(node);
  other.login({ target, isid: 2 });
  const reset = { immediate: true, initiatorTaskTag: 1, function: 7, cmdSn: initiator.cmdSn };
  initiator.send(taskManagementRequest, reset);
  await settled();
  assert.equal(initiator.takeOne(taskManagementResponse).values.response, 0);
  assert.equal(initiator.connection.closing, "afterFlush");
  assert.equal(other.connection.closing, "now");
  assert.equal(node.sessions.size, 0);
});

test("logout waits for writes, answers, and closes", async () => {
  const { initiator, volume } = await attach();
  const running = slowWrites(volume);
  initiator.command(write10(0, 1), { write: true, expectedLength: 512 }, pattern(512));
  const request = { immediate: true, initiatorTaskTag: 6, cmdSn: initiator.cmdSn };
  initiator.send(logoutRequest, { ...request, reason: 2 });
  assert.equal(initiator.takeOne(logoutResponse).values.response, 2);
  initiator.send(logoutRequest, { ...request, reason: 0 });
  assert.deepEqual(initiator.take(), []);
  running[0]?.end(false);
  await settled();
  assert.equal(initiator.takeOne(logoutResponse).values.response, 0);
  assert.equal(initiator.connection.closing, "afterFlush");
});

test("NOP-Out is echoed, an answer to a ping is not", async () => {
  const { initiator } = await attach();
  initiator.ping(Buffer.from("hello"));
  const answer = initiator.takeOne(nopIn);
  assert.equal(answer.values.initiatorTaskTag, 0x77);
  assert.equal(answer.values.targetTransferTag, noTag);
  assert.equal(answer.data.toString(), "hello");
  const silent = { immediate: true, initiatorTaskTag: noTag, targetTransferTag: 1 };
  initiator.send(nopOut, { ...silent, cmdSn: initiator.cmdSn });
  assert.deepEqual(initiator.take(), []);
});

test("an idle connection is pinged, a silent one dropped, an answering one kept", async () => {
  const { initiator, node } = await attach();
  const { connection } = initiator;
  const later = (ms: number) => {
    node.clock.ms += ms;
    checkIdle(connection, node.clock.ms);
  };
  later(pingAfterIdleMs + 1);
  const ping = initiator.takeOne(nopIn);
  assert.equal(ping.values.initiatorTaskTag, noTag);
  const { targetTransferTag } = ping.values;
  const pong = { immediate: true, initiatorTaskTag: noTag, targetTransferTag };
  initiator.send(nopOut, { ...pong, cmdSn: initiator.cmdSn });
  later(pingAnswerMs + 1);
  assert.equal(connection.closing, null);
  later(pingAfterIdleMs);
  initiator.takeOne(nopIn);
  later(pingAnswerMs + 1);
  assert.equal(connection.closing, "now");
});

test("an asynchronous message asks for logout", async () => {
  const { initiator } = await attach();
  sendAsyncMessage(initiator.connection.session!, 1, { parameter3: 10 });
  const { values } = initiator.takeOne(asyncMessage);
  assert.equal(values.event, 1);
  assert.equal(values.parameter3, 10);
  assert.equal(values.initiatorTaskTag, noTag);
});

test("unknown opcodes, SNACK and tags in use are rejected; the session goes on", async () => {
  const { initiator } = await attach();
  const numbered = () => ({ initiatorTaskTag: 9, cmdSn: initiator.cmdSn++ });
  initiator.send({ ...nopOut, opcode: 0x1e }, numbered());
  assert.equal(initiator.takeOne(reject).values.reason, 0x05);
  initiator.send(snackRequest, { initiatorTaskTag: 9 });
  assert.equal(initiator.takeOne(reject).values.reason, 0x03);
  const tag = initiator.command(write10(0, 1), { write: true, expectedLength: 512 });
  initiator.takeOne(readyToTransfer);
  initiator.command(testUnitReady, { initiatorTaskTag: tag });
  const again = initiator.takeOne(reject);
  assert.equal(again.values.reason, 0x07);
  assert.equal(again.data.length, 48);
  assert.equal((await initiator.read(testUnitReady, 0)).status, 0);
});

test("no bytes after login bring the target down, nor another session", async () => {
  const opcodes = Object.values(layouts).map((layout) => layout.opcode);
  const hostile = fc.record({
    opcode: fc.constantFrom(...opcodes, 0x1f, 0x2f),
    flags: fc.nat(255),
    bytes: fc.uint8Array({ minLength: 48, maxLength: 48 }),
    data: fc.uint8Array({ maxLength: 64 }),
    inWindow: fc.boolean(),
    small: fc.boolean(),
    cdb: fc.constantFrom(
      0x00,
      0x03,
      0x08,
      0x0a,
      0x12,
      0x15,
      0x1a,
      0x28,
      0x2a,
      0x41,
      0x42,
      0x55,
      0x5a,
      0x88,
      0x8a,
      0x8e,
      0x8f,
      0x93,
      0x9e,
      0xa0,
      0xa3,
      0xaf,
    ),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(hostile, { minLength: 1, maxLength: 30 }), async (pdus) => {
      const { initiator, node } = await attach(undefined, 64 << 10);
      const witness = new TestInitiator(node);
      witness.login({ target, isid: 2 });
      await witness.clearAttention();
      for (const { opcode, flags, bytes, data, inWindow, small, cdb } of pdus) {
        const { session } = initiator.connection;
        if (initiator.connection.closing !== null || session === null) break;
        const bhs = Buffer.from(bytes);
        bhs[0] = opcode | (bhs[0]! & 0x40);
        bhs[1] = flags;
        bhs[4] = 0;
        bhs.writeUIntBE(data.length, 5, 3);
        if (inWindow) scsiCommand.fields.cmdSn.set(bhs, session.expCmdSn);
        if (small) bhs.fill(0, 8, 16);
        if (opcode === scsiCommand.opcode) {
          if (inWindow) scsiCommand.fields.expectedLength.set(bhs, data.length);
          bhs[32] = cdb;
          if (small) bhs.fill(0, 34, 39);
        }
        initiator.receiveBytes(Buffer.concat([bhs, data, Buffer.alloc(-data.length & 3)]));
        initiator.take();
      }
      await settled();
      initiator.take();
      initiator.lose();
      await settled();
      // Resets by the hostile session are unit attentions here; a cold reset ends us.
      const statuses: number[] = [];
      while (statuses.at(-1) !== 0 && witness.connection.closing === null) {
        assert(statuses.length < 3, `statuses ${statuses}`);
        statuses.push((await witness.read(testUnitReady, 0)).status);
      }
      witness.lose();
      assert.equal(node.sessions.size, 0);
    }),
    { numRuns: 300 },
  );
});
