import { join } from "node:path";
import { LoopDisk } from "./loop-disk-io.ts";
import { type Scenario, type Setting, unharmed } from "./scenarios.ts";
import type { Stage, StageOptions } from "./stage-io.ts";

/** File systems that are full, or turn read-only, under a brick that does not serve the volume. */

const victim = 3;
const diskBytes = 700 * 1024 * 1024;

type DiskRound = (stage: Stage, disk: LoopDisk) => Promise<void>;

/** Brick 3 lies on a file system of its own, smaller than what the brick offers. */
function onItsOwnDisk(act: DiskRound, options: Partial<StageOptions> = {}): Scenario["begin"] {
  return async (): Promise<Setting> => {
    let disk: LoopDisk | null = null;
    return {
      options: { bricks: 3, copies: 2, ...options },
      prepare: async ({ cluster }) => {
        const image = join(cluster.folder, "disk.img");
        disk = await LoopDisk.make(image, cluster.brickFolder(victim), diskBytes);
      },
      round: async (stage) => {
        const gateway = await stage.gateway();
        return stage.round([gateway === victim ? 1 : gateway], () => act(stage, disk!));
      },
      end: async () => disk?.dispose(),
    };
  };
}

export const diskScenarios: readonly Scenario[] = [
  {
    name: "filesystem-full",
    about: "someone else fills the file system of a brick that has offered more; then makes room",
    rounds: 3,
    promised: unharmed,
    begin: onItsOwnDisk(async (stage, disk) => {
      await stage.aboutToFail();
      await disk.fill();
      await stage.progress(6_000);
      await disk.makeRoom();
      // It may have stopped; whoever made room starts it again.
      if (!stage.cluster.isRunning(victim)) await stage.startAgain(victim);
    }),
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
