import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { VolumeFault } from "../../brick/volume/volume.ts";
import {
  type CommandOutcome,
  senseText,
  TestInitiator,
  testNode,
} from "../initiator.test-double.ts";
import { MemoryVolume, memoryDirectory } from "../memory-volume.test-double.ts";
import { firstDifference } from "./block-commands.ts";
import { blockRange } from "./cdb.ts";
import { naaIdentifier } from "./identification.ts";
import { commandRows } from "./opcodes.ts";
import { encodeSense, invalidFieldInCdb, miscompare, sense } from "./sense.ts";

const target = "iqn.2026-11.endisk:disk";
const sizeBytes = 4 << 20;
const blocks = sizeBytes / 512;

async function attach() {
  const volume = new MemoryVolume("disk", sizeBytes);
  const node = testNode(memoryDirectory([volume]));
  const initiator = new TestInitiator(node);
  initiator.login({ target });
  await initiator.clearAttention();
  return { volume, node, initiator };
}

function hex(text: string): Buffer {
  return Buffer.from(text.replaceAll(" ", ""), "hex");
}

function expectSense(outcome: CommandOutcome, expected: string): void {
  assert.equal(outcome.status, 2);
  assert.equal(senseText(outcome.sense), expected);
}

test("sense data, fixed and by descriptors", () => {
  assert.equal(
    encodeSense(invalidFieldInCdb(2, 3), "fixed").toString("hex"),
    "700005000000000a00000000240000cb0002",
  );
  assert.equal(
    encodeSense(miscompare(0x1234), "fixed").toString("hex"),
    "f0000e000012340a000000001d0000000000",
  );
  assert.equal(
    encodeSense(miscompare(0x12_3456_7890), "descriptor").toString("hex"),
    "720e1d000000000c000a80000000001234567890",
  );
  assert.equal(
    encodeSense(invalidFieldInCdb(2), "descriptor").toString("hex"),
    "72052400000000080206" + "0000c000" + "0200",
  );
  assert.equal(encodeSense(sense.powerOn, "descriptor").toString("hex"), "7206290000000000");
});

test("block ranges of all CDB lengths", () => {
  const of = (text: string) => blockRange(Buffer.concat([hex(text), Buffer.alloc(16)]));
  assert.deepEqual(of("08 1fffff 00 00"), { lba: 0x1f_ffff, blocks: 256 });
  assert.deepEqual(of("28 00 01020304 00 0506 00"), { lba: 0x0102_0304, blocks: 0x0506 });
  assert.deepEqual(of("a8 00 01020304 05060708 00 00"), { lba: 0x0102_0304, blocks: 0x0506_0708 });
  assert.deepEqual(of("88 00 0000010203040506 0708090a 00 00"), {
    lba: 0x01_0203_0405_06,
    blocks: 0x0708_090a,
  });
});

