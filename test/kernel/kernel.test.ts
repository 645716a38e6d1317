import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, type TestContext, test } from "node:test";
import { writePrivateFile } from "../../control/api-secret-io.ts";
import { RealCluster, targetOf } from "../../tools/real-cluster-io.ts";
import { buildGuest, type Guest, type GuestRun, runGuest } from "./guest-io.ts";

/** Linux's own initiator, in a guest, against the portals of real clusters. */

const targets = targetOf("");
/** On a machine that has nothing else to do, each boot takes about a minute. */
const lastsMsMax = 400_000;

before(() => buildGuest());

function assertDone(context: TestContext, run: GuestRun): void {
  for (const step of run.steps) context.diagnostic(step);
  assert.ok(run.done, run.console);
}

function guestOf(cluster: RealCluster, scenarios: readonly string[]): Guest {
  const portals = [1, 2, 3].map((number) => cluster.portal(number));
  return { scenarios, portals, targets, lastsMsMax };
}

/** One initiator may use the volume "locked", by CHAP; what the guest must know for it. */
async function lockVolume(cluster: RealCluster): Promise<Record<string, string>> {
  const known = "iqn.2026-11.endisk.test:known";
  const settings = { secret: "guest-secret-000", "target-secret": "disks-secret-000" };
  const files = Object.entries(settings).map(([name, secret]) => {
    const file = join(cluster.folder, name);
    writePrivateFile(file, secret);
    return file;
  });
  const account = ["--chap-user", "guest", "--secret-file", files[0]!, "--weakest", "md5"];
  const mutual = ["--mutual-user", "disks", "--mutual-secret-file", files[1]!];
  await cluster.endisk("initiator", "add", known, ...account, ...mutual);
  await cluster.endisk("volume", "allow", "locked", known);
  return settings;
}

describe("a cluster whose bricks are started again when they die", () => {
  const cluster = new RealCluster({ volumes: ["disk0:128GiB", "disk1:16GiB", "locked:1GiB"] });
  before(() => cluster.start());
  after(() => cluster.dispose());

  test("ext4 and XFS through three portals, and a disk behind CHAP", async (context) => {
    const settings = await lockVolume(cluster);
    // In this order: refused log-ins are trouble in the kernel's log.
    const guest = guestOf(cluster, ["portals", "access"]);
    assertDone(context, await runGuest({ ...guest, settings }));
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
