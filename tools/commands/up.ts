import { existsSync, mkdirSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Command } from "commander";
import { isLoopback } from "../../control/access.ts";
import type { AdminReply, ClusterStatus } from "../../control/api.ts";
import { ApiClient } from "../../control/api-client-io.ts";
import { readSecret, writePrivateFile } from "../../control/api-secret-io.ts";
import { votersWanted } from "../../control/voters.ts";
import { establishIdentity, offeredBytes, readIdentity } from "../brick-identity-io.ts";
import type { BrickOptions } from "../brick-options.ts";
import { CommandError, exitCode, exitOfFault } from "../exit-codes.ts";
import { brickNumbersUnder, dataFolderDefault } from "../find-cluster-io.ts";
import {
  brickCountSchema,
  capacitySchema,
  type Endpoint,
  endpointAfter,
  endpointSchema,
  endpointText,
  memorySchema,
  parseOption,
  parseOptional,
  sizeText,
  UsageError,
  volumeSpecSchema,
} from "../options.ts";
import { pidFileHolder, takePidFile } from "../pid-file-io.ts";
import { requireRoom, withStartRoom } from "../start-room-io.ts";
import { Supervisor } from "../supervisor-io.ts";
import { pidFileIn } from "./brick.ts";

const bricksDefault = 3;
/** Peer ports follow the api ports at this distance when --listen is not given. */
const listenPortDistance = 20;
/** A brick that is not ready by then does not keep the others from being announced. */
const readyWaitMsMax = 60_000;
const bricksGoneMsMax = 30_000;
const joinWaitMsMax = 60_000;
/** How long a cluster whose bricks all serve is given to be able to lose one of them. */
const wholeWaitMsMax = 20_000;

interface UpCommandOptions {
  data: string;
  bricks?: string;
  portal: string;
  api: string;
  listen?: string;
  capacity?: string;
  memory?: string;
  volume?: string[];
  encrypt?: boolean;
  masterKeyFile?: string;
  restart: boolean;
}

interface UpPlan {
  folder: string;
  brickCount: number;
  portal: Endpoint;
  api: Endpoint;
  listen: Endpoint;
  capacityBytes: number | null;
  memoryBytes: number | null;
  volumes: { name: string; sizeBytes: number }[];
  /** The volumes that are created are encrypted. */
  encrypt: boolean;
  /** For every brick; null: each has one of its own. */
  masterKeyFile: string | null;
  restart: boolean;
}

export function addUp(endisk: Command): void {
  endisk
    .command("up")
    .description("Run a whole cluster on this machine, in the foreground")
    .option(
      "--data <DIR>",
      "data directory; brick k keeps its data in DIR/brick-k",
      dataFolderDefault,
    )
    .option("--bricks <N>", `number of bricks (default: ${bricksDefault}, or as many as DIR has)`)
    .option("--portal <HOST:PORT>", "where initiators log in; brick k: +k-1", "127.0.0.1:3260")
    .option("--api <HOST:PORT>", "administration and metrics; brick k: +k-1", "127.0.0.1:3280")
    .option(
      "--listen <HOST:PORT>",
      `between bricks; brick k: +k-1 (default: api + ${listenPortDistance})`,
    )
    .option("--volume <NAME:SIZE...>", "volumes to create if absent (default: disk0:1TiB)")
    .option(
      "--capacity <SIZE>",
      "space each new brick offers (default: 80% of what is free, shared)",
    )
    .option("--memory <SIZE>", "what each brick's process may take (default: not bounded)")
    .option("--encrypt", "encrypt the volumes that it creates")
    .option(
      "--master-key-file <FILE>",
      "what each brick seals its keys with (default: a file that it makes in its own directory)",
    )
    .option("--no-restart", "do not start a brick again that died")
    .addHelpText(
      "after",
      "\nA line that begins with `endisk ready` is printed once initiators can log in.",
    )
    .action(async (given: UpCommandOptions) => {
      await up(upPlan(given));
    });
}

function upPlan(given: UpCommandOptions): UpPlan {
  const count = parseOptional("--bricks", given.bricks, brickCountSchema);
  const there = brickNumbersUnder(given.data);
  const brickCount = count ?? Math.max(bricksDefault, there.at(-1) ?? 0);
  const portal = parseOption("--portal", given.portal, endpointSchema);
  const api = parseOption("--api", given.api, endpointSchema);
  const listen =
    parseOptional("--listen", given.listen, endpointSchema) ??
    listenBeside(api, portal, brickCount);
  checkPorts(brickCount, { "--portal": portal, "--api": api, "--listen": listen });
  const specs = given.volume ?? ["disk0:1TiB"];
  return {
    folder: given.data,
    brickCount,
    portal,
    api,
    listen,
    capacityBytes: parseOptional("--capacity", given.capacity, capacitySchema),
    memoryBytes: parseOptional("--memory", given.memory, memorySchema),
    volumes: specs.map((spec) => parseOption("--volume", spec, volumeSpecSchema)),
    encrypt: given.encrypt === true,
    masterKeyFile: given.masterKeyFile === undefined ? null : resolve(given.masterKeyFile),
    restart: given.restart,
  };
}