test("INQUIRY and its pages", async () => {
  const { initiator } = await attach();
  const standard = (await initiator.read(hex("12 00 00 0060 00"), 96)).data;
  assert.equal(standard.length, 96);
  assert.equal(standard[0], 0);
  assert.equal(standard[5], 0x38, "TPGS 11b, 3PC");
  assert.equal(standard.toString("latin1", 8, 36), "ENDISK  END DISK        0001");
  const page = async (code: number) => {
    const cdb = hex("12 01 00 00ff 00");
    cdb[2] = code;
    const { data } = await initiator.read(cdb, 255);
    assert.equal(data[1], code);
    assert.equal(data.readUInt16BE(2), data.length - 4);
    return data;
  };
  assert.equal((await page(0x00)).toString("hex"), "0000000a00808386" + "87888fb0b1b2");
  assert.equal((await page(0x80)).toString("latin1", 4), "00112233445566778899aabbccddeeff");
  const identification = await page(0x83);
  // The first designator: binary, NAA, of the unit.
  assert.equal(identification.subarray(4, 8).toString("hex"), "01030010");
  const naa = naaIdentifier("00112233445566778899aabbccddeeff");
  assert.deepEqual(identification.subarray(8, 24), naa);
  assert.equal(naa.toString("hex"), "602454e00112233445566778899aabbc");
  const limits = await page(0xb0);
  assert.equal(limits.length, 0x40);
  assert.equal(limits.readUInt32BE(28), 8, "unmap granularity");
  assert.equal(limits[5], 255, "compare and write");
  // Atomic writes: length, no alignment, granularity, no boundaries.
  assert.equal(limits.toString("hex", 44), "000008000000000000000001" + "0000000000000000");
  assert.equal((await page(0xb1)).toString("hex", 4, 8), "00010040");
  assert.equal((await page(0xb2)).toString("hex", 4), "0be40200");
  assert.equal((await page(0x86)).toString("hex", 4, 8), "00070000");
  assert.equal((await page(0x87)).toString("hex", 4), "3fff0000");
  const ports = (await page(0x88)).subarray(4);
  assert.equal(ports.readUInt16BE(2), 1);
  assert.equal(ports.toString("utf8", 16, 16 + target.length + 11), `${target},t,0x0001\0\0`);
  expectSense(await initiator.read(hex("12 01 c0 00ff 00"), 255), "5/24/00");
  expectSense(await initiator.read(hex("12 00 80 00ff 00"), 255), "5/24/00");
});

test("a LUN that does not exist", async () => {
  const { initiator } = await attach();
  const at = { read: true, lunHigh: 0x0001_0000, expectedLength: 96 };
  initiator.command(hex("12 00 00 0060 00"), at);
  assert.equal((await initiator.outcome()).data[0], 0x7f);
  initiator.command(hex("00 00 00 00 00 00"), at);
  expectSense(await initiator.outcome(), "5/25/00");
  initiator.command(hex("03 00 00 00 12 00"), at);
  assert.equal(senseText((await initiator.outcome()).data), "5/25/00");
  initiator.command(hex("a0 00 00 000000 00000060 00 00"), at);
  assert.equal(
    (await initiator.outcome()).data.toString("hex"),
    "00000008000000000000000000000000",
  );
});

test("capacity, and the unit attention when it has changed", async () => {
  const { initiator, volume } = await attach();
  const ten = await initiator.read(hex("25 00 00000000 0000 00 00"), 8);
  assert.equal(ten.data.readUInt32BE(0), blocks - 1);
  const sixteen = await initiator.read(hex("9e 10 0000000000000000 00000020 00 00"), 32);
  assert.equal(sixteen.data.toString("hex", 0, 16), "0000000000001fff0000020000" + "00c000");
  volume.grow(3 * 2 ** 40);
  expectSense(await initiator.read(hex("00 00 00 00 00 00"), 0), "6/2a/09");
  assert.equal((await initiator.read(hex("00 00 00 00 00 00"), 0)).status, 0);
  const grown = await initiator.read(hex("25 00 00000000 0000 00 00"), 8);
  assert.equal(grown.data.readUInt32BE(0), 0xffff_ffff);
});

test("a unit attention does not hold up INQUIRY, and REQUEST SENSE takes it away", async () => {
  const node = testNode(memoryDirectory([new MemoryVolume("disk", sizeBytes)]));
  const initiator = new TestInitiator(node);
  initiator.login({ target });
  assert.equal((await initiator.read(hex("12 00 00 0060 00"), 96)).status, 0);
  const sensed = await initiator.read(hex("03 00 00 00 12 00"), 18);
  assert.equal(senseText(sensed.data), "6/29/00");
  assert.equal((await initiator.read(hex("00 00 00 00 00 00"), 0)).status, 0);
  const descriptors = await initiator.read(hex("03 01 00 00 12 00"), 18);
  assert.equal(descriptors.data.toString("hex"), "7200000000000000");
});

