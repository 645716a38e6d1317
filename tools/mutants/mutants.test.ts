import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { mutants } from "./mutants.ts";

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
