import assert from "node:assert/strict";
import { test } from "node:test";
import { read10, senseText, settled, write10 } from "../initiator.test-double.ts";
import {
  attachTwo,
  blocks,
  expectConflict,
  expectGood,
  expectSense,
  fieldPointer,
  hex,
  ready,
} from "./commands.test-double.ts";

const blockErase = "48 02 00 00 00 00 00 0000 00";
const immediately = "48 82 00 00 00 00 00 0000 00";
const exitFailure = "48 1f 00 00 00 00 00 0000 00";

test("after a block erase all is zeros and unmapped", async () => {
  const { first } = await attachTwo();
  await first.write(write10(0, 8), Buffer.alloc(4096, 1));
  await first.write(write10(blocks - 8, 8), Buffer.alloc(4096, 1));
  first.command(hex(blockErase));
  await settled();
  expectGood(await first.outcome());
  assert((await first.read(read10(0, 8), 4096)).data.equals(Buffer.alloc(4096)));
  const status = await first.read(hex("9e 12 0000000000000000 00000100 00 00"), 256);
  assert.equal(status.data.toString("hex", 0, 8), "0000001400000000");
  assert.equal(status.data.readUInt32BE(16), blocks);
  assert.equal(status.data[20], 1, "deallocated");
});

test("while it is sanitized a unit does little else, and says how far it is", async () => {
  const { first, second, volume } = await attachTwo();
  volume.sanitizes = false;
  expectGood(await first.read(hex(immediately), 0));
  await volume.changeUnit({ type: "sanitizeProgress", progress: 0x1234 });
  const busy = await second.read(ready, 0);
  expectSense(busy, "2/04/1b");
  assert.equal(busy.sense!.toString("hex", 15, 18), "801234");
  expectSense(await second.read(read10(0, 1), 512), "2/04/1b");
  expectSense(await second.read(hex("1b 00 00 00 01 00"), 0), "2/04/1b");
  expectSense(await first.read(hex(blockErase), 0), "2/04/1b");
  expectGood(await second.read(hex("12 00 00 00 24 00"), 36));
  expectGood(await second.read(hex("a0 00 00 00 00 00 00 00 00 10 00 00"), 16));
  expectGood(await second.read(hex("a3 0c 00 00 0000 00000010 00 00"), 16));
  const sensed = (await second.read(hex("03 00 00 00 12 00"), 18)).data;
  assert.equal(`${senseText(sensed)} ${sensed.toString("hex", 15, 18)}`, "2/04/1b 801234");
  const described = (await second.read(hex("03 01 00 00 ff 00"), 255)).data;
  assert.equal(described.toString("hex"), "7202041b00000008" + "0206000080123400");
  await volume.changeUnit({ type: "sanitizeEnd", ok: true });
  expectGood(await second.read(ready, 0));
});

test("a command that waits for a sanitize is answered when it has failed, and so is all else", async () => {
  const { first, second, volume } = await attachTwo();
  volume.sanitizes = false;
  first.command(hex("48 22 00 00 00 00 00 0000 00"));
  await settled();
  assert.deepEqual(first.take(), []);
  await volume.changeUnit({ type: "sanitizeEnd", ok: false });
  expectSense(await first.outcome(), "3/31/03");
  expectSense(await second.read(ready, 0), "3/31/03");
  expectSense(await second.read(read10(0, 1), 512), "3/31/03");
  assert.equal(senseText((await second.read(hex("03 00 00 00 12 00"), 18)).data), "3/31/03");
  expectGood(await second.read(hex(exitFailure), 0));
  expectGood(await second.read(read10(0, 1), 512));
});

test("a failure in restricted mode is left by another sanitize alone", async () => {
  const { first, volume } = await attachTwo();
  volume.sanitizes = false;
  expectGood(await first.read(hex(immediately), 0));
  await volume.changeUnit({ type: "sanitizeEnd", ok: false });
  expectSense(await first.read(hex(exitFailure), 0), "5/24/00");
  expectGood(await first.read(hex(immediately), 0));
  await volume.changeUnit({ type: "sanitizeEnd", ok: true });
  expectGood(await first.read(ready, 0));
});

const cryptographicErase = "48 03 00 00 00 00 00 0000 00";

test("CRYPTOGRAPHIC ERASE is there for encrypted units alone, and erases", async () => {
  const { first, volume } = await attachTwo();
  const supported = hex("a3 0c 03 48 0003 00000100 00 00");
  assert.equal((await first.read(supported, 256)).data[1], 1);
  expectSense(await first.read(hex(cryptographicErase), 0), "5/24/00");
  volume.info = { ...volume.info, keyDomain: 1 };
  assert.equal((await first.read(supported, 256)).data[1], 3);
  await first.write(write10(0, 8), Buffer.alloc(4096, 1));
  volume.sanitizes = false;
  expectGood(await first.read(hex("48 a3 00 00 00 00 00 0000 00"), 0));
  assert.equal(volume.unit().sanitize?.method, "crypto");
  assert.equal(volume.unit().sanitize?.allowUnrestrictedExit, true);
});

test("SANITIZE is strict about its CDB, and asks for the right to write", async () => {
  const { first, second } = await attachTwo();
  for (const at of [2, 3, 4, 5, 6]) {
    const cdb = hex(blockErase);
    cdb[at] = 0x10;
    const outcome = await first.read(cdb, 0);
    expectSense(outcome, "5/24/00");
    assert.equal(fieldPointer(outcome), `c${at}.4`);
  }
  assert.equal(fieldPointer(await first.read(hex("48 42 00 00 00 00 00 0000 00"), 0)), "c1.6");
  assert.equal(fieldPointer(await first.read(hex("48 02 00 00 00 00 00 0000 04"), 0)), "c9.2");
  for (const cdb of [blockErase, exitFailure]) {
    const list = hex(cdb);
    list[8] = 8;
    const outcome = await first.write(list, Buffer.alloc(8));
    expectSense(outcome, "5/24/00");
    assert.equal(fieldPointer(outcome), "c7");
  }
  // OVERWRITE, CRYPTOGRAPHIC ERASE and numbers that nobody has given.
  for (const action of [0x00, 0x01, 0x03, 0x04, 0x1e]) {
    expectSense(await first.read(hex(`48 ${action.toString(16).padStart(2, "0")}`), 0), "5/24/00");
  }
  const protect = hex("00000000 0a0a 00 10 08 00 0000 ffff 0000");
  expectGood(await second.write(hex("15 10 00 00 10 00"), protect));
  expectSense(await first.read(ready, 0), "6/2a/01");
  expectSense(await first.read(hex(blockErase), 0), "7/27/00");
  protect[8] = 0;
  expectGood(await second.write(hex("15 10 00 00 10 00"), protect));
  expectGood(await second.read(hex("16 00 00 00 00 00"), 0));
  expectConflict(await first.read(hex(blockErase), 0));
});
