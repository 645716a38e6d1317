import assert from "node:assert/strict";
import { test } from "node:test";
import { canonicalName } from "./iscsi-name.ts";

for (const [name, canonical] of [
  ["iqn.2001-04.com.example:storage.disk1", "iqn.2001-04.com.example:storage.disk1"],
  ["IQN.2001-04.COM.Example:Disk", "iqn.2001-04.com.example:disk"],
  ["iqn.2008-11.org.linux-kvm", "iqn.2008-11.org.linux-kvm"],
  ["iqn.1998-01.com.vmware:host_1-4a2b", "iqn.1998-01.com.vmware:host_1-4a2b"],
  ["eui.02004567A425678D", "eui.02004567a425678d"],
  ["naa.52004567BA64678D", "naa.52004567ba64678d"],
  ["naa.62004567BA64678D0123456789ABCDEF", "naa.62004567ba64678d0123456789abcdef"],
  // NFKC: the ligature and the full-width letter are what they look like.
  ["iqn.2001-04.com.example:\ufb01\uff21", "iqn.2001-04.com.example:fia"],
  ["iqn.2001-04.com.example:m\u00dcller", "iqn.2001-04.com.example:m\u00fcller"],
  [`iqn.2001-04.com.example:${"x".repeat(199)}`, `iqn.2001-04.com.example:${"x".repeat(199)}`],
  [`iqn.2001-04.com.example:${"x".repeat(200)}`, undefined],
  ["iqn.2001-13.com.example:disk", undefined],
  ["iqn.com.example:disk", undefined],
  ["iqn.2001-04.com..example", undefined],
  ["iqn.2001-04.com.example:", undefined],
  ["iqn.2001-04.com.example:a b", undefined],
  ["iqn.2001-04.com.example:a,i,0x00", undefined],
  ["iqn.2001-04.com.example:a\nb", undefined],
  ["iqn.2001-04.com.example:a\u2003b", undefined],
  ["eui.02004567", undefined],
  ["naa.02004567a425678d0", undefined],
  ["disk1", undefined],
  ["", undefined],
] as const) {
  test(`the name ${JSON.stringify(name.slice(0, 60))} (${name.length})`, () => {
    assert.equal(canonicalName(name), canonical);
  });
}
