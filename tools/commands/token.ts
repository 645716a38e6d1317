import type { Command } from "commander";
import { z } from "zod";
import { parseOption, UsageError } from "../options.ts";
import { type AdminOptions, ask, print, withClusterOptions } from "./admin.ts";

const minutesSchema = z
  .string()
  .regex(/^\d{1,5}$/, "is not a number of minutes")
  .transform(Number);

export function addToken(endisk: Command): void {
  withClusterOptions(
    endisk.command("token").description("Print a one-time token with which one brick may join"),
  )
    .option("--minutes <N>", "how long it may be used", "60")
    .action(async (options: AdminOptions & { minutes: string }) => {
      const minutes = parseOption("--minutes", options.minutes, minutesSchema);
      if (minutes < 1 || minutes > 7 * 24 * 60) {
        throw new UsageError(`--minutes ${minutes} must be from 1 to ${7 * 24 * 60}`);
      }
      const value = await ask(options, (client) => client.token(minutes * 60_000));
      print(options, value, () => value.token);
    });
}
