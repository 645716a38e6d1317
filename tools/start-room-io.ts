import { closeSync, fsyncSync, ftruncateSync, openSync, statfsSync, statSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { roomAboveFloorShare } from "../brick/log/segments.ts";
import { keptRoomPath, startRetryMs } from "../brick/store/kept-room.ts";
import { diskFloorBytesDefault } from "../brick/store/store-options.ts";
import { MiB } from "../brick/units.ts";
import { readIdentity } from "./brick-identity-io.ts";
import { BrickStartError } from "./brick-options.ts";
import { sizeText } from "./options.ts";

/** The store lies beside the brick's identity. */
export const storeFolderName = "store";
/** What a small file may take of the room that is kept. */
const smallFileBytes = 64 * 1024;

/** What a brick has taken of its file system before it stores anything; 20 MiB were measured. */
const newBrickBytes = 24 * MiB;

/** What new bricks on one file system need so that they are not full from the first moment on. */
export function newBricksRoomBytes(bricks: number): number {
  return diskFloorBytesDefault * (1 + roomAboveFloorShare) + bricks * newBrickBytes;
}

/** Throws before anything is made. `folder` need not exist yet. */
export function requireRoom(folder: string, bricks: number, freeBytes = freeBytesOf(folder)): void {
  if (freeBytes < newBricksRoomBytes(bricks)) throw noRoom(folder, bricks, freeBytes);
}

function noRoom(folder: string, bricks: number, freeBytes: number): BrickStartError {
  const [what, verb] = bricks === 1 ? ["a new brick", "needs"] : [`${bricks} new bricks`, "need"];
  const needed = `${what} ${verb} ${sizeText(newBricksRoomBytes(bricks))}`;
  const there = `its file system has room for ${sizeText(freeBytes)}`;
  const quota = freeBytes < newBricksRoomBytes(bricks) ? "" : ", but takes no more files or bytes";
  const where = resolve(folder);
  return new BrickStartError(
    "no_room",
    `cannot make ${what} in ${where}: ${there}${quota}, ${needed}; make room and try again`,
  );
}

/** Of the file system that a folder lies in, or will once it is made. */
function freeBytesOf(folder: string): number {
  for (let at = resolve(folder); ; at = dirname(at)) {
    const isThere = statSync(at, { throwIfNoEntry: false }) !== undefined;
    if (!isThere && at !== dirname(at)) continue;
    const { bavail, bsize } = statfsSync(at);
    return bavail * bsize;
  }
}

/**
 * Does what writes a small file before a brick's store is opened. Without room for it some of what the
 * brick has kept is given up; when there is none of that either, it is done again and again. Of a brick
 * that is not made yet nothing is waiting: it ends, and says what a new one needs.
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
    const freeBytes = freeBytesOf(dataFolder);
    if (readIdentity(dataFolder) === null) throw noRoom(dataFolder, 1, freeBytes);
    if (giveUpSome(join(dataFolder, storeFolderName, keptRoomPath))) continue;
    const facts = `${sizeText(freeBytes)} are free, ${sizeText(smallFileBytes)} are needed`;
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
