import { linkSync, mkdirSync, readFileSync, rmSync, unlinkSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { BrickStartError } from "./brick-options.ts";

/**
 * A file that holds the process id of the one process that uses a folder. It appears whole or not
 * at all (a link to a finished file), and one left by a process that is gone is taken over.
 */
export function takePidFile(path: string): { release(): void } {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const own = `${path}.${process.pid}`;
  try {
    writeFileSync(own, `${process.pid}\n`);
    for (let attempt = 1; ; attempt += 1) {
      try {
        linkSync(own, path);
        break;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
      }
      const holder = readPid(path);
      if (attempt > 3 || (holder !== null && isRunning(holder))) {
        const who = holder === null ? "another process" : `process ${holder}`;
        throw new BrickStartError("in_use", `${dirname(path)} is in use by ${who} (${path})`);
      }
      unlinkSync(path);
    }
  } finally {
    rmSync(own, { force: true });
  }
  return {
    release() {
      if (readPid(path) === process.pid) unlinkSync(path);
    },
  };
}

/** null when there is no such file, or no number in it. */
export function readPid(path: string): number | null {
  try {
    const pid = Number(readFileSync(path, "utf8").trim());
    return Number.isSafeInteger(pid) && pid > 0 ? pid : null;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw error;
  }
}

/** The process that uses the folder now; null when none does. */
export function pidFileHolder(path: string): number | null {
  const pid = readPid(path);
  return pid !== null && isRunning(pid) ? pid : null;
}

/** Whether that process runs and is one of ours: process ids come round again. */
function isRunning(pid: number): boolean {
  if (pid === process.pid) return false;
  try {
    process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
  try {
    const state = /\) ([A-Z]) /.exec(readFileSync(`/proc/${pid}/stat`, "latin1"))?.[1];
    if (state === "Z" || state === "X") return false;
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("endisk");
  } catch {
    // No /proc here: a living process counts as ours.
    return true;
  }
}
