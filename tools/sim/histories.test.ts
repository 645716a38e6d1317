import assert from "node:assert/strict";
import { test } from "node:test";
import { sectorBytes } from "../../brick/units.ts";
import { Histories, writeTags } from "./histories.ts";

test("a sector is one write's, or zeros, or foreign", () => {
  const histories = new Histories();
  const ticket = histories.startWrite(5, 3, false);
  const written = Buffer.alloc(3 * sectorBytes);
  writeTags(written, 5, ticket.firstTag);
  histories.endWrite(ticket);
  const read = (bytes: Buffer, firstSector: number) =>
    histories.endRead(histories.tick(), firstSector, bytes);
  assert.equal(read(written, 5), null);
  assert.equal(histories.check(), null);
  for (const at of [0, 5, 11, 12, 23, 24, sectorBytes - 1, sectorBytes, 3 * sectorBytes - 1]) {
    const torn = Buffer.from(written);
    torn[at]! ^= 1;
    assert.match(read(torn, 5)!, /mixture or foreign/, `byte ${at}`);
  }
  assert.match(read(written, 6)!, /mixture or foreign/, "in another's place");
  const cut = Buffer.from(written).fill(0, 12, sectorBytes);
  assert.match(read(cut, 5)!, /mixture or foreign/);
  assert.equal(read(Buffer.alloc(sectorBytes), 9), null, "zeros");
  assert.match(read(Buffer.alloc(sectorBytes).fill(1, 300, 301), 9)!, /mixture or foreign/);
});
