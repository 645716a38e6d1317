import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeMove, encodeMove } from "./move-messages.ts";
import {
  decodeUnitSettle,
  decodeUnitSettleReply,
  encodeUnitSettle,
  encodeUnitSettleReply,
} from "./unit-settle-messages.ts";

const uuid = "ab".repeat(16);
const hex = (body: Buffer[]) => Buffer.concat(body).toString("hex");

/** No byte of the message may be another one, but those of its fields. */
function examine(body: Buffer, decode: (body: Buffer) => unknown, fixed: readonly number[]): void {
  assert.notEqual(decode(body), null);
  assert.equal(decode(body.subarray(1)), null);
  assert.equal(decode(Buffer.concat([body, Buffer.alloc(1)])), null);
  for (const at of fixed) {
    const wrong = Buffer.from(body);
    wrong[at]! ^= 0x40;
    assert.equal(decode(wrong), null, `byte ${at}`);
  }
}

test("the question whether a unit has settled, and its answer", () => {
  const request = { uuid, unitVersion: 0x0102 };
  assert.equal(hex(encodeUnitSettle(request)), `01000000${uuid}0000000000000102`);
  const body = Buffer.concat(encodeUnitSettle(request));
  assert.deepEqual(decodeUnitSettle(body), request);
  examine(body, decodeUnitSettle, [0, 1, 2, 3, 20]);
  assert.equal(hex(encodeUnitSettleReply(true)), "01010000");
  for (const settled of [true, false]) {
    const reply = Buffer.concat(encodeUnitSettleReply(settled));
    assert.equal(decodeUnitSettleReply(reply), settled);
    examine(reply, decodeUnitSettleReply, [0, 1, 2, 3]);
  }
});

test("the request to give an attachment away", () => {
  const request = { uuid, epoch: 0x0304, to: 0x0506 };
  assert.equal(hex(encodeMove(request)), `01000506${uuid}0000000000000304`);
  const body = Buffer.concat(encodeMove(request));
  assert.deepEqual(decodeMove(body), request);
  examine(body, decodeMove, [0, 1, 20]);
});
