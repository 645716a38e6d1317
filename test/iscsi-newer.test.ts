import assert from "node:assert/strict";
import { test } from "node:test";
import { discovery, disk, enter, normal, openPlace, other, status } from "./exchanges/place.ts";

/**
 * What newer versions of libiscsi's suite examine and Debian's iscsi-test-cu 1.19 does not:
 * SendTargets, NOP, REPORT TARGET PORT GROUPS (CHAP: iscsi-chap.test.ts); and login redirection,
 * which neither does. Over real connections, with an initiator of our own.
 */

test("SendTargets in a discovery session: All, one by name, one that is not there", async (context) => {
  const { authority, portals, initiator } = await openPlace(context);
  const browsing = initiator();
  assert.equal(await enter(browsing, discovery), status.success);
  const addresses = portals.map(({ address }, index) => [
    "TargetAddress",
    `${address},${index + 1}`,
  ]);
  const all = await browsing.text([["SendTargets", "All"]]);
  assert.deepEqual(all, [["TargetName", disk], ...addresses, ["TargetName", other], ...addresses]);
  const one = await browsing.text([["SendTargets", other]]);
  assert.deepEqual(one, [["TargetName", other], ...addresses]);
  for (const name of ["iqn.2026-11.endisk:nothing", "Some", "all"]) {
    const found = await browsing.text([["SendTargets", name]]);
    assert.ok(!found.some(([key]) => key === "TargetName"), `${name}: ${found}`);
  }
  // What it may not log in to is not shown.
  authority.forbidden.add(other);
  assert.deepEqual(await browsing.text([["SendTargets", "All"]]), [
    ["TargetName", disk],
    ...addresses,
  ]);
});

test("SendTargets in a normal session names its own target", async (context) => {
  const { initiator } = await openPlace(context);
  const session = initiator();
  assert.equal(await enter(session, normal), status.success);
  // RFC 7143 appendix C: All is for discovery sessions. Asked here, it names no other target.
  for (const wanted of ["", disk, "All"]) {
    const found = await session.text([["SendTargets", wanted]]);
    assert.deepEqual(found[0], ["TargetName", disk], wanted);
    assert.equal(found.filter(([key]) => key === "TargetName").length, 1);
  }
  for (const wanted of ["Alle", "A", "aLL", other]) {
    assert.deepEqual(await session.text([["SendTargets", wanted]]), [["SendTargets", "Reject"]]);
  }
  for (const key of ["SendTargetsPlease", "sENDtARGETS"]) {
    assert.deepEqual(await session.text([[key, "All"]]), [[key, "NotUnderstood"]]);
  }
});

test("SendTargets of more than fits one PDU goes on over several", async (context) => {
  const { authority, initiator } = await openPlace(context);
  for (let index = 0; index < 200; index += 1) {
    const name = `iqn.2026-11.endisk.test:${String(index).padStart(4, "0")}-${"x".repeat(60)}`;
    authority.extraTargets.set(name, { name, luns: new Map([[0, "disk"]]) });
  }
  const browsing = initiator();
  assert.equal(await enter(browsing, [...discovery, ["MaxRecvDataSegmentLength", "1024"]]), 0);
  const found = await browsing.text([["SendTargets", "All"]]);
  assert.equal(found.filter(([key]) => key === "TargetName").length, 202);
  assert.equal(found.filter(([key]) => key === "TargetAddress").length, 404);
});

test("NOP-Out: data comes back, also none, also while commands run", async (context) => {
  const { initiator } = await openPlace(context);
  const session = initiator();
  await enter(session, [...normal, ["MaxRecvDataSegmentLength", "512"]]);
  for (const text of ["nopping\0", "", "x", "0123456789".repeat(51)]) {
    assert.equal(String(await session.ping(Buffer.from(text))), text);
  }
  // RFC 7143 §11.19: no more of it than the initiator takes in a PDU.
  const long = Buffer.alloc(4096, "long");
  assert.deepEqual(await session.ping(long), long.subarray(0, 512));
});
