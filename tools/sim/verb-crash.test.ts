import assert from "node:assert/strict";
import { test } from "node:test";
import { type Crash, countSteps, crashAt, crashesOf, type Role } from "./verb-crash.ts";
import { verbNames } from "./verbs.ts";

/** A share of what `npm run crash:verbs` goes through: of each verb some steps, and the tender ones of a few. */

const seed = 1;
/** Those of one change of the cluster state, */
const changes = [
  "initiator add",
  "volume allow",
  "volume deny",
  "volume allow --no-auth",
  "initiator remove",
  "discovery chap set",
  "rebalance",
];
/** those that have a test of their own below, */
const tender = [
  "token",
  "volume delete",
  "volume delete, of an encrypted one",
  "volume create --encrypt",
  "brick drain, and remove",
  "brick remove",
  "brick --join",
  "brick --join --spare",
];
/** and the others. */
const others = verbNames.filter((name) => !changes.includes(name) && !tender.includes(name));

async function cut(name: string, choose: (crashes: Crash[]) => Crash[]): Promise<void> {
  const crashes = choose(crashesOf(await countSteps(name, seed), 1));
  assert.ok(crashes.length > 0, name);
  for (const crash of crashes) {
    const found = await crashAt(name, seed, crash);
    assert.equal(found, null, `${name}, ${crash.role} at step ${crash.step}`);
  }
}

/** So many, from the first step of the first victim to the last ones of all together. */
const some = (count: number) => (crashes: Crash[]) => {
  const stride = Math.ceil(crashes.length / count);
  return crashes.filter((_, at) => at % stride === Math.floor(stride / 2));
};

const of = (role: Role, stride: number, stepMax: number) => (crashes: Crash[]) =>
  crashes.filter((one) => one.role === role && one.step <= stepMax && one.step % stride === 0);

test("a change that its operator was told of is made, whatever loses power then", async () => {
  await cut("token", of("all", 2, 100));
});

test("a change of one step is made or not", async () => {
  for (const name of changes) await cut(name, some(1));
});

test("a volume that is being deleted is there, or gone to the last trace", async () => {
  await cut("volume delete", of("asked", 4, 100));
  await cut("volume delete, of an encrypted one", some(2));
});

test("a key that was made for a volume is that volume's, or gone", async () => {
  await cut("volume create --encrypt", of("asked", 8, 100));
});

test("a brick is removed once its copies are elsewhere, whatever is cut meanwhile", async () => {
  await cut("brick drain, and remove", some(3));
  await cut("brick remove", some(2));
});

test("a brick that joins has one number, also when it was not told of it", async () => {
  await cut("brick --join", of("asked", 3, 24));
  await cut("brick --join --spare", some(2));
});

test("every other verb comes to its end, or never began", async () => {
  for (const name of others) await cut(name, some(2));
});
