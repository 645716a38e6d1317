import assert from "node:assert/strict";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { compiledCodeFolder } from "./compiled-code-io.ts";

function scene(t: { after(done: () => void): void }) {
  const home = mkdtempSync(join(tmpdir(), "endisk-code-"));
  t.after(() => rmSync(home, { recursive: true }));
  return { home, folder: join(home, ".cache", "endisk", "code") };
}

test("compiled code lies in the user's cache folder, which is for its owner alone", (t) => {
  const { home, folder } = scene(t);
  assert.equal(compiledCodeFolder({}, home), folder);
  assert.equal(statSync(folder).mode & 0o777, 0o700);
  assert.equal(compiledCodeFolder({}, home), folder, "a second time");
});

test("XDG_CACHE_HOME says where that is", (t) => {
  const { home } = scene(t);
  const base = join(home, "elsewhere");
  assert.equal(compiledCodeFolder({ XDG_CACHE_HOME: base }, "/"), join(base, "endisk", "code"));
});

for (const level of ["", "endisk", "endisk/code"]) {
  test(`nothing is kept where others may write: .cache/${level}`, (t) => {
    const { home, folder } = scene(t);
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    for (const mode of [0o720, 0o702]) {
      chmodSync(join(home, ".cache", level), mode);
      assert.equal(compiledCodeFolder({}, home), null);
    }
    chmodSync(join(home, ".cache", level), 0o755);
    assert.equal(compiledCodeFolder({}, home), folder);
  });
}

test("without a place for it the program runs all the same", (t) => {
  const { home } = scene(t);
  writeFileSync(join(home, ".cache"), "");
  assert.equal(compiledCodeFolder({}, home), null);
});
