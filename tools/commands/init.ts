import type { Command } from "commander";
import { establishIdentity } from "../brick-identity-io.ts";
import { takePidFile } from "../pid-file-io.ts";
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
      const pidFile = takePidFile(pidFileIn(options.dataFolder));
      try {
        const { identity } = await establishIdentity(options);
        const text = `cluster ${identity.clusterId} begins with brick 1 in ${options.dataFolder}`;
        process.stdout.write(`${given.json ? JSON.stringify(identity, null, 2) : text}\n`);
      } finally {
        pidFile.release();
      }
    });
}
