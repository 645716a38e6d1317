import { createRequire } from "node:module";
import { parentPort, workerData } from "node:worker_threads";
import { decodeBatch } from "./kv-batch.ts";
import type { KvWriterData, KvWritten } from "./kv-writing.ts";

/** The thread beside the brick's own that writes its large batches, one after the other. */

interface Binding {
  db_init(handle: bigint): unknown;
  batch_init(): unknown;
  batch_put(batch: unknown, key: Buffer, value: Buffer, options: object): void;
  batch_del(batch: unknown, key: Buffer, options: object): void;
  batch_clear(batch: unknown): void;
  batch_write(store: unknown, batch: unknown, options: { sync: boolean }): void;
}

const { bindingPath, handle } = workerData as KvWriterData;
const rocks = createRequire(import.meta.url)(bindingPath) as Binding;
const store = rocks.db_init(handle);
const batch = rocks.batch_init();
const noOptions = {};

function write(memory: ArrayBuffer): KvWritten {
  try {
    for (const { key, value } of decodeBatch(memory)) {
      if (value === null) rocks.batch_del(batch, key, noOptions);
      else rocks.batch_put(batch, key, value, noOptions);
    }
    rocks.batch_write(store, batch, { sync: true });
    return null;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  } finally {
    rocks.batch_clear(batch);
  }
}

parentPort!.on("message", (memory: ArrayBuffer) => parentPort!.postMessage(write(memory)));
