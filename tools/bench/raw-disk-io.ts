import fs from "node:fs";
import { join } from "node:path";
import { KiB, MiB } from "../../brick/units.ts";
import type { Job } from "./jobs.ts";
import type { Measured } from "./measured.ts";
import { waitForQuietDisk } from "./quiet-disk-io.ts";

/** What a single durable write costs where nothing but the disk is asked: O_DSYNC, one after another. */
export const rawDiskName = "disk";

const fileBytes = 256 * MiB;
const pageBytes = 4 * KiB;

/** Random pages of a file in this folder, which is there already and in the page cache, as a log's is. */
export async function measureRawDisk(
  folder: string,
  { name, depth }: Job,
  seconds: number,
): Promise<Measured> {
  const path = join(folder, "raw");
  const { O_RDWR, O_CREAT, O_DSYNC } = fs.constants;
  const file = fs.openSync(path, O_RDWR | O_CREAT | O_DSYNC);
  try {
    const zeros = Buffer.alloc(MiB);
    for (let at = 0; at < fileBytes; at += MiB) fs.writeSync(file, zeros, 0, MiB, at);
    await waitForQuietDisk();
    const page = Buffer.alloc(pageBytes, 7);
    const cpuBefore = process.cpuUsage();
    const endMs = performance.now() + seconds * 1000;
    const tookMs: number[] = [];
    for (let fromMs = performance.now(); fromMs < endMs; ) {
      const at = Math.floor((Math.random() * fileBytes) / pageBytes) * pageBytes;
      fs.writeSync(file, page, 0, pageBytes, at);
      const nowMs = performance.now();
      tookMs.push(nowMs - fromMs);
      fromMs = nowMs;
    }
    const { user, system } = process.cpuUsage(cpuBefore);
    tookMs.sort((a, b) => a - b);
    const quantileUs = (part: number) => tookMs[Math.floor(part * (tookMs.length - 1))]! * 1000;
    const iops = tookMs.length / seconds;
    return {
      target: rawDiskName,
      job: name,
      depth,
      iops,
      megabytesPerSecond: (iops * pageBytes) / 1e6,
      p50Us: quantileUs(0.5),
      p99Us: quantileUs(0.99),
      p999Us: quantileUs(0.999),
      clientCpuPercent: 0,
      cpuUsPerCommand: (user + system) / tookMs.length,
      memoryBytes: 0,
      diskBytesPerByte: null,
    };
  } finally {
    fs.closeSync(file);
    fs.rmSync(path);
  }
}
