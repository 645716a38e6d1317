import assert from "node:assert/strict";
import { test } from "node:test";
import { checkDrain } from "./drain.ts";
import { settled, TestInitiator, target, testNode } from "./initiator.test-double.ts";
import { drainLogoutSeconds } from "./limits.ts";
import { MemoryVolume, memoryDirectory } from "./memory-volume.test-double.ts";
import { asyncMessage, logoutRequest, logoutResponse } from "./pdu.ts";

async function draining() {
  const node = testNode(memoryDirectory([new MemoryVolume("disk", 1 << 20)]));
  const [stays, leaves, discovers] = [1, 2, 3].map((isid) => {
    const initiator = new TestInitiator(node);
    initiator.login({ target: isid === 3 ? "" : target, isid });
    return initiator;
  });
  const sendAway = async (address: string | null) => {
    node.authority.redirectTo = address === null ? null : { address };
    node.authority.changed();
    await settled();
  };
  await sendAway("192.0.2.7:3260");
  return { node, stays: stays!, leaves: leaves!, discovers: discovers!, sendAway };
}

test("a portal that another one replaces asks for logout, once, then lets go", async () => {
  const { node, stays, leaves, discovers } = await draining();
  for (const initiator of [stays, leaves]) {
    const { values } = initiator.takeOne(asyncMessage);
    assert.equal(values.event, 1);
    assert.equal(values.parameter3, drainLogoutSeconds);
  }
  assert.deepEqual(discovers.take(), []);
  node.authority.changed();
  await settled();
  assert.deepEqual(stays.take(), [], "not asked twice");
  leaves.send(logoutRequest, { immediate: true, cmdSn: leaves.cmdSn });
  assert.equal(leaves.takeOne(logoutResponse).values.response, 0);
  checkDrain(node, node.clock.ms + drainLogoutSeconds * 1000 - 1);
  assert.equal(stays.connection.closing, null);
  checkDrain(node, node.clock.ms + drainLogoutSeconds * 1000);
  const dropped = stays.takeOne(asyncMessage).values;
  assert.equal(dropped.event, 2);
  assert.equal(dropped.parameter1, 3, "its connection");
  assert.equal(stays.connection.closing, "afterFlush");
  assert.equal(node.sessions.size, 1, "the discovery session");
});

test("a portal that serves again lets its sessions stay", async () => {
  const { node, stays, sendAway } = await draining();
  stays.take();
  await sendAway(null);
  checkDrain(node, node.clock.ms + drainLogoutSeconds * 2000);
  assert.deepEqual(stays.take(), []);
  assert.equal(stays.connection.closing, null);
});
