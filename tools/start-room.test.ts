import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { MiB } from "../brick/units.ts";
import { writePrivateFile } from "../control/api-secret-io.ts";
import { type BrickIdentity, writeIdentity } from "./brick-identity-io.ts";
import { BrickStartError } from "./brick-options.ts";
import { requireRoom, withStartRoom } from "./start-room-io.ts";

/** What a new brick does in a file system without room: it says so and ends, and leaves nothing. */

const identity: BrickIdentity = {
  version: 1,
  clusterId: "0123456789abcdef".repeat(2),
  number: 1,
  uuid: "ab".repeat(16),
  origin: "init",
  begun: false,
  listen: "127.0.0.1:3270",
  portal: "127.0.0.1:3260",
  api: "127.0.0.1:3280",
  domain: "",
  capacityBytes: 256 * MiB,
  peers: [],
};

async function inFolder(action: (folder: string) => void | Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "end-room-"));
  try {
    await action(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function isSaid(what: RegExp): (error: unknown) => boolean {
  return (error) =>
    error instanceof BrickStartError && error.code === "no_room" && what.test(error.message);
}

function noSpace(): never {
  throw Object.assign(new Error("ENOSPC: no space left on device, write"), { code: "ENOSPC" });
}

test("new bricks without room are refused before anything is made, with what they need", async () => {
  await inFolder((folder) => {
    const data = join(folder, "cluster", "data");
    const one = isSaid(
      /cannot make a new brick in .*data: .* room for 12MiB, a new brick needs 104MiB/,
    );
    assert.throws(() => requireRoom(data, 1, 12 * MiB), one);
    const three = isSaid(/cannot make 3 new bricks in .* 151MiB, 3 new bricks need 152MiB/);
    assert.throws(() => requireRoom(data, 3, 152 * MiB - 1), three);
    requireRoom(data, 3, 152 * MiB);
    // Of a folder that is not there it is the file system's that it will be in.
    requireRoom(data, 1);
    assert.deepEqual(readdirSync(folder), []);
  });
});

test("a new brick whose small files find no room ends, though the file system says that there is some", async () => {
  await inFolder(async (folder) => {
    const data = join(folder, "brick-1");
    const said = isSaid(/cannot make a new brick in .*brick-1: .* takes no more files or bytes/);
    await assert.rejects(
      withStartRoom(data, () => {}, noSpace),
      said,
    );
  });
});

test("a brick that is made already waits for room", async () => {
  await inFolder(async (folder) => {
    writeIdentity(folder, identity);
    const said: string[] = [];
    let tries = 0;
    const done = await withStartRoom(
      folder,
      (line) => said.push(line),
      () => {
        tries += 1;
        return tries === 1 ? noSpace() : "done";
      },
    );
    assert.deepEqual([done, tries, said.length], ["done", 2, 1]);
  });
});

test("a file that could not be written is not left behind", async () => {
  await inFolder((folder) => {
    const path = join(folder, "cluster.secret");
    // What cannot be written stands for a disk that takes nothing.
    assert.throws(() => writePrivateFile(path, Symbol("no text") as unknown as string), TypeError);
    assert.equal(existsSync(path), false);
    writePrivateFile(path, "text");
    assert.equal(existsSync(path), true);
  });
});
