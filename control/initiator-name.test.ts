import assert from "node:assert/strict";
import { test } from "node:test";
import { initiatorNameOf } from "./initiator-name.ts";

test("names of the three formats are taken, in lower case", () => {
  for (const [given, expected] of [
    ["iqn.1993-08.org.debian:01:abc123", "iqn.1993-08.org.debian:01:abc123"],
    ["IQN.1991-05.com.Microsoft:WIN-7", "iqn.1991-05.com.microsoft:win-7"],
    ["iqn.1998-01.com.vmware:esx1-4a5b", "iqn.1998-01.com.vmware:esx1-4a5b"],
    ["iqn.2001-04.com.example", "iqn.2001-04.com.example"],
    ["eui.02004567A425678D", "eui.02004567a425678d"],
    ["naa.52004567BA64678D", "naa.52004567ba64678d"],
    ["naa.62004567BA64678D0123456789ABCDEF", "naa.62004567ba64678d0123456789abcdef"],
    // NFKC: full-width letters are the same name.
    ["iqn.2026-11.example:ｈｏｓｔ", "iqn.2026-11.example:host"],
  ] as const) {
    assert.equal(initiatorNameOf(given), expected, given);
    assert.equal(initiatorNameOf(expected), expected, "it is its own normal form");
  }
});

test("what is no iSCSI name is none", () => {
  const long = `iqn.2026-11.example:${"x".repeat(204)}`;
  assert.equal(Buffer.byteLength(long), 224);
  for (const given of [
    "",
    "host",
    "iqn.2026-13.example:host",
    "iqn.26-11.example:host",
    "iqn.2026-11.",
    "iqn.2026-11.example:",
    "iqn.2026-11.example:a b",
    "iqn.2026-11.example:a\0b",
    "eui.0200",
    "naa.52004567ba64678d01",
    long,
  ]) {
    assert.equal(initiatorNameOf(given), null, given);
  }
  assert.notEqual(initiatorNameOf(long.slice(0, -1)), null);
});
