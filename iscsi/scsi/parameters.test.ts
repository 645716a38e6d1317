import assert from "node:assert/strict";
import { test } from "node:test";
import { type TestInitiator, write10 } from "../initiator.test-double.ts";
import { watchEveryCommands } from "../limits.ts";
import { MemoryVolume } from "../memory-volume.test-double.ts";
import {
  attachTwo,
  expectGood,
  expectSense,
  fieldPointer,
  hex,
  ready,
  sizeBytes,
} from "./commands.test-double.ts";

/** Mode pages, log pages, target port groups. */

test("mode pages and their subpages, as asked for", async () => {
  const { first } = await attachTwo();
  const sense = (page: string, subpage: string) => {
    return first.read(hex(`5a 08 ${page} ${subpage} 000000 0400 00`), 1024);
  };
  const codes = (data: Buffer): string[] => {
    const found: string[] = [];
    for (let at = 8; at < data.length; ) {
      const hasSubpage = (data[at]! & 0x40) !== 0;
      found.push(data.toString("hex", at, at + (hasSubpage ? 2 : 1)));
      at += hasSubpage ? 4 + data.readUInt16BE(at + 2) : 2 + data[at + 1]!;
    }
    return found;
  };
  assert.deepEqual(codes((await sense("3f", "00")).data), ["01", "02", "08", "0a", "1c"]);
  assert.deepEqual(codes((await sense("3f", "ff")).data), [
    ...["01", "02", "08", "0a", "4a01", "1c", "5c02"],
  ]);
  assert.deepEqual(codes((await sense("0a", "ff")).data), ["0a", "4a01"]);
  assert.deepEqual(codes((await sense("0a", "01")).data), ["4a01"]);
  assert.equal(fieldPointer(await sense("0a", "02")), "c3");
  assert.equal(fieldPointer(await sense("0b", "00")), "c2.5");
  // One threshold, at a fifth of the pool: 2^41 bytes in sets of 1 MiB.
  const provisioning = (await sense("1c", "02")).data.toString("hex", 8);
  const count = Math.floor(2 ** 41 / 5 / 2 ** 20);
  assert.equal(
    provisioning,
    `5c020014${"00".repeat(12)}80010000${count.toString(16).padStart(8, "0")}`,
  );
  const changeable = (await sense("5c", "02")).data.toString("hex", 8);
  assert.equal(changeable, `5c020014${"00".repeat(20)}`);
});

test("MODE SELECT lists are taken whole or not at all, and the fault is pointed at", async () => {
  const { first, volume } = await attachTwo();
  const select = (list: string) => {
    const bytes = hex(list);
    const cdb = hex("15 10 00 00 00 00");
    cdb[4] = bytes.length;
    return first.write(cdb, bytes);
  };
  const control = "0a0a 04 10 00 00 0000 ffff 0000";
  const head = "00000000";
  assert.equal(fieldPointer(await select(`${head} ${control} 0812${"00".repeat(17)}01`)), "p35.0");
  assert.equal(volume.unit().mode.descriptorSense, false);
  assert.equal(fieldPointer(await select(`${head} 0b0a${"00".repeat(10)}`)), "p4.5");
  assert.equal(fieldPointer(await select(`${head} 0a0b${"00".repeat(11)}`)), "p5");
  expectSense(await select(`${head} ${control.slice(0, -5)}`), "5/1a/00");
  assert.equal(fieldPointer(await select("00000008 0000000000001000")), "p9");
  assert.equal(fieldPointer(await select(`00000010 ${"00".repeat(16)}`)), "p3");
  expectSense(await first.write(hex("15 11 00 00 10 00"), hex(`${head} ${control}`)), "5/24/00");
  expectGood(await select(`00000008 0000000000000200 ${control}`));
  assert.equal(volume.unit().mode.descriptorSense, true);
  // The other page forms, unchanged: accepted, and nothing to tell.
  const { version } = volume.unit();
  expectGood(await select(`${head} 4a01001c01${"00".repeat(27)}`));
  assert.equal(volume.unit().version, version);
});

test("log pages tell of provisioning", async () => {
  const { first, volume } = await attachTwo();
  const log = (cdb: string) => first.read(hex(`4d ${cdb}`), 512);
  assert.equal((await log("00 40 00 00 0000 0200 00")).data.toString("hex"), "80000003000c2f");
  const all = await log("00 40 ff 00 0000 0200 00");
  assert.equal(all.data.toString("hex"), "c0ff0008000000ff0c002f00");
  volume.spaceNow = { ...volume.spaceNow, usedBytes: 5 << 20, freeBytes: 7 * 2 ** 30 };
  expectSense(await first.read(ready, 0), "6/38/07");
  const provisioning = (await log("00 4c 00 00 0000 0200 00")).data.toString("hex");
  assert.equal(
    provisioning,
    ["8c000018", "00010308" + "00001c0002000000", "00020308" + "0000000501000000"].join(""),
  );
  const second = (await log("00 4c 00 00 0002 0200 00")).data.toString("hex");
  assert.equal(second, "8c00000c" + "000203080000000501000000");
  expectSense(await log("00 4c 00 00 0003 0200 00"), "5/24/00");
  assert.equal(fieldPointer(await log("00 4d 00 00 0000 0200 00")), "c2.5");
  assert.equal(fieldPointer(await log("00 4c 01 00 0000 0200 00")), "c3");
  assert.equal(fieldPointer(await log("01 4c 00 00 0000 0200 00")), "c1.0");
});

