import { closeSync, fsyncSync, ftruncateSync, openSync, statfsSync, statSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { keptRoomPath, startRetryMs } from "../brick/store/kept-room.ts";
import { sizeText } from "./options.ts";

/** The store lies beside the brick's identity. */
export const storeFolderName = "store";
/** What a small file may take of the room that is kept. */
const smallFileBytes = 64 * 1024;

/**
 * Does what writes a small file before a brick's store is opened. Without room for it some of what the
 * brick has kept is given up; when there is none of that either, it is done again and again.
 */
export async function withStartRoom<T>(
  dataFolder: string,
  log: (line: string) => void,
  action: () => T | Promise<T>,
): Promise<T> {
  for (let isSaid = false; ; ) {
    try {
      return await action();
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== "ENOSPC" && code !== "EDQUOT") throw error;
    }
    if (giveUpSome(join(dataFolder, storeFolderName, keptRoomPath))) continue;
    const { bavail, bsize } = statfsSync(dataFolder);
    const facts = `${sizeText(bavail * bsize)} are free, ${sizeText(smallFileBytes)} are needed`;
    const again = `it is asked again every ${startRetryMs / 1000} s`;
    if (!isSaid) log(`cannot start, the file system of ${dataFolder} is full: ${facts}; ${again}`);
    isSaid = true;
    await sleep(startRetryMs);
  }
}

/** False when nothing is kept. */
function giveUpSome(path: string): boolean {
  const sizeBytes = statSync(path, { throwIfNoEntry: false })?.size ?? 0;
  if (sizeBytes === 0) return false;
  const file = openSync(path, "r+");
  try {
    ftruncateSync(file, Math.max(0, sizeBytes - smallFileBytes));
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  return true;
}