const faults: [VolumeFault, number, string][] = [
  [{ code: "unavailable", reason: "a holder is away" }, 0x08, "none"],
  [{ code: "no_space" }, 0x02, "7/27/07"],
  [{ code: "out_of_range", sizeBytes: 0 }, 0x02, "5/21/00"],
  [{ code: "lost", offsetBytes: 4096 }, 0x02, "3/11/00"],
  [{ code: "deleted" }, 0x02, "5/25/00"],
  [{ code: "cancelled" }, 0x40, "none"],
];

for (const [fault, status, expected] of faults) {
  test(`what an initiator is told of the fault ${fault.code}`, async () => {
    const { initiator, volume } = await attach();
    volume.fault = fault;
    for (const outcome of [
      await initiator.read(hex("28 00 00000000 00 0001 00"), 512),
      await initiator.write(hex("2a 00 00000000 00 0001 00"), Buffer.alloc(512)),
      await initiator.read(hex("2f 00 00000000 00 0001 00"), 0),
      await initiator.write(hex("41 00 00000000 00 0001 00"), Buffer.alloc(512, 1)),
    ]) {
      assert.equal(outcome.status, status);
      assert.equal(senseText(outcome.sense), expected);
    }
  });
}

test("what blocks hold after any writes, unmaps and WRITE SAMEs", async () => {
  const width = 64;
  const change = fc.record({
    kind: fc.constantFrom("write", "unmap", "same", "zero", "noData"),
    lba: fc.nat(width - 1),
    count: fc.integer({ min: 1, max: 16 }),
    byte: fc.integer({ min: 0, max: 255 }),
    size: fc.constantFrom(6, 10, 12, 16),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(change, { maxLength: 12 }), async (changes) => {
      const { initiator } = await attach();
      const model = Buffer.alloc((width + 16) * 512);
      for (const { kind, lba, count, byte, size } of changes) {
        const value = kind === "write" || kind === "same" ? byte : 0;
        model.fill(value, lba * 512, (lba + count) * 512);
        const outcome = await initiator.write(...changing(kind, size, lba, count, byte));
        assert.equal(outcome.status, 0, kind);
      }
      for (const size of [6, 10, 12, 16]) {
        const cdb = blockCdb({ 6: 0x08, 10: 0x28, 12: 0xa8, 16: 0x88 }[size]!, 0, width + 16);
        const { data } = await initiator.read(cdb, model.length);
        assert(data.equals(model), `READ(${size})`);
      }
    }),
    { numRuns: 40 },
  );
});

function blockCdb(opcode: number, lba: number, count: number, flags = 0): Buffer {
  const cdb = Buffer.alloc(16);
  const group = opcode >>> 5;
  if (group === 0) {
    cdb.writeUIntBE(lba, 1, 3);
    cdb[4] = count;
  } else if (group === 5) {
    cdb.writeUInt32BE(lba, 2);
    cdb.writeUInt32BE(count, 6);
  } else if (group === 4) {
    cdb.writeUInt32BE(lba, 6);
    cdb.writeUInt32BE(count, 10);
  } else {
    cdb.writeUInt32BE(lba, 2);
    cdb.writeUInt16BE(count, 7);
  }
  cdb[0] = opcode;
  if (group > 0) cdb[1] = flags;
  return cdb;
}

function changing(
  kind: string,
  size: number,
  lba: number,
  count: number,
  byte: number,
): [Buffer, Buffer] {
  switch (kind) {
    case "write": {
      const opcode = { 6: 0x0a, 10: 0x2a, 12: 0xaa, 16: 0x8a }[size]!;
      return [blockCdb(opcode, lba, count), Buffer.alloc(count * 512, byte)];
    }
    case "same":
      return [blockCdb(size < 12 ? 0x41 : 0x93, lba, count), Buffer.alloc(512, byte)];
    case "zero":
      return [blockCdb(size < 12 ? 0x41 : 0x93, lba, count, 0x08), Buffer.alloc(512)];
    case "noData":
      return [blockCdb(0x93, lba, count, 0x09), Buffer.alloc(0)];
    default: {
      const list = Buffer.alloc(24);
      list.writeUInt16BE(22, 0);
      list.writeUInt16BE(16, 2);
      list.writeUInt32BE(lba, 12);
      list.writeUInt32BE(count, 16);
      return [hex("42 00 00000000 00 0018 00"), list];
    }
  }
}