test("the soft threshold is told once for each crossing, to every nexus", async () => {
  const { first, second, volume } = await attachTwo();
  const full = volume.spaceNow;
  volume.spaceNow = { ...full, freeBytes: full.poolBytes / 5 + 2 ** 21 };
  expectGood(await first.read(ready, 0));
  volume.spaceNow = { ...full, freeBytes: full.poolBytes / 5 };
  // Reads and writes look now and then.
  const write = () => first.write(write10(0, 1), Buffer.alloc(512));
  let outcome = await write();
  for (let done = 1; outcome.status === 0 && done < watchEveryCommands; done += 1) {
    outcome = await write();
  }
  expectSense(outcome, "6/38/07");
  expectGood(await write());
  expectSense(await second.read(ready, 0), "6/38/07");
  expectGood(await second.read(ready, 0));
  volume.spaceNow = full;
  expectGood(await first.read(ready, 0));
  volume.spaceNow = { ...full, freeBytes: 0 };
  expectSense(await first.read(ready, 0), "6/38/07");
});

const threePorts = [
  { targetPort: 1, state: "nonOptimized" },
  { targetPort: 2, state: "optimized" },
  { targetPort: 3, state: "unavailable" },
] as const;

function setPortGroups(initiator: TestInitiator, list: string) {
  const bytes = hex(list);
  const cdb = hex("a4 0a 00000000 00000000 00 00");
  cdb.writeUInt32BE(bytes.length, 6);
  return initiator.write(cdb, bytes);
}

test("REPORT TARGET PORT GROUPS: a group a brick", async () => {
  const { first, volume } = await attachTwo();
  volume.portsNow = [...threePorts];
  expectSense(await first.read(ready, 0), "6/2a/06");
  const groups = "010b000100020001" + "00000001" + "000b000200020001" + "00000002";
  const third = "030b000300020001" + "00000003";
  const { data } = await first.read(hex("a3 0a 00000000 00000100 00 00"), 256);
  assert.equal(data.toString("hex"), `00000024${groups}${third}`);
  const extended = await first.read(hex("a3 2a 00000000 00000100 00 00"), 256);
  assert.equal(extended.data.toString("hex"), `00000028101e0000${groups}${third}`);
  const cut = await first.read(hex("a3 0a 00000000 00000004 00 00"), 4);
  assert.equal(cut.data.toString("hex"), "00000024");
  assert.equal(fieldPointer(await first.read(hex("a3 4a 00000000 00000100 00 00"), 256)), "c1.7");
});

/** At the second portal, which expects to serve it until the first does. */
async function attachUnserved() {
  const volume = new MemoryVolume("disk", sizeBytes);
  volume.servedNow = false;
  volume.portsNow = [
    { targetPort: 1, state: "nonOptimized" },
    { targetPort: 2, state: "optimized" },
  ];
  const { first } = await attachTwo(volume);
  const serveAtFirst = () => {
    volume.servedNow = true;
    volume.portsNow = volume.portsNow.map((port) => ({
      ...port,
      state: port.state === "optimized" ? "nonOptimized" : "optimized",
    }));
  };
  return { first, serveAtFirst };
}

test("that a volume comes to be served is told to those who asked where it stood", async () => {
  const { first, serveAtFirst } = await attachUnserved();
  expectGood(await first.read(ready, 0));
  serveAtFirst();
  expectGood(await first.read(ready, 0));
  serveAtFirst();
  expectSense(await first.read(ready, 0), "6/2a/06");

  const asked = await attachUnserved();
  expectGood(await asked.first.read(hex("a3 0a 00000000 00000100 00 00"), 256));
  asked.serveAtFirst();
  expectSense(await asked.first.read(ready, 0), "6/2a/06");
});

test("SET TARGET PORT GROUPS moves the unit, and tells all but the one who asked", async () => {
  const { first, second, volume } = await attachTwo();
  volume.portsNow = threePorts.slice(0, 2);
  expectSense(await first.read(ready, 0), "6/2a/06");
  expectSense(await second.read(ready, 0), "6/2a/06");
  expectGood(await setPortGroups(first, "00000000 0000 0001 0100 0002"));
  assert.equal(volume.portsNow[0]!.state, "optimized");
  expectGood(await first.read(ready, 0));
  expectSense(await second.read(ready, 0), "6/2a/06");
  // The serving one steps back: another takes its place.
  expectGood(await setPortGroups(first, "00000000 0100 0001"));
  assert.equal(volume.portsNow[1]!.state, "optimized");
  expectGood(await setPortGroups(first, ""));
  assert.equal(fieldPointer(await setPortGroups(first, "00000000 0000 0009")), "p6");
  assert.equal(fieldPointer(await setPortGroups(first, "00000000 0200 0001")), "p4.3");
  expectSense(await setPortGroups(first, "00000000 0000 0001 0000 0002"), "5/26/00");
  expectSense(await setPortGroups(first, "00000000 0000 0001 0000"), "5/1a/00");
});
