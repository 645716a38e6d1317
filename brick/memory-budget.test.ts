import assert from "node:assert/strict";
import { test } from "node:test";
import { slotBytes, slotBytesFor, slotBytesMax } from "./gc/stamps.ts";
import {
  heapGrowthPercent,
  type MemoryParts,
  memoryBaseBytes,
  memoryBytesMin,
  memoryParts,
  memoryPartsDefault,
  memoryRuntime,
} from "./memory-budget.ts";
import { GiB, MiB, TiB } from "./units.ts";

/** What all caches take when they are full, with one volume attached. */
function fullBytes(parts: MemoryParts): number {
  const mapCache = parts.mapCacheGrainsMax * 26 + parts.mapCacheCellsMax * 64;
  return (
    parts.kvCacheBytes +
    parts.kvMemtableBytes +
    parts.chunkCacheBytes +
    parts.outlineCacheBytes +
    parts.readAheadBytes +
    mapCache +
    parts.mapTableBytes +
    parts.keyFilterBytes +
    parts.placeCacheSlots * 48 +
    parts.stampBytes
  );
}

test("whatever the budget, full caches leave room in it for what is under way", () => {
  for (const bytes of [memoryBytesMin, 256 * MiB, 300 * MiB, 512 * MiB, 1 * GiB, 8 * GiB]) {
    const parts = memoryParts(bytes);
    assert.ok(memoryBaseBytes + fullBytes(parts) <= bytes, `${bytes / MiB} MiB`);
    // A fifth of the rest is for messages, garbage and the allocator, and what caches do not use.
    assert.ok(fullBytes(parts) <= 0.8 * (bytes - memoryBaseBytes), `${bytes / MiB} MiB`);
    for (const [name, value] of Object.entries(parts)) {
      const least = name === "kvWriterThreads" ? 0 : 1;
      assert.ok(value >= least && Number.isInteger(value), `${name} of ${bytes / MiB} MiB`);
      assert.ok(value <= memoryPartsDefault[name as keyof MemoryParts], name);
    }
    assert.equal(Math.log2(parts.keyFilterBytes) % 1, 0);
    assert.equal(Math.log2(parts.placeCacheSlots) % 1, 0);
    // A grain of 128 extents of one sector, and what is to be read of another.
    assert.ok(parts.mapCacheCellsMax >= 2 * 128);
  }
});

test("more memory is never worse anywhere", () => {
  let last = memoryParts(memoryBytesMin);
  for (let mib = 200; mib <= 4096; mib += 8) {
    const parts = memoryParts(mib * MiB);
    for (const name of Object.keys(parts) as (keyof MemoryParts)[]) {
      assert.ok(parts[name] >= last[name], `${name} at ${mib} MiB`);
    }
    assert.ok(heapGrowthPercent(mib * MiB) <= heapGrowthPercent(null));
    last = parts;
  }
  assert.equal(memoryParts(null), memoryPartsDefault);
});

test("V8 is told its bounds", () => {
  const { nodeFlags, environment } = memoryRuntime(256 * MiB);
  assert.deepEqual(nodeFlags, ["--max-old-space-size=128", "--max-semi-space-size=4"]);
  assert.equal(environment.MALLOC_TRIM_THRESHOLD_, String(14 * MiB));
});

test("stamps of a terabyte fit, by longer slots", () => {
  const { stampBytes } = memoryParts(256 * MiB);
  // 1 TiB in two copies on four bricks.
  const capacityBytes = 0.5 * TiB;
  const slot = slotBytesFor(capacityBytes, stampBytes);
  // Chunks of 4 KiB and more never share one.
  assert.equal(slot, slotBytesMax);
  assert.ok(capacityBytes / slot / 4 <= stampBytes);
  assert.equal(slotBytesFor(capacityBytes, memoryPartsDefault.stampBytes), slotBytes);
  assert.equal(slotBytesFor(8 * GiB, stampBytes), slotBytes);
});