test("ranges past the end, protection and lengths above the limit are refused", async () => {
  const { initiator } = await attach();
  for (const opcode of [0x28, 0x2a, 0x2e, 0x2f, 0x34, 0x35, 0x41, 0x88, 0x8a, 0x8e, 0x8f, 0x90]) {
    const outcome = await initiator.write(blockCdb(opcode, blocks, 1), Buffer.alloc(512));
    expectSense(outcome, "5/21/00");
  }
  for (const opcode of [0x28, 0x2a, 0x2e, 0x2f, 0x41, 0x88, 0x8a, 0x8e, 0x8f, 0x93, 0xa8, 0xaa]) {
    const outcome = await initiator.write(blockCdb(opcode, 0, 1, 0x20), Buffer.alloc(512));
    expectSense(outcome, "5/24/00");
  }
  const far = hex("88 00 ffffffffffffffff 00000001 00 00");
  expectSense(await initiator.read(far, 512), "5/21/00");
  // No blocks are fine, but not where there is none.
  assert.equal((await initiator.read(blockCdb(0x28, blocks - 1, 0), 0)).status, 0);
  expectSense(await initiator.read(blockCdb(0x28, blocks, 0), 0), "5/21/00");
});

test("WRITE SAME takes one block, no more and no less, and none with NDOB", async () => {
  const { initiator } = await attach();
  for (const opcode of [0x41, 0x93]) {
    expectSense(await initiator.write(blockCdb(opcode, 0, 0), Buffer.alloc(512)), "5/24/00");
    for (const bytes of [0, 511, 513, 1024]) {
      const outcome = await initiator.write(blockCdb(opcode, 0, 4), Buffer.alloc(bytes, 1));
      expectSense(outcome, "5/0e/03");
    }
  }
  expectSense(await initiator.write(blockCdb(0x93, 0, 4, 0x09), Buffer.alloc(512)), "5/0e/03");
  assert.equal((await initiator.write(blockCdb(0x93, 0, 4, 0x09), Buffer.alloc(0))).status, 0);
  assert.equal((await initiator.write(blockCdb(0x93, 3, 7, 0x08), Buffer.alloc(512))).status, 0);
});

test("VERIFY finds the first byte that differs", async () => {
  const { initiator } = await attach();
  const data = Buffer.alloc(2048, 5);
  await initiator.write(blockCdb(0x2a, 8, 4), data);
  assert.equal((await initiator.write(blockCdb(0x2f, 8, 4, 0x02), data)).status, 0);
  data[1500] = 6;
  const differs = await initiator.write(blockCdb(0x2f, 8, 4, 0x02), data);
  expectSense(differs, "e/1d/00");
  assert.equal(differs.sense!.readUInt32BE(3), 1500);
  assert.equal((await initiator.read(blockCdb(0x2f, 8, 4), 0)).status, 0);
  const same = await initiator.write(blockCdb(0x8f, 8, 4, 0x06), Buffer.alloc(512, 5));
  assert.equal(same.status, 0);
  expectSense(await initiator.write(blockCdb(0x8f, 8, 5, 0x06), Buffer.alloc(512, 5)), "e/1d/00");
  expectSense(await initiator.read(blockCdb(0x2f, 8, 4, 0x04), 0), "5/24/00");
  assert.equal((await initiator.write(blockCdb(0x2e, 8, 4, 0x02), data)).status, 0);
});

