import { Command, CommanderError } from "commander";
import { SecretFileError } from "../control/api-secret-io.ts";
import { BrickStartError } from "./brick-options.ts";
import { buildVersion } from "./build-version.ts";
import { addBrick } from "./commands/brick.ts";
import { addEvents } from "./commands/events.ts";
import { addInit } from "./commands/init.ts";
import { addDiscovery, addInitiator } from "./commands/initiator.ts";
import { addRebalance } from "./commands/rebalance.ts";
import { addStatus } from "./commands/status.ts";
import { addToken } from "./commands/token.ts";
import { addUp } from "./commands/up.ts";
import { addVolume } from "./commands/volume.ts";
import { CommandError, exitCode, exitCodeHelp } from "./exit-codes.ts";
import { UsageError } from "./options.ts";

/** The one executable: reads the command line and runs one command. */
function program(): Command {
  const endisk = new Command("endisk")
    .description("END, the Expandable Network Disk: replicated thin disks over iSCSI")
    .version(buildVersion)
    .enablePositionalOptions()
    .exitOverride()
    .addHelpText("after", exitCodeHelp);
  addUp(endisk);
  addInit(endisk);
  addBrick(endisk);
  addToken(endisk);
  addStatus(endisk);
  addRebalance(endisk);
  addEvents(endisk);
  addVolume(endisk);
  addInitiator(endisk);
  addDiscovery(endisk);
  for (const command of endisk.commands) overrideExit(command);
  return endisk;
}

function overrideExit(command: Command): void {
  command.exitOverride();
  for (const child of command.commands) overrideExit(child);
}

/** The exit code for what ended a command; prints the reason once, for people. */
function report(error: unknown): number {
  // Commander has printed the reason (or the help that was asked for).
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : exitCode.usage;
  if (error instanceof UsageError) return say(error.message, exitCode.usage);
  if (error instanceof CommandError) return say(error.message, error.exit);
  if (error instanceof SecretFileError) return say(error.message, exitCode.refused);
  if (error instanceof BrickStartError) return say(error.message, exitOfStart(error));
  if (isAddressInUse(error)) return say(error.message, exitCode.inUse);
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return say(text, exitCode.failed);
}

function isAddressInUse(error: unknown): error is Error {
  return error instanceof Error && "code" in error && error.code === "EADDRINUSE";
}

function say(message: string, exit: number): number {
  process.stderr.write(`endisk: ${message}\n`);
  return exit;
}

function exitOfStart(error: BrickStartError): number {
  switch (error.code) {
    case "invalid":
      return exitCode.usage;
    case "in_use":
      return exitCode.inUse;
    case "unavailable":
      return exitCode.unavailable;
    case "refused":
      return exitCode.refused;
    case "no_room":
      return exitCode.conflict;
  }
}

try {
  await program().parseAsync(process.argv);
} catch (error) {
  // A command that failed is over, whatever it still has open.
  process.exit(report(error));
}
