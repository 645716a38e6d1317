import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { exitCode } from "../exit-codes.ts";
import { LoopDisk } from "./loop-disk-io.ts";
import { type Scenario, type Setting, unharmed } from "./scenarios.ts";
import type { Stage } from "./stage-io.ts";

/** File systems that are full, or turn read-only, under a brick that does not serve the volume. */

const victim = 3;
/** Joins the three that there are. */
const newcomer = 4;
/** All that a new brick without room says. */
const noRoomPattern = /^endisk: cannot make a new brick in \S+: [^\n]+ needs 104MiB;[^\n]+\n$/;
const diskBytes = 700 * 1024 * 1024;
/** By then a brick has made its first checkpoints, and what it keeps for a start. */
const keptRoomMs = 10_000;
const settleMs = 3_000;
/** Until a brick says that its file system has become full, or has room again. */
const noticeMsMax = 20_000;

type DiskRound = (stage: Stage, disk: LoopDisk) => Promise<void>;

/** Brick 3, or another, lies on a file system of its own, smaller than what the brick offers. */
function onItsOwnDisk(act: DiskRound, { owner } = { owner: victim }): Scenario["begin"] {
  return async (): Promise<Setting> => {
    let disk: LoopDisk | null = null;
    return {
      options: { bricks: 3, copies: 2 },
      prepare: async ({ cluster }) => {
        const image = join(cluster.folder, "disk.img");
        disk = await LoopDisk.make(image, cluster.brickFolder(owner), diskBytes);
      },
      round: async (stage) => {
        const gateway = await stage.gateway();
        return stage.round([gateway === victim ? 1 : gateway], () => act(stage, disk!));
      },
      end: async () => disk?.dispose(),
    };
  };
}

async function isFull(cluster: Stage["cluster"]): Promise<boolean> {
  return (await cluster.metric(victim, "endisk_full")) === 1;
}

function saysItIsFull(cluster: Stage["cluster"]): Promise<void> {
  return cluster.waitFor("the brick says that it is full", noticeMsMax, () => isFull(cluster));
}

/** Room has been made: the brick takes it, and is the process that it was. */
async function goesOnWithRoom(stage: Stage, pid: number): Promise<void> {
  const { cluster } = stage;
  await cluster.waitFor("room again", noticeMsMax, async () => !(await isFull(cluster)));
  await stage.progress(3_000);
  if (cluster.pid(victim) !== pid || !cluster.isRunning(victim)) {
    throw new Error("the brick has stopped");
  }
}

export const diskScenarios: readonly Scenario[] = [
  {
    name: "filesystem-full",
    about: "someone else fills the file system of a brick that has offered more; then makes room",
    rounds: 3,
    promised: unharmed,
    begin: onItsOwnDisk(async (stage, disk) => {
      const { cluster } = stage;
      const pid = cluster.pid(victim);
      await stage.aboutToFail();
      await disk.fill();
      await saysItIsFull(cluster);
      await stage.progress(6_000);
      const { problems } = await cluster.status();
      const told = problems.some(({ what }) => what.includes(`the file system of brick ${victim}`));
      if (!told) throw new Error(`nobody says so: ${JSON.stringify(problems)}`);
      await stage.rejoin([victim], () => disk.makeRoom());
      await goesOnWithRoom(stage, pid);
    }),
  },
  {
    name: "filesystem-full-start",
    about: "a brick is killed and started, twice, in a file system that someone else keeps full",
    rounds: 3,
    promised: unharmed,
    begin: onItsOwnDisk(async (stage, disk) => {
      const { cluster } = stage;
      await sleep(keptRoomMs);
      await stage.aboutToFail();
      await disk.fill();
      await saysItIsFull(cluster);
      for (const _start of ["first", "second"]) {
        await stage.progress();
        await stage.kill(victim);
        await disk.fill();
        await stage.startAgain(victim);
        await saysItIsFull(cluster);
        // What it gave up for this start it has taken back by now.
        await sleep(settleMs);
      }
      const pid = cluster.pid(victim);
      await stage.progress();
      disk.makeRoom();
      await goesOnWithRoom(stage, pid);
    }),
  },
  {
    name: "filesystem-full-new",
    about: "a new brick is started in a file system that someone else keeps full, then with room",
    rounds: 1,
    once: true,
    promised: unharmed,
    begin: onItsOwnDisk(
      async (stage, disk) => {
        const { cluster } = stage;
        await stage.aboutToFail();
        await disk.fill();
        for (const _try of ["first", "second"]) {
          const { code, output } = await cluster.startInVain(newcomer);
          if (code === exitCode.conflict && noRoomPattern.test(output)) continue;
          throw new Error(`it ended with exit code ${code}: ${output}`);
        }
        await stage.progress();
        disk.makeRoom();
        await stage.addBrick(newcomer);
        await stage.progress();
      },
      { owner: newcomer },
    ),
  },
  {
    name: "filesystem-read-only",
    about:
      "the file system of a brick turns read-only, as after an error; it is checked and mounted",
    rounds: 3,
    promised: unharmed,
    begin: onItsOwnDisk(async (stage, disk) => {
      await stage.aboutToFail();
      await disk.turnReadOnly();
      await stage.progress(2_000);
      // A brick that can write nothing stops by itself.
      await stage.cluster.waitGone(victim);
      await disk.mend();
      await stage.startAgain(victim);
    }),
  },
];
