import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { RealCluster } from "../tools/real-cluster-io.ts";
import { examine, testNames, type Verdict } from "./iscsi-conformance-examiner.ts";
import { openWire } from "./iscsi-conformance-wire.ts";

/**
 * Every test of libiscsi's examination against a cluster of three bricks: each in a process of its
 * own, with a second portal for the tests of several paths. All must pass but those of the table.
 */

const removable = "END's units have no medium that is put in or taken out";
const smallPhysical = "a block is a physical block of its own: nothing can be unaligned";
const wholeUnit = "no number of blocks shall not mean the whole unit (WSNZ)";
const overwrite = "chunks never change: there are no sectors of a medium to write over";

/** Tests that the examiner gives up on, and why that is right. docs/conformance.md says more. */
const skips: Readonly<Record<string, string>> = {
  "PreventAllow.Simple": removable,
  "PreventAllow.Eject": removable,
  "PreventAllow.ITNexusLoss": removable,
  "PreventAllow.Logout": removable,
  "PreventAllow.WarmReset": removable,
  "PreventAllow.ColdReset": removable,
  "PreventAllow.LUNReset": removable,
  "PreventAllow.2ITNexuses": removable,
  "StartStopUnit.Simple": removable,
  "ReadOnly.ReadOnlySBC": "the unit under examination can be written",
  "CompareAndWrite.InvalidDataOutSize": smallPhysical,
  "WriteSame10.InvalidDataOutSize": smallPhysical,
  "WriteSame10.UnmapUnaligned": smallPhysical,
  "WriteSame16.InvalidDataOutSize": smallPhysical,
  "WriteSame16.UnmapUnaligned": smallPhysical,
  "WriteSame10.ZeroBlocks": wholeUnit,
  "WriteSame16.ZeroBlocks": wholeUnit,
  "Sanitize.Overwrite": overwrite,
  "Sanitize.Readonly": overwrite,
  "Sanitize.Reservations": overwrite,
  "Sanitize.Reset": overwrite,
};

/** Tests that are wrong themselves, with the assertions that fail; docs/conformance.md has why. */
const examinerErrs: Readonly<Record<string, readonly string[]>> = {
  // Shown below, on the wire.
  "iSCSITMF.LUNResetSimpleAsync": ["test_async_lu_reset_simple.c:157"],
};

/** A unit serves one test at a time; lanes have one each. The last one's is encrypted. */
const lanes = ["lane1", "lane2", "lane3"];
const encryptedLane = lanes.at(-1)!;
/** Examined there: CRYPTOGRAPHIC ERASE is for encrypted units, the others do more than read and write. */
const encryptedFamilies = [
  "Sanitize",
  "CompareAndWrite",
  "ExtendedCopy",
  "OrWrite",
  "WriteAtomic16",
];
const onEncrypted = (name: string) =>
  encryptedFamilies.some((family) => name.startsWith(`${family}.`));
/** RFC 7143 §11.2.1.2, §11.5.1. */
const opcode = { taskManagementRequest: 0x02, logoutRequest: 0x06 } as const;
const logicalUnitReset = 5;
/** Debian's libiscsi 1.19; newer ones know more. */
const namesMin = 230;

const plainLanes = lanes.filter((volume) => volume !== encryptedLane);
const cluster = new RealCluster({ volumes: plainLanes.map((volume) => `${volume}:32GiB`) });
const names = testNames();
const families = Map.groupBy(names, (name) => name.slice(0, name.indexOf(".")));
const verdicts = new Map<string, Verdict>();

before(async () => {
  await cluster.start();
  await cluster.endisk("volume", "create", encryptedLane, "--size", "32GiB", "--encrypt");
  const anywhere = names.filter((name) => !onEncrypted(name)).values();
  const encrypted = names.filter(onEncrypted).values();
  await Promise.all(
    lanes.map(async (volume, lane) => {
      const [first, second] = [1 + (lane % 3), 1 + ((lane + 1) % 3)];
      const own = volume === encryptedLane ? encrypted : [];
      for (const name of chain(own, anywhere)) {
        verdicts.set(
          name,
          await examine(name, cluster.url(first, volume), cluster.url(second, volume)),
        );
      }
    }),
  );
});
after(() => cluster.dispose());

/** What is left of the first, then of what others take from, too. */
function* chain<T>(first: Iterable<T>, shared: IterableIterator<T>): Generator<T> {
  yield* first;
  for (let next = shared.next(); next.done !== true; next = shared.next()) yield next.value;
}

test("the examination is whole, and knows all that the tables name", () => {
  assert.ok(names.length >= namesMin, `${names.length} tests`);
  const named = [...Object.keys(skips), ...Object.keys(examinerErrs)];
  assert.deepEqual(
    named.filter((name) => !verdicts.has(name)),
    [],
  );
});

for (const [family, members] of families) {
  test(`iscsi-test-cu ${family}: ${members.length} tests`, () => {
    const surprises = members.flatMap((name) => surprise(name, verdicts.get(name)!));
    assert.equal(surprises.length, 0, surprises.join("\n"));
  });
}

function surprise(name: string, verdict: Verdict): string[] {
  const expected = expectedResult(name);
  switch (verdict.result) {
    case "failed":
      if (expected === "failed" && onlyFails(verdict.output, examinerErrs[name]!)) return [];
      return [`${name} failed:\n${verdict.output}`];
    case "skipped":
      return expected === "skipped" ? [] : [`${name} was skipped: ${verdict.reason}`];
    case "passed":
      return expected === "passed" ? [] : [`${name} passed, but a table here says ${expected}`];
  }
}

function expectedResult(name: string): Verdict["result"] {
  if (skips[name] !== undefined) return "skipped";
  return examinerErrs[name] === undefined ? "passed" : "failed";
}

/** The examiner numbers the assertions that failed. */
function onlyFails(output: string, assertions: readonly string[]): boolean {
  const failed = [...output.matchAll(/^ +\d+\. (\S+\.c:\d+) /gm)].map(([, at]) => at!);
  return failed.length > 0 && failed.every((at) => assertions.includes(at));
}

test("to a unit that is not encrypted CRYPTOGRAPHIC ERASE is unknown", async () => {
  const verdict = await examine("Sanitize.CryptoErase", cluster.url(1, plainLanes[0]!));
  assert.equal(verdict.result, "skipped");
});

/**
 * The examiner asserts that the answer to its LOGICAL UNIT RESET has come right after it has put
 * the request into its queue, and logs out: request and logout leave together, and what fails was
 * decided before the target had seen either.
 */
test("LUNResetSimpleAsync fails before the target was asked", async (context) => {
  const wire = await openWire(cluster.portal(1));
  context.after(() => wire.close());
  const url = cluster.url(1, lanes[0]!).replace(cluster.portal(1), wire.portal);
  const verdict = await examine("iSCSITMF.LUNResetSimpleAsync", url);
  assert.equal(verdict.result, "failed");
  const opcodes = wire.pdus.map(({ from, header }) => [from, header[0]! & 0x3f] as const);
  const asked = opcodes.findIndex(([, kind]) => kind === opcode.taskManagementRequest);
  assert.equal(wire.pdus[asked]!.header[1], 0x80 | logicalUnitReset);
  assert.deepEqual(opcodes[asked + 1], ["initiator", opcode.logoutRequest]);
});
