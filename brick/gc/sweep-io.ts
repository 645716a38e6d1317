import { keyName } from "../chunk/chunk-index.ts";
import type { ClusterState } from "../cluster-state.ts";
import type { Host } from "../host.ts";
import { chunksOf } from "../map/entry.ts";
import type { Replica } from "../map/replica.ts";
import { liveShareMax, liveShareMaxUrgent } from "../store/compaction.ts";
import type { Store } from "../store/store.ts";
import type { BrickNumber } from "../units.ts";
import { MiB } from "../units.ts";
import { gcOf, sweepBefore } from "./epochs.ts";
import type { GcOptions } from "./gc-options.ts";
import { restMs } from "./pace.ts";

const compactionStepBytes = 1 * MiB;

interface SweepParts {
  readonly host: Host;
  readonly self: BrickNumber;
  readonly store: Store;
  readonly options: GcOptions;
  replicas(): Iterable<Replica>;
  state(): ClusterState;
  isClosed(): boolean;
  /** Whether this brick is short of space. */
  isShort(): boolean;
  /** Of this brick's time, what collecting garbage may take now. */
  share(): number;
}

/** Drops what no shard has marked for two epochs, and gives its space back. */
export class Sweeper {
  /** By the marks of which epoch this brick has swept all it holds. */
  sweptEpoch = 0;
  readonly #parts: SweepParts;

  constructor(parts: SweepParts) {
    this.#parts = parts;
  }

  /** The epoch below which stamps count for nothing now; null: nothing may be dropped. */
  before(): number | null {
    const { store, self } = this.#parts;
    const state = this.#parts.state();
    const before = sweepBefore(state, self, store.superblock.boot);
    // Somebody knows of epochs that this brick's state does not: its stamps reach less far back.
    if (before === null || store.stamps.clock > gcOf(state).marked + 1) return null;
    return before;
  }

  /** One walk of the index, if there are marks by which it was not walked yet. */
  async sweep(): Promise<boolean> {
    const { host, store, options } = this.#parts;
    const { marked } = gcOf(this.#parts.state());
    if (marked <= this.sweptEpoch || this.before() === null) return false;
    if (store.putsOffCheckpoints) return false;
    // What is only in the log yet is too young to be swept; what was is in the index from here on.
    store.checkpoint();
    await store.checkpointed();
    let from: Buffer | null = null;
    do {
      const before = this.before();
      if (before === null || this.#parts.isClosed()) return false;
      // What is dropped stays in memory until a checkpoint.
      if (store.putsOffCheckpoints) return false;
      let pinned: Set<string> | null = null;
      const begunMs = host.clock.nowMs();
      const step = store.sweepStep(from, options.sweepStepChunks, (name, entry) => {
        const stamp = store.stamps.epochOf(entry);
        if (stamp !== null && stamp >= before) return false;
        pinned ??= this.#pinned();
        return !pinned.has(name);
      });
      from = step.next;
      const workMs = host.clock.nowMs() - begunMs;
      await this.#pause(restMs(workMs, this.#parts.share(), options.pauseMs));
    } while (from !== null);
    if (this.#parts.isClosed()) return false;
    this.sweptEpoch = marked;
    store.checkpoint();
    await store.recycle();
    return true;
  }

  /**
   * Chunks of entries that this brick has logged and not committed: after a restart, or for a
   * recovery, it must have their bytes, whatever became of them in the views since.
   */
  #pinned(): Set<string> {
    const names = new Set<string>();
    for (const { pending } of this.#parts.replicas()) {
      for (const entry of pending.values()) {
        for (const { key } of chunksOf(entry)) names.add(keyName(key));
      }
    }
    return names;
  }

  /** A step of compaction, or of taking back what is wholly dead; how long to wait after it. */
  async compact(): Promise<number> {
    const { store, options } = this.#parts;
    const urgent = this.#parts.isShort();
    if (!urgent && store.queuedBytes > 0) return busyMs;
    const shareMax = urgent ? liveShareMaxUrgent : liveShareMax;
    const step = await store.compactStep(compactionStepBytes, shareMax);
    if (this.#parts.isClosed()) return 0;
    if (step.emptied) store.checkpoint();
    if (step.emptied || step.idle) await store.recycle();
    if (step.idle) return idleMs;
    const rate = urgent ? options.compactionUrgentBytesPerSecond : options.compactionBytesPerSecond;
    return Math.max(options.pauseMs, (step.readBytes / rate) * 1000);
  }

  #pause(delayMs: number): Promise<void> {
    return new Promise((resolve) => void this.#parts.host.clock.after(delayMs, resolve));
  }
}

/** Until it is looked whether the log is quiet, */
const busyMs = 50;
/** and whether there is anything to compact. */
const idleMs = 500;
