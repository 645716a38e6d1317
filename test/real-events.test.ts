import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import type { EventSummary, ProblemSummary } from "../control/api.ts";
import { RealCluster } from "../tools/real-cluster-io.ts";
import { runTool } from "../tools/run-tool-io.ts";

/** What an operator is told when a brick dies and returns. */

const endiskPath = fileURLToPath(new URL("../tools/bin/endisk", import.meta.url));
const cluster = new RealCluster({ bricks: 3, restart: false, capacity: "512MiB" });
const waitMsMax = 60_000;

before(() => cluster.start());
after(() => cluster.dispose());

async function problem(code: string): Promise<ProblemSummary | undefined> {
  return (await cluster.status()).problems.find((one) => one.code === code);
}

async function events(since = 0): Promise<EventSummary[]> {
  return JSON.parse(await cluster.endisk("events", "--since", String(since), "--json"));
}

/** `endisk events --follow --json`, which goes on until it is killed. */
function follow(since: number): { process: ChildProcess; kinds: () => string[] } {
  const args = ["events", "--follow", "--json", "--since", String(since), "--data", cluster.data];
  const process = spawn(endiskPath, args, { stdio: ["ignore", "pipe", "inherit"] });
  let output = "";
  process.stdout.on("data", (bytes: Buffer) => {
    output += bytes.toString("utf8");
  });
  const whole = () => output.split("\n").slice(0, -1);
  return { process, kinds: () => whole().map((line) => JSON.parse(line).kind) };
}

function check() {
  return runTool(endiskPath, ["status", "--check", "--data", cluster.data]);
}

async function waitUntilHealthy(): Promise<void> {
  await cluster.waitFor("status OK", waitMsMax, async () => (await check()).code === 0);
}

test("a brick is killed: status names it, and all is well again once it is back", async () => {
  await waitUntilHealthy();
  assert.match((await check()).output, /^health {2}OK$/m);
  const started = await events();
  assert.equal(started[0]?.kind, "leader_elected");
  assert.ok(started.some(({ kind, subject }) => kind === "brick_joined" && subject === "brick 3"));
  assert.ok(started.some(({ kind }) => kind === "volume_created"));
  const last = started.at(-1)!.sequence;

  const followed = follow(last);
  const killedMs = Date.now();
  cluster.kill(3);
  await cluster.waitFor("status tells of brick 3", waitMsMax, async () => {
    return (await problem("brick_down")) !== undefined;
  });
  const down = (await problem("brick_down"))!;
  assert.equal(down.subject, "brick 3");
  assert.ok(down.sinceMs >= killedMs && down.sinceMs <= Date.now(), `since ${down.sinceMs}`);
  const { code, output } = await check();
  assert.equal(code, 8, output);
  assert.match(output, /^health {2}\d+ problem/m);
  assert.match(output, /warning: brick 3 is down, since \d{4}-.*Z \(for \d+ s\)/);
  assert.match(output, /END: .*nothing is copied yet/);
  assert.match(output, /you: start it again/);

  cluster.startAgain(3);
  try {
    await cluster.waitFor("the follower tells of the return", waitMsMax, async () =>
      followed.kinds().includes("brick_returned"),
    );
    assert.ok(followed.kinds().includes("brick_down"));
  } finally {
    followed.process.kill();
  }
  await waitUntilHealthy();
  const kinds = (await events(last)).filter(({ subject }) => subject === "brick 3");
  assert.deepEqual(
    kinds.map(({ kind }) => kind).filter((kind) => kind !== "voter_changed"),
    ["brick_down", "brick_returned"],
  );
  const text = await cluster.endisk("events", "--since", String(last));
  assert.match(text, /warning {3}brick 3 is down/);
  assert.match(text, /info {6}brick 3 is back, \d+ (s|min) after it went down/);
});
