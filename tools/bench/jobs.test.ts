import assert from "node:assert/strict";
import { test } from "node:test";
import { GiB, KiB, MiB } from "../../brick/units.ts";
import { fioArguments } from "./fio.ts";
import { type Job, type JobSet, jobSets, jobsOf } from "./jobs.ts";

function argumentsOf(job: Job, urls: readonly string[] = ["iscsi://a:1/iqn:disk0/0"]): string[] {
  return fioArguments({ urls, job, spanBytes: 512 * MiB, seconds: 5 });
}

test("no two jobs of all sets would be taken for the same in a result", () => {
  for (const set of Object.keys(jobSets) as JobSet[]) {
    const measured = jobSets[set].filter(({ prepares }) => prepares === undefined);
    const names = measured.map(({ name, depth }) => `${name}/${depth}`);
    assert.equal(new Set(names).size, names.length, set);
    assert.ok(jobSets[set][0]!.prepares !== undefined, `${set} begins with an empty volume`);
  }
});

test("--only leaves out what is measured, never what it is measured on", () => {
  const names = jobsOf("aging", /random read, aged, 32/).map(({ name }) => name);
  assert.deepEqual(names, ["fill", "overwrite", "age", "4 KiB random read, aged"]);
});

test("sessions have initiators of their own; a volume is prepared once, whoever shares it", () => {
  const urls = ["iscsi://a:1/x/0", "iscsi://b:2/y/0", "iscsi://a:1/x/0"];
  const [fill, read] = jobsOf("standard", /fresh/);
  const ofKind = (all: string[], option: string) => all.filter((one) => one.startsWith(option));
  const reading = argumentsOf(read!, urls);
  assert.equal(new Set(ofKind(reading, "--initiator=")).size, 3);
  assert.deepEqual(ofKind(reading, "--filename="), [
    "--filename=iscsi\\://a\\:1/x/0",
    "--filename=iscsi\\://b\\:2/y/0",
    "--filename=iscsi\\://a\\:1/x/0",
  ]);
  assert.ok(reading.includes("--time_based") && reading.includes("--runtime=5"));
  const filling = argumentsOf(fill!, urls);
  assert.equal(ofKind(filling, "--filename=").length, 2);
  assert.ok(filling.includes(`--io_size=${512 * MiB}`) && !filling.includes("--time_based"));
});

test("a map of so many GiB has one block in each grain, and is met where those are", () => {
  const [made, read] = jobsOf("map", /read, map of 10 GiB, 1$/).slice(1);
  const making = argumentsOf(made!);
  assert.ok(making.includes(`--rw=write:${64 * KiB - 512}`));
  assert.ok(making.includes(`--io_size=${(10 * GiB) / ((64 * KiB) / 512)}`));
  const reading = argumentsOf(read!);
  assert.ok(reading.includes(`--blockalign=${64 * KiB}`) && reading.includes(`--size=${10 * GiB}`));
});

test("a database's write is followed by a flush", () => {
  const [, write] = jobsOf("database", /./);
  assert.ok(argumentsOf(write!).includes("--fsync=1"));
});
