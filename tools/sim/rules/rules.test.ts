import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { homeMutants } from "../../mutants/home-mutants.ts";
import { moduleMutants } from "../../mutants/module-mutants.ts";
import { mutants } from "../../mutants/mutants.ts";
import { ruleMutants } from "../../mutants/rule-mutants.ts";
import { verbMutants } from "../../mutants/verb-mutants.ts";

/** The table of docs/simulation.md: which scenario a rule has, and which mutant breaks the rule. */

const at = (path: string) => fileURLToPath(new URL(`../../../${path}`, import.meta.url));
/** rule | scenario, or test files | mutant */
const rowPattern = /^\| [^|]+ \| ([^|]+) \| ([^|]+) \|$/;

interface Row {
  /** The test file of the section that it stands in; "" in the section of whole suites. */
  readonly file: string;
  readonly proof: string;
  readonly mutant: string;
}

function rows(): Row[] {
  const text = readFileSync(at("docs/simulation.md"), "utf8");
  const [, table = ""] = text.split("\n## The rules, one by one\n");
  const found: Row[] = [];
  let file = "";
  for (const line of table.split("\n## ")[0]!.split("\n")) {
    const section = /^### (?:`([^`]+)`)?/.exec(line);
    if (section !== null) file = section[1] ?? "";
    const [, proof, mutant] = rowPattern.exec(line) ?? [];
    if (proof === undefined || proof === "---" || mutant === "mutant") continue;
    found.push({ file, proof, mutant: mutant! });
  }
  return found;
}

test("every rule has the scenario and the mutant that the table names", () => {
  const byName = new Map(mutants.map((mutant) => [mutant.name, mutant]));
  for (const { file, proof, mutant: name } of rows()) {
    const mutant = byName.get(name);
    assert.ok(mutant !== undefined, `there is no mutant "${name}"`);
    if (file === "") {
      const paths = mutant.caughtBy.map((path) => `\`${path}\``);
      assert.equal(proof, paths.join(", "), name);
      continue;
    }
    assert.deepEqual([mutant.scenario, mutant.caughtBy], [proof, [file]], name);
    assert.ok(readFileSync(at(file), "utf8").includes(`test("${proof}", `), proof);
  }
});

test("no scenario and no mutant of a rule is missing in the table", () => {
  const named = rows();
  const inTable = named.map(({ mutant }) => mutant);
  assert.equal(new Set(inTable).size, inTable.length);
  const missing = [...ruleMutants, ...homeMutants, ...moduleMutants, ...verbMutants].filter(
    ({ name }) => !inTable.includes(name),
  );
  assert.deepEqual(
    missing.map(({ name }) => name),
    [],
  );
  const here = readdirSync(at("tools/sim/rules")).filter((name) => name.endsWith(".test.ts"));
  for (const name of here.filter((one) => one !== "rules.test.ts")) {
    const file = `tools/sim/rules/${name}`;
    const scenarios = [...readFileSync(at(file), "utf8").matchAll(/^test\("([^"]+)", /gm)];
    for (const [, scenario] of scenarios) {
      assert.ok(
        named.some((row) => row.file === file && row.proof === scenario),
        `${file}: "${scenario}" is not in the table`,
      );
    }
  }
});
