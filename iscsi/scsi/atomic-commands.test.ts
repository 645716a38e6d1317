import assert from "node:assert/strict";
import { test } from "node:test";
import { VolumeTask } from "../../brick/volume/volume.ts";
import { pattern, read10, type TestInitiator, target, write10 } from "../initiator.test-double.ts";
import { MemoryVolume } from "../memory-volume.test-double.ts";
import { orWrite } from "./atomic-commands.ts";
import {
  attachTwo,
  blocks,
  expectConflict,
  expectGood,
  expectSense,
  fieldPointer,
  hex,
  sizeBytes,
} from "./commands.test-double.ts";
import { addNexus, makeLogicalUnit } from "./logical-unit.ts";

function compareAndWrite(initiator: TestInitiator, lba: number, count: number, data: Buffer) {
  const cdb = hex("89 00 0000000000000000 000000 00 00 00");
  cdb.writeUInt32BE(lba, 6);
  cdb[13] = count;
  return initiator.write(cdb, data);
}

const filled = (count: number, byte: number) => Buffer.alloc(count * 512, byte);

test("COMPARE AND WRITE writes when all is as expected, and tells the first byte that is not", async () => {
  const { first } = await attachTwo();
  expectGood(await first.write(write10(8, 2), filled(2, 1)));
  const swap = Buffer.concat([filled(2, 1), filled(2, 2)]);
  expectGood(await compareAndWrite(first, 8, 2, swap));
  assert((await first.read(read10(8, 2), 1024)).data.equals(filled(2, 2)));
  const stale = Buffer.concat([filled(2, 2), filled(2, 3)]);
  stale[700] = 9;
  const outcome = await compareAndWrite(first, 8, 2, stale);
  expectSense(outcome, "e/1d/00");
  assert.equal(outcome.sense!.readUInt32BE(3), 700);
  assert((await first.read(read10(8, 2), 1024)).data.equals(filled(2, 2)), "nothing landed");
  // Never written: compares as zeros.
  expectGood(await compareAndWrite(first, 100, 1, Buffer.concat([filled(1, 0), filled(1, 7)])));
  expectGood(await compareAndWrite(first, 8, 0, Buffer.alloc(0)));
});

test("COMPARE AND WRITE whose data disagree with its CDB, or past the end", async () => {
  const { first, second } = await attachTwo();
  for (const [count, sent] of [
    [1, 3],
    [1, 4],
    [3, 4],
    [0, 2],
  ] as const) {
    const outcome = await compareAndWrite(first, 0, count, filled(sent, 0));
    expectSense(outcome, "5/24/00");
    assert.equal(fieldPointer(outcome), "c13");
  }
  expectSense(await compareAndWrite(first, blocks - 1, 2, filled(4, 0)), "5/21/00");
  const reserved = hex("89 00 0000000000000000 000001 01 00 00");
  expectSense(await first.write(reserved, filled(2, 0)), "5/24/00");
  const protect = hex("89 20 0000000000000000 000000 01 00 00");
  expectSense(await first.write(protect, filled(2, 0)), "5/24/00");
  expectGood(await second.read(hex("16 00 00 00 00 00"), 0));
  expectConflict(await compareAndWrite(first, 0, 1, filled(2, 0)));
});

test("ORWRITE sets bits", async () => {
  const { first } = await attachTwo();
  expectGood(await first.write(write10(3, 100), filled(100, 0x0f)));
  const cdb = hex("8b 00 0000000000000003 00000064 00 00");
  expectGood(await first.write(cdb, filled(100, 0x31)));
  assert((await first.read(read10(3, 100), 51_200)).data.equals(filled(100, 0x3f)));
  cdb.writeUInt32BE(blocks, 6);
  expectSense(await first.write(cdb, filled(100, 0)), "5/21/00");
  cdb.writeUInt32BE(0, 6);
  expectSense(await first.write(cdb, filled(99, 0)), "5/0e/03");
});

test("an ORWRITE of more than one message goes step by step", async () => {
  const volume = new MemoryVolume("disk", sizeBytes);
  const unit = makeLogicalUnit({ volume, targetName: target, portalGroupTag: 7 });
  const nexus = addNexus(unit, "iqn.2026-11.test:initiator", "800000000001");
  const count = 2 * 2048 + 3;
  const data = pattern(count * 512);
  const cdb = hex("8b 00 0000000000000001 00000000 00 00");
  cdb.writeUInt32BE(count, 10);
  const dataOut = [data.subarray(0, 1000), data.subarray(1000)];
  const task = new VolumeTask(nexus.id, unit.noticeNext);
  const session = { unit, nexus, luns: [0], peers: [], queriesTasks: false, task };
  const sizes = { dataOutBytes: data.length, expectedBytes: data.length, received: null };
  assert.equal((await orWrite({ ...session, cdb, dataOut, ...sizes })).status, 0);
  const reply = await volume.read(512, data.length);
  assert(reply.ok && Buffer.concat(reply.buffers).equals(data));
});

test("WRITE ATOMIC(16) of up to 1 MiB, wherever it begins", async () => {
  const { first } = await attachTwo();
  const atomic = (lba: number, count: number, boundary = 0, sent = count) => {
    const cdb = hex("9c 00 0000000000000000 0000 0000 00 00");
    cdb.writeUInt32BE(lba, 6);
    cdb.writeUInt16BE(boundary, 10);
    cdb.writeUInt16BE(count, 12);
    return first.write(cdb, filled(sent, 5));
  };
  expectGood(await atomic(128, 128));
  expectGood(await atomic(256, 1));
  assert((await first.read(read10(128, 129), 129 * 512)).data.equals(filled(129, 5)));
  expectGood(await atomic(100, 120));
  assert((await first.read(read10(100, 120), 120 * 512)).data.equals(filled(120, 5)));
  assert.equal(fieldPointer(await atomic(128, 2049, 0, 0)), "c12");
  assert.equal(fieldPointer(await atomic(128, 8, 8)), "c10");
  expectSense(await atomic(blocks, 1), "5/21/00");
  expectGood(await atomic(0, 0));
});

test("READ DEFECT DATA lists nothing, in every format but the vendor's", async () => {
  const { first } = await attachTwo();
  const ten = await first.read(hex("37 00 1d 00000000 0004 00"), 4);
  assert.equal(ten.data.toString("hex"), "001d0000");
  expectSense(await first.read(hex("37 00 1e 00000000 0004 00"), 4), "5/24/00");
  const twelve = await first.read(hex("b7 0b 00000000 00000008 00 00"), 8);
  assert.equal(twelve.data.toString("hex"), "000b000000000000");
  expectSense(await first.read(hex("b7 07 00000000 00000008 00 00"), 8), "5/24/00");
});
