import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

/** Who may import whom, and what deciding code may not touch: read from the source itself. */

const root = fileURLToPath(new URL("..", import.meta.url));
const fileLinesMax = 600;

interface Source {
  /** From the root, with "/". */
  path: string;
  text: string;
  imports: string[];
}

const sources = ["brick", "control", "iscsi", "tools", "test"].flatMap(readFolder);

function readFolder(folder: string): Source[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts"))
    .map((name) => {
      const path = `${folder}/${name.replaceAll("\\", "/")}`;
      const text = readFileSync(join(root, path), "utf8");
      return { path, text, imports: importsOf(path, text) };
    });
}

/** Paths from the root for our own files, names for packages. */
function importsOf(path: string, text: string): string[] {
  const found = [...text.matchAll(/(?:^|\s)(?:from|import)\s*\(?\s*"([^"\n]+)"/g)];
  return found.map(([, name]) => {
    if (!name!.startsWith(".")) return name!;
    return relative(root, join(root, path, "..", name!)).replaceAll("\\", "/");
  });
}

const folderOf = (path: string) => path.slice(0, path.indexOf("/"));
/** Tests, benches and what only they use may reach anywhere downward and touch the world. */
const isTest = (path: string) =>
  /\.test(?:-[a-z]+)?\.ts$|(?:^|\/)(?:testing|fake-|sector-model|trace-disk)|[.-]bench\.ts$/.test(
    path,
  );
const product = sources.filter(({ path }) => !isTest(path) && !path.startsWith("test/"));

/** Folders whose files a folder may import; packages and node: are looked at below. */
const mayImport: Readonly<Record<string, readonly string[]>> = {
  brick: ["brick"],
  control: ["brick", "control"],
  iscsi: ["brick", "iscsi"],
  tools: ["brick", "control", "iscsi", "tools"],
  test: ["brick", "control", "iscsi", "tools", "test"],
};

test("imports point downward", () => {
  const wrong = product.flatMap(({ path, imports }) =>
    imports
      .filter(
        (name) => name.endsWith(".ts") && !mayImport[folderOf(path)]!.includes(folderOf(name)),
      )
      .map((name) => `${path} imports ${name}`),
  );
  assert.deepEqual(wrong, []);
});

/** Only an examination itself stands on the doubles of the tests. */
const isExamination = (path: string) => /^tools\/(?:fuzz|crash-states)\//.test(path);

test("the product does not import its tests", () => {
  const shipped = product.filter(({ path }) => !isExamination(path));
  const wrong = shipped.flatMap(({ path, imports }) =>
    imports
      .filter((name) => name.endsWith(".ts") && isTest(name))
      .map((name) => `${path}: ${name}`),
  );
  assert.deepEqual(wrong, []);
});

test("imports of our own files name the file, and every one exists", () => {
  const known = new Set(sources.map(({ path }) => path));
  const wrong = sources.flatMap(({ path, imports }) =>
    imports
      .filter((name) => mayImport[folderOf(`${name}/`)] !== undefined || name.includes("/../"))
      .filter((name) => name.includes("/") && !known.has(name))
      .map((name) => `${path} imports ${name}`),
  );
  assert.deepEqual(wrong, []);
});

/** The files that act; and all of tools/ except what must replay exactly. */
const isIo = (path: string) =>
  /-io\.ts$/.test(path) || (path.startsWith("tools/") && !/^tools\/(?:sim|fuzz)\//.test(path));
const pure = product.filter(({ path }) => !isIo(path));

const inPureFiles: readonly (readonly [RegExp, string])[] = [
  [/\bDate\.now\(|\bnew Date\(|\bperformance\.now\(/, "take the time from host.clock"],
  [/\bMath\.random\(|\brandomBytes\(|\brandomUUID\(|\brandomInt\(/, "take chance from host.prng"],
  [/\bset(?:Timeout|Interval|Immediate)\(/, "take timers from host.clock"],
  [/\bprocess\.(?:nextTick|exit|on|hrtime)\(/, "the process belongs to tools/"],
];

/** Modules of the world; node:crypto's hashes and node:zlib's sums are arithmetic. */
const worldModules =
  /^node:(?:fs|fs\/promises|net|http|http2|https|tls|dgram|dns|timers|timers\/promises|worker_threads|child_process|os|process|readline)$/;

/** The simulator itself drives the real event loop, and prints; so does the fuzzer. */
const simDrivers =
  /^tools\/(?:sim\/(?:main|gc-race-main|verb-crash-main|sim-clock|sim-loop)|fuzz\/main)\.ts$/;

test("only -io files and tools touch clock, chance, timers and the process", () => {
  const wrong = pure
    .filter(({ path }) => !simDrivers.test(path))
    .flatMap(({ path, text }) =>
      codeLines(text).flatMap(([line, number]) =>
        inPureFiles
          .filter(([pattern]) => pattern.test(line))
          .map(([, instead]) => `${path}:${number}: ${instead}`),
      ),
    );
  assert.deepEqual(wrong, []);
});

test("only -io files and tools import files, sockets, timers and processes", () => {
  const wrong = pure.flatMap(({ path, imports }) =>
    imports.filter((name) => worldModules.test(name)).map((name) => `${path} imports ${name}`),
  );
  assert.deepEqual(wrong, []);
});

test("deciding cores do not wait", () => {
  const cores = [
    /^control\/raft\/(?!.*-io\.ts$)/,
    /^control\/(?:cluster-machine|view-planner|lease|keepalive|membership|voters|api-auth|events|event-rules.*)\.ts$/,
    /^iscsi\/(?:pdu|login|login-keys|login-request|login-security|login-throttle|text-keys)\.ts$/,
    /^iscsi\/(?:admission|chap|command-order|lun|serial32|session-state|text-exchange)\.ts$/,
    /^tools\/health\//,
    /^brick\/map\/(?:replica|shard-replica)\.ts$/,
  ];
  const wrong = product
    .filter(({ path }) => cores.some((core) => core.test(path)))
    .flatMap(({ path, text }) =>
      codeLines(text)
        .filter(([line]) => /\bawait\b|\basync\b|\bPromise\b/.test(line))
        .map(([line, number]) => `${path}:${number}: ${line.trim()}`),
    );
  assert.deepEqual(wrong, []);
});

test("no default exports, no barrels, no utils", () => {
  const wrong = sources.flatMap(({ path, text }) => [
    ...(/^export default\b/m.test(text) ? [`${path}: default export`] : []),
    ...(/^export \* from/m.test(text) ? [`${path}: export * from`] : []),
    ...(/(?:^|\/)(?:utils?|common|helpers|index)(?:\.ts$|\/)/.test(path) ? [`${path}: name`] : []),
  ]);
  assert.deepEqual(wrong, []);
});

test(`no file is longer than ${fileLinesMax} lines`, () => {
  const long = sources
    .map(({ path, text }) => ({ path, lines: text.split("\n").length - 1 }))
    .filter(({ lines }) => lines > fileLinesMax);
  assert.deepEqual(long, []);
});

test("what is left to do has a name behind it", () => {
  const mark = new RegExp(`\\b(?:TO${"DO"}|FIX${"ME"}|XX${"X"})\\b(?!\\([a-z])`);
  const wrong = sources.flatMap(({ path, text }) =>
    text.split("\n").flatMap((line, index) => (mark.test(line) ? [`${path}:${index + 1}`] : [])),
  );
  assert.deepEqual(wrong, []);
});

/** Lines with their numbers, comments left out. */
function codeLines(text: string): [string, number][] {
  return text
    .split("\n")
    .map((line, index): [string, number] => [line, index + 1])
    .filter(([line]) => !/^\s*(?:\/\/|\/?\*)/.test(line));
}
