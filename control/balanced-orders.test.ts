import assert from "node:assert/strict";
import { test } from "node:test";
import { Placement } from "../brick/volume/placement.ts";
import { balancedOrders } from "./balanced-orders.ts";

function keys(count: number): Buffer[] {
  return Array.from({ length: count }, (_, at) => {
    const key = Buffer.alloc(8);
    key.writeUInt32BE(Math.imul(at + 1, 0x9e3779b1) >>> 0);
    return key;
  });
}

function countAt(orders: readonly number[][], place: number): Map<number, number> {
  const counts = new Map<number, number>();
  for (const order of orders) counts.set(order[place]!, (counts.get(order[place]!) ?? 0) + 1);
  return counts;
}

test("each brick is the first of as many as the others, and the second", () => {
  const holders = [1, 2, 3, 4, 5].map((number) => ({ number, weight: 100, domain: "" }));
  const orders = balancedOrders(new Placement(holders), holders, keys(20));
  assert.deepEqual(new Set(countAt(orders, 0).values()), new Set([4]));
  const seconds = [...countAt(orders, 1).values()];
  assert.ok(Math.max(...seconds) - Math.min(...seconds) <= 1, `${seconds}`);
  for (const order of orders) assert.deepEqual([...order].sort(), [1, 2, 3, 4, 5]);
});

test("by its weight", () => {
  const holders = [1, 2, 3].map((number) => ({ number, weight: number * 10, domain: "" }));
  const orders = balancedOrders(new Placement(holders), holders, keys(60));
  assert.deepEqual([...countAt(orders, 0)].sort(), [
    [1, 10],
    [2, 20],
    [3, 30],
  ]);
});

test("the second is of another failure domain, where there is one", () => {
  const holders = [1, 2, 3, 4].map((number) => {
    return { number, weight: 100, domain: number < 4 ? "a" : "b" };
  });
  for (const [first, second] of balancedOrders(new Placement(holders), holders, keys(16))) {
    assert.ok((first! === 4) !== (second! === 4));
  }
  const alone = [{ number: 7, weight: 1, domain: "" }];
  assert.deepEqual(balancedOrders(new Placement(alone), alone, keys(2)), [[7], [7]]);
});
