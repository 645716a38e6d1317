import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";

/** CPU time and memory of processes, from /proc (proc(5)). */

const ticksPerSecond = Number(execFileSync("getconf", ["CLK_TCK"], { encoding: "utf8" }));

/** User and system time of all their threads together. */
export function cpuSeconds(pids: readonly number[]): number {
  let ticks = 0;
  for (const pid of pids) {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    // The command's name, in parentheses, may hold anything: count from behind it.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    ticks += Number(fields[11]) + Number(fields[12]);
  }
  return ticks / ticksPerSecond;
}

export function residentBytes(pids: readonly number[]): number {
  let kib = 0;
  for (const pid of pids) {
    const status = readFileSync(`/proc/${pid}/status`, "latin1");
    kib += Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0);
  }
  return kib * 1024;
}

/** What they have had written to disks so far. */
export function diskBytes(pids: readonly number[]): number {
  let bytes = 0;
  for (const pid of pids) {
    const io = readFileSync(`/proc/${pid}/io`, "latin1");
    bytes += Number(/^write_bytes: (\d+)$/m.exec(io)?.[1] ?? 0);
  }
  return bytes;
}
