import assert from "node:assert/strict";
import {
  type CommandOutcome,
  senseText,
  TestInitiator,
  target,
  testNode,
} from "../initiator.test-double.ts";
import { MemoryVolume, memoryDirectory } from "../memory-volume.test-double.ts";

/** Commands as byte strings, for tests of the device server. */

export const sizeBytes = 4 << 20;
export const blocks = sizeBytes / 512;

/** One volume and two initiators that are logged in to it, their first unit attentions taken. */
export async function attachTwo(volume = new MemoryVolume("disk", sizeBytes)) {
  const node = testNode(memoryDirectory([volume]));
  const first = new TestInitiator(node);
  first.login({ target, isid: 1 });
  await first.clearAttention();
  const second = new TestInitiator(node);
  second.login({ target, isid: 2 });
  await second.clearAttention();
  return { volume, node, first, second };
}

/** The initiator ports of `attachTwo`, as TransportIDs write them. */
export const initiatorPorts = [1, 2].map(
  (isid) => `iqn.2026-11.test:initiator,i,0x80000000000${isid}`,
);

export function hex(text: string): Buffer {
  return Buffer.from(text.replaceAll(" ", ""), "hex");
}

export const ready = hex("00 00 00 00 00 00");

export function expectSense(outcome: CommandOutcome, expected: string): void {
  assert.equal(outcome.status, 2);
  assert.equal(senseText(outcome.sense), expected);
}

export function expectGood(outcome: CommandOutcome): void {
  assert.equal(`${outcome.status} ${senseText(outcome.sense)}`, "0 none");
}

export function expectConflict(outcome: CommandOutcome): void {
  assert.equal(outcome.status, 0x18);
}

/** The byte of the CDB ("c2") or of the parameter list ("p20.3": and its bit) that sense points at. */
export function fieldPointer({ sense }: CommandOutcome): string {
  assert(sense !== null && (sense[15]! & 0x80) !== 0, "no field pointer");
  const place = (sense[15]! & 0x40) === 0 ? "p" : "c";
  const bit = (sense[15]! & 0x08) === 0 ? "" : `.${sense[15]! & 7}`;
  return `${place}${sense.readUInt16BE(16)}${bit}`;
}
