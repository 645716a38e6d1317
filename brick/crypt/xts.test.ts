import assert from "node:assert/strict";
import { createCipheriv } from "node:crypto";
import { test } from "node:test";
import { Prng } from "../prng.ts";
import { sectorBytes } from "../units.ts";
import { dataKeyBytes, isDataKey, unitSectors, wholeUnits, Xts } from "./xts.ts";

const hex = (text: string) => Buffer.from(text.replaceAll(/\s/g, ""), "hex");

test("IEEE 1619 vectors 10 to 12: 512 bytes under AES-256-XTS", () => {
  const key = hex(`2718281828459045235360287471352662497757247093699959574966967627
    3141592653589793238462643383279502884197169399375105820974944592`);
  const plain = Buffer.from(Array.from({ length: 512 }, (_, at) => at & 0xff));
  const begins: readonly (readonly [number, string])[] = [
    [0xff, "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b"],
    [0xffff, "77a31251618a15e6b92d1d66dffe7b50b50bad552305ba0217a610688eff7e11"],
    [0xffffff, "e387aaa58ba483afa7e8eb469778317ecf4cf573aa9d4eac23f2cdf914e4e200"],
  ];
  const xts = new Xts(key);
  for (const [sector, begin] of begins) {
    const stored = xts.encrypt(sector, [plain]);
    assert.equal(stored.subarray(0, 32).toString("hex"), begin, `data unit ${sector}`);
    assert.deepEqual(xts.decrypt(sector, stored), plain);
  }
});

/** The same by node's own XTS, one object a unit. */
function reference(key: Buffer, firstSector: number, data: Buffer): Buffer {
  const parts: Buffer[] = [];
  const endSector = firstSector + data.length / sectorBytes;
  for (let at = firstSector; at < endSector; ) {
    const whole = at % unitSectors === 0 && at + unitSectors <= endSector;
    const count = whole ? unitSectors : 1;
    const tweak = Buffer.alloc(16);
    tweak.writeBigUInt64LE(BigInt(at));
    const from = (at - firstSector) * sectorBytes;
    const cipher = createCipheriv("aes-256-xts", key, tweak);
    parts.push(cipher.update(data.subarray(from, from + count * sectorBytes)));
    at += count;
  }
  return Buffer.concat(parts);
}

test("it does what node's aes-256-xts does unit by unit, anywhere, however the data is cut", () => {
  const prng = new Prng(1619);
  for (let round = 0; round < 200; round += 1) {
    const key = prng.fill(Buffer.alloc(dataKeyBytes));
    const xts = new Xts(key);
    const far = prng.chance(0.3) ? 2 ** 32 - 64 : prng.between(0, 2 ** 44 - 128);
    const firstSector = far + prng.between(0, 127);
    const data = prng.fill(Buffer.alloc(prng.between(1, 128) * sectorBytes));
    const cut = prng.between(0, data.length);
    const stored = xts.encrypt(firstSector, [data.subarray(0, cut), data.subarray(cut)]);
    assert.deepEqual(stored, reference(key, firstSector, data));
    assert.deepEqual(xts.decrypt(firstSector, stored), data);
  }
});

test("whole units of a range are cut in a part of it as in the range itself", () => {
  const prng = new Prng(7);
  const key = prng.fill(Buffer.alloc(dataKeyBytes));
  const xts = new Xts(key);
  for (let round = 0; round < 500; round += 1) {
    const startSector = prng.between(0, 127);
    const stopSector = prng.between(startSector + 1, 128);
    const data = prng.fill(Buffer.alloc((stopSector - startSector) * sectorBytes));
    const stored = xts.encrypt(startSector, [data]);
    const firstSector = prng.between(startSector, stopSector - 1);
    const endSector = prng.between(firstSector + 1, stopSector);
    const part = wholeUnits({ startSector, stopSector }, firstSector, endSector);
    assert.ok(part.firstSector >= startSector && part.endSector <= stopSector);
    assert.ok(part.firstSector <= firstSector && part.endSector >= endSector);
    const inside = (sector: number) => (sector - startSector) * sectorBytes;
    const found = stored.subarray(inside(part.firstSector), inside(part.endSector));
    const wanted = data.subarray(inside(part.firstSector), inside(part.endSector));
    assert.deepEqual(xts.decrypt(part.firstSector, found), wanted);
  }
});

test("the same bytes at another address are stored as other bytes", () => {
  const xts = new Xts(new Prng(3).fill(Buffer.alloc(dataKeyBytes)));
  const data = Buffer.alloc(8 * sectorBytes, 0x41);
  assert.notDeepEqual(xts.encrypt(0, [data]), xts.encrypt(8, [data]));
});

test("a key of equal halves, or of another length, is none", () => {
  const half = new Prng(4).fill(Buffer.alloc(dataKeyBytes / 2));
  assert.equal(isDataKey(Buffer.concat([half, half])), false);
  assert.equal(isDataKey(half), false);
  assert.throws(() => new Xts(Buffer.concat([half, half])));
});
