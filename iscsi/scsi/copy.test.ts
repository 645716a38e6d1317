import assert from "node:assert/strict";
import { test } from "node:test";
import { read10, TestInitiator, testNode, write10 } from "../initiator.test-double.ts";
import { MemoryVolume, memoryDirectory } from "../memory-volume.test-double.ts";
import {
  blocks,
  expectGood,
  expectSense,
  fieldPointer,
  hex,
  sizeBytes,
} from "./commands.test-double.ts";
import { naaIdentifier } from "./identification.ts";

const common = "iqn.2026-11.endisk:common";
const uuids = ["00112233445566778899aabbccddeeff", "ffeeddccbbaa99887766554433221100"] as const;

/** A session with the volumes "disk" and "other" as its LUNs 0 and 1. */
async function attachBoth() {
  const [disk, other] = ["disk", "other"].map((name, index) => {
    return new MemoryVolume(name, sizeBytes, uuids[index]);
  }) as [MemoryVolume, MemoryVolume];
  disk.others.set(uuids[1], other);
  other.others.set(uuids[0], disk);
  const node = testNode(memoryDirectory([disk, other]));
  const luns = new Map([
    [0, "disk"],
    [1, "other"],
  ]);
  node.authority.extraTargets.set(common, { name: common, luns });
  const initiator = new TestInitiator(node);
  initiator.login({ target: common });
  await initiator.clearAttention();
  initiator.command(hex("00"), { lunHigh: 0x0001_0000 });
  expectSense(await initiator.outcome(), "6/29/00");
  return { disk, other, node, initiator };
}

function identification(uuid: string, flags = 0): Buffer {
  const naa = naaIdentifier(uuid).toString("hex");
  const out = hex(`e4 00 0000 01 03 00 10 ${naa} 00000000 00 000200`);
  out[1] = flags;
  return out;
}

function segment(from: number, to: number, count: number, lba: number, toLba: number): Buffer {
  const out = hex("02 00 0018 0000 0000 0000 0000 0000000000000000 0000000000000000");
  out.writeUInt16BE(from, 4);
  out.writeUInt16BE(to, 6);
  out.writeUInt16BE(count, 10);
  out.writeUInt32BE(lba, 16);
  out.writeUInt32BE(toLba, 24);
  return out;
}

function list(targets: Buffer[], segments: Buffer[], listId = 1, flags = 0): Buffer {
  const head = hex("00 00 0000 00000000 00000000 00000000");
  head[0] = listId;
  head[1] = flags;
  head.writeUInt16BE(32 * targets.length, 2);
  head.writeUInt32BE(
    segments.reduce((sum, one) => sum + one.length, 0),
    8,
  );
  return Buffer.concat([head, ...targets, ...segments]);
}

function copy(initiator: TestInitiator, bytes: Buffer) {
  const cdb = hex("83 00 0000000000000000 00000000 00 00");
  cdb.writeUInt32BE(bytes.length, 10);
  return initiator.write(cdb, bytes);
}

const status = (initiator: TestInitiator, listId: number) => {
  const cdb = hex("84 00 00 00000000000000 00000100 00 00");
  cdb[2] = listId;
  return initiator.read(cdb, 256);
};

test("EXTENDED COPY within a unit and from another, and what is told of it afterwards", async () => {
  const { initiator } = await attachBoth();
  expectSense(await status(initiator, 1), "5/24/00");
  await initiator.write(write10(0, 8), Buffer.alloc(4096, 3));
  const other = { lunHigh: 0x0001_0000, write: true, expectedLength: 4096 };
  initiator.command(write10(64, 8), other, Buffer.alloc(4096, 4));
  expectGood(await initiator.outcome());
  const both = [identification(uuids[0]), identification(uuids[1])];
  const segments = [segment(0, 0, 8, 0, 100), segment(1, 0, 4, 66, 200), segment(0, 1, 2, 0, 300)];
  expectGood(await copy(initiator, list(both, segments)));
  assert((await initiator.read(read10(100, 8), 4096)).data.equals(Buffer.alloc(4096, 3)));
  assert((await initiator.read(read10(200, 4), 2048)).data.equals(Buffer.alloc(2048, 4)));
  initiator.command(read10(300, 2), { ...other, write: false, read: true, expectedLength: 1024 });
  assert((await initiator.outcome()).data.equals(Buffer.alloc(1024, 3)));
  const told = (await status(initiator, 1)).data.toString("hex");
  assert.equal(
    told,
    `00000008 01 0003 00 ${(14 * 512).toString(16).padStart(8, "0")}`.replaceAll(" ", ""),
  );
  expectSense(await status(initiator, 1), "5/24/00");
});

test("copies of which nothing is to be kept", async () => {
  const { initiator } = await attachBoth();
  const one = [identification(uuids[0])];
  expectGood(await copy(initiator, list(one, [segment(0, 0, 1, 0, 9)], 5, 0x10)));
  expectSense(await status(initiator, 5), "5/24/00");
  expectGood(await copy(initiator, list(one, [segment(0, 0, 1, 0, 9)], 0, 0x18)));
  expectSense(await status(initiator, 0), "5/24/00");
  expectSense(await copy(initiator, list(one, [], 1, 0x18)), "5/26/00");
  expectSense(await copy(initiator, list(one, [], 1, 0x08)), "5/26/00");
  expectGood(await copy(initiator, Buffer.alloc(0)));
  expectGood(await copy(initiator, list([], [])));
});

