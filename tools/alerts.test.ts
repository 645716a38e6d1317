import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { LatencyHistogram } from "../brick/latency-histogram.ts";
import { StageTimes } from "../brick/stage-times.ts";
import { metricsText } from "./metrics.ts";

/** docs/alerts.yml against what a brick really exports. */

const text = readFileSync(new URL("../docs/alerts.yml", import.meta.url), "utf8");

interface Rule {
  alert: string;
  /** By key: expr, for, labels, severity, annotations, summary, action. */
  fields: Map<string, string>;
}

/** The little of YAML that the file uses; anything else is a fault. */
function readRules(yaml: string): Rule[] {
  const rules: Rule[] = [];
  let folded: string | null = null;
  for (const [at, line] of yaml.split("\n").entries()) {
    if (/^\s*(#.*)?$/.test(line)) continue;
    const fields = rules.at(-1)?.fields;
    if (folded !== null && /^ {10}\S/.test(line)) {
      fields!.set(folded, `${fields!.get(folded)} ${line.trim()}`);
      continue;
    }
    folded = null;
    const head = /^ {6}- alert: (\w+)$/.exec(line);
    const field = /^(?: {8}| {10})([a-z]+):(?: (.*))?$/.exec(line);
    if (head !== null) rules.push({ alert: head[1]!, fields: new Map() });
    else if (field !== null && fields !== undefined) {
      const [, key, value = ""] = field;
      assert.ok(!fields.has(key!), `line ${at + 1}: ${key} twice`);
      assert.ok(isPlain(key!, value), `line ${at + 1}: ${value} needs quotes`);
      fields.set(key!, value === ">-" ? "" : value);
      if (value === ">-") folded = key!;
    } else assert.match(line, /^(groups:| {2}- name: endisk| {4}rules:)$/, `line ${at + 1}`);
  }
  return rules;
}

/** A plain scalar of YAML must not hold ": " or " #"; text is quoted whole. */
function isPlain(key: string, value: string): boolean {
  if (key === "summary" || key === "action") return /^"[^"\\]*"$/.test(value);
  return !/: | #|^["'&*!|%@`]/.test(value);
}

const rules = readRules(text);

test("every rule has what Prometheus and an operator need", () => {
  assert.ok(rules.length >= 10);
  assert.equal(new Set(rules.map(({ alert }) => alert)).size, rules.length);
  for (const { alert, fields } of rules) {
    for (const key of ["expr", "labels", "severity", "annotations", "summary", "action"]) {
      assert.ok(fields.has(key), `${alert} has no ${key}`);
    }
    assert.match(fields.get("severity")!, /^(warning|critical)$/, alert);
    if (fields.has("for")) assert.match(fields.get("for")!, /^\d+[smh]$/, alert);
    const expr = fields.get("expr")!;
    assert.notEqual(expr.trim(), "", alert);
    const count = (sign: string) => expr.split(sign).length;
    for (const [open, close] of ["()", "[]", "{}"].map((pair) => [pair[0]!, pair[1]!])) {
      assert.equal(count(open!), count(close!), `${alert}: ${open} and ${close}`);
    }
  }
});

test("every metric that an alert names is one that a brick exports", async () => {
  const latencies = new Map([["flush", new LatencyHistogram()]]);
  const commands = () => [{ opcode: "READ(10)", status: "GOOD", count: 1 }];
  const stages = new StageTimes({ nowMs: () => 0 });
  const sources = { values: () => ({}), commands, latencies, stages };
  const exported = await metricsText(1, sources)();
  const names = new Set([...exported.matchAll(/^(endisk_\w+)\{/gm)].map(([, name]) => name!));
  const named = rules.flatMap(({ alert, fields }) =>
    [...fields.get("expr")!.matchAll(/\bendisk_\w+/g)].map(([name]) => ({ alert, name })),
  );
  assert.ok(named.length >= rules.length - 1);
  assert.deepEqual(
    named.filter(({ name }) => !names.has(name)),
    [],
  );
});
