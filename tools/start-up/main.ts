import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Command } from "commander";
import { GiB, grainBytes, KiB } from "../../brick/units.ts";
import { Initiator, readCapacityBytes, transferCdb } from "../load/initiator-io.ts";
import { parseOption, sizeSchema, sizeText } from "../options.ts";
import { RealCluster, targetOf } from "../real-cluster-io.ts";
import { table } from "../table.ts";
import { fillStore } from "./filled-store-io.ts";

/**
 * `npm run start-up`: how long a brick takes from the start of its process until it serves, after a crash,
 * empty and with so much stored (its index is real, its segments are holes in files).
 */

/** Written and not covered by a checkpoint when the brick is killed: some 60 MiB of log to replay. */
const tailWrites = 12_000;
const tailBytes = 4 * KiB;
const depth = 32;
const servingMsMax = 120_000;
/** A brick that holds 100 GiB is to serve again within this. */
const askedMs = 10_000;
const pollMs = 5;

interface StartTimes {
  /** It answers at its api port: its store is open, its log is replayed. */
  openMs: number;
  /** It serves initiators: it leads the cluster of which it is all, and its shards. */
  servesMs: number;
}

await new Command("start-up")
  .description("Time from the start of a brick's process, after a crash, until it serves")
  .option("--stored <SIZE>", "chunks of 64 KiB that its index names", "100GiB")
  .action(async (given: Record<string, string>) => {
    const bytes = parseOption("--stored", given.stored, sizeSchema);
    process.exitCode = (await startUp(bytes)) ? 0 : 1;
  })
  .parseAsync();

async function startUp(bytes: number): Promise<boolean> {
  const capacity = `${Math.ceil(bytes / GiB) + 32}GiB`;
  const cluster = new RealCluster({ bricks: 1, capacity, restart: false });
  try {
    await cluster.start();
    const empty = await crashAndStart(cluster);
    await cluster.stop();
    const chunkCount = await fillStore(join(cluster.brickFolder(1), "store"), bytes);
    process.stderr.write(`${chunkCount} chunks, ${sizeText(bytes)}, put into the index\n`);
    const clean = await timeStart(cluster);
    const crashed = await crashAndStart(cluster);
    const rows = [
      ["empty, crashed", empty],
      [`${sizeText(bytes)}, stopped cleanly`, clean],
      [`${sizeText(bytes)}, crashed`, crashed],
    ] as const;
    const shown = rows.map(([what, { openMs, servesMs }]) => {
      return [what, Math.round(openMs), Math.round(servesMs)];
    });
    process.stdout.write(`${table(["brick", "store open, ms", "serves, ms"], shown)}\n`);
    return crashed.servesMs <= askedMs;
  } finally {
    await cluster.dispose();
  }
}

/** Leaves a log that no checkpoint covers, and kills the brick. */
async function crashAndStart(cluster: RealCluster): Promise<StartTimes> {
  await writeTail(cluster);
  await cluster.killAll([1]);
  await cluster.waitGone(1);
  return timeStart(cluster);
}

async function timeStart(cluster: RealCluster): Promise<StartTimes> {
  const beganMs = performance.now();
  cluster.startAgain(1);
  let openMs: number | null = null;
  for (;;) {
    const status = await cluster.healthStatus(1);
    const nowMs = performance.now() - beganMs;
    if (status !== null) openMs ??= nowMs;
    if (status === 200) return { openMs: openMs!, servesMs: nowMs };
    if (nowMs > servingMsMax) throw new Error(`the brick does not serve: ${cluster.lines.at(-1)}`);
    await sleep(pollMs);
  }
}

async function writeTail(cluster: RealCluster): Promise<void> {
  const [host, port] = cluster.portal(1).split(":");
  const address = { host: host!, port: Number(port), target: targetOf("disk0") };
  const initiator = await Initiator.connect(address);
  await readCapacityBytes(initiator);
  let next = 0;
  const writer = async (): Promise<void> => {
    while (next < tailWrites) {
      const at = next;
      next += 1;
      const content = Buffer.alloc(tailBytes);
      content.writeUInt32LE(at + 1, 0);
      content.writeDoubleLE(performance.now(), 8);
      const cdb = transferCdb("write", at * grainBytes, tailBytes);
      const { status, sense } = await initiator.command(cdb, { write: content });
      if (status !== 0) throw new Error(`a write failed: status ${status}, ${sense}`);
    }
  };
  await Promise.all(Array.from({ length: depth }, writer));
  initiator.destroy();
}
