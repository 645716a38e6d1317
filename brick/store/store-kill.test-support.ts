import { chunkKey } from "../chunk/key.ts";
import { openRealHost } from "../host-io.ts";
import { Prng } from "../prng.ts";
import { KiB, MiB } from "../units.ts";
import { Store } from "./store.ts";
import { Counting } from "./store-story.test-support.ts";

/**
 * A store on the real disk and the real key-value store. As a process of its own
 * (`node store-kill.test-support.ts FOLDER SEED`) it works until it is killed, and says on its
 * output what was acknowledged.
 */

const identity = { clusterId: "00".repeat(16), brick: 1, uuid: "cd".repeat(16) };
const origin = { branch: 1, grain: 2, firstSector: 0, sequence: 3 };

export async function openRealStore(dataFolder: string) {
  const network = { send: () => {}, onMessage: () => {}, setPeers: () => {} };
  const host = await openRealHost({ dataFolder, network, log: () => {} });
  const counting = new Counting();
  const sizes = { capacityBytes: 16 * MiB, segmentBytes: 256 * KiB };
  const store = await Store.open(host, { ...sizes, participants: [counting], identity });
  return { store, counting };
}

export function killChunk(seed: number): Buffer {
  const prng = new Prng(seed);
  return prng.fill(Buffer.alloc(512 * prng.between(1, 16)));
}

/** Puts, records, checkpoints, drops and recycling, for ever. */
async function workForEver(dataFolder: string, seed: number): Promise<never> {
  const prng = new Prng(seed);
  const { store, counting } = await openRealStore(dataFolder);
  const live: number[] = [];
  let record = counting.applied;
  const say = (line: string) => process.stdout.write(`${line}\n`);
  for (;;) {
    const waiting: Promise<void>[] = [];
    for (let left = prng.between(1, 8); left > 0; left -= 1) {
      const chunkSeed = prng.uint32();
      const bytes = killChunk(chunkSeed);
      waiting.push(
        new Promise((resolve) => {
          store.put(chunkKey(bytes), bytes, origin, (result) => {
            if (result.ok) {
              live.push(chunkSeed);
              say(`chunk ${chunkSeed}`);
            }
            resolve();
          });
        }),
      );
      record += 1;
      const head = Buffer.alloc(100);
      head.writeUInt32BE(record);
      const id = record;
      waiting.push(
        new Promise((resolve) => {
          const done = (ok: boolean) => {
            if (!ok) throw new Error("a record was refused");
            counting.applied = id;
            say(`record ${id}`);
            resolve();
          };
          store.appendMap([head], null, done, { claim: "reserve" });
        }),
      );
    }
    await Promise.all(waiting);
    if (prng.chance(0.2)) store.checkpoint();
    if (live.length < 200 && store.space().freeBytes > 2 * MiB) continue;
    for (const chunkSeed of live.splice(0, live.length - 20)) {
      say(`drop ${chunkSeed}`);
      store.dropChunk(chunkKey(killChunk(chunkSeed)));
    }
    store.checkpoint();
    await store.checkpointed();
    await store.recycle();
  }
}

if (process.argv[1] === import.meta.filename) {
  await workForEver(process.argv[2]!, Number(process.argv[3]));
}
