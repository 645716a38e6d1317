import { fork } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import fs from "node:fs/promises";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Command } from "commander";
import { chunkKey } from "../../brick/chunk/key.ts";
import { crc32 } from "../../brick/crc32.ts";
import { KiB } from "../../brick/units.ts";
import { table } from "../table.ts";

/**
 * `npm run floor`: what Node and the kernel ask for the steps of a command by themselves, in CPU time, with
 * nothing of END around them but its hash and its checksum. Beside the bench's "us/cmd" it says how much
 * of that could be saved at all, and that company is what makes a step cheap.
 */

const echoPath = fileURLToPath(new URL("echo.ts", import.meta.url));
const requestBytes = 4 * KiB + 200;
const answerBytes = 64;
const roundTrips = 40_000;
const durableWrites = 3000;
const hashes = 20_000;
const batchSizes = [1, 4, 32];

await new Command("floor")
  .description("CPU time of the steps of a command by themselves, in microseconds")
  .action(async () => {
    const rows: [string, number][] = [];
    for (const batch of batchSizes) {
      rows.push([`4 KiB to another process and an answer, ${batch} at a time`, await talk(batch)]);
    }
    for (const batch of batchSizes) {
      rows.push([`4 KiB written durably, ${batch} at a time`, await writeDurably(batch)]);
    }
    for (const bytes of [4 * KiB, 64 * KiB]) {
      const chunk = Buffer.alloc(bytes, 7);
      rows.push([`the key of ${bytes / KiB} KiB`, each(hashes, () => chunkKey(chunk))]);
      rows.push([`the checksum of ${bytes / KiB} KiB`, each(hashes, () => crc32(chunk))]);
    }
    const shown = rows.map(([what, us]) => [what, us.toFixed(1)]);
    process.stdout.write(`${table(["step", "CPU, us"], shown)}\n`);
  })
  .parseAsync();

/** Of both processes, for each request; `batch` of them leave in one write. */
async function talk(batch: number): Promise<number> {
  const child = fork(echoPath, [String(requestBytes), String(answerBytes)]);
  try {
    const [{ port }] = (await once(child, "message")) as [{ port: number }];
    const socket = net.connect({ host: "127.0.0.1", port, noDelay: true });
    await once(socket, "connect");
    const request = Buffer.alloc(requestBytes);
    const before = process.cpuUsage();
    let answeredBytes = 0;
    let sent = 0;
    const done = Promise.withResolvers<void>();
    const sendBatch = () => {
      socket.cork();
      for (let at = 0; at < batch; at += 1) socket.write(request);
      socket.uncork();
      sent += batch;
    };
    socket.on("data", (bytes) => {
      answeredBytes += bytes.length;
      if (answeredBytes < sent * answerBytes) return;
      if (sent < roundTrips) sendBatch();
      else done.resolve();
    });
    sendBatch();
    await done.promise;
    const { user, system } = process.cpuUsage(before);
    socket.end();
    const [{ cpuUs }] = (await once(child, "message")) as [{ cpuUs: number }];
    return (user + system + cpuUs) / sent;
  } finally {
    child.disconnect();
  }
}

/** Into a file of zeros, as the log does; `batch` writes in one gathered one. */
async function writeDurably(batch: number): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), "endisk-floor-"));
  const { O_RDWR, O_CREAT, O_DSYNC } = fs.constants;
  const file = await fs.open(join(folder, "log"), O_RDWR | O_CREAT | O_DSYNC);
  try {
    const buffers = Array.from({ length: batch }, () => Buffer.alloc(4 * KiB, 7));
    const lengthBytes = batch * 4 * KiB;
    const rounds = Math.ceil(durableWrites / batch);
    await file.write(Buffer.alloc(rounds * lengthBytes));
    const before = process.cpuUsage();
    for (let at = 0; at < rounds; at += 1) await file.writev(buffers, at * lengthBytes);
    const { user, system } = process.cpuUsage(before);
    return (user + system) / (rounds * batch);
  } finally {
    await file.close();
    rmSync(folder, { recursive: true });
  }
}

function each(count: number, step: () => unknown): number {
  const before = process.cpuUsage();
  for (let at = 0; at < count; at += 1) step();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / count;
}
