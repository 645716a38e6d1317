import { randomBytes } from "node:crypto";
import { readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { KiB } from "../brick/units.ts";
import { syncFolder } from "./sync-folder-io.ts";

/**
 * What a new brick writes down before it asks who it is. The cluster gives a number, and takes the token,
 * but once: a brick that a power cut kept from the answer asks again as the same brick, and is told the same.
 */
export const joiningFileName = "joining";

/** More than the identity and the secret take. */
const heldBytes = 64 * KiB;
const uuidPattern = /^[0-9a-f]{32}\n/;
const uuidLineBytes = 33;

/**
 * Makes durable by which uuid the brick asks, and holds room for its other small files, since a quota is
 * not seen in free bytes. `hasAsked`: an earlier start may have asked by it.
 */
export function beginJoining(folder: string): { uuid: string; hasAsked: boolean } {
  const known = readUuid(folder);
  if (known !== null) return { uuid: known, hasAsked: true };
  const uuid = randomBytes(16).toString("hex");
  const bytes = Buffer.alloc(heldBytes);
  bytes.write(`${uuid}\n`, "latin1");
  const path = join(folder, joiningFileName);
  try {
    writeFileSync(path, bytes, { mode: 0o600, flush: true });
    syncFolder(folder);
  } catch (error) {
    endJoining(folder);
    throw error;
  }
  return { uuid, hasAsked: false };
}

/** The room is needed now; the uuid is, until the identity is there. */
export function giveRoom(folder: string): void {
  truncateSync(join(folder, joiningFileName), uuidLineBytes);
}

export function endJoining(folder: string): void {
  rmSync(join(folder, joiningFileName), { force: true });
}

/** null: nobody has asked by it, for it was never durable as a whole. */
function readUuid(folder: string): string | null {
  let text: string;
  try {
    text = readFileSync(join(folder, joiningFileName), "latin1");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw error;
  }
  return uuidPattern.test(text) ? text.slice(0, 32) : null;
}
