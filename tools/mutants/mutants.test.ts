import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { Findings } from "./findings.ts";
import { mutants } from "./mutants.ts";
import { partOf, readPart } from "./parts.ts";

const at = (path: string) => fileURLToPath(new URL(`../../${path}`, import.meta.url));

test("every mutant can be made of the source as it is", () => {
  assert.ok(mutants.length >= 25);
  assert.equal(new Set(mutants.map(({ name }) => name)).size, mutants.length);
  for (const { name, file, text, instead, caughtBy, scenario } of mutants) {
    const parts = readFileSync(at(file), "utf8").split(text);
    assert.equal(
      parts.length,
      2,
      `"${name}": its text stands ${parts.length - 1} times in ${file}`,
    );
    assert.notEqual(text, instead);
    for (const one of caughtBy.filter((arg) => arg.endsWith(".ts"))) {
      assert.ok(existsSync(at(one)), `"${name}": there is no ${one}`);
    }
    if (scenario === undefined) continue;
    const named = `test("${scenario}", `;
    const isThere = caughtBy.some((one) => readFileSync(at(one), "utf8").includes(named));
    assert.ok(isThere, `"${name}": ${caughtBy} has no test "${scenario}"`);
  }
});

test("parts have each mutant once", () => {
  const parts = ["1/4", "2/4", "3/4", "4/4"].map((text) => partOf(mutants, readPart(text)));
  assert.equal(new Set(parts.flat()).size, mutants.length);
  assert.equal(parts.flat().length, mutants.length);
  for (const text of ["0/4", "5/4", "4", "1/0", "a/b"]) assert.throws(() => readPart(text), text);
});

test("what was found is kept from part to part, and forgotten with the sources it was about", () => {
  const folder = mkdtempSync(join(tmpdir(), "endisk-findings-"));
  try {
    const path = join(folder, "found.json");
    new Findings("a", path).add("one", true);
    const later = new Findings("a", path);
    later.add("two", false);
    assert.deepEqual([later.isCaught("one"), later.isKnown("two")], [true, true]);
    assert.match(later.summary(["one", "two", "three"]), /1 caught, 1 not caught, 1 not tried/);
    const other = new Findings("b", path);
    assert.match(other.summary(["one", "two", "three"]), /0 caught, 0 not caught, 3 not tried/);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
