import assert from "node:assert/strict";
import { test } from "node:test";
import { ChunkIndex, keyName } from "./chunk/chunk-index.ts";
import { Stamps, slotBytesFor } from "./gc/stamps.ts";
import type { Kv } from "./host.ts";
import type { Segments } from "./log/segments.ts";
import { memoryParts } from "./memory-budget.ts";
import { chunkKvKey, encodeChunkEntry } from "./store/store-keys.ts";
import { MiB, TiB } from "./units.ts";
import { MapCache } from "./volume/map-cache.ts";

/** What a terabyte leaves in memory, by count: caches are filled with far more than they may hold. */

const parts = memoryParts(256 * MiB);

function keyOf(number: number): Buffer {
  const key = Buffer.alloc(32);
  // Spread as hashes are, in the bytes that the filter and the places look at.
  for (let word = 0; word < 8; word += 1) {
    key.writeUInt32BE(Math.imul(number + 1, 0x9e3779b1 + 2 * word) >>> 0, 4 * word);
  }
  return key;
}

/** An index of so many chunks, none of which is anywhere: each is made when it is asked for. */
function endlessKv(entries: number): Kv {
  const entry = { segment: 1, epoch: 1, offsetBytes: 4096, lengthBytes: 4096, damaged: false };
  const value = encodeChunkEntry(entry);
  let next = 0;
  return {
    get: () => value,
    getMany: (keys) => keys.map(() => value),
    write: () => {},
    writeLater: (_batch, done) => done(null),
    range: (_start, _end, limit) => {
      const count = Math.min(limit, entries - next);
      const found = Array.from({ length: count }, (_, at): [Buffer, Buffer] => {
        return [chunkKvKey(keyOf(next + at)), value];
      });
      next += count;
      return found;
    },
    hasFailed: () => false,
    unflushedBytes: () => 0,
    reopen: () => {},
    close: async () => {},
  };
}

test("an index of any size has the memory that it was given", () => {
  const segments = { byNumber: new Map([[1, { epoch: 1 }]]) } as unknown as Segments;
  // A brick's part of 1 TiB in pieces of 4 KiB; a start learns a beginning of it.
  const totals = { count: 2 ** 27, bytes: 2 ** 39 };
  const learnt = 200_000;
  const index = new ChunkIndex(endlessKv(learnt), segments, totals, parts);
  while (index.learn(10_000));
  for (let number = 0; number < learnt; number += 1) {
    const key = keyOf(number);
    assert.ok(index.find(key, keyName(key)) !== null, "a key that is there is never denied");
  }
  const placesBytes = parts.placeCacheSlots * 48;
  assert.ok(index.memoryBytes <= parts.keyFilterBytes + placesBytes, `${index.memoryBytes}`);
  assert.ok(index.memoryBytes > placesBytes);
  assert.equal(index.dirtyCount, 0);
});

test("a map cache met with more grains than it may hold stays within its cells", () => {
  const { mapCacheGrainsMax: grainsMax, mapCacheCellsMax: cellsMax } = parts;
  const cache = new MapCache({ grainsMax, cellsMax });
  const extent = { chunkSector: 0, chunkSectors: 8, holders: [1, 2] };
  for (let grain = 0; grain < 3 * grainsMax; grain += 1) {
    const fill = cache.beginFill(grain, 1);
    const key = keyOf(grain);
    cache.endFill(fill, () => [{ firstSector: 0, sectorCount: 8, key, ...extent }], 1);
  }
  assert.ok(cache.grainCount <= grainsMax && cache.cellCount <= cellsMax);
  assert.ok(cache.grainCount > grainsMax / 2);
});

test("every place of a brick of half a terabyte stamped takes what stamps were given", () => {
  const capacityBytes = 0.5 * TiB;
  const segmentBytes = 64 * MiB;
  const stamps = new Stamps(segmentBytes, slotBytesFor(capacityBytes, parts.stampBytes));
  for (let segment = 1; segment <= capacityBytes / segmentBytes; segment += 1) {
    stamps.stamp({ segment, epoch: 1, offsetBytes: 4096 });
  }
  assert.ok(stamps.memoryBytes <= parts.stampBytes, `${stamps.memoryBytes / MiB} MiB`);
});
