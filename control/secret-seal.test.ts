import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { openSecret, sealIvBytes, sealSecret } from "./secret-seal.ts";

const cluster = Buffer.alloc(32, 7);
const owner = { initiator: "iqn.2026-11.example:host", prover: "initiator", user: "u" } as const;
const iv = Buffer.alloc(sealIvBytes, 1);
const secret = Buffer.from("sixteen-byte-key");

test("a sealed secret opens to itself, and does not show", () => {
  const bytes = fc.uint8Array({ minLength: 1, maxLength: 128 });
  fc.assert(
    fc.property(bytes, (given) => {
      const sealed = sealSecret(cluster, owner, Buffer.from(given), iv);
      assert.deepEqual(openSecret(cluster, owner, sealed), Buffer.from(given));
    }),
  );
  const { sealed } = sealSecret(cluster, owner, secret, iv);
  assert.equal(Buffer.from(sealed, "hex").includes(secret), false);
});

test("it opens for no other cluster, initiator, direction or user, and not when changed", () => {
  const sealed = sealSecret(cluster, owner, secret, iv);
  assert.equal(openSecret(Buffer.alloc(32, 8), owner, sealed), null);
  for (const other of [{ initiator: null }, { prover: "target" as const }, { user: "v" }]) {
    assert.equal(openSecret(cluster, { ...owner, ...other }, sealed), null);
  }
  for (let at = 0; at < sealed.sealed.length; at += 7) {
    const digit = sealed.sealed[at] === "0" ? "1" : "0";
    const changed = sealed.sealed.slice(0, at) + digit + sealed.sealed.slice(at + 1);
    assert.equal(openSecret(cluster, owner, { ...sealed, sealed: changed }), null);
  }
  assert.equal(openSecret(cluster, owner, { ...sealed, sealed: "00" }), null);
});

test("the fingerprint is the same for the same secret alone, in one cluster", () => {
  const print = (key: Buffer, text: string, user = "u") =>
    sealSecret(key, { ...owner, user }, Buffer.from(text), Buffer.alloc(sealIvBytes, 9))
      .fingerprint;
  const first = sealSecret(cluster, owner, secret, iv).fingerprint;
  assert.equal(print(cluster, "sixteen-byte-key", "another"), first);
  assert.notEqual(print(cluster, "sixteen-byte-kez"), first);
  assert.notEqual(print(Buffer.alloc(32, 8), "sixteen-byte-key"), first);
});

test("golden: sealed and fingerprint of a known secret (docs/formats.md)", () => {
  assert.deepEqual(sealSecret(cluster, owner, secret, iv), {
    sealed:
      "01010101010101010101010190a2639772c9680beaa96d80e326b58b06f929f6a98a5610593e6e065795e974",
    fingerprint: "2193fa388007ee7457e91efde38bd6ca",
  });
});
