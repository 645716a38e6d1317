import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { buildVersion } from "./build-version.ts";

test("the build says the version of the package", () => {
  const text = readFileSync(new URL("../package.json", import.meta.url), "utf8");
  assert.equal(JSON.parse(text).version, buildVersion);
});
