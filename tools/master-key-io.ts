import { randomBytes } from "node:crypto";
import { readdirSync, readFileSync, renameSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { keysFolder } from "../brick/crypt/key-file.ts";
import { masterKeyBytes } from "../brick/crypt/master-key.ts";
import { writePrivateFile } from "../control/api-secret-io.ts";
import { BrickStartError } from "./brick-options.ts";
import { syncFolder } from "./sync-folder-io.ts";

/** Where a brick finds what seals its keys: in a file that was named, or in one of its own. */

export const masterKeyFileName = "master.key";

export interface MasterKey {
  readonly bytes: Buffer;
  readonly path: string;
}

/** `storeFolder`: where the sealed keys lie. Throws BrickStartError. */
export function masterKeyOf(
  dataFolder: string,
  storeFolder: string,
  given: string | null,
): MasterKey {
  if (given !== null) return readMasterKey(given, "--master-key-file ");
  const path = join(dataFolder, masterKeyFileName);
  if (isThere(path)) return readMasterKey(path, "");
  if (hasKeys(join(storeFolder, keysFolder))) {
    const why = `${path} is missing, but ${join(storeFolder, keysFolder)} has keys`;
    throw new BrickStartError(
      "invalid",
      `${why}: give the file they are sealed with as --master-key-file`,
    );
  }
  makeMasterKey(path);
  return readMasterKey(path, "");
}

function readMasterKey(path: string, option: string): MasterKey {
  const refuse = (why: string) => new BrickStartError("invalid", `${option}${path} ${why}`);
  if (!isThere(path)) throw refuse("does not exist");
  const status = statSync(path);
  if (!status.isFile()) throw refuse("is not a file");
  if ((status.mode & 0o777) !== 0o600) {
    const shown = (status.mode & 0o777).toString(8).padStart(4, "0");
    throw refuse(`has mode ${shown}; it must be 0600: run chmod 600 on it`);
  }
  const bytes = parseMasterKey(readFileSync(path));
  if (bytes === null) throw refuse("does not hold a key: it must be 32 bytes, or 64 hex digits");
  return { bytes, path };
}

/** 32 raw bytes, or 64 hex digits and perhaps an end of line; null: neither. */
export function parseMasterKey(content: Buffer): Buffer | null {
  if (content.length === masterKeyBytes) return content;
  const text = content.toString("latin1");
  return /^[0-9a-fA-F]{64}\r?\n?$/.test(text) ? Buffer.from(text.slice(0, 64), "hex") : null;
}

/** Whole or not at all: what was made half would be refused for good. */
function makeMasterKey(path: string): void {
  const made = `${path}.${randomBytes(4).toString("hex")}`;
  writePrivateFile(made, `${randomBytes(masterKeyBytes).toString("hex")}\n`);
  renameSync(made, path);
  syncFolder(dirname(path));
}

function isThere(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false }) !== undefined;
}

function hasKeys(folder: string): boolean {
  return isThere(folder) && readdirSync(folder).some((name) => name.endsWith(".key"));
}
