import { randomBytes } from "node:crypto";
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statfsSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { z } from "zod";
import { MiB } from "../brick/units.ts";
import type { AdminReply, JoinGrant } from "../control/api.ts";
import { parseJoinToken } from "../control/api-auth.ts";
import { joinCluster } from "../control/api-client-io.ts";
import {
  makeSecret,
  readPrivateFile,
  readSecret,
  secretFileName,
  writeSecret,
} from "../control/api-secret-io.ts";
import { type BrickOptions, BrickStartError } from "./brick-options.ts";
import { beginJoining, endJoining, giveRoom } from "./joining-io.ts";
import { rememberCluster } from "./known-clusters-io.ts";
import { addressSchema, brickCapacityMin, sizeText } from "./options.ts";
import { syncFolder } from "./sync-folder-io.ts";

/** Who a brick is and where it listens; beside cluster.secret in its data folder. */
export const identityFileName = "brick.json";

const identitySchema = z.object({
  version: z.literal(1),
  clusterId: z.string().regex(/^[0-9a-f]{32}$/),
  number: z.int().min(1).max(65_535),
  /** The store's own identity; made before the cluster knew the brick. */
  uuid: z.string().regex(/^[0-9a-f]{32}$/),
  /** The first brick of its cluster begins the control plane; the others are told of it. */
  origin: z.enum(["init", "join"]),
  /** Whether the store has been made: from then on a missing store is a loss, not a beginning. */
  begun: z.boolean(),
  listen: addressSchema,
  portal: addressSchema,
  api: addressSchema,
  domain: z.string(),
  capacityBytes: z.int().min(1),
  /** The bricks that were there when this one joined: where to ask until more is known. */
  peers: z.array(
    z.object({
      number: z.int().min(1).max(65_535),
      peerAddress: addressSchema,
      apiAddress: addressSchema,
    }),
  ),
});

export type BrickIdentity = z.infer<typeof identitySchema>;

/** Part of the free space that a brick offers when nothing else is said. */
const offeredShare = 0.8;

/** null when the folder holds no brick. */
export function readIdentity(folder: string): BrickIdentity | null {
  const path = join(folder, identityFileName);
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw error;
  }
  try {
    const written: unknown = JSON.parse(text);
    const identity = identitySchema.parse(written);
    const { checksum } = checksumSchema.parse(written);
    if (checksum !== undefined && checksum !== checksumOf(identity)) {
      throw new Error("its checksum is another one");
    }
    return identity;
  } catch (error) {
    const why = error instanceof z.ZodError ? z.prettifyError(error) : String(error);
    throw new BrickStartError("invalid", `${path} is damaged: ${why}`);
  }
}

/** Files written before there was one have none. */
const checksumSchema = z.object({ checksum: z.string().optional() });

/** Over the members in the schema's order, so that layout and order in the file do not count. */
function checksumOf(identity: BrickIdentity): string {
  const text = JSON.stringify(identitySchema.parse(identity));
  return crc32(text).toString(16).padStart(8, "0");
}