test("the first difference over any division into buffers", () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 1, maxLength: 32 }),
      fc.nat(1000),
      fc.integer({ min: 1, max: 100 }),
      fc.integer({ min: 1, max: 20 }),
      fc.option(fc.nat(99)),
      (bytes, from, length, piece, changed) => {
        const data = Buffer.from(bytes);
        const expected = Array.from({ length }, (_, at) => data[(from + at) % data.length]!);
        const actual = Buffer.from(expected);
        const place = changed === null || changed >= length ? null : changed;
        if (place !== null) actual[place]! ^= 0x80;
        const buffers: Buffer[] = [];
        for (let at = 0; at < length; at += piece) buffers.push(actual.subarray(at, at + piece));
        assert.equal(firstDifference(buffers, data, from), place);
      },
    ),
  );
});

test("GET LBA STATUS tells written from unmapped", async () => {
  const { initiator } = await attach();
  await initiator.write(blockCdb(0x2a, 16, 8), Buffer.alloc(4096, 1));
  const { data } = await initiator.read(hex("9e 12 0000000000000008 00000100 00 00"), 256);
  const descriptor = (at: number) => data.toString("hex", 8 + at * 16, 24 + at * 16);
  assert.equal(descriptor(0), "00000000000000080000000801000000");
  assert.equal(descriptor(1), "00000000000000100000000800000000");
  assert.equal(
    descriptor(2),
    `0000000000000018${(blocks - 24).toString(16).padStart(8, "0")}01000000`,
  );
  expectSense(await initiator.read(hex("9e 12 0000000000002000 00000018 00 00"), 24), "5/21/00");
});

test("UNMAP lists that cannot be believed", async () => {
  const { initiator } = await attach();
  const unmap = (list: Buffer) => {
    const cdb = hex("42 00 00000000 00 0000 00");
    cdb.writeUInt16BE(list.length, 7);
    return initiator.write(cdb, list);
  };
  assert.equal((await unmap(Buffer.alloc(0))).status, 0);
  expectSense(await unmap(Buffer.alloc(7)), "5/1a/00");
  assert.equal((await unmap(Buffer.alloc(8))).status, 0);
  const list = Buffer.alloc(24);
  list.writeUInt16BE(0xffff, 2);
  assert.equal((await unmap(list)).status, 0, "more announced than sent");
  list.writeUInt32BE(blocks, 12);
  list.writeUInt32BE(1, 16);
  expectSense(await unmap(list), "5/21/00");
  list.writeUInt32BE(0, 16);
  assert.equal((await unmap(list)).status, 0, "no blocks at the end");
});

test("neighbours in an UNMAP list are one discard", async () => {
  const { initiator, volume } = await attach();
  const unmapped: [number, number][] = [];
  volume.unmap = async (offsetBytes, lengthBytes) => {
    unmapped.push([offsetBytes / 512, lengthBytes / 512]);
    return { ok: true };
  };
  const ranges = [
    [0, 1],
    [1, 1],
    [2, 6],
    [9, 0],
    [16, 8],
    [8, 8],
  ] as const;
  const list = Buffer.alloc(8 + 16 * ranges.length);
  list.writeUInt16BE(list.length - 2, 0);
  list.writeUInt16BE(list.length - 8, 2);
  ranges.forEach(([lba, count], index) => {
    list.writeUInt32BE(lba, 8 + 16 * index + 4);
    list.writeUInt32BE(count, 8 + 16 * index + 8);
  });
  const cdb = hex("42 00 00000000 00 0000 00");
  cdb.writeUInt16BE(list.length, 7);
  assert.equal((await initiator.write(cdb, list)).status, 0);
  assert.deepEqual(unmapped, [
    [0, 8],
    [16, 8],
    [8, 8],
  ]);
});