test("segments that cannot be copied abort the copy and are named", async () => {
  const { initiator, other } = await attachBoth();
  const both = [identification(uuids[0]), identification(uuids[1])];
  const good = segment(0, 0, 1, 0, 9);
  const cases: [Buffer[], Buffer, string][] = [
    [both, segment(0, 2, 1, 0, 0), "a/0d/02"],
    [both, segment(0, 0, 2, blocks - 1, 0), "a/00/00"],
    [both, segment(0, 1, 2, 0, blocks - 1), "a/00/00"],
    [[identification(uuids[0], 0x20)], segment(0, 0, 1, 0, 5), "a/0d/02"],
    [[identification("00".repeat(16))], segment(0, 0, 1, 0, 5), "a/0d/02"],
  ];
  for (const [targets, bad, expected] of cases) {
    const first = targets === both ? [good] : [];
    const outcome = await copy(initiator, list(targets, [...first, bad], 2));
    expectSense(outcome, expected);
    assert.equal(outcome.sense!.readUInt32BE(8), first.length, "the segment's number");
    const told = (await status(initiator, 2)).data;
    assert.deepEqual([told[4], told.readUInt16BE(5)], [0x02, first.length]);
  }
  await other.changeUnit({
    type: "reserve6",
    nexus: { initiatorPort: "iqn.2026-11.test:else,i,0x000000000001", targetPort: 7 },
  });
  expectSense(await copy(initiator, list(both, [segment(0, 1, 1, 0, 0)])), "a/0d/01");
  expectSense(await copy(initiator, list(both, [segment(1, 0, 1, 0, 0)])), "a/0d/01");
});

test("copy lists that cannot be believed", async () => {
  const { initiator } = await attachBoth();
  const one = [identification(uuids[0])];
  const whole = list(one, [segment(0, 0, 1, 0, 0)]);
  expectSense(await copy(initiator, whole.subarray(0, whole.length - 1)), "5/1a/00");
  expectSense(await copy(initiator, whole.subarray(0, 15)), "5/1a/00");
  const many = (count: number, of: Buffer) => new Array<Buffer>(count).fill(of);
  const tooManyTargets = list(many(17, one[0]!), [segment(0, 0, 1, 0, 0)]);
  expectSense(await copy(initiator, tooManyTargets), "5/26/06");
  expectSense(await copy(initiator, list(one, many(65, segment(0, 0, 1, 0, 0)))), "5/26/08");
  const both = list(many(17, one[0]!), many(65, segment(0, 0, 1, 0, 0)));
  expectSense(await copy(initiator, both), "5/1a/00");
  const oddTarget = identification(uuids[0]);
  oddTarget[0] = 0xe0;
  expectSense(await copy(initiator, list([oddTarget], [])), "5/26/07");
  const oddSegment = segment(0, 0, 1, 0, 0);
  oddSegment[0] = 0x03;
  expectSense(await copy(initiator, list(one, [oddSegment])), "5/26/09");
  const inline = list(one, [segment(0, 0, 1, 0, 0)]);
  inline[15] = 1;
  expectSense(await copy(initiator, inline), "5/26/0b");
  const blockLength = identification(uuids[0]);
  blockLength[30] = 0x10;
  assert.equal(fieldPointer(await copy(initiator, list([blockLength], []))), "p45");
});

test("what RECEIVE COPY RESULTS and VPD page 8F say of copies is the same", async () => {
  const { initiator } = await attachBoth();
  const parameters = await initiator.read(hex("84 03 0000000000000000 00000100 00 00"), 256);
  const { data } = parameters;
  assert.equal(data.readUInt32BE(0), data.length - 4);
  const [targets, segments, listBytes] = [8, 10, 14].map((at) => data.readUInt16BE(at));
  assert.deepEqual([targets, segments, listBytes], [16, 64, 16 * 32 + 64 * 28]);
  assert.equal(data.toString("hex", 43), "0202e4");
  const page = (await initiator.read(hex("12 01 8f 0200 00"), 512)).data;
  const descriptors = new Map<number, Buffer>();
  for (let at = 4; at < page.length; at += 4 + page.readUInt16BE(at + 2)) {
    descriptors.set(
      page.readUInt16BE(at),
      page.subarray(at + 4, at + 4 + page.readUInt16BE(at + 2)),
    );
  }
  assert.equal(descriptors.get(0x0001)!.toString("hex"), "07830100840200" + "03");
  assert.equal(descriptors.get(0x0004)!.readUInt16BE(4), targets);
  assert.equal(descriptors.get(0x0004)!.readUInt16BE(6), segments);
  assert.equal(descriptors.get(0x0008)!.toString("hex"), "0202e400");
  assert.equal(descriptors.get(0x8001)!.readUInt32BE(8), data.readUInt32BE(16));
  assert(page.length % 4 === 0);
});
