import assert from "node:assert/strict";
import { test } from "node:test";
import { chunkBytesMax } from "../chunk/key.ts";
import { Prng } from "../prng.ts";
import { MiB } from "../units.ts";
import { CopyBudget, type CopyUrgency, copyBurstBytes } from "./copy-budget.ts";

const rates = {
  floorBytesPerSecond: 4 * MiB,
  ceilingBytesPerSecond: 32 * MiB,
  gentleBytesPerSecond: 2 * MiB,
};

interface Copy {
  readonly beganMs: number;
  readonly bytes: number;
}

/** Copies as many as are let, of any size, for a while. */
function copyAll(seed: number, urgency: CopyUrgency, isQuiet: (nowMs: number) => boolean): Copy[] {
  const prng = new Prng(seed);
  const budget = new CopyBudget(rates, 0);
  const copies: Copy[] = [];
  for (let nowMs = 0; nowMs < 20_000; ) {
    const waitMs = budget.waitMs(nowMs, urgency, isQuiet(nowMs));
    if (waitMs > 0) {
      nowMs += waitMs;
      // Now and then nobody asks for a while.
      if (prng.chance(0.0001)) nowMs += prng.between(0, 2000);
      continue;
    }
    const bytes = prng.chance(0.7) ? chunkBytesMax : prng.between(512, chunkBytesMax);
    budget.take(nowMs, urgency, chunkBytesMax);
    budget.take(nowMs, urgency, bytes - chunkBytesMax);
    copies.push({ beganMs: nowMs, bytes });
  }
  return copies;
}

function bytesBetween(copies: readonly Copy[], fromMs: number, toMs: number): number {
  return copies
    .filter(({ beganMs }) => beganMs >= fromMs && beganMs <= toMs)
    .reduce((sum, { bytes }) => sum + bytes, 0);
}

function assertBounded(copies: readonly Copy[], bytesPerSecond: number): void {
  for (let at = 0; at < copies.length; at += 7) {
    for (const spanMs of [1, 30, 500, 5000]) {
      const { beganMs } = copies[at]!;
      const bytes = bytesBetween(copies, beganMs, beganMs + spanMs);
      const most = copyBurstBytes + (bytesPerSecond * spanMs) / 1000 + chunkBytesMax;
      assert.ok(bytes <= most, `${bytes} bytes within ${spanMs} ms; at most ${most}`);
    }
  }
}

test("in no window more than the ceiling is copied, and about as much while the log is quiet", () => {
  for (const seed of [1, 2, 3]) {
    const copies = copyAll(seed, "repair", () => true);
    assertBounded(copies, rates.ceilingBytesPerSecond);
    const rate = bytesBetween(copies, 0, 20_000) / 20;
    assert.ok(rate > 0.7 * rates.ceilingBytesPerSecond, `${rate} bytes a second`);
  }
});

test("while the log is never quiet, repair goes on at its floor and no faster", () => {
  for (const seed of [1, 2, 3]) {
    const copies = copyAll(seed, "repair", () => false);
    assertBounded(copies, rates.floorBytesPerSecond);
    const rate = bytesBetween(copies, 0, 20_000) / 20;
    assert.ok(rate > 0.7 * rates.floorBytesPerSecond, `${rate} bytes a second`);
  }
});

test("balance keeps to its own rate, and makes no copy while the log is busy", () => {
  for (const seed of [1, 2, 3]) {
    assertBounded(
      copyAll(seed, "balance", () => true),
      rates.gentleBytesPerSecond,
    );
    assert.equal(copyAll(seed, "balance", () => false).length, 0);
  }
});

test("what balance takes, repair has no more", () => {
  const budget = new CopyBudget(rates, 0);
  for (let taken = 0; taken < copyBurstBytes; taken += chunkBytesMax) {
    assert.equal(budget.waitMs(0, "repair", true), 0);
    budget.take(0, "balance", chunkBytesMax);
  }
  assert.ok(budget.waitMs(0, "repair", true) > 0);
});
