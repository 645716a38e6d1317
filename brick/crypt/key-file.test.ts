import assert from "node:assert/strict";
import { test } from "node:test";
import { crc32 } from "../crc32.ts";
import {
  decodeKeyFile,
  domainOfName,
  encodeKeyFile,
  keyFileBytes,
  keyFileName,
} from "./key-file.ts";
import { decodeKey, encodeKey } from "./key-messages.ts";
import { keyCheckOf } from "./master-key.ts";

const masterKey = Buffer.alloc(32, 1);
const clusterId = "0123456789abcdef".repeat(2);
const owner = { clusterId, domain: 0x0102 };
const key = Buffer.from(Array.from({ length: 64 }, (_, at) => at));
const nonce = Buffer.alloc(12, 9);
const goldenHex = [
  "454e446b010001022a9d4058b849321309090909090909090909090900000000",
  "c5dd502be5c12a02ed1ebd205cef42465aaa8189ac4173900dc1629b572f0708",
  "b7102e4a0ee77132048b124c723578028bdf851b0d915835d4e4482dd39d9804",
  "7469edfd0033c768e64f5109d84a18f200000000000000000000000021a9f485",
].join("");
const golden = encodeKeyFile(masterKey, owner, key, nonce);

test("the format of a key file stays", () => {
  assert.equal(golden.length, keyFileBytes);
  assert.equal(golden.toString("hex"), goldenHex);
  assert.deepEqual(decodeKeyFile(masterKey, owner, golden), { ok: true, key });
  assert.equal(golden.includes(key.subarray(0, 8)), false);
});

test("a flipped bit anywhere is damage, and so is a changed byte with a sum that fits", () => {
  for (let bit = 0; bit < keyFileBytes * 8; bit += 1) {
    const bytes = Buffer.from(golden);
    bytes[bit >> 3]! ^= 1 << (bit & 7);
    assert.deepEqual(decodeKeyFile(masterKey, owner, bytes), { ok: false, fault: "damaged" });
  }
  for (let at = 16; at < 112; at += 1) {
    if (at >= 28 && at < 32) continue;
    const bytes = Buffer.from(golden);
    bytes[at]! ^= 0x40;
    bytes.writeUInt32BE(crc32(bytes.subarray(0, 124)), 124);
    assert.deepEqual(
      decodeKeyFile(masterKey, owner, bytes),
      { ok: false, fault: "damaged" },
      `${at}`,
    );
  }
  const longer = Buffer.concat([golden, Buffer.alloc(1)]);
  assert.equal(decodeKeyFile(masterKey, owner, longer).ok, false);
});

test("another master key is told from damage; another domain or cluster opens nothing", () => {
  const other = decodeKeyFile(Buffer.alloc(32, 2), owner, golden);
  assert.deepEqual(other, { ok: false, fault: "other_master" });
  const moved = Buffer.from(golden);
  moved.writeUInt16BE(0x0103, 6);
  moved.writeUInt32BE(crc32(moved.subarray(0, 124)), 124);
  const elsewhere = decodeKeyFile(masterKey, { clusterId, domain: 0x0103 }, moved);
  assert.deepEqual(elsewhere, { ok: false, fault: "damaged" });
  const stranger = { clusterId: "f".repeat(32), domain: owner.domain };
  assert.deepEqual(decodeKeyFile(masterKey, stranger, golden), { ok: false, fault: "damaged" });
});

test("names of key files and their domains", () => {
  assert.equal(keyFileName(7), "00007.key");
  assert.equal(domainOfName("65535.key"), 65_535);
  for (const name of ["00000.key", "65536.key", "7.key", "00007.key.new", "x"]) {
    assert.equal(domainOfName(name), null, name);
  }
});

test("a key on its way opens for the brick that it is meant for, and shows nothing", () => {
  const secret = Buffer.alloc(32, 7);
  const address = { ...owner, to: 3 };
  const body = Buffer.concat(encodeKey(secret, address, key, nonce));
  assert.deepEqual(decodeKey(secret, address, body), key);
  assert.equal(body.includes(key.subarray(0, 8)), false);
  assert.equal(decodeKey(secret, { ...address, to: 4 }, body), null);
  assert.equal(decodeKey(Buffer.alloc(32, 8), address, body), null);
  assert.equal(decodeKey(secret, address, body.subarray(0, body.length - 1)), null);
  const check = keyCheckOf(key, clusterId, "a".repeat(32));
  assert.match(check, /^[0-9a-f]{32}$/);
  assert.notEqual(check, keyCheckOf(key, clusterId, "b".repeat(32)));
});
