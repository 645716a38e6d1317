import { join } from "node:path";
import type { Command } from "commander";
import type { BrickDetail } from "../../control/api.ts";
import { readIdentity } from "../brick-identity-io.ts";
import type { BrickOptions, RunningBrick } from "../brick-options.ts";
import { saveCompiledCode } from "../compiled-code-io.ts";
import { beginWithin } from "../memory-exec-io.ts";
import {
  addressSchema,
  brickNumberSchema,
  capacitySchema,
  domainSchema,
  memorySchema,
  parseOption,
  parseOptional,
  sizeText,
  UsageError,
} from "../options.ts";
import { takePidFile } from "../pid-file-io.ts";
import { requireRoom, withStartRoom } from "../start-room-io.ts";
import { type AdminOptions, ask, print, withClusterOptions } from "./admin.ts";
import { bricksText } from "./status.ts";

/** What may be said about a brick on the command line. */
export interface BrickCommandOptions {
  data?: string;
  listen?: string;
  portal?: string;
  api?: string;
  capacity?: string;
  memory?: string;
  domain?: string;
  masterKeyFile?: string;
  join?: string;
  tokenFile?: string;
  spare?: boolean;
  supervised?: boolean;
}

export function withBrickOptions(command: Command): Command {
  return command
    .option("--data <DIR>", "where the brick keeps everything (needed)")
    .option("--listen <HOST:PORT>", "where the other bricks reach it")
    .option("--portal <HOST:PORT>", "where initiators log in")
    .option("--api <HOST:PORT>", "administration, /metrics and /health")
    .option("--capacity <SIZE>", "space it offers (default: 80% of what is free)")
    .option("--memory <SIZE>", "what its process may take, at each start (default: not bounded)")
    .option(
      "--master-key-file <FILE>",
      "32 bytes (or 64 hex digits) that seal its keys of encrypted volumes (default: its own)",
    )
    .option("--domain <NAME>", "failure domain: two copies never share one while it can be helped");
}

export function brickOptions(given: BrickCommandOptions): BrickOptions {
  if (given.data === undefined) throw new UsageError("--data DIR is missing");
  if ((given.join === undefined) !== (given.tokenFile === undefined)) {
    throw new UsageError("--join HOST:PORT and --token-file FILE belong together");
  }
  const spare = given.spare === true;
  if (spare && given.join === undefined) {
    throw new UsageError("--spare belongs to --join: only a new brick can be one");
  }
  const address = parseOptional("--join", given.join, addressSchema);
  return {
    dataFolder: given.data,
    listen: parseOptional("--listen", given.listen, addressSchema),
    portal: parseOptional("--portal", given.portal, addressSchema),
    api: parseOptional("--api", given.api, addressSchema),
    capacityBytes: parseOptional("--capacity", given.capacity, capacitySchema),
    memoryBytes: parseOptional("--memory", given.memory, memorySchema),
    domain: parseOptional("--domain", given.domain, domainSchema),
    join: address === null ? null : { address, tokenFile: given.tokenFile!, spare },
    init: false,
    masterKeyFile: given.masterKeyFile ?? null,
    log: (line) => process.stderr.write(`${line}\n`),
  };
}

export function pidFileIn(folder: string): string {
  return join(folder, "brick.pid");
}

