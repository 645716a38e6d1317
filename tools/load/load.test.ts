import assert from "node:assert/strict";
import { test } from "node:test";
import { PduCutter, textOf, withData, withDigests } from "./pdus.ts";
import { SectorHistory } from "./sector-history.ts";
import { readTag, taggedSectorBytes, tagSectors } from "./sector-tags.ts";

test("a tag tells its write, and any other byte shows", () => {
  const bytes = Buffer.alloc(2 * taggedSectorBytes);
  tagSectors(bytes, 7, 99, 1000);
  assert.equal(readTag(bytes, 0, 7, 1000), 99);
  assert.equal(readTag(bytes, taggedSectorBytes, 7, 1001), 99);
  assert.match(String(readTag(bytes, 0, 7, 1001)), /sector 1000/);
  assert.match(String(readTag(bytes, 0, 8, 1000)), /another run/);
  for (let at = 0; at < taggedSectorBytes; at += 1) {
    bytes[at]! ^= 0x10;
    assert.notEqual(readTag(bytes, 0, 7, 1000), 99, `byte ${at}`);
    bytes[at]! ^= 0x10;
  }
  assert.equal(readTag(Buffer.alloc(taggedSectorBytes), 0, 7, 1000), 0);
});

test("half of one write and half of another is no write", () => {
  const [one, two] = [1, 2].map((write) => {
    const bytes = Buffer.alloc(taggedSectorBytes);
    tagSectors(bytes, 7, write, 5);
    return bytes;
  });
  const mixed = Buffer.concat([one!.subarray(0, 256), two!.subarray(256)]);
  assert.match(String(readTag(mixed, 0, 7, 5)), /torn/);
});

test("an acknowledged write must be there; an unanswered one may be, and then stays", () => {
  const history = new SectorHistory(4);
  history.acknowledged(0, 2, 5);
  assert.equal(history.observed(0, 5), null);
  assert.match(history.observed(1, 0)!, /holds zeros; it should hold write 5/);
  history.unanswered(0, 1, 6);
  history.unanswered(0, 1, 7);
  assert.equal(history.observed(0, 6), null);
  assert.match(history.observed(0, 5)!, /should hold write 6/);
  assert.match(history.observed(0, 7)!, /should hold write 6/);
  history.unanswered(3, 1, 8);
  assert.equal(history.observed(3, 0), null);
  assert.match(history.observed(3, 8)!, /should hold write zeros/);
});

test("PDUs are cut out of the stream wherever it is split", () => {
  const pdu = (text: string) => {
    const header = Buffer.alloc(48, 1);
    header[4] = 0;
    return Buffer.concat(withData(header, textOf({ Key: text })));
  };
  const stream = Buffer.concat([pdu("a"), pdu("bcd"), pdu("")]);
  for (let split = 1; split < 20; split += 1) {
    const cutter = new PduCutter();
    const found: string[] = [];
    for (let at = 0; at < stream.length; at += split) {
      cutter.push(stream.subarray(at, at + split), (cut) => found.push(cut.data.toString()));
    }
    assert.deepEqual(found, ["Key=a\0", "Key=bcd\0", "Key=\0"]);
  }
});

test("digests are cut off and checked", () => {
  for (const digests of [
    { header: true, data: false },
    { header: false, data: true },
    { header: true, data: true },
  ]) {
    const header = Buffer.alloc(48, 1);
    header[4] = 0;
    const bytes = Buffer.concat(withDigests(withData(header, textOf({ Key: "a" })), digests));
    const cut = (stream: Buffer) => {
      const found: { text: string; intact: boolean }[] = [];
      const cutter = new PduCutter();
      cutter.digests = digests;
      cutter.push(stream, ({ data, intact }) => found.push({ text: data.toString(), intact }));
      return found;
    };
    const good = { text: "Key=a\0", intact: true };
    assert.deepEqual(cut(Buffer.concat([bytes, bytes])), [good, good]);
    const covered = digests.header ? 20 : bytes.length - 6;
    bytes[covered]! ^= 1;
    assert.equal(cut(bytes)[0]?.intact, false);
  }
});

test("where nothing is known at first, the first reading counts", () => {
  const history = new SectorHistory(1, "anything");
  assert.equal(history.observed(0, "no tag"), null);
  assert.equal(history.observed(0, 4), null);
  assert.match(history.observed(0, 5)!, /should hold write 4/);
});
