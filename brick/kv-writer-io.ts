import { Worker } from "node:worker_threads";
import { assert } from "./assert.ts";
import type { KvChange } from "./host.ts";
import { encodeBatch } from "./kv-batch.ts";
import type { KvWriterData, KvWritten } from "./kv-writing.ts";

/** Its batches lie outside its heap, which holds slices of them. */
const heapLimits = { maxYoungGenerationSizeMb: 4, maxOldGenerationSizeMb: 32 };

type Done = (failure: Error | null) => void;

/** Writes batches later, synced, one at a time. */
export interface KvWriter {
  readonly isWriting: boolean;
  write(batch: readonly KvChange[], done: Done): void;
  end(): Promise<void>;
}

/** On the brick's own thread, which stands still meanwhile. */
export class KvWriterHere implements KvWriter {
  isWriting = false;
  readonly #write: (batch: readonly KvChange[]) => void;

  constructor(write: (batch: readonly KvChange[]) => void) {
    this.#write = write;
  }

  write(batch: readonly KvChange[], done: Done): void {
    assert(!this.isWriting, "a batch is being written");
    this.isWriting = true;
    let failure: Error | null = null;
    try {
      this.#write(batch);
    } catch (error) {
      failure = error as Error;
    }
    setImmediate(() => {
      this.isWriting = false;
      done(failure);
    });
  }

  async end(): Promise<void> {}
}

/** On another thread, which begins with the first of them. */
export class KvWriterThread implements KvWriter {
  readonly #data: KvWriterData;
  #worker: Worker | null = null;
  #done: Done | null = null;

  constructor(data: KvWriterData) {
    this.#data = data;
  }

  get isWriting(): boolean {
    return this.#done !== null;
  }

  write(batch: readonly KvChange[], done: Done): void {
    assert(this.#done === null, "a batch is being written");
    this.#done = done;
    this.#worker ??= this.#begin();
    const memory = encodeBatch(batch);
    this.#worker.ref();
    this.#worker.postMessage(memory, [memory]);
  }

  async end(): Promise<void> {
    await this.#worker?.terminate();
    this.#worker = null;
  }

  #begin(): Worker {
    const path = new URL("./kv-write-worker-io.ts", import.meta.url);
    const worker = new Worker(path, { workerData: this.#data, resourceLimits: heapLimits });
    worker.on("message", (failure: KvWritten) => {
      this.#ended(failure === null ? null : new Error(failure));
    });
    worker.on("error", (error) => {
      this.#worker = null;
      this.#ended(error);
    });
    return worker;
  }

  #ended(failure: Error | null): void {
    // A process that has nothing else to do may end.
    this.#worker?.unref();
    const done = this.#done;
    this.#done = null;
    done?.(failure);
  }
}
