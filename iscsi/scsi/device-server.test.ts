import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { giveBack, LentMemory } from "../../brick/rpc/lent-memory.ts";
import { VolumeTask } from "../../brick/volume/volume.ts";
import { target } from "../initiator.test-double.ts";
import { stepBytesMax } from "../limits.ts";
import { MemoryVolume } from "../memory-volume.test-double.ts";
import {
  attachTwo,
  expectGood,
  expectSense,
  fieldPointer,
  hex,
  sizeBytes,
} from "./commands.test-double.ts";
import { runCommand } from "./device-server.ts";
import { addNexus, makeLogicalUnit } from "./logical-unit.ts";
import { commandRows, findCommand } from "./opcodes.ts";
import { encodeSense, scsiStatus } from "./sense.ts";

const statuses: ReadonlySet<number> = new Set(Object.values(scsiStatus));
const opcodes = [...new Set(commandRows.map(({ opcode }) => opcode)), 0xd0];

/** Small numbers are likelier than any: they get past the first check. */
const byte = fc.oneof(
  fc.constant(0),
  fc.integer({ min: 0, max: 3 }),
  fc.integer({ max: 255, min: 0 }),
);

test("whatever a CDB and its data are, they end in a well-formed answer", async () => {
  const hostile = fc.record({
    opcode: fc.constantFrom(...opcodes),
    rest: fc.array(byte, { minLength: 15, maxLength: 15 }),
    data: fc.array(byte, { maxLength: 96 }),
    /** How much of what is asked for is sent. */
    sent: fc.constantFrom("nothing", "half", "all"),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(hostile, { minLength: 1, maxLength: 8 }), async (commands) => {
      const volume = new MemoryVolume("disk", sizeBytes);
      const unit = makeLogicalUnit({ volume, targetName: target, portalGroupTag: 1 });
      const nexus = addNexus(unit, "iqn.2026-11.test:initiator", "800000000001");
      nexus.attentions.pop();
      for (const { opcode, rest, data, sent } of commands) {
        const cdb = Buffer.from([opcode, ...rest]);
        const row = findCommand(cdb);
        const wanted = row?.dataOutBytes?.(unit, cdb) ?? 0;
        assert(
          wanted >= 0 && Number.isInteger(wanted),
          `${wanted} bytes of ${cdb.toString("hex")}`,
        );
        const length = { nothing: 0, half: wanted >>> 1, all: wanted }[sent];
        const dataOut = length === 0 ? [] : [Buffer.alloc(length, Buffer.from([...data, 1]))];
        const received = new LentMemory();
        for (const buffer of dataOut) received.add(() => giveBack(buffer));
        const task = new VolumeTask(nexus.id, unit.noticeNext);
        const peers = [{ unit, nexus }];
        const result = await runCommand(
          {
            ...{ unit, nexus, luns: [0], peers, queriesTasks: true, cdb, task },
            ...{ dataOut, dataOutBytes: length, expectedBytes: length, received },
          },
          row,
          wanted,
        );
        const name = `${row?.name}: ${cdb.toString("hex")}`;
        assert(statuses.has(result.status), name);
        const bytes = result.data.reduce((sum, buffer) => sum + buffer.length, 0);
        assert.equal(bytes, result.dataBytes, name);
        assert(bytes <= Math.max(sizeBytes, stepBytesMax), name);
        assert.equal(result.status === scsiStatus.checkCondition, result.sense !== null, name);
        if (result.sense === null) continue;
        assert(encodeSense(result.sense, "fixed").length === 18, name);
        assert(encodeSense(result.sense, "descriptor").length <= 44, name);
      }
    }),
    { numRuns: 2000 },
  );
});

test("WRITE AND VERIFY compares with what it was sent, of which a plain WRITE lets go", async () => {
  for (const opcode of [0x2a, 0x2e]) {
    const volume = new MemoryVolume("disk", sizeBytes);
    const unit = makeLogicalUnit({ volume, targetName: target, portalGroupTag: 1 });
    const nexus = addNexus(unit, "iqn.2026-11.test:initiator", "800000000001");
    nexus.attentions.pop();
    const cdb = hex("00 02 00 00 00 00 00 00 02 00");
    cdb[0] = opcode;
    if (opcode === 0x2a) cdb[1] = 0;
    const data = Buffer.alloc(1024, "w");
    const received = new LentMemory();
    received.add(() => giveBack(data));
    const result = await runCommand(
      {
        ...{ unit, nexus, luns: [0], peers: [{ unit, nexus }], queriesTasks: true, cdb },
        ...{ dataOut: [data], dataOutBytes: 1024, expectedBytes: 1024, received },
        task: new VolumeTask(nexus.id, unit.noticeNext),
      },
      findCommand(cdb),
      1024,
    );
    assert.equal(result.status, scsiStatus.good);
    assert.equal(data.length, opcode === 0x2a ? 0 : 1024);
    const read = await volume.read(0, 1024);
    assert.ok(read.ok && Buffer.concat(read.buffers).equals(Buffer.alloc(1024, "w")));
  }
});

test("START STOP UNIT starts and stops nothing, and knows its power conditions", async () => {
  const { first } = await attachTwo();
  for (let condition = 0; condition < 16; condition += 1) {
    const cdb = hex("1b 00 00 00 00 00");
    cdb[4] = (condition << 4) | 0x01;
    const outcome = await first.read(cdb, 0);
    if ([0, 1, 2, 3, 7, 10, 11].includes(condition)) expectGood(outcome);
    else assert.equal(fieldPointer(outcome), "c4.7");
  }
  expectSense(await first.read(hex("1b 00 00 00 02 00"), 0), "5/24/00");
});
