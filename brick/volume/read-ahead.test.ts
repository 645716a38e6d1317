import assert from "node:assert/strict";
import { test } from "node:test";
import type { Extent } from "../map/grain.ts";
import { memoryBytesMin, memoryParts } from "../memory-budget.ts";
import { giveBack, LentMemory } from "../rpc/lent-memory.ts";
import { StageTimes } from "../stage-times.ts";
import { GiB, grainBytes, KiB, MiB, sectorsPerGrain } from "../units.ts";
import { AheadRoom, aheadStaleMs } from "./ahead-room.ts";
import type { FetchOutcome } from "./chunk-reader.ts";
import { bytesOf, makeBench, makeCluster } from "./gateway-bench.ts";
import { volumeOptionsDefault } from "./options.ts";
import { aheadBytesMax, ReadAhead, type ReadSide } from "./read-ahead.ts";
import { VolumeStats } from "./stats.ts";

interface Asked {
  readonly key: Buffer;
  readonly done: (outcome: FetchOutcome) => void;
}

/** One brick whose volumes are all written, each grain in a chunk of its own; fetches end when a test says so. */
class Scene {
  nowMs = 5000;
  readonly room: AheadRoom;
  readonly stats = new VolumeStats(new StageTimes({ nowMs: () => 0 }));
  readonly asked: Asked[] = [];
  /** What was lent and has not been given back. */
  lentCount = 0;

  constructor(roomBytes = Number.POSITIVE_INFINITY) {
    this.room = new AheadRoom(roomBytes);
  }

  volume(number: number): ReadAhead {
    const side: ReadSide = {
      map: { has: () => true, lookup: (grain) => [extentOf(number, grain)] },
      chunks: { has: () => false },
      reader: {
        isSearching: () => false,
        fetch: (key, _holders, done) => void this.asked.push({ key, done }),
      },
      aheadRoom: this.room,
      context: { stats: this.stats },
      nowMs: () => this.nowMs,
    };
    return new ReadAhead(side);
  }

  /** All that is on its way arrives, each chunk in memory of its own. */
  arrive(): void {
    for (const { done } of this.asked.splice(0)) {
      const bytes = Buffer.allocUnsafeSlow(grainBytes);
      const memory = new LentMemory();
      this.lentCount += 1;
      memory.add(() => {
        giveBack(bytes);
        this.lentCount -= 1;
      });
      done({ ok: true, bytes, memory });
      memory.release();
    }
  }

  get counted(): { ahead: number; used: number; dropped: number; held: number } {
    const { aheadBytes, aheadUsedBytes, aheadDroppedBytes } = this.stats;
    const grains = (bytes: number) => bytes / grainBytes;
    return {
      ahead: grains(aheadBytes),
      used: grains(aheadUsedBytes),
      dropped: grains(aheadDroppedBytes),
      held: grains(this.room.bytes),
    };
  }
}

function keyOf(volume: number, grain: number): Buffer {
  const key = Buffer.alloc(32);
  key.writeUInt32LE(volume, 0);
  key.writeUInt32LE(grain, 4);
  return key;
}

function extentOf(volume: number, grain: number): Extent {
  const all = { firstSector: 0, sectorCount: sectorsPerGrain, chunkSector: 0 };
  return { ...all, chunkSectors: sectorsPerGrain, key: keyOf(volume, grain), holders: [1, 2] };
}

function follow(ahead: ReadAhead, firstGrain: number, grains: number): void {
  const [offsetBytes, lengthBytes] = [firstGrain * grainBytes, grains * grainBytes];
  ahead.follow({ offsetBytes, lengthBytes }, GiB);
}

test("every byte asked for ahead is used, dropped or held", () => {
  const scene = new Scene();
  const ahead = scene.volume(1);
  follow(ahead, 0, 2);
  assert.deepEqual(scene.counted, { ahead: 2, used: 0, dropped: 0, held: 2 });
  scene.arrive();
  ahead.take(keyOf(1, 2))!.memory!.release();
  assert.deepEqual(scene.counted, { ahead: 2, used: 1, dropped: 0, held: 1 });
  assert.ok(ahead.take(keyOf(1, 2)) === null, "each is taken once");
  // One that is on its way is waited for by whoever takes it: it was of use, and is not here.
  follow(ahead, 2, 2);
  assert.ok(ahead.take(keyOf(1, 4)) === null);
  assert.deepEqual(scene.counted, { ahead: 6, used: 2, dropped: 0, held: 4 });
  scene.arrive();
  assert.equal(scene.lentCount, 4, "what was taken on its way is not kept when it comes");
  // One that nobody has is not held; the next read behind which it lies looks for it again.
  follow(ahead, 4, 2);
  for (const { done } of scene.asked.splice(0)) done({ ok: false, fault: "away" });
  assert.deepEqual(scene.counted, { ahead: 8, used: 2, dropped: 2, held: 4 });
  follow(ahead, 4, 2);
  assert.equal(scene.asked.length, 2);
});

