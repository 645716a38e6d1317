import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  endpointSchema,
  endpointText,
  parseOption,
  sizeSchema,
  sizeText,
  UsageError,
  volumeNameSchema,
  volumeSizeSchema,
  volumeSpecSchema,
} from "./options.ts";

function sizeOf(text: string): number {
  return parseOption("--size", text, sizeSchema);
}

test("sizes are read with their unit", () => {
  assert.equal(sizeOf("1TiB"), 2 ** 40);
  assert.equal(sizeOf("512 MiB"), 512 * 2 ** 20);
  assert.equal(sizeOf("1.5GiB"), 1.5 * 2 ** 30);
  assert.equal(sizeOf("64t"), 64 * 2 ** 40);
  assert.equal(sizeOf("10GB"), 10e9);
  assert.equal(sizeOf("4096"), 4096);
});

test("what is no size is refused with the option, the value and what would be right", () => {
  for (const text of ["", "TiB", "1XB", "-1MiB", "1e3", "1 2MiB", "0", "1/2GiB"]) {
    assert.throws(
      () => sizeOf(text),
      (error) => {
        assert.ok(error instanceof UsageError);
        assert.ok(error.message.startsWith(`--size ${JSON.stringify(text)} is not a size`));
        assert.match(error.message, /512MiB/);
        return true;
      },
      text,
    );
  }
  assert.throws(() => parseOption("--size", undefined, sizeSchema), /--size is missing/);
});

test("any whole number of bytes survives being written and read", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 2 ** 53 - 1 }), (bytes) => {
      assert.equal(sizeOf(`${bytes}B`), bytes);
    }),
  );
});

test("a size shown is never more than the size, and at most one hundredth less", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 2 ** 50 }), (bytes) => {
      const shown = sizeOf(sizeText(bytes));
      assert.ok(shown <= bytes && shown >= bytes * 0.99);
    }),
  );
});

test("volumes are whole MiB, up to 8192TiB", () => {
  const size = (text: string) => parseOption("--size", text, volumeSizeSchema);
  assert.equal(size("64TiB"), 64 * 2 ** 40);
  assert.throws(() => size("1500KiB"), /whole number of MiB/);
  assert.equal(size("8192TiB"), 2 ** 53);
  assert.throws(() => size("8193TiB"), /--size "8193TiB" is above the largest size, 8192TiB/);
});

test("addresses", () => {
  const endpoint = (text: string) => parseOption("--api", text, endpointSchema);
  assert.deepEqual(endpoint("127.0.0.1:3260"), { host: "127.0.0.1", port: 3260 });
  assert.deepEqual(endpoint("[::1]:3260"), { host: "::1", port: 3260 });
  assert.equal(endpointText(endpoint("[::1]:3260")), "[::1]:3260");
  for (const text of [
    "127.0.0.1",
    "127.0.0.1:0",
    "127.0.0.1:65536",
    ":3260",
    "::1:3260",
    "a b:1",
  ]) {
    assert.throws(() => endpoint(text), /--api .* is not an address: write HOST:PORT/, text);
  }
});

test("volume names are what an iqn can hold", () => {
  for (const name of ["disk0", "a", "db-1.prod", "0", "x".repeat(63)]) {
    assert.equal(parseOption("NAME", name, volumeNameSchema), name);
  }
  for (const name of ["", "Disk", "a_b", "-a", "a-", ".", "x".repeat(64), "a b", "ü"]) {
    assert.throws(() => parseOption("NAME", name, volumeNameSchema), /is not a volume name/, name);
  }
});

test("NAME:SIZE", () => {
  const spec = (text: string) => parseOption("--volume", text, volumeSpecSchema);
  assert.deepEqual(spec("disk0:1TiB"), { name: "disk0", sizeBytes: 2 ** 40 });
  for (const text of ["disk0", ":1TiB", "disk0:", "disk0:1.5", "Disk:1TiB"]) {
    assert.throws(() => spec(text), /--volume/, text);
  }
});
