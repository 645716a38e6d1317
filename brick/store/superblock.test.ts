import assert from "node:assert/strict";
import { test } from "node:test";
import { crc32 } from "../crc32.ts";
import { Store } from "./store.ts";
import { readSuperblock, StoreOpenError } from "./store-open.ts";
import { decodeSuperblock, encodeSuperblock } from "./superblock.ts";
import { TraceHost } from "./trace-disk.ts";

const superblock = {
  clusterId: "00112233445566778899aabbccddeeff",
  brick: 0x0102,
  uuid: "f0e0d0c0b0a090807060504030201000",
  boot: 0x0a0b0c0d,
  segmentBytes: 0x04000000,
  cut: true,
  damaged: false,
  recycled: 0x01_0203_0405,
};

test("golden bytes of the superblock", () => {
  const bytes = encodeSuperblock(superblock, 0x11_2233_4455);
  assert.equal(bytes.length, 4096);
  assert.equal(
    bytes.toString("hex", 0, 56),
    "454e447301010102040000000a0b0c0d0000001122334455" +
      "00112233445566778899aabbccddeefff0e0d0c0b0a090807060504030201000",
  );
  assert.equal(bytes.toString("hex", 56, 64), "0000000102030405");
  assert.ok(bytes.subarray(64, 508).equals(Buffer.alloc(444)));
  assert.ok(bytes.subarray(512).equals(Buffer.alloc(4096 - 512)));
  assert.equal(bytes.toString("hex", 508, 512), "0fbcf966");
  assert.deepEqual(decodeSuperblock(bytes), { superblock, writeCount: 0x11_2233_4455 });
});

test("any flipped bit of a superblock is detected", () => {
  const bytes = encodeSuperblock(superblock, 3);
  for (let bit = 0; bit < 512 * 8; bit += 1) {
    bytes[bit >> 3]! ^= 1 << (bit & 7);
    assert.equal(decodeSuperblock(bytes), null);
    bytes[bit >> 3]! ^= 1 << (bit & 7);
  }
});

const options = {
  capacityBytes: 2 ** 20,
  segmentBytes: 65_536,
  diskFloorBytes: 0,
  participants: [],
};
const identity = { clusterId: superblock.clusterId, brick: 7, uuid: superblock.uuid };

test("one broken copy is healed from the other; the boot number only grows", async () => {
  const host = new TraceHost();
  await (await Store.open(host, { ...options, identity })).close();
  for (const [boot, path] of [
    [2, "superblock-a"],
    [3, "superblock-b"],
  ] as const) {
    host.files.get(path)!.fill(0xff);
    const store = await Store.open(host, options);
    assert.equal(store.superblock.boot, boot);
    await store.close();
    const copies = ["superblock-a", "superblock-b"].map((name) => host.files.get(name)!);
    assert.deepEqual(decodeSuperblock(copies[0]!)!.superblock.boot, boot);
    assert.deepEqual(decodeSuperblock(copies[1]!)!.superblock.boot, boot);
  }
  assert.equal((await readSuperblock(host.disk))!.boot, 3);
});

test("a store that a newer build has written is not opened, and is left as it is", async () => {
  const host = new TraceHost();
  await (await Store.open(host, { ...options, identity })).close();
  // One copy is enough: the other may not have been written yet when the newer build was stopped.
  const copy = host.files.get("superblock-b")!;
  copy[4] = 2;
  copy.writeUInt32BE(crc32(copy.subarray(0, 508)), 508);
  const before = [...host.files].map(([name, bytes]) => [name, bytes.toString("hex")]);
  const text =
    "the store cannot be opened: it is of format 2, and this build knows up to 1; run the build that wrote it, or a newer one";
  await assert.rejects(
    Store.open(host, { ...options, identity }),
    (error: unknown) => error instanceof StoreOpenError && error.message === text,
  );
  const after = [...host.files].map(([name, bytes]) => [name, bytes.toString("hex")]);
  assert.deepEqual(after, before);
});

test("a folder without a superblock is made new only when asked, and never over a log", async () => {
  const fault = (code: string) => (error: unknown) =>
    error instanceof StoreOpenError && error.fault.code === code;
  await assert.rejects(Store.open(new TraceHost(), options), fault("not_formatted"));
  const host = new TraceHost();
  await (await Store.open(host, { ...options, identity })).close();
  host.files.get("superblock-a")!.fill(0);
  host.files.get("superblock-b")!.fill(0);
  await assert.rejects(Store.open(host, { ...options, identity }), fault("superblock_damaged"));
});