test("MODE SENSE, and MODE SELECT of what may be changed", async () => {
  const { initiator, node } = await attach();
  const other = new TestInitiator(node);
  other.login({ target, isid: 2 });
  await other.clearAttention();
  const all = (await initiator.read(hex("1a 00 3f 00 ff 00"), 255)).data;
  assert.equal(all[0], all.length - 1);
  assert.equal(all[2], 0x10, "DPOFUA");
  assert.equal(all.toString("hex", 4, 12), "0000200000000200");
  const control = (await initiator.read(hex("1a 08 0a 00 ff 00"), 255)).data;
  assert.equal(control.toString("hex", 4), "0a0a00100000" + "0000ffff0000");
  const changeable = (await initiator.read(hex("1a 08 4a 00 ff 00"), 255)).data;
  assert.equal(changeable.toString("hex", 4), "0a0a04000840000000000000");
  expectSense(await initiator.read(hex("1a 08 ca 00 ff 00"), 255), "5/39/00");
  expectSense(await initiator.read(hex("1a 08 17 00 ff 00"), 255), "5/24/00");
  const long = (await initiator.read(hex("5a 10 08 00 000000 00ff 00"), 255)).data;
  assert.equal(long.readUInt16BE(6), 16);
  assert.equal(long[4], 1);

  const protect = Buffer.from(control);
  protect.fill(0, 0, 4);
  protect[8] = 0x08;
  assert.equal((await initiator.write(hex("15 10 00 00 10 00"), protect)).status, 0);
  expectSense(await other.read(hex("00 00 00 00 00 00"), 0), "6/2a/01");
  const write = blockCdb(0x2a, 0, 1);
  expectSense(await other.write(write, Buffer.alloc(512)), "7/27/00");
  assert.equal((await initiator.read(hex("1a 08 0a 00 ff 00"), 255)).data[2], 0x90);
  protect[8] = 0;
  protect[6] = 0x04;
  assert.equal((await initiator.write(hex("15 10 00 00 10 00"), protect)).status, 0);
  const described = await initiator.read(blockCdb(0x28, blocks, 1), 512);
  assert.equal(described.sense?.toString("hex"), "7205210000000000");
  protect[7] = 0xff;
  assert.equal((await initiator.write(hex("15 10 00 00 10 00"), protect)).status, 2);
});

test("the commands that are reported are those that are known", async () => {
  const { initiator } = await attach();
  const { data } = await initiator.read(hex("a3 0c 00 00 0000 00001000 00 00"), 4096);
  assert.equal(data.readUInt32BE(0), data.length - 4);
  const rows = commandRows.filter(({ encryptedOnly }) => encryptedOnly !== true);
  assert.equal((data.length - 4) / 8, rows.length);
  for (const { opcode, serviceAction, usage } of rows) {
    const cdb = hex("a3 0c 03 00 0000 00000100 00 00");
    cdb[3] = opcode;
    cdb.writeUInt16BE(serviceAction ?? 0, 4);
    const one = (await initiator.read(cdb, 256)).data;
    assert.equal(one[1], 3);
    assert.equal(one.toString("hex", 4), usage);
    assert.equal(Buffer.from(usage, "hex")[0], opcode);
    const length = [6, 10, 10, 0, 16, 12][opcode >>> 5];
    assert.equal(usage.length / 2, length, `CDB length of ${opcode.toString(16)}`);
  }
  const unknown = await initiator.read(hex("a3 0c 01 d0 0000 00000100 00 00"), 256);
  assert.equal(unknown.data[1], 1);
  expectSense(await initiator.read(hex("d0 00 00 00 00 00"), 0), "5/20/00");
  expectSense(await initiator.read(hex("9e 1f 00 00 00 00"), 0), "5/24/00");
});

test("NACA is refused, and task management functions are told as the session has them", async () => {
  const { initiator, node } = await attach();
  const naca = await initiator.read(hex("00 00 00 00 00 04"), 0);
  expectSense(naca, "5/24/00");
  assert.equal(naca.sense!.toString("hex", 15, 18), "ca0005");
  const report = hex("a3 0d 80 000000 00000010 00 00");
  const told = await initiator.read(report, 16);
  assert.equal(told.data.toString("hex"), "da00000c000000000000000000000000");
  const newer = new TestInitiator(node);
  newer.login({ target, isid: 2, keys: [["iSCSIProtocolLevel", "2"]] });
  await newer.clearAttention();
  assert.equal((await newer.read(report, 4)).data.toString("hex"), "de07000c");
});