test("without a budget each volume has its own bound, and the oldest goes", () => {
  assert.equal(volumeOptionsDefault.readAheadBytes, memoryParts(null).readAheadBytes);
  const scene = new Scene(volumeOptionsDefault.readAheadBytes);
  const volumes = Array.from({ length: 8 }, (_, number) => scene.volume(number));
  for (let at = 0; at < 3; at += 1) {
    for (const ahead of volumes) follow(ahead, 1000 * at, 32);
    scene.arrive();
  }
  assert.equal(scene.room.bytes, volumes.length * aheadBytesMax);
  assert.equal(scene.lentCount, scene.counted.held);
  const { ahead, dropped, held } = scene.counted;
  assert.ok(dropped > 0);
  assert.equal(ahead, dropped + held);
  for (const [number, volume] of volumes.entries()) {
    assert.ok(volume.take(keyOf(number, 32)) === null, "the first to come was kept");
    assert.notEqual(volume.take(keyOf(number, 2032)), null);
  }
});

test("in the smallest budget many volumes stay within their room, and none pushes out another's", () => {
  const { readAheadBytes } = memoryParts(memoryBytesMin);
  // Two streams of 128 KiB reads, at least, each two reads ahead.
  assert.ok(readAheadBytes >= 512 * KiB && readAheadBytes < aheadBytesMax);
  const scene = new Scene(readAheadBytes);
  const volumes = Array.from({ length: 64 }, (_, number) => scene.volume(number));
  let usedBefore = 0;
  for (let at = 0; at < 20; at += 1) {
    for (const [number, ahead] of volumes.entries()) {
      // The read itself, then what it is followed by.
      for (const grain of [2 * at, 2 * at + 1]) ahead.take(keyOf(number, grain))?.memory?.release();
      follow(ahead, 2 * at, 2);
      assert.ok(scene.room.bytes <= readAheadBytes);
    }
    scene.arrive();
    assert.ok(scene.lentCount * grainBytes <= readAheadBytes);
    scene.nowMs += 10;
    const { used } = scene.counted;
    if (at > 0) assert.ok(used > usedBefore, "reading ahead has stopped");
    usedBefore = used;
  }
  assert.equal(scene.counted.dropped, 0);
});

test("a full room takes nothing new until what is there has waited its time", () => {
  const scene = new Scene(4 * grainBytes);
  const [first, second] = [scene.volume(1), scene.volume(2)];
  follow(first, 0, 4);
  scene.arrive();
  scene.nowMs += aheadStaleMs - 1;
  follow(second, 0, 2);
  assert.deepEqual(scene.counted, { ahead: 4, used: 0, dropped: 0, held: 4 });
  scene.nowMs += 1;
  follow(second, 2, 1);
  assert.deepEqual(scene.counted, { ahead: 6, used: 0, dropped: 2, held: 4 });
  assert.equal(scene.lentCount, 2, "what made room was given back");
  scene.arrive();
  assert.ok(first.take(keyOf(1, 4)) === null);
  assert.ok(first.take(keyOf(1, 5)) === null);
  assert.notEqual(first.take(keyOf(1, 6)), null);
  assert.notEqual(second.take(keyOf(2, 3)), null);
});

test("at its end everything is given back once, what a read has taken stays the read's", () => {
  const scene = new Scene();
  const [ahead, other] = [scene.volume(1), scene.volume(2)];
  follow(other, 0, 1);
  follow(ahead, 0, 3);
  scene.arrive();
  const taken = ahead.take(keyOf(1, 3))!;
  follow(ahead, 4, 1);
  assert.equal(scene.asked.length, 1);
  ahead.end();
  assert.deepEqual(scene.counted, { ahead: 5, used: 1, dropped: 3, held: 1 });
  assert.equal(scene.lentCount, 2, "one is with a read, one with another volume");
  assert.equal(taken.bytes.length, grainBytes);
  // What was on its way comes to nobody, and nothing sets out any more.
  scene.arrive();
  assert.equal(scene.lentCount, 2);
  follow(ahead, 100, 2);
  assert.equal(scene.asked.length, 0);
  ahead.end();
  taken.memory!.release();
  assert.equal(scene.lentCount, 1);
  assert.notEqual(other.take(keyOf(2, 1)), null);
});

test("a gateway counts what it reads ahead, and ends with nothing of it", async () => {
  const bench = makeBench(makeCluster(31), { chunkCacheBytes: 0 });
  const { cluster, gateway, stats } = bench;
  const data = cluster.prng.fill(Buffer.alloc(1 * MiB));
  assert.deepEqual(await cluster.time.until(gateway.write(0, [data])), { ok: true });
  const stepBytes = 128 * KiB;
  for (let at = 0; at < 512 * KiB; at += stepBytes) {
    const result = await cluster.time.until(gateway.read(at, stepBytes));
    assert.ok(bytesOf(result).equals(data.subarray(at, at + stepBytes)));
  }
  await cluster.time.run(50);
  assert.ok(stats.aheadUsedBytes >= stepBytes, `${stats.aheadUsedBytes}`);
  const heldBytes = gateway.aheadRoom.bytes;
  assert.equal(heldBytes, 2 * stepBytes);
  assert.equal(stats.aheadBytes, stats.aheadUsedBytes + heldBytes);
  gateway.end("unavailable");
  assert.equal(gateway.aheadRoom.bytes, 0);
  assert.equal(stats.aheadDroppedBytes, heldBytes);
});