/** Ports for the bricks among themselves that meet neither of the other two ranges. */
function listenBeside(api: Endpoint, portal: Endpoint, brickCount: number): Endpoint {
  let listen = endpointAfter(api, listenPortDistance);
  while (overlap(listen, portal, brickCount)) listen = endpointAfter(listen, listenPortDistance);
  if (listen.port + brickCount > 65_535) listen = endpointAfter(api, -2 * listenPortDistance);
  return listen;
}

function overlap(a: Endpoint, b: Endpoint, brickCount: number): boolean {
  return a.host === b.host && Math.abs(a.port - b.port) < brickCount;
}

function checkPorts(brickCount: number, ranges: Record<string, Endpoint>): void {
  const names = Object.keys(ranges);
  for (const name of names) {
    const range = ranges[name]!;
    if (range.port + brickCount - 1 > 65_535) {
      throw new UsageError(`${name} ${endpointText(range)}: ports up to +${brickCount - 1} follow`);
    }
    for (const other of names) {
      if (other <= name || !overlap(range, ranges[other]!, brickCount)) continue;
      const both = `${name} ${endpointText(range)} and ${other} ${endpointText(ranges[other]!)}`;
      throw new UsageError(`${both} overlap: each of ${brickCount} bricks takes the next port`);
    }
  }
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

async function up(plan: UpPlan): Promise<void> {
  const newCount = newBricks(plan).length;
  if (newCount > 0) requireRoom(plan.folder, newCount);
  const pidPath = join(plan.folder, "endisk.pid");
  const lock = await withStartRoom(brickFolder(plan, 1), say, () => takePidFile(pidPath));
  try {
    await bricksGone(plan);
    await checkFree(plan);
  } catch (error) {
    lock.release();
    throw error;
  }
  const supervisor = new Supervisor({ restart: plan.restart, log: say });
  const stopAsked = stopRequest(supervisor);
  try {
    const failed = await Promise.race([run(plan, supervisor), stopAsked]);
    if (typeof failed !== "string") await stopAsked;
    say("endisk stops: waiting for the bricks");
  } finally {
    await supervisor.stop();
    lock.release();
    say("endisk stopped");
  }
  process.exit(exitCode.done);
}

/** Bricks whose supervisor was killed stop by themselves; that may still be under way. */
async function bricksGone(plan: UpPlan): Promise<void> {
  const until = performance.now() + bricksGoneMsMax;
  for (let number = 1; number <= plan.brickCount; number += 1) {
    const folder = brickFolder(plan, number);
    for (let told = false; ; told = true) {
      const pid = pidFileHolder(pidFileIn(folder));
      if (pid === null) break;
      if (performance.now() > until) {
        throw new CommandError(exitCode.inUse, `${folder} is in use by process ${pid}`);
      }
      if (!told) say(`waiting for process ${pid} to leave ${folder}`);
      await sleep(100);
    }
  }
}

/** Every address that the bricks will listen on; said now, by name, rather than by a brick that dies. */
async function checkFree(plan: UpPlan): Promise<void> {
  for (const range of [plan.portal, plan.api, plan.listen]) {
    for (let by = 0; by < plan.brickCount; by += 1) {
      const endpoint = endpointAfter(range, by);
      const server = createServer();
      await new Promise<void>((resolve, reject) => {
        server.on("error", (error: NodeJS.ErrnoException) => {
          const inUse = error.code === "EADDRINUSE";
          const exit = inUse ? exitCode.inUse : exitCode.usage;
          const why = inUse ? "is in use" : `cannot be listened on: ${error.message}`;
          reject(new CommandError(exit, `${endpointText(endpoint)} ${why}`));
        });
        server.listen(endpoint.port, endpoint.host, () => server.close(() => resolve()));
      });
    }
  }
}

/** Resolves at the first SIGINT or SIGTERM; at the second, the bricks are killed. */
function stopRequest(supervisor: Supervisor): Promise<string> {
  return new Promise((done) => {
    let asked = 0;
    for (const signal of ["SIGINT", "SIGTERM"] as const) {
      process.on(signal, () => {
        asked += 1;
        done(signal);
        if (asked > 1) supervisor.kill();
      });
    }
  });
}

async function run(plan: UpPlan, supervisor: Supervisor): Promise<void> {
  const numbers = brickNumbers(plan);
  const fresh = newBricks(plan);
  const capacityBytes = plan.capacityBytes ?? offeredBytes(plan.folder, Math.max(1, fresh.length));
  const first = brickFolder(plan, 1);
  if (fresh.includes(1)) {
    const options: BrickOptions = {
      dataFolder: first,
      listen: endpointText(plan.listen),
      portal: endpointText(plan.portal),
      api: endpointText(plan.api),
      capacityBytes,
      memoryBytes: null,
      domain: null,
      join: null,
      init: true,
      masterKeyFile: plan.masterKeyFile,
      log: say,
    };
    await withStartRoom(first, say, () => establishIdentity(options));
    say(
      `new cluster in ${resolve(plan.folder)}: ${plan.brickCount} bricks of ${sizeText(capacityBytes)}`,
    );
  } else {
    say(`cluster in ${resolve(plan.folder)}: ${plan.brickCount} bricks`);
  }
  const joining = fresh.filter((number) => number !== 1);
  for (const number of numbers) {
    if (joining.includes(number)) continue;
    supervisor.start({ number, args: () => brickArgs(plan, number, null) });
  }
  const client = new ApiClient({
    addresses: numbers.map((number) => apiOf(plan, number)),
    secret: readSecret(first)!,
    wallMs: () => Date.now(),
    deadlineMs: 5_000,
  });
  // One after the other, so that DIR/brick-k gets the number k.
  for (const number of joining) await addBrick(plan, supervisor, client, number, capacityBytes);
  await createVolumes(plan, client);
  const missing = await waitReady(plan, supervisor, numbers);
  if (missing.length === 0) await waitWhole(client);
  announce(plan, numbers, missing);
}

function brickNumbers(plan: UpPlan): number[] {
  return Array.from({ length: plan.brickCount }, (_, index) => index + 1);
}

/** Those that are not made yet. */
function newBricks(plan: UpPlan): number[] {
  return brickNumbers(plan).filter((number) => readIdentity(brickFolder(plan, number)) === null);
}

function brickFolder(plan: UpPlan, number: number): string {
  return join(plan.folder, `brick-${number}`);
}

function apiOf(plan: UpPlan, number: number): string {
  return endpointText(endpointAfter(plan.api, number - 1));
}

function portalOf(plan: UpPlan, number: number): string {
  return endpointText(endpointAfter(plan.portal, number - 1));
}

function tokenFileOf(plan: UpPlan, number: number): string {
  return join(brickFolder(plan, number), "join.token");
}

/** `capacityBytes` is null for a brick that has its identity already. */
function brickArgs(plan: UpPlan, number: number, capacityBytes: number | null): string[] {
  const folder = brickFolder(plan, number);
  const args = ["brick", "--supervised", "--data", folder];
  args.push("--listen", endpointText(endpointAfter(plan.listen, number - 1)));
  args.push("--portal", portalOf(plan, number), "--api", apiOf(plan, number));
  if (plan.memoryBytes !== null) args.push("--memory", `${plan.memoryBytes}B`);
  if (plan.masterKeyFile !== null) args.push("--master-key-file", plan.masterKeyFile);
  if (readIdentity(folder) !== null) return args;
  args.push("--join", apiOf(plan, 1), "--token-file", tokenFileOf(plan, number));
  if (capacityBytes !== null) args.push("--capacity", `${capacityBytes}B`);
  return args;
}

/** Gets a token for a new brick, starts it, and waits until it is a member. */
async function addBrick(
  plan: UpPlan,
  supervisor: Supervisor,
  client: ApiClient,
  number: number,
  capacityBytes: number,
): Promise<void> {
  const tokenFile = tokenFileOf(plan, number);
  const made = await patiently(joinWaitMsMax, () => client.token(joinWaitMsMax * 10));
  await withStartRoom(brickFolder(plan, number), say, () => {
    mkdirSync(brickFolder(plan, number), { recursive: true, mode: 0o700 });
    rmSync(tokenFile, { force: true });
    writePrivateFile(tokenFile, `${made.token}\n`);
  });
  supervisor.start({ number, args: () => brickArgs(plan, number, capacityBytes) });
  const until = performance.now() + joinWaitMsMax;
  while (readIdentity(brickFolder(plan, number)) === null) {
    if (performance.now() > until || !supervisor.isKept(number)) {
      throw new CommandError(exitCode.unavailable, `brick ${number} could not join`);
    }
    await sleep(50);
  }
  rmSync(tokenFile, { force: true });
  say(`brick ${number} joined`);
}

/** Repeats a call while the cluster is not ready for it. */
async function patiently<T>(waitMsMax: number, call: () => Promise<AdminReply<T>>): Promise<T> {
  const until = performance.now() + waitMsMax;
  for (;;) {
    const reply = await call();
    if (reply.ok) return reply.value;
    if (reply.fault.code !== "unavailable" || performance.now() > until) {
      throw new CommandError(exitOfFault(reply.fault), reply.fault.message);
    }
    await sleep(100);
  }
}

async function createVolumes(plan: UpPlan, client: ApiClient): Promise<void> {
  for (const { name, sizeBytes } of plan.volumes) {
    const listed = await patiently(readyWaitMsMax, () => client.volumeList());
    if (listed.volumes.some((volume) => volume.name === name)) continue;
    const copies = Math.min(2, plan.brickCount);
    await patiently(readyWaitMsMax, async () => {
      const reply = await client.volumeCreate(name, sizeBytes, copies, plan.encrypt);
      // An answer that was lost on its way: the volume is there all the same.
      if (!reply.ok && reply.fault.code === "exists") return client.volumeShow(name);
      return reply;
    });
    const encrypted = plan.encrypt ? ", encrypted" : "";
    say(`volume ${name} created: ${sizeText(sizeBytes)}, ${copies} copies${encrypted}`);
  }
}

/** Waits until every brick that lives serves initiators; returns those that do not. */
async function waitReady(
  plan: UpPlan,
  supervisor: Supervisor,
  numbers: readonly number[],
): Promise<number[]> {
  const until = performance.now() + readyWaitMsMax;
  let waiting = [...numbers];
  let told = performance.now();
  for (;;) {
    const checks = waiting.map(async (number) => ((await isReady(plan, number)) ? [] : [number]));
    waiting = (await Promise.all(checks)).flat();
    const hopeful = waiting.filter((number) => supervisor.isKept(number));
    if (hopeful.length === 0) {
      if (waiting.length < numbers.length) return waiting;
      throw new CommandError(exitCode.failed, "no brick is left running");
    }
    if (performance.now() > until && waiting.length < numbers.length) return waiting;
    if (performance.now() - told > 5_000) {
      told = performance.now();
      say(`waiting for brick ${waiting.join(", ")}`);
    }
    await sleep(100);
  }
}

/**
 * Bricks that serve are not yet bricks of which one may be lost: that takes all votes and every
 * shard on as many bricks as it should be. Whoever reads "ready" may count on it.
 */
async function waitWhole(client: ApiClient): Promise<void> {
  const until = performance.now() + wholeWaitMsMax;
  for (;;) {
    const reply = await client.status();
    if (reply.ok && isWhole(reply.value)) return;
    if (performance.now() > until) {
      say("not every shard has all its copies yet: see `endisk status`");
      return;
    }
    await sleep(50);
  }
}

function isWhole({ bricks, shards }: ClusterStatus): boolean {
  const lasting = bricks.filter((brick) => brick.status === "up" || brick.status === "down");
  const voters = lasting.filter((brick) => brick.voter);
  return shards.whole === shards.total && voters.length >= votersWanted(lasting.length);
}

async function isReady(plan: UpPlan, number: number): Promise<boolean> {
  try {
    const health = await fetch(`http://${apiOf(plan, number)}/health`, {
      signal: AbortSignal.timeout(2_000),
    });
    await health.body?.cancel();
    return health.ok && existsSync(brickFolder(plan, number));
  } catch {
    return false;
  }
}

function announce(plan: UpPlan, numbers: readonly number[], missing: readonly number[]): void {
  const name = plan.volumes[0]?.name ?? "NAME";
  const target = `iqn.2026-11.endisk:${name}`;
  const portal = plan.portal;
  const address = endpointText(portal);
  const first = `iscsi://${address}/${target}/0`;
  const portals = numbers.map((number) => portalOf(plan, number)).join(" ");
  say("");
  say(`Attach ${name} (any portal will do: ${portals}):`);
  say(`  Linux     iscsiadm -m discovery -t sendtargets -p ${address}`);
  say(`            iscsiadm -m node -T ${target} -p ${address} --login`);
  say(`  QEMU      -drive file=${first},format=raw,if=virtio`);
  say(`  libiscsi  iscsi-inq ${first}`);
  if (!isLoopback(portal.host)) {
    say("Initiators are denied at this address until they are allowed:");
    say(`  npx endisk initiator add INITIATOR --generate --data ${plan.folder}`);
    say(`  npx endisk volume allow ${name} INITIATOR --data ${plan.folder}`);
  }
  say(`Look at it: npx endisk status --data ${plan.folder}    Stop: Ctrl-C`);
  say("");
  for (const number of missing) say(`brick ${number} is NOT ready; the others serve without it`);
  say(`endisk ready: ${name} at ${portals}`);
}
