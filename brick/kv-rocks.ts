import type { KvChange } from "./host.ts";

/** The part of RocksDB's native binding by which batches are written, on whatever thread. */
export interface RocksBatches {
  batch_init(): RocksBatch;
  batch_put(batch: RocksBatch, key: Buffer, value: Buffer, options: Record<string, unknown>): void;
  batch_del(batch: RocksBatch, key: Buffer, options: Record<string, unknown>): void;
  batch_clear(batch: RocksBatch): void;
  batch_write(store: RocksStore, batch: RocksBatch, options: { sync: boolean }): void;
}
export type RocksStore = { readonly kind: "store" };
export type RocksBatch = { readonly kind: "batch" };

const noOptions = {};

/** Blocks until it is written; `batch` is empty before and after. */
export function writeBatch(
  rocks: RocksBatches,
  store: RocksStore,
  batch: RocksBatch,
  changes: Iterable<KvChange>,
  sync: boolean,
): void {
  try {
    for (const { key, value } of changes) {
      if (value === null) rocks.batch_del(batch, key, noOptions);
      else rocks.batch_put(batch, key, value, noOptions);
    }
    rocks.batch_write(store, batch, { sync });
  } finally {
    rocks.batch_clear(batch);
  }
}
