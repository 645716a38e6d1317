import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";
import { chunkKey } from "../chunk/key.ts";
import { openRealHost } from "../host-io.ts";
import { Prng } from "../prng.ts";
import { MiB } from "../units.ts";
import { Store } from "./store.ts";

const identity = { clusterId: "00".repeat(16), brick: 1, uuid: "cd".repeat(16) };
const origin = { branch: 1, grain: 2, firstSector: 0, sequence: 3 };

function openAt(dataFolder: string): Promise<Store> {
  const network = { send: () => {}, onMessage: () => {}, setPeers: () => {} };
  const sizes = { capacityBytes: 64 * MiB, segmentBytes: 1 * MiB };
  return openRealHost({ dataFolder, network, log: () => {} }).then((host) =>
    Store.open(host, { ...sizes, participants: [], identity }),
  );
}

test("on the real machine: chunks over several segments, a checkpoint, two clean restarts", async () => {
  const folder = mkdtempSync(path.join(tmpdir(), "end-store-"));
  try {
    const prng = new Prng(5);
    const chunks = Array.from({ length: 200 }, () =>
      prng.fill(Buffer.alloc(512 * prng.between(1, 60))),
    );
    let store = await openAt(folder);
    await Promise.all(
      chunks.map(async (bytes, at) => {
        const result = await new Promise((resolve) =>
          store.put(chunkKey(bytes), bytes, origin, resolve),
        );
        assert.deepEqual(result, { ok: true, deduplicated: false });
        if (at === 100) store.checkpoint();
      }),
    );
    for (let restart = 1; restart <= 2; restart += 1) {
      await store.close();
      store = await openAt(folder);
      assert.equal(store.cut, false);
      assert.equal(store.superblock.boot, 1 + restart);
      assert.equal(store.space().chunkCount, chunks.length);
      for (const bytes of chunks) {
        assert.deepEqual(await store.readChunk(chunkKey(bytes)), { ok: true, bytes });
      }
    }
    const step = await store.scrubStep(Number.MAX_SAFE_INTEGER);
    assert.equal(step.chunksVerified, chunks.length);
    assert.deepEqual(step.damagedKeys, []);
    await store.close();
  } finally {
    rmSync(folder, { recursive: true });
  }
});
