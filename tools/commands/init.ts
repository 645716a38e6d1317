import type { Command } from "commander";
import { establishIdentity, readIdentity } from "../brick-identity-io.ts";
import { takePidFile } from "../pid-file-io.ts";
import { requireRoom, withStartRoom } from "../start-room-io.ts";
import { type BrickCommandOptions, brickOptions, pidFileIn, withBrickOptions } from "./brick.ts";

export function addInit(endisk: Command): void {
  withBrickOptions(
    endisk
      .command("init")
      .description("Make a new cluster's first brick; `endisk brick --data DIR` then runs it"),
  )
    .option("--json", "print the brick's identity as JSON")
    .action(async (given: BrickCommandOptions & { json?: boolean }) => {
      const options = { ...brickOptions(given), init: true };
      const { dataFolder, log } = options;
      if (readIdentity(dataFolder) === null) requireRoom(dataFolder, 1);
      const pidPath = pidFileIn(dataFolder);
      const pidFile = await withStartRoom(dataFolder, log, () => takePidFile(pidPath));
      try {
        const establish = () => establishIdentity(options);
        const { identity } = await withStartRoom(dataFolder, log, establish);
        const text = `cluster ${identity.clusterId} begins with brick 1 in ${dataFolder}`;
        process.stdout.write(`${given.json ? JSON.stringify(identity, null, 2) : text}\n`);
      } finally {
        pidFile.release();
      }
    });
}
