import assert from "node:assert/strict";
import { test } from "node:test";
import { MiB } from "../units.ts";
import { KeptRoom } from "./kept-room.ts";
import { TraceHost } from "./trace-disk.ts";

test("room that a start gave up is taken back in pieces, with other work between", async () => {
  const host = new TraceHost();
  const room = await KeptRoom.find(host);
  const unflushedBytes = 40 * MiB;
  // All of it is given up, by a start for which nothing is free.
  while (room.sizeBytes < 48 * MiB) await room.keep(1024 * MiB, unflushedBytes, 64 * MiB);
  host.freeBytes = 0;
  const index = await host.disk.open("index/000001.log", { create: true });
  await index.write(0, [Buffer.alloc(40 * MiB)]);
  await index.close();
  await room.untilStart();
  assert.equal(room.sizeBytes, 0);
  const taken: number[] = [];
  for (let goesOn = true; goesOn; ) {
    const before = room.sizeBytes;
    goesOn = await room.keep(1024 * MiB - before, unflushedBytes, 64 * MiB);
    taken.push((room.sizeBytes - before) / MiB);
  }
  assert.deepEqual(taken, [8, 8, 8, 8, 8, 8]);
});
