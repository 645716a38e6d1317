import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { changesOf, chunksOf, decodeEntry, type Entry, encodeEntryHead } from "./entry.ts";
import { type GroupPart, groupPartBytes, groupPartsMax } from "./group.ts";
import { decodeMapGroup, encodeMapGroup } from "./group-messages.ts";

const key = Buffer.alloc(32, 0xcd);
const written: GroupPart = {
  grain: 0x0607,
  grainCount: 0,
  firstSector: 120,
  sectorCount: 8,
  chunkSector: 0,
  chunkSectors: 8,
  key,
  holders: [1, 2],
  owed: false,
};
const unmapped: GroupPart = {
  ...written,
  grain: 0x0609,
  firstSector: 0,
  sectorCount: 0x80,
  chunkSectors: 0x80,
  key: null,
  holders: [],
};
const owed: GroupPart = { ...written, grain: 0x060a, firstSector: 0, chunkSectors: 16, owed: true };
const parts = [written, unmapped, owed];

const entry: Entry = {
  kind: "group",
  shard: 0x0102,
  op: 7,
  view: 0x0a,
  branch: 0x0304,
  generation: 5,
  epoch: 0x0b,
  sequence: 0x0c,
  lowWater: 0x0d,
  grain: 0x0607,
  grainCount: 0,
  firstSector: 0,
  sectorCount: 0,
  chunkSector: 0,
  chunkSectors: 0,
  key: null,
  holders: [],
  parts,
  clusterTimeMs: 0x0e,
  gcEpoch: 0x0f,
  inlineBytes: 0,
  inline: null,
};
const request = {
  shard: 0x0102,
  view: 0x0a,
  branch: 0x0304,
  generation: 5,
  epoch: 0x0b,
  sequence: 0x0c,
  lowWater: 0x0d,
  gcEpoch: 0x0f,
  parts,
};

const hex = (text: string) => text.replaceAll(/\s/g, "");
const noHolders = "0000 0000 0000 0000 0000 0000 0000 0000";
const partsHex = hex(`
  000000000607 00 00 78 08 00 08 00 00 0000 0001 0002 0000 0000 0000 0000 0000 0000 ${"cd".repeat(32)}
  000000000609 00 00 00 80 00 80 00 01 0000 ${noHolders} ${"00".repeat(32)}
  00000000060a 01 00 00 08 00 10 00 00 0000 0001 0002 0000 0000 0000 0000 0000 0000 ${"cd".repeat(32)}`);

test("the format of a group stays, in the log and between bricks", () => {
  const head = hex(`02 07 00 00 0102 00 00 0000000a 00000005 0000000000000007 0000000000000006
    0000000000000304 000000000000000b 000000000000000c 000000000000000d 0000000000000607
    00000000 00 00 00 00 000000000000000e 0000000f 00000000 ${noHolders} ${"00".repeat(32)}
    00000000 0003 0000`);
  const bytes = encodeEntryHead({ ...entry }, 6, false);
  assert.equal(bytes.toString("hex"), head + partsHex);
  const more = Buffer.concat([Buffer.alloc(5), bytes, Buffer.alloc(9)]);
  const decoded = decodeEntry(more, 5);
  assert.deepEqual(decoded, { entry, commitOp: 6, endBytes: 5 + bytes.length });
  const asked = hex(`01 03 0102 000000000000000a 000000000304 0000 00000005 000000000000000b
    000000000000000c 000000000000000d 0000000f 00000000`);
  const message = Buffer.concat(encodeMapGroup(request));
  assert.equal(message.toString("hex"), asked + partsHex);
  assert.deepEqual(decodeMapGroup(message), request);
});

/** Both encodings of the parts, with some bytes of the part at `index` put in. */
function bothWith(index: number, at: number, bytes: Buffer): (unknown | null)[] {
  const group = Buffer.concat(encodeMapGroup(request));
  bytes.copy(group, group.length - (parts.length - index) * groupPartBytes + at);
  const logged = Buffer.from(encodeEntryHead({ ...entry }, 6, false));
  bytes.copy(logged, logged.length - (parts.length - index) * groupPartBytes + at);
  return [decodeMapGroup(group), decodeEntry(logged, 0)];
}

