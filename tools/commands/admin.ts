import type { Command } from "commander";
import type { AdminReply } from "../../control/api.ts";
import { ApiClient } from "../../control/api-client-io.ts";
import { CommandError, exitOfFault } from "../exit-codes.ts";
import { type ClusterOptions, dataFolderDefault, findCluster } from "../find-cluster-io.ts";

/** What the commands that ask a running cluster have in common. */

export interface AdminOptions extends ClusterOptions {
  json?: boolean;
}

export function withClusterOptions(command: Command): Command {
  return command
    .option("--api <HOST:PORT,...>", "api port of a brick, or several (default: ENDISK_API)")
    .option(
      "--data <DIR>",
      `data directory of a brick or of \`endisk up\` (default: ${dataFolderDefault})`,
    )
    .option("--json", "print the answer as JSON");
}

/** Asks the cluster; a fault ends the command with its exit code. */
export async function ask<T>(
  options: AdminOptions,
  call: (client: ApiClient) => Promise<AdminReply<T>>,
): Promise<T> {
  const client = new ApiClient({ ...findCluster(options), wallMs: () => Date.now() });
  const reply = await call(client);
  if (!reply.ok) throw new CommandError(exitOfFault(reply.fault), reply.fault.message);
  return reply.value;
}

export function print(options: AdminOptions, value: unknown, text: () => string): void {
  const shown = options.json ? JSON.stringify(value, null, 2) : text();
  process.stdout.write(`${shown}\n`);
}
