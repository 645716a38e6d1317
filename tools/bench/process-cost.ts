import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";

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

/**
 * Memory of the processes together. What several of them map of one file, the program above all, counts
 * once: each has its share of it.
 */
export function memoryBytes(pids: readonly number[]): number {
  let kib = 0;
  for (const pid of pids) {
    const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, "latin1");
    kib += Number(/^Pss:\s+(\d+) kB$/m.exec(rollup)?.[1] ?? 0);
  }
  return kib * 1024;
}

const sectorBytes = 512;

/**
 * What has been written to the machine's disks so far, by whomever. A process's own figure would not do:
 * it counts the whole of a large page for each byte that is changed in it.
 */
export function diskBytes(): number {
  const disks = new Set(readdirSync("/sys/block").filter((name) => !/^(loop|ram|zram)/.test(name)));
  let sectors = 0;
  for (const line of readFileSync("/proc/diskstats", "latin1").trim().split("\n")) {
    const fields = line.trim().split(/\s+/);
    if (disks.has(fields[2]!)) sectors += Number(fields[9]);
  }
  return sectors * sectorBytes;
}
