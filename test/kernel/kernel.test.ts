import assert from "node:assert/strict";
import { after, before, describe, type TestContext, test } from "node:test";
import { RealCluster, targetOf } from "../../tools/real-cluster-io.ts";
import { buildGuest, type Guest, type GuestRun, runGuest } from "./guest-io.ts";

/** Linux's own initiator, in a guest, against the portals of real clusters. */

const targets = targetOf("");
/** On a machine that has nothing else to do, each boot takes about a minute. */
const lastsMsMax = 240_000;

before(() => buildGuest());

function assertDone(context: TestContext, run: GuestRun): void {
  for (const step of run.steps) context.diagnostic(step);
  assert.ok(run.done, run.console);
}

function guestOf(cluster: RealCluster, scenarios: readonly string[]): Guest {
  const portals = [1, 2, 3].map((number) => cluster.portal(number));
  return { scenarios, portals, targets, lastsMsMax };
}

describe("a cluster whose bricks are started again when they die", () => {
  const cluster = new RealCluster({ volumes: ["disk0:128GiB", "disk1:16GiB"] });
  before(() => cluster.start());
  after(() => cluster.dispose());

  test("ext4 and XFS on the kernel's iSCSI disk, through three portals", async (context) => {
    assertDone(context, await runGuest(guestOf(cluster, ["portals"])));
  });

  test("a file system in use while the brick of its portal dies", async (context) => {
    const killed: number[] = [];
    const run = await runGuest({
      ...guestOf(cluster, ["brick-death"]),
      asked: ([verb, number]) => {
        assert.equal(verb, "kill");
        killed.push(Number(number));
        cluster.kill(Number(number));
      },
    });
    assertDone(context, run);
    assert.deepEqual(killed, [2]);
  });
});

describe("a cluster whose bricks stay dead until they are started", () => {
  const cluster = new RealCluster({ restart: false, volumes: ["disk0:16GiB"] });
  before(() => cluster.start());
  after(() => cluster.dispose());

  test("dm-multipath goes on through the other portal", async (context) => {
    const done: string[] = [];
    const run = await runGuest({
      ...guestOf(cluster, ["multipath"]),
      asked: ([verb, number]) => {
        done.push(verb!);
        if (verb === "kill") cluster.kill(Number(number));
        else cluster.startAgain(Number(number));
      },
    });
    assertDone(context, run);
    assert.deepEqual(done, ["kill", "start"]);
  });
});
