import { createRequire } from "node:module";
import { parentPort, workerData } from "node:worker_threads";
import { decodeBatch } from "./kv-batch.ts";
import { type RocksBatches, type RocksStore, writeBatch } from "./kv-rocks.ts";
import type { KvWriterData, KvWritten } from "./kv-writing.ts";

/** The thread beside the brick's own that writes its large batches, one after the other. */

interface Binding extends RocksBatches {
  db_init(handle: bigint): RocksStore;
}

const { bindingPath, handle } = workerData as KvWriterData;
const rocks = createRequire(import.meta.url)(bindingPath) as Binding;
const store = rocks.db_init(handle);
const batch = rocks.batch_init();

function write(memory: ArrayBuffer): KvWritten {
  try {
    writeBatch(rocks, store, batch, decodeBatch(memory), true);
    return null;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

parentPort!.on("message", (memory: ArrayBuffer) => parentPort!.postMessage(write(memory)));
