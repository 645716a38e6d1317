import type { Command } from "commander";
import { rebalanceModes } from "../../brick/cluster-state.ts";
import { UsageError } from "../options.ts";
import { type AdminOptions, ask, print, withClusterOptions } from "./admin.ts";

export function addRebalance(endisk: Command): void {
  withClusterOptions(
    endisk
      .command("rebalance <MODE>")
      .description("When data moves to a brick that was added: off, idle (the default) or on"),
  ).action(async (given: string, options: AdminOptions) => {
    const mode = rebalanceModes.find((one) => one === given);
    if (mode === undefined) throw new UsageError(`MODE is ${rebalanceModes.join(", ")}`);
    await ask(options, (client) => client.rebalance(mode));
    print(options, { mode }, () => `rebalancing is ${mode}`);
  });
}
