import assert from "node:assert/strict";
import { cpSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { goldenVolume, openGolden, pieces } from "./golden-brick.ts";

/** Data folders that releases wrote are opened and read whole by the present code. */

const golden = fileURLToPath(new URL("golden", import.meta.url));
const names = readdirSync(golden).sort();

test("there is a golden store", () => {
  assert.ok(names.includes("store-1"));
});

for (const name of names) {
  test(`${name} is opened, and everything in it is read`, async () => {
    const folder = mkdtempSync(path.join(tmpdir(), "end-golden-"));
    try {
      cpSync(path.join(golden, name), folder, { recursive: true });
      const node = await openGolden(folder);
      assert.equal(node.store.superblock.boot, 3);
      assert.deepEqual([node.store.damage, node.store.damagedAtOpen], [[], []]);
      const volume = await goldenVolume(node);
      for (const { offsetBytes, bytes } of pieces) {
        const read = await volume.read(offsetBytes, bytes.length);
        assert.ok(read.ok, `at ${offsetBytes}`);
        assert.ok(Buffer.concat(read.buffers).equals(bytes), `other bytes at ${offsetBytes}`);
      }
      const step = await node.store.scrubStep(Number.MAX_SAFE_INTEGER);
      assert.deepEqual([step.damagedKeys, step.damagedRanges], [[], []]);
      assert.ok(step.chunksVerified >= pieces.length);
      await node.close();
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
}
