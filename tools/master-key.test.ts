import assert from "node:assert/strict";
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { BrickStartError } from "./brick-options.ts";
import { masterKeyOf } from "./master-key-io.ts";

function folder(context: { after(action: () => void): void }): string {
  const made = mkdtempSync(join(tmpdir(), "endisk-master-key-"));
  context.after(() => rmSync(made, { recursive: true }));
  return made;
}

function refusal(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    assert.ok(error instanceof BrickStartError);
    return error.message;
  }
  return assert.fail("it was taken");
}

test("a brick makes its own master key once, for its owner's eyes only", (context) => {
  const data = folder(context);
  const made = masterKeyOf(data, join(data, "store"), null);
  assert.equal(statSync(made.path).mode & 0o777, 0o600);
  assert.equal(readFileSync(made.path, "utf8"), `${made.bytes.toString("hex")}\n`);
  assert.deepEqual(masterKeyOf(data, join(data, "store"), null), made);
});

test("a named file may hold 32 bytes or 64 hex digits, mode 0600; others are refused by name", (context) => {
  const data = folder(context);
  const store = join(data, "store");
  const path = join(data, "key");
  const bytes = Buffer.from(Array.from({ length: 32 }, (_, at) => at * 7));
  assert.match(
    refusal(() => masterKeyOf(data, store, path)),
    /key does not exist/,
  );
  for (const content of [bytes, bytes.toString("hex"), `${bytes.toString("hex")}\n`]) {
    writeFileSync(path, content, { mode: 0o600 });
    assert.deepEqual(masterKeyOf(data, store, path).bytes, bytes);
  }
  for (const mode of [0o644, 0o640, 0o400, 0o700]) {
    chmodSync(path, mode);
    assert.match(
      refusal(() => masterKeyOf(data, store, path)),
      /key has mode .*must be 0600/,
    );
  }
  chmodSync(path, 0o600);
  for (const content of [
    "",
    "short",
    bytes.toString("hex").slice(1),
    `${bytes.toString("hex")}00`,
  ]) {
    writeFileSync(path, content);
    assert.match(
      refusal(() => masterKeyOf(data, store, path)),
      /does not hold a key/,
    );
  }
});

test("keys that are there are not left to a new master key", (context) => {
  const data = folder(context);
  const store = join(data, "store");
  mkdirSync(join(store, "keys"), { recursive: true });
  writeFileSync(join(store, "keys", "00001.key"), "");
  assert.match(
    refusal(() => masterKeyOf(data, store, null)),
    /master.key is missing, but .* has keys/,
  );
});