export function writeIdentity(folder: string, identity: BrickIdentity): void {
  const file = openSync(newIdentityPath(folder), "w", 0o600);
  try {
    const checked = { ...identity, checksum: checksumOf(identity) };
    writeSync(file, `${JSON.stringify(checked, null, 2)}\n`);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  renameSync(newIdentityPath(folder), join(folder, identityFileName));
  syncFolder(folder);
}

/** To be called once the store is durable, before the brick answers anybody. */
export function markBegun(folder: string, identity: BrickIdentity): BrickIdentity {
  const begun = { ...identity, begun: true };
  writeIdentity(folder, begun);
  return begun;
}

/**
 * Who the brick in this folder is: as it was written down, changed by the options that are given;
 * or new, by beginning a cluster or joining one.
 */
export async function establishIdentity(
  options: BrickOptions,
): Promise<{ identity: BrickIdentity; secret: Buffer }> {
  const folder = options.dataFolder;
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const known = readIdentity(folder);
  if (known !== null) {
    if (options.init) {
      throw new BrickStartError("invalid", `${folder} already holds brick ${known.number}`);
    }
    const secret = readSecret(folder);
    if (secret === null) {
      throw new BrickStartError("invalid", `${join(folder, secretFileName)} is missing`);
    }
    const identity = withOptions(known, options);
    if (JSON.stringify(identity) !== JSON.stringify(known)) writeIdentity(folder, identity);
    rememberCluster(identity.api, folder);
    endJoining(folder);
    return { identity, secret };
  }
  if (!options.init && options.join === null) {
    const how = "make one with `endisk init`, or join a cluster with --join and --token-file";
    throw new BrickStartError("invalid", `${folder} holds no brick: ${how}`);
  }
  const secretPath = join(folder, secretFileName);
  // Without an identity beside it, it was left by a beginning that a power cut ended: `init` goes on
  // with it, but a cluster that is joined has its own.
  const isGiven = options.join === null && readSecret(folder) !== null;
  let isWritten = false;
  try {
    const { identity, secret } = options.join === null ? begin(options) : await joinOne(options);
    giveRoom(folder);
    // 1. the secret, 2. the identity: a folder with an identity always has its secret.
    if (!isGiven) {
      rmSync(secretPath, { force: true });
      isWritten = true;
      writeSecret(folder, secret);
    }
    writeIdentity(folder, identity);
    rememberCluster(identity.api, folder);
    endJoining(folder);
    return { identity, secret: readSecret(folder)! };
  } catch (error) {
    rmSync(newIdentityPath(folder), { force: true });
    // Whether a cluster has taken it in it may not know.
    if (options.join === null) endJoining(folder);
    const isMade = existsSync(join(folder, identityFileName));
    if (isWritten && !isMade) rmSync(secretPath, { force: true });
    throw error;
  }
}

function newIdentityPath(folder: string): string {
  return join(folder, `${identityFileName}.new`);
}

function withOptions(known: BrickIdentity, options: BrickOptions): BrickIdentity {
  return {
    ...known,
    listen: options.listen ?? known.listen,
    portal: options.portal ?? known.portal,
    api: options.api ?? known.api,
    domain: options.domain ?? known.domain,
    capacityBytes: options.capacityBytes ?? known.capacityBytes,
  };
}

type NewBrick = Omit<BrickIdentity, "clusterId" | "number" | "uuid" | "origin" | "peers">;

/** What a new brick is made of, before it has a number. */
function newBrick(options: BrickOptions): NewBrick {
  for (const [name, value] of [
    ["--listen", options.listen],
    ["--portal", options.portal],
    ["--api", options.api],
  ]) {
    if (value === null) throw new BrickStartError("invalid", `${name} is needed for a new brick`);
  }
  return {
    version: 1,
    begun: false,
    listen: options.listen!,
    portal: options.portal!,
    api: options.api!,
    domain: options.domain ?? "",
    capacityBytes: options.capacityBytes ?? offeredBytes(options.dataFolder, 1),
  };
}

function begin(options: BrickOptions): { identity: BrickIdentity; secret: Buffer } {
  const brick = newBrick(options);
  const { uuid } = beginJoining(options.dataFolder);
  const clusterId = randomBytes(16).toString("hex");
  const identity = { ...brick, clusterId, number: 1, uuid, origin: "init" as const, peers: [] };
  return { identity, secret: makeSecret() };
}

async function joinOne(
  options: BrickOptions,
): Promise<{ identity: BrickIdentity; secret: Buffer }> {
  const { address, tokenFile, spare } = options.join!;
  const text = readPrivateFile(tokenFile);
  if (text === null) throw new BrickStartError("invalid", `--token-file ${tokenFile} is missing`);
  const token = parseJoinToken(text);
  if (token === null) {
    throw new BrickStartError("invalid", `--token-file ${tokenFile} does not hold a join token`);
  }
  const brick = newBrick(options);
  for (;;) {
    const { uuid, hasAsked } = beginJoining(options.dataFolder);
    const reply: AdminReply<JoinGrant> = await joinCluster(address, token, {
      uuid,
      peerAddress: brick.listen,
      portalAddress: brick.portal,
      apiAddress: brick.api,
      domain: brick.domain,
      capacityBytes: brick.capacityBytes,
      spare,
    });
    if (reply.ok) {
      const { clusterId, number, secret, peers } = reply.value;
      options.log(
        `joined cluster ${clusterId} as brick ${number}, offering ${sizeText(brick.capacityBytes)}`,
      );
      return { identity: { ...brick, clusterId, number, uuid, origin: "join", peers }, secret };
    }
    const { code, message } = reply.fault;
    const isRefused = code !== "unavailable" && code !== "failed";
    if (isRefused) endJoining(options.dataFolder);
    // With another token, or in another cluster, it is another brick.
    if (isRefused && hasAsked) continue;
    throw new BrickStartError(
      code === "refused" || code === "unavailable" ? code : "invalid",
      `joining at ${address}: ${message}`,
    );
  }
}

/** What each of `bricks` new bricks in this folder's file system offers by default. */
export function offeredBytes(folder: string, bricks: number): number {
  const { bavail, bsize } = statfsSync(folder);
  const share = (bavail * bsize * offeredShare) / bricks;
  return Math.max(brickCapacityMin, Math.floor(share / MiB) * MiB);
}