test("parts that are no group are refused, by the log and by the primary", () => {
  const grain = (number: number) => {
    const bytes = Buffer.alloc(6);
    bytes.writeUIntBE(number, 0, 6);
    return bytes;
  };
  const wrong: [string, number, number, Buffer][] = [
    ["two of one grain", 1, 0, grain(0x0607)],
    ["out of order", 2, 0, grain(0x0608)],
    ["further apart than one write is long", 2, 0, grain(0x0607 + groupPartsMax)],
    ["neither owed nor not", 0, 6, Buffer.of(2)],
    ["with a byte that must be zero", 0, 7, Buffer.of(1)],
    ["of no sectors", 0, 9, Buffer.of(0)],
    ["past the end of the grain", 0, 9, Buffer.of(9)],
    ["past the end of its chunk", 2, 11, Buffer.of(7)],
    ["an unmap that says where in a chunk", 1, 10, Buffer.of(1)],
    ["a chunk whose key is that of zeros", 0, 32, Buffer.alloc(32)],
  ];
  for (const [what, index, at, bytes] of wrong) {
    assert.deepEqual(bothWith(index, at, bytes), [null, null], what);
  }
  // The same place with what is allowed there.
  for (const decoded of bothWith(2, 0, grain(0x0607 + groupPartsMax - 1))) {
    assert.notEqual(decoded, null);
  }
});

test("too many, too few and missing parts are refused", () => {
  const many = Array.from({ length: groupPartsMax }, (_, at) => ({ ...written, grain: at }));
  const most = { ...request, parts: many };
  assert.deepEqual(decodeMapGroup(Buffer.concat(encodeMapGroup(most))), most);
  assert.throws(() => encodeMapGroup({ ...request, parts: [...many, { ...written, grain: 99 }] }));
  assert.throws(() => encodeMapGroup({ ...request, parts: [] }));
  const message = Buffer.concat(encodeMapGroup(most));
  const part = message.subarray(-groupPartBytes);
  const more = Buffer.concat([message, part]);
  more[1] = groupPartsMax + 1;
  assert.equal(decodeMapGroup(more), null);
  const none = message.subarray(0, message.length - many.length * groupPartBytes);
  none[1] = 0;
  assert.equal(decodeMapGroup(none), null);

  const logged = encodeEntryHead({ ...entry }, 6, false);
  for (let length = 0; length < logged.length; length += 1) {
    assert.equal(decodeEntry(logged.subarray(0, length), 0), null);
  }
  const counts: [string, number, number][] = [
    ["of no parts", 149, 0],
    ["of more parts than are there", 149, 4],
    ["of another version", 0, 1],
    ["with sectors of its own", 77, 1],
    ["of whole grains", 75, 1],
    ["with holders of its own", 6, 1],
    ["that begins elsewhere than its first part", 71, 8],
    ["with an inline chunk", 2, 2],
  ];
  for (const [what, at, value] of counts) {
    const bytes = Buffer.from(logged);
    bytes[at] = value;
    if (at === 2) bytes[147] = 8;
    assert.equal(decodeEntry(bytes, 0), null, what);
  }
  const write = { ...entry, ...written, kind: "write" as const, parts: [] };
  const asGroup = Buffer.from(encodeEntryHead(write, 6, false));
  asGroup[149] = 1;
  assert.equal(decodeEntry(Buffer.concat([asGroup, part]), 0), null, "a write with parts");
});

test("whatever bytes come, a group is decoded to what it encodes to, or not at all", () => {
  const flips = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 });
  fc.assert(
    fc.property(flips, fc.nat(), (flips, cut) => {
      const message = Buffer.concat(encodeMapGroup(request));
      assert.equal(decodeMapGroup(message.subarray(0, cut % message.length)), null);
      for (const [at, value] of flips) message[at % message.length] = value;
      const decoded = decodeMapGroup(message);
      if (decoded !== null) assert.deepEqual(Buffer.concat(encodeMapGroup(decoded)), message);
    }),
    { numRuns: 500 },
  );
});

test("a group changes every part, and names the chunk of each that has one", () => {
  assert.deepEqual(changesOf(entry), parts);
  const write = { ...entry, ...written, kind: "write" as const, parts: [] };
  assert.deepEqual(changesOf(write), [write]);
  const other = Buffer.alloc(32, 0xef);
  const two = { ...entry, parts: [written, unmapped, { ...owed, key: other, holders: [3] }] };
  assert.deepEqual(chunksOf(two), [
    { key, holders: [1, 2] },
    { key: other, holders: [3] },
  ]);
  const rehint = { ...entry, kind: "rehint" as const, key, holders: [4], parts: [] };
  assert.deepEqual(chunksOf(rehint), [{ key, holders: [4] }]);
  assert.deepEqual(changesOf(rehint), []);
});
