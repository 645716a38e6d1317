import { execFileSync } from "node:child_process";
import { runTool } from "../tools/run-tool-io.ts";

/**
 * libiscsi's examination of SCSI targets, `iscsi-test-cu`: the names of its tests, and one test in
 * a process of its own, so that what one leaves behind (a reservation, a hung session of the
 * examiner) cannot decide another.
 */

const examiner = "iscsi-test-cu";
/** The examiner waits without end for an answer; a busy machine takes a minute for some tests. */
const testMsMax = 240_000;

export type Verdict =
  | { result: "passed" }
  /** In the examiner's words. */
  | { result: "skipped"; reason: string }
  | { result: "failed"; output: string };

/** Total, ran, passed, failed. */
const summaryPattern = /^ +tests +(\d+) +(\d+) +(\d+) +(\d+)/m;

/** "Family.Test", as in "Read10.Simple", in the examiner's order; the groups repeat some. */
export function testNames(): string[] {
  const listed = execFileSync(examiner, ["--list"], { encoding: "utf8" });
  return [...listed.matchAll(/^ALL\.([^.\s]+\.[^.\s]+)$/gm)].map(([, name]) => name!);
}

/** Destroys what the unit holds; `urls` are one or two ways to the same unit. */
export async function examine(name: string, ...urls: readonly string[]): Promise<Verdict> {
  const args = ["--dataloss", "--allow-sanitize", `--test=ALL.${name}`, ...urls];
  const { output } = await runTool(examiner, args, { timeoutMs: testMsMax });
  return verdictOf(output);
}

/**
 * A test that gives up prints [SKIPPED] and counts as passed in the examiner's own summary; here it
 * has been skipped. No summary (it hung, or died) is a failure.
 */
export function verdictOf(output: string): Verdict {
  const began = output.search(/^ {2}Test: /m);
  const summary = summaryPattern.exec(output);
  const [total, passed] = [Number(summary?.[1]), Number(summary?.[3])];
  if (began < 0 || total !== 1 || passed !== 1) return { result: "failed", output };
  const skipped = /\[SKIPPED\] *(.*)/.exec(output.slice(began, summary!.index));
  return skipped === null ? { result: "passed" } : { result: "skipped", reason: skipped[1]! };
}
