import { readdirSync } from "node:fs";
import { join } from "node:path";
import { readSecret } from "../control/api-secret-io.ts";
import { readIdentity } from "./brick-identity-io.ts";
import { CommandError, exitCode } from "./exit-codes.ts";
import { rememberedFolder } from "./known-clusters-io.ts";
import { addressSchema, parseOption } from "./options.ts";

/**
 * How a command finds its cluster: addresses from --api, ENDISK_API or the data folder; the secret
 * from the data folder, or the folder that a brick of that address used on
 * this machine under this user.
 */

export const dataFolderDefault = "./endisk-data";

export interface ClusterOptions {
  api?: string;
  data?: string;
}

export interface FoundCluster {
  addresses: string[];
  secret: Buffer;
}

export function findCluster(options: ClusterOptions): FoundCluster {
  const folder = options.data ?? dataFolderDefault;
  const given = options.api ?? process.env.ENDISK_API;
  const from = options.api === undefined ? "ENDISK_API" : "--api";
  if (given !== undefined) {
    const addresses = given.split(",").map((text) => parseOption(from, text, addressSchema));
    const folders = [...bricksUnder(folder), ...addresses.flatMap(rememberedFolder)];
    const ours = folders.filter((brick) => apiOf(brick, addresses));
    const secret = secretIn([...ours, ...folders]);
    if (secret !== null) return { addresses, secret };
    throw new CommandError(
      exitCode.refused,
      `no cluster secret for ${given}: give the folder of one of its bricks with --data`,
    );
  }
  const bricks = bricksUnder(folder);
  const secret = secretIn(bricks);
  if (secret === null) {
    throw new CommandError(
      exitCode.unavailable,
      `no cluster in ${folder}: give --data DIR, or --api HOST:PORT or ENDISK_API`,
    );
  }
  const addresses = new Set<string>();
  for (const brick of bricks) {
    const identity = readIdentity(brick);
    if (identity !== null) addresses.add(identity.api);
    for (const peer of identity?.peers ?? []) addresses.add(peer.apiAddress);
  }
  return { addresses: [...addresses], secret };
}

function apiOf(brickFolder: string, addresses: readonly string[]): boolean {
  const api = readIdentity(brickFolder)?.api;
  return api !== undefined && addresses.includes(api);
}

function secretIn(folders: readonly string[]): Buffer | null {
  for (const folder of folders) {
    const secret = readSecret(folder);
    if (secret !== null) return secret;
  }
  return null;
}

/** The folder itself, or those of the bricks that `endisk up` keeps in it, in order. */
export function bricksUnder(folder: string): string[] {
  const numbers = brickNumbersUnder(folder);
  const children = numbers.map((number) => join(folder, `brick-${number}`));
  return [folder, ...children].filter((brick) => readIdentity(brick) !== null);
}

/** The k of every DIR/brick-k, in order. */
export function brickNumbersUnder(folder: string): number[] {
  let names: string[];
  try {
    names = readdirSync(folder);
  } catch {
    return [];
  }
  const numbers = names.flatMap((name) => {
    const match = /^brick-([1-9]\d{0,4})$/.exec(name);
    return match === null ? [] : [Number(match[1])];
  });
  return numbers.sort((a, b) => a - b);
}
