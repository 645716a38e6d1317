import { randomBytes } from "node:crypto";
import {
  closeSync,
  fsyncSync,
  openSync,
  readFileSync,
  statSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { secretBytes } from "./api-auth.ts";

/** The file by which a member proves that it is one: 64 hex digits, for its owner's eyes only. */
export const secretFileName = "cluster.secret";

export class SecretFileError extends Error {
  override readonly name = "SecretFileError";
}

export function makeSecret(): Buffer {
  return randomBytes(secretBytes);
}

/** Refuses to write over a secret that is there. */
export function writeSecret(folder: string, secret: Buffer): void {
  writePrivateFile(join(folder, secretFileName), `${secret.toString("hex")}\n`);
}

/**
 * A new file with mode 0600, durable when it returns (the folder is the caller's to sync). What could
 * not be written is not left behind: half a secret would be refused at the next try.
 */
export function writePrivateFile(path: string, text: string): void {
  const file = openSync(path, "wx", 0o600);
  try {
    writeSync(file, text);
    fsyncSync(file);
  } catch (error) {
    unlinkSync(path);
    throw error;
  } finally {
    closeSync(file);
  }
}

/** null when the folder has none. */
export function readSecret(folder: string): Buffer | null {
  const text = readPrivateFile(join(folder, secretFileName));
  if (text === null) return null;
  if (!/^[0-9a-f]{64}\s*$/.test(text)) {
    throw new SecretFileError(`${join(folder, secretFileName)} does not hold 64 hex digits`);
  }
  return Buffer.from(text.trim(), "hex");
}

/** The text of a file that others cannot read; null when it does not exist. */
export function readPrivateFile(path: string): string | null {
  let mode: number;
  try {
    mode = statSync(path).mode;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw error;
  }
  if ((mode & 0o077) !== 0) {
    const shown = (mode & 0o777).toString(8).padStart(4, "0");
    throw new SecretFileError(`${path} has mode ${shown}: others can read it; run chmod 600 on it`);
  }
  return readFileSync(path, "utf8");
}
