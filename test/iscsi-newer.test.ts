import assert from "node:assert/strict";
import { test } from "node:test";
import { discovery, disk, enter, normal, openPlace, other, status } from "./exchanges/place.ts";
import { designator } from "./exchanges/replay.ts";
import type { ScriptedInitiator } from "./exchanges/scripted-initiator.ts";

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

/** REPORT TARGET PORT GROUPS: "group state port" of each group, and the descriptors as they came. */
async function portGroups(initiator: ScriptedInitiator, extended: boolean) {
  const cdb = Buffer.from(`a3${extended ? "2a" : "0a"}00000000000004000000`, "hex");
  const { status: answered, data } = await initiator.command({ cdb, readBytes: 1024 });
  assert.equal(answered, 0);
  assert.equal(data.readUInt32BE(0), data.length - 4, "RETURN DATA LENGTH");
  if (extended) assert.equal(data[4]! & 0x70, 0x10, "FORMAT TYPE");
  const descriptors = data.subarray(extended ? 8 : 4);
  const groups: { group: number; state: number; ports: number[] }[] = [];
  for (let at = 0; at < descriptors.length; ) {
    const count = descriptors[at + 7]!;
    const ports = Array.from({ length: count }, (_, index) =>
      descriptors.readUInt16BE(at + 8 + 4 * index + 2),
    );
    const state = descriptors[at]! & 0x0f;
    groups.push({ group: descriptors.readUInt16BE(at + 2), state, ports });
    at += 8 + 4 * count;
  }
  return { groups, descriptors };
}

async function enterReady(initiator: ScriptedInitiator): Promise<ScriptedInitiator> {
  assert.equal(await enter(initiator, normal), status.success);
  const ready = { cdb: Buffer.alloc(6) };
  while ((await initiator.command(ready)).sense.startsWith("6/"));
  return initiator;
}

test("REPORT TARGET PORT GROUPS agrees with itself, with VPD 83 and with the other portal", async (context) => {
  const { initiator } = await openPlace(context);
  for (const number of [1, 2]) {
    const session = await enterReady(initiator(number));
    const short = await portGroups(session, false);
    const long = await portGroups(session, true);
    assert.deepEqual(long.descriptors, short.descriptors);
    assert.deepEqual(short.groups, [
      { group: 1, state: 0, ports: [1] },
      { group: 2, state: 1, ports: [2] },
    ]);
    const cdb = Buffer.from("120183040000", "hex");
    const { data } = await session.command({ cdb, readBytes: 1024 });
    const group = designator(data, 5, 1).readUInt16BE(2);
    const port = designator(data, 4, 1).readUInt16BE(2);
    assert.deepEqual([group, port], [number, number]);
    const inquiry = Buffer.from("120000006000", "hex");
    const standard = await session.command({ cdb: inquiry, readBytes: 96 });
    // TPGS: implicit and explicit.
    assert.equal(standard.data[5]! & 0x30, 0x30);
  }
});

test("SET TARGET PORT GROUPS shows in the report, and all others are told", async (context) => {
  const { initiator } = await openPlace(context);
  const first = await enterReady(initiator(1));
  const second = await enterReady(initiator(2));
  // Group 2 active/optimized.
  const wish = Buffer.from("0000000000000002", "hex");
  const cdb = Buffer.from("a40a00000000000000080000", "hex");
  const answer = await first.command({ cdb, out: wish });
  assert.equal(answer.status, 0, answer.sense);
  const ready = { cdb: Buffer.alloc(6) };
  assert.equal((await first.command(ready)).status, 0);
  assert.equal((await second.command(ready)).sense, "6/2a/06");
  assert.equal((await second.command(ready)).status, 0);
  const moved = [
    { group: 1, state: 1, ports: [1] },
    { group: 2, state: 0, ports: [2] },
  ];
  for (const session of [first, second]) {
    assert.deepEqual((await portGroups(session, false)).groups, moved);
  }
});

test("while a brick drains, logins are sent to another portal and sessions asked to leave", async (context) => {
  const { authority, portals, initiator } = await openPlace(context);
  const session = await enterReady(initiator(1));
  const there = portals[1]!.address;
  authority.redirectTo = { address: there };
  authority.changed();
  // RFC 7143 §11.9.1: event 1, the target wants a logout within so many seconds.
  const message = await session.message();
  assert.equal(message[36], 1);
  assert.ok(message.readUInt16BE(42) > 0, "seconds to log out");
  const write = Buffer.from("2a000000000000000100", "hex");
  const written = await session.command({ cdb: write, out: Buffer.alloc(512, 0x5a) });
  assert.equal(written.status, 0, "what is still to be done is done");
  assert.equal(await session.logout(), 0);
  await session.wire.closed();

  const turned = initiator(1);
  const answer = await turned.login({ currentStage: 1, nextStage: 3, keys: normal });
  assert.equal(answer.status, status.movedTemporarily);
  // §13.8: an address that can be connected to as it stands; the tag is left out.
  assert.equal(answer.keys.get("TargetAddress"), there);
  await turned.wire.closed();
  // The same before anything is proven, in the security stage.
  const security = [...normal, ["AuthMethod", "CHAP,None"]] as const;
  const early = await initiator(1).login({ currentStage: 0, nextStage: 1, keys: security });
  assert.equal(early.status, status.movedTemporarily);
  // Discovery goes on here.
  const browsing = initiator(1);
  assert.equal(await enter(browsing, discovery), status.success);
  assert.ok((await browsing.text([["SendTargets", disk]])).length > 0);

  const followed = await enterReady(initiator(2));
  const read = Buffer.from("28000000000000000100", "hex");
  const found = await followed.command({ cdb: read, readBytes: 512 });
  assert.deepEqual(found.data, Buffer.alloc(512, 0x5a));
  // The brick stays after all.
  authority.redirectTo = null;
  authority.changed();
  assert.equal(await enter(initiator(1), normal), status.success);
});
