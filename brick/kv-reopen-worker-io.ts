import { createRequire } from "node:module";
import { workerData } from "node:worker_threads";
import { type KvReopening, reopenDone, reopenFailed } from "./kv-reopening.ts";

/** The thread beside the brick's own that closes a key-value store and opens it again. */

type Done = (error: Error | null) => void;

interface Binding {
  db_init(handle: bigint): unknown;
  db_open(store: unknown, options: Record<string, unknown>, done: Done): void;
  db_close(store: unknown, done: Done): void;
}

const { bindingPath, handle, options, state } = workerData as KvReopening;
const rocks = createRequire(import.meta.url)(bindingPath) as Binding;
const store = rocks.db_init(handle);
// What closing says is why it took no writes.
rocks.db_close(store, () => {
  rocks.db_open(store, options, (error) => {
    Atomics.store(state, 0, error === null ? reopenDone : reopenFailed);
    Atomics.notify(state, 0);
  });
});
