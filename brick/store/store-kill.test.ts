import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { chunkKey } from "../chunk/key.ts";
import { Prng } from "../prng.ts";
import { killChunk, openRealStore } from "./store-kill.test-support.ts";

/** What the simulated key-value store promises for RocksDB, of RocksDB itself: processes killed. */

const program = fileURLToPath(new URL("store-kill.test-support.ts", import.meta.url));
const rounds = 6;

/** Runs the worker, kills it after so many lines, and gives those that it finished. */
function workUntilKilled(folder: string, seed: number, lineCount: number): Promise<string[]> {
  return new Promise((resolve) => {
    const args = [program, folder, String(seed)];
    const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
    let output = "";
    child.stdout.on("data", (data: Buffer) => {
      output += data.toString();
      if (output.split("\n").length > lineCount) child.kill("SIGKILL");
    });
    child.on("close", () => resolve(output.split("\n").slice(0, -1)));
  });
}

test("a killed process loses nothing that it has acknowledged, RocksDB's share included", async () => {
  const folder = mkdtempSync(path.join(tmpdir(), "end-kill-"));
  const prng = new Prng(17);
  const live = new Set<number>();
  let record = 0;
  let recycled = false;
  try {
    for (let round = 0; round < rounds; round += 1) {
      const lines = await workUntilKilled(folder, round + 1, prng.between(50, 3000));
      assert.ok(lines.length > 0, "the worker has worked");
      for (const line of lines) {
        const [what, number] = [line.split(" ")[0], Number(line.split(" ")[1])];
        if (what === "chunk") live.add(number);
        else if (what === "drop") live.delete(number);
        else record = Math.max(record, number);
        recycled ||= what === "drop";
      }
      const { store, counting } = await openRealStore(folder);
      assert.equal(counting.gap, false, `round ${round}: a gap between records`);
      assert.ok(counting.applied >= record, `round ${round}: record ${record} is lost`);
      assert.deepEqual(store.damage, []);
      for (const seed of live) {
        const bytes = killChunk(seed);
        assert.deepEqual(await store.readChunk(chunkKey(bytes)), { ok: true, bytes }, `${seed}`);
      }
      record = counting.applied;
      if (prng.chance(0.5)) await store.close();
      else {
        // As good as killed: RocksDB has to be let go, for the next process takes it.
        store.checkpoint();
        await store.checkpointed();
        await store.kv.close();
      }
    }
    assert.ok(recycled, "nothing was ever given up");
  } finally {
    rmSync(folder, { recursive: true });
  }
});
