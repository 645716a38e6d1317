import { rmSync } from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";
import { chunkKey } from "../chunk/key.ts";
import { openRealHost } from "../host-io.ts";
import { GiB, MiB } from "../units.ts";
import { Store } from "./store.ts";

/**
 * Puts per second and their latency on a real disk, run by hand:
 *
 *   npx node brick/store/store.bench.ts --folder /somewhere/on/the/disk
 *
 * The folder is made, and removed at the end.
 */

const inFlight = 32;
const origin = { branch: 1, grain: 2, firstSector: 0, sequence: 3 };

async function bench(folder: string, lengthBytes: number): Promise<void> {
  const network = { send: () => {}, onMessage: () => {}, setPeers: () => {} };
  const host = await openRealHost({ dataFolder: folder, network, log: console.log });
  const identity = { clusterId: "00".repeat(16), brick: 1, uuid: "cd".repeat(16) };
  const store = await Store.open(host, { capacityBytes: 64 * GiB, participants: [], identity });
  const puts = (bytes: number) => Math.floor(bytes / lengthBytes);
  await run(store, lengthBytes, puts(4 * MiB), null);
  // Zeros are made ready while nothing happens.
  await new Promise((resolve) => setTimeout(resolve, 2000));
  await run(store, lengthBytes, puts(32 * MiB), "burst into prepared zeros");
  await run(store, lengthBytes, puts(384 * MiB), "sustained");
  await store.close();
  rmSync(folder, { recursive: true });
}

async function run(
  store: Store,
  lengthBytes: number,
  putsMax: number,
  name: string | null,
): Promise<void> {
  const latenciesUs: number[] = [];
  const flushesBefore = store.counters.flushes;
  let started = 0;
  const beganMs = performance.now();
  const cpuBefore = process.cpuUsage();
  await new Promise<void>((resolve) => {
    const next = () => {
      if (started >= putsMax) return;
      started += 1;
      const chunk = Buffer.allocUnsafe(lengthBytes).fill(started & 0xff);
      chunk.writeUIntBE((number += 1), 0, 6);
      const startMs = performance.now();
      store.put(chunkKey(chunk), chunk, origin, (result) => {
        if (!result.ok) throw new Error(result.fault.code);
        latenciesUs.push((performance.now() - startMs) * 1000);
        if (latenciesUs.length === putsMax) resolve();
        else next();
      });
    };
    for (let at = 0; at < inFlight; at += 1) next();
  });
  if (name === null) return;
  const seconds = (performance.now() - beganMs) / 1000;
  const cpu = process.cpuUsage(cpuBefore);
  latenciesUs.sort((a, b) => a - b);
  const quantile = (share: number) => Math.round(latenciesUs[Math.floor(share * (putsMax - 1))]!);
  console.log(
    `${lengthBytes} B, ${name}: ${Math.round(putsMax / seconds)} puts/s, ` +
      `${((putsMax * lengthBytes) / seconds / 1e6).toFixed(0)} MB/s, ` +
      `p50 ${quantile(0.5)} us, p99 ${quantile(0.99)} us, max ${quantile(1)} us, ` +
      `${(putsMax / (store.counters.flushes - flushesBefore)).toFixed(1)} puts a flush, ` +
      `${((cpu.user + cpu.system) / putsMax).toFixed(1)} us CPU a put`,
  );
}

let number = 0;
const { values } = parseArgs({ options: { folder: { type: "string" } } });
if (values.folder === undefined) throw new Error("say where: --folder PATH");
await bench(path.join(values.folder, "bench-4k"), 4096);
await bench(path.join(values.folder, "bench-64k"), 65_536);
