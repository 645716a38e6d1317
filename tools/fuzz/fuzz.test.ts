import assert from "node:assert/strict";
import { test } from "node:test";
import { Coverage } from "./coverage.ts";
import { runRound } from "./fuzz-io.ts";

/** Rounds that once failed are added here, and always run; `npm run fuzz` runs many more. */
const rounds: readonly (readonly [seed: number, mutated: number])[] = [
  // A command rejected before its turn widened the command window without end.
  [1, 4000],
];
/** A turn in which nobody else is served. The long run tells how long they really are. */
const turnMsMax = 1000;
const newSeed = Math.floor(Math.random() * 2 ** 31);
const total = new Coverage();

for (const [seed, mutated] of [...rounds, [newSeed, 4000] as const]) {
  test(`a round of ${mutated} mutated PDUs: npm run fuzz -- --seed ${seed} --pdus ${mutated} --connections 0`, async () => {
    const report = await runRound(seed, mutated);
    const { violation, coverage } = report;
    assert(violation === null, `${violation?.message}\n${violation?.transcript}`);
    assert(report.turnMsMax < turnMsMax, `a turn took ${report.turnMsMax} ms`);
    assert(coverage.innocentReads > 0 && coverage.innocentWrites > 0);
    total.add(coverage);
  });
}

test("the same seed is the same round", async () => {
  const [first, second] = [await runRound(5, 300), await runRound(5, 300)];
  assert.equal(first.coverage.fingerprint, second.coverage.fingerprint);
  const other = await runRound(6, 300);
  assert.notEqual(first.coverage.fingerprint, other.coverage.fingerprint);
});

test("the rounds reach everything", () => {
  // NOP-Out, SCSI Command, Task Management, Login, Text, Data-Out, Logout, SNACK.
  for (const opcode of [0, 1, 2, 3, 4, 5, 6, 0x10]) {
    assert((total.sentOpcodes.get(opcode) ?? 0) > 20, `request ${opcode}`);
  }
  // NOP-In, SCSI, task management, login and text responses, Data-In, logout, R2T, Reject.
  for (const opcode of [0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x31, 0x3f]) {
    assert((total.answerOpcodes.get(opcode) ?? 0) > 20, `answer ${opcode}`);
  }
  for (const reason of ["reject 2", "reject 3", "reject 4", "reject 5", "reject 9"]) {
    assert(total.protocolErrors.has(reason), reason);
  }
  for (const cause of ["header digest", "data digest", "header segments of N B"]) {
    assert(total.protocolErrors.has(cause), cause);
  }
});
