import { execFileSync } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import { MiB } from "../../brick/units.ts";
import { diskBytes } from "./process-cost.ts";

/** A disk to which less is written in a second is at rest: logs of the system, and keepalives. */
const quietBytesPerSecond = 4 * MiB;
const lookEveryMs = 1000;
/** So many quiet seconds in a row: what works in slices may pause for one. */
const quietLooks = 2;
const waitMsMax = 120_000;

/**
 * Waits until the disk has taken what came before: the pages that tgtd left to be written, the zeros that
 * bricks write ahead. Else each job would pay for the one before it, which most often was the other's.
 */
export async function waitForQuietDisk(): Promise<void> {
  execFileSync("sync");
  let before = diskBytes();
  let quiet = 0;
  for (let waitedMs = 0; quiet < quietLooks && waitedMs < waitMsMax; waitedMs += lookEveryMs) {
    await sleep(lookEveryMs);
    const now = diskBytes();
    quiet = now - before < quietBytesPerSecond ? quiet + 1 : 0;
    before = now;
  }
}
