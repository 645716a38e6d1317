import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { chapResponse, chooseAlgorithm, decodeBinary, encodeBinary, sameBytes } from "./chap.ts";

const challenge = Buffer.from(Array.from({ length: 16 }, (_, at) => at));

// Computed with another implementation of the hashes: id 0x2a | secret | 00..0f.
for (const [algorithm, expected] of [
  [5, "cc8c045111ef4b1a94ccd68522dd8a78"],
  [6, "a669ae9b92cf20dc65c3341f89e6d0c5c3db47bc"],
  [7, "ab1460d598098a4ef9691e4056ce0bc5b7422a27a38f973ce9b4268513c535b7"],
  [8, "93023c8f2d265afd70a8b3e8e4fda93ca994a6a3116d64933e8921f22d512908"],
] as const) {
  test(`the response of algorithm ${algorithm}`, () => {
    const secret = Buffer.from("twelve-bytes-and-more");
    assert.equal(chapResponse(algorithm, 0x2a, secret, challenge).toString("hex"), expected);
  });
}

test("binary values in hexadecimal and base64, prefix and digits in both cases", () => {
  const bytes = Buffer.from([0xde, 0xad, 0xbe, 0xef]);
  for (const text of ["0xdeadbeef", "0XDEADBEEF", "0xDeAdBeEf", "0b3q2+7w==", "0B3q2+7w=="]) {
    assert.deepEqual(decodeBinary(text), bytes, text);
  }
  for (const text of ["", "0x", "0b", "deadbeef", "0xabc", "0xzz", "0b3q2+7w", "0b===", "0o17"]) {
    assert.equal(decodeBinary(text), undefined, text);
  }
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 64 }), (given) => {
      const value = Buffer.from(given);
      assert.deepEqual(decodeBinary(encodeBinary(value)), value);
      assert.deepEqual(decodeBinary(`0b${value.toString("base64")}`), value);
    }),
  );
});

test("the strongest algorithm of both sides is taken, whatever the order of the offer", () => {
  assert.deepEqual(chooseAlgorithm("5,6,7", [8, 7, 6]), { algorithm: 7, isAccepted: true });
  assert.deepEqual(chooseAlgorithm("5,8", [8, 7, 6, 5]), { algorithm: 8, isAccepted: true });
  assert.deepEqual(chooseAlgorithm("5", [8, 7]), { algorithm: 5, isAccepted: false });
  assert.equal(chooseAlgorithm("1,9,x", [8, 7]), undefined);
});

test("bytes are the same or not, of any lengths", () => {
  assert.equal(sameBytes(Buffer.from("abc"), Buffer.from("abc")), true);
  assert.equal(sameBytes(Buffer.from("abc"), Buffer.from("abd")), false);
  assert.equal(sameBytes(Buffer.from("abc"), Buffer.from("ab")), false);
});
