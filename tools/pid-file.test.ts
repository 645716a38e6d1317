import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { BrickStartError } from "./brick-options.ts";
import { takePidFile } from "./pid-file-io.ts";

function withFolder(run: (folder: string) => void | Promise<void>): () => Promise<void> {
  return async () => {
    const folder = mkdtempSync(join(tmpdir(), "endisk-pid-"));
    try {
      await run(folder);
    } finally {
      rmSync(folder, { recursive: true });
    }
  };
}

test(
  "the file holds our process id and goes when released",
  withFolder((folder) => {
    const path = join(folder, "x.pid");
    const file = takePidFile(path);
    assert.equal(readFileSync(path, "utf8"), `${process.pid}\n`);
    file.release();
    assert.deepEqual(readdirSync(folder), []);
  }),
);

test(
  "one left by a process that is gone, or that is not ours, is taken over",
  withFolder((folder) => {
    const path = join(folder, "x.pid");
    // Process 1 runs, and is no endisk; the other number is beyond any process id.
    for (const text of ["1\n", "4194305\n", "", "junk"]) {
      writeFileSync(path, text);
      takePidFile(path).release();
    }
    assert.deepEqual(readdirSync(folder), []);
  }),
);

test(
  "one of a running endisk is respected",
  withFolder(async (folder) => {
    const path = join(folder, "x.pid");
    const other = spawn(process.execPath, ["-e", "setInterval(() => {}, 1000)", "endisk"], {
      stdio: "ignore",
    });
    try {
      writeFileSync(path, `${other.pid}\n`);
      assert.throws(
        () => takePidFile(path),
        (error) => error instanceof BrickStartError && error.code === "in_use",
      );
      assert.equal(readFileSync(path, "utf8"), `${other.pid}\n`);
    } finally {
      other.kill("SIGKILL");
      await new Promise((resolve) => other.on("close", resolve));
    }
    takePidFile(path).release();
  }),
);
