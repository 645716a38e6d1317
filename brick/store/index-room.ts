import { assert } from "../assert.ts";
import { type Host, isNoSpace, type Kv, type KvChange } from "../host.ts";

/** How soon an index without room is asked again. */
const retryMs = 1000;
/** Written to see whether there is room, and removed. */
const probePath = "index.probe";

/** Bytes that the file system must have left. */
export interface IndexFloors {
  /** For a batch to be written at all. */
  readonly batchBytes: number;
  /** For the index to be opened anew, which writes all that it has in memory. */
  readonly reopenBytes: number;
}

/** Of what must be left to open it anew, for a batch. */
const batchShare = 1 / 8;

export function indexFloors(reopenBytes: number): IndexFloors {
  return { batchBytes: reopenBytes * batchShare, reopenBytes };
}

/**
 * Whether the index can be written. All that it says follows from the log, so a batch for which the
 * file system has no room is put off, and what it would have held stays in memory meanwhile. RocksDB
 * takes no batch any more after one that failed so, or after a step of its own that did: it is opened
 * anew once there is room. Reads go on all the while.
 */
export class IndexRoom {
  readonly #host: Host;
  readonly #kv: Kv;
  readonly #floors: IndexFloors;
  /** Called when batches that were put off can be written. */
  readonly #again: () => void;
  #short = false;
  #writing = false;
  #stopped = false;

  constructor(host: Host, kv: Kv, floors: IndexFloors, again: () => void) {
    this.#host = host;
    this.#kv = kv;
    this.#floors = floors;
    this.#again = again;
  }

  /** There is no room: batches are put off. */
  get isShort(): boolean {
    return this.#short;
  }

  /** A batch is on its way. */
  get isWriting(): boolean {
    return this.#writing;
  }

  /** Writes the batch, synced; false: there is no room, and whether it is there is not known. */
  write(batch: readonly KvChange[]): boolean {
    if (this.#short) return false;
    try {
      this.#kv.write(batch, { sync: true });
    } catch (error) {
      if (!isNoSpace(error)) throw error;
      this.#beShort((error as Error).message);
      return false;
    }
    return true;
  }

  /** The same, while others go on: until `done` is told, there is no other write. */
  writeLater(batch: readonly KvChange[], done: (isWritten: boolean) => void): void {
    assert(!this.#short);
    this.#writing = true;
    this.#kv.writeLater(batch, (failure) => {
      this.#writing = false;
      if (failure !== null && !this.#short) this.#beShort(failure.message);
      done(failure === null);
    });
  }

  /** What the file system has left now. */
  look(freeBytes: number): void {
    if (this.#short) return;
    if (freeBytes < this.#floors.batchBytes) {
      this.#beShort(`${freeBytes} bytes are left of the file system`);
    } else if (this.#kv.hasFailed()) this.#beShort("it could not write out what it had in memory");
  }

  stop(): void {
    this.#stopped = true;
  }

  #beShort(why: string): void {
    this.#short = true;
    this.#host.log(`index: no space, it is written later (${why})`);
    this.#askLater();
  }

  #askLater(): void {
    this.#host.clock.after(retryMs, () => {
      if (!this.#stopped) this.#ask().catch((error: unknown) => this.#host.crash(error));
    });
  }

  /** Whether a file can be written that is as long as what is left for a batch. */
  async #mayGrow(): Promise<boolean> {
    const { disk } = this.#host;
    try {
      const file = await disk.open(probePath, { create: true });
      try {
        await file.write(0, [Buffer.alloc(this.#floors.batchBytes)]);
        await file.sync();
      } finally {
        await file.close();
        await disk.remove(probePath);
      }
    } catch (error) {
      if (!isNoSpace(error)) throw error;
      return false;
    }
    return true;
  }

  async #ask(): Promise<void> {
    const freeBytes = await this.#host.disk.freeBytes();
    if (this.#stopped) return;
    const failed = this.#kv.hasFailed();
    const { batchBytes, reopenBytes } = this.#floors;
    if (this.#writing || freeBytes < (failed ? reopenBytes : 2 * batchBytes)) {
      this.#askLater();
      return;
    }
    if (failed) {
      // An index that cannot be opened again is the brick's end: a quota is not seen in free bytes.
      if (!(await this.#mayGrow())) {
        this.#askLater();
        return;
      }
      if (this.#stopped) return;
      this.#kv.reopen();
    }
    this.#short = false;
    this.#host.log(`index: there is space again${failed ? ", it was opened anew" : ""}`);
    this.#again();
  }
}
