import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { openRealHost } from "../../brick/host-io.ts";
import { Store } from "../../brick/store/store.ts";
import { GiB, KiB, MiB } from "../../brick/units.ts";
import { LateNetwork } from "../late-network-io.ts";
import { fillStore } from "./filled-store-io.ts";

test("a store takes what was put into its index for chunks of its own, and goes on", async () => {
  const folder = mkdtempSync(join(tmpdir(), "endisk-filled-"));
  const identity = { clusterId: "0".repeat(32), brick: 1, uuid: "1".repeat(32) };
  const open = async () => {
    const host = await openRealHost({
      dataFolder: folder,
      network: new LateNetwork(),
      log: () => {},
    });
    return Store.open(host, { capacityBytes: 16 * GiB, participants: [], identity });
  };
  try {
    await (await open()).close();
    const stored = 200 * MiB;
    assert.equal(await fillStore(folder, stored), stored / (64 * KiB));
    const store = await open();
    const { chunkCount, chunkBytes } = store.space();
    assert.deepEqual([chunkCount, chunkBytes], [stored / (64 * KiB), stored]);
    assert.equal(store.damage.length, 0);
    const key = Buffer.alloc(32, 9);
    const origin = { branch: 1, grain: 0, firstSector: 0, sequence: 1 };
    const put = await new Promise<{ ok: boolean }>((resolve) =>
      store.put(key, Buffer.alloc(4 * KiB), origin, resolve),
    );
    assert.ok(put.ok && store.has(key));
    await store.close();
  } finally {
    rmSync(folder, { recursive: true });
  }
});