export function addBrick(endisk: Command): void {
  const brick = withBrickOptions(
    endisk
      .command("brick")
      .description("Run one brick, or look after the bricks of a cluster")
      .usage("--data DIR [options]\n       endisk brick list|show|use|drain|remove ...")
      .enablePositionalOptions(),
  )
    .option("--join <HOST:PORT>", "api port of a brick of the cluster to join")
    .option("--token-file <FILE>", "file with the token that `endisk token` printed")
    .option("--spare", "take no data until another brick is lost, and then its place")
    .option("--supervised", "stop when standard input ends, and leave Ctrl-C to the parent")
    .action(async (given: BrickCommandOptions) => {
      await runBrick(brickOptions(given), given.supervised === true);
    });

  withClusterOptions(brick.command("list").description("List the bricks")).action(
    async (options: AdminOptions) => {
      const value = await ask(options, (client) => client.brickList());
      print(options, value.bricks, () => bricksText(value.bricks));
    },
  );
  withClusterOptions(brick.command("show <NUMBER>").description("Show one brick")).action(
    async (given: string, options: AdminOptions) => {
      const number = parseOption("NUMBER", given, brickNumberSchema);
      const value = await ask(options, (client) => client.brickShow(number));
      print(options, value, () => detailText(value));
    },
  );
  withClusterOptions(
    brick.command("drain <NUMBER>").description("Move everything off a brick, to remove it after"),
  ).action(async (given: string, options: AdminOptions) => {
    const number = parseOption("NUMBER", given, brickNumberSchema);
    const value = await ask(options, (client) => client.brickDrain(number));
    print(options, value, () => bricksText([value]));
  });
  withClusterOptions(
    brick.command("use <NUMBER>").description("Let a spare brick take data, though none was lost"),
  ).action(async (given: string, options: AdminOptions) => {
    const number = parseOption("NUMBER", given, brickNumberSchema);
    const value = await ask(options, (client) => client.brickUse(number));
    print(options, value, () => bricksText([value]));
  });
  withClusterOptions(
    brick
      .command("remove <NUMBER>")
      .description("Remove a brick that is drained, or lost for good"),
  )
    .option("--lost", "it is gone and will not come back: restore its copies from the others")
    .action(async (given: string, options: AdminOptions & { lost?: boolean }) => {
      const number = parseOption("NUMBER", given, brickNumberSchema);
      const lost = options.lost === true;
      const value = await ask(options, (client) => client.brickRemove(number, lost));
      print(options, value, () => bricksText([value]));
    });
}

function detailText(detail: BrickDetail): string {
  const led = `leads ${detail.shardsLed} shards`;
  return [
    bricksText([detail.brick]),
    "",
    `boot    ${detail.brick.boot}`,
    `peers   ${detail.brick.peerAddress}`,
    `map     ${led}, member of ${detail.shardsMember}, candidate in ${detail.shardsCandidate}`,
    `chunks  ${detail.chunkCount} stored, ${sizeText(detail.chunkBytes)}`,
    `dedup   ${detail.dedupHits} met their like, ${sizeText(detail.dedupBytes)} not stored again`,
  ].join("\n");
}

/** Runs a brick until it is told to stop. */
async function runBrick(options: BrickOptions, supervised: boolean): Promise<void> {
  if (options.memoryBytes !== null) beginWithin(options.memoryBytes);
  const { dataFolder, log } = options;
  if (readIdentity(dataFolder) === null) requireRoom(dataFolder, 1);
  const pidFile = await withStartRoom(dataFolder, log, () => takePidFile(pidFileIn(dataFolder)));
  try {
    const stopAsked = stopRequest(supervised);
    const { startBrick } = await import("../brick-process.ts");
    const started = await Promise.race([startBrick(options), stopAsked.then(() => null)]);
    if (started !== null) {
      const brick: RunningBrick = started;
      saveCompiledCode();
      const why = await stopAsked;
      options.log(`brick ${brick.number} stops: ${why}`);
      await brick.stop();
    }
  } finally {
    pidFile.release();
  }
  // Whatever is still open (a connection that lingers, a start cut short) must not keep a stopped
  // brick alive; a start may be cut at any moment, as by a crash.
  process.exit(0);
}

/** Resolves when someone wants the brick to end. */
function stopRequest(supervised: boolean): Promise<string> {
  return new Promise((resolve) => {
    process.on("SIGTERM", () => resolve("SIGTERM"));
    process.on("SIGINT", () => {
      if (!supervised) resolve("SIGINT");
    });
    if (supervised) {
      process.stdin.resume();
      process.stdin.on("end", () => resolve("its supervisor is gone"));
      process.stdin.on("error", () => resolve("its supervisor is gone"));
    }
  });
}
