import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeEntry, type Entry, encodeEntryHead } from "./entry.ts";

const key = Buffer.alloc(32, 0xcd);
const entry: Entry = {
  kind: "reference",
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
  firstSector: 8,
  sectorCount: 2,
  chunkSector: 0x10,
  chunkSectors: 0x40,
  key,
  holders: [1, 2],
  parts: [],
  clusterTimeMs: 0x0e,
  gcEpoch: 0x0f,
  inlineBytes: 0,
  inline: null,
};

const write: Entry = { ...entry, kind: "write", chunkSector: 0, chunkSectors: 2 };

const head = (kind: string, part: string) =>
  `01${kind}0000 0102 02 00 0000000a 00000005 0000000000000007 0000000000000006
   0000000000000304 000000000000000b 000000000000000c 000000000000000d 0000000000000607
   00000000 08 02 ${part} 000000000000000e 0000000f 00000000
   0001 0002 0000 0000 0000 0000 0000 0000 ${"cd".repeat(32)} 00000000 00000000`.replaceAll(
    /\s/g,
    "",
  );

test("the format of an entry stays: a reference says where in its chunk, a write does not", () => {
  assert.equal(encodeEntryHead(entry, 6, false).toString("hex"), head("06", "1040"));
  const bytes = encodeEntryHead(write, 6, false);
  assert.equal(bytes.toString("hex"), head("01", "0000"));
  for (const one of [entry, write]) {
    const { encoded: _, ...fields } = one;
    const decoded = decodeEntry(encodeEntryHead({ ...fields }, 6, false), 0);
    assert.deepEqual(decoded, { entry: fields, commitOp: 6, endBytes: 152 });
  }
});

test("a reference that leaves its chunk, or carries one, is no entry", () => {
  const wrong: [string, number, number][] = [
    ["past the end of the chunk", 78, 0x3f],
    ["of a chunk of no sectors", 79, 0],
    ["of a chunk longer than a grain", 79, 0x81],
    ["of no sectors", 77, 0],
    ["of whole grains", 75, 1],
    ["with inline bytes", 2, 1],
    ["of an unknown kind", 1, 8],
    ["with parts", 149, 2],
  ];
  for (const [what, at, value] of wrong) {
    const bytes = Buffer.from(encodeEntryHead({ ...entry }, 6, false));
    bytes[at] = value;
    if (at === 2) bytes[147] = 8;
    assert.equal(decodeEntry(Buffer.concat([bytes, Buffer.alloc(8)]), 0), null, what);
  }
});
