import { keyName } from "../chunk/chunk-index.ts";
import type { ClusterState } from "../cluster-state.ts";
import { isReachable } from "../cluster-state.ts";
import { DiskError, type Host } from "../host.ts";
import type { Calls } from "../rpc/calls.ts";
import { messageType } from "../rpc/message-types.ts";
import type { Store } from "../store/store.ts";
import type { BrickNumber } from "../units.ts";
import { Placements } from "../volume/chunk-context.ts";
import { fetchChunk } from "./fetch-chunk.ts";
import { decodeChunkHeal } from "./heal-messages.ts";
import { type HealOptions, healOptionsDefault, scrubBytesPerSecond } from "./heal-options.ts";

export interface HealCounters {
  /** Chunk bytes fetched from other bricks to replace what was damaged here. */
  healBytes: number;
  healedChunks: number;
  /** Damaged chunks that no other brick has. */
  unhealedChunks: number;
}

interface HealParts {
  readonly host: Host;
  readonly calls: Calls;
  readonly self: BrickNumber;
  readonly store: Store;
  readonly state: () => ClusterState;
  readonly options?: Partial<HealOptions>;
}

/** Steps of the scrub a second. */
const scrubStepsPerSecond = 1;

/**
 * Sees to it that damage on this brick's medium does not last: walks the store and verifies it,
 * slowly, for ever; and writes every chunk that a read, the walk or the replay found damaged anew,
 * from any brick that has it. Who that may be is not known here, for holders are the map's: all
 * are asked, in the key's order.
 */
export class Heal {
  readonly counters: HealCounters = { healBytes: 0, healedChunks: 0, unhealedChunks: 0 };
  readonly #parts: HealParts;
  readonly #options: HealOptions;
  readonly #placements = new Placements();
  /** By name: the key, and when it is to be tried (again). */
  readonly #queue = new Map<string, { key: Buffer; atMs: number }>();
  /** Nothing of it touches the store any more once these have resolved. */
  readonly #running = new Set<Promise<number | null>>();
  #isHealing = false;
  #closed = false;

  constructor(parts: HealParts) {
    this.#parts = parts;
    this.#options = { ...healOptionsDefault, ...parts.options };
    const { store, calls } = parts;
    store.onDamaged = (key) => this.note(key);
    for (const key of store.damagedAtOpen) this.note(key);
    calls.serve(messageType.chunkHeal, (_from, body) => {
      for (const key of decodeChunkHeal(body) ?? []) this.note(key);
    });
    this.#again(() => this.#scrub());
  }

  get queuedCount(): number {
    return this.#queue.size;
  }

  /** The chunk is damaged here, or lost. */
  note(key: Buffer): void {
    const name = keyName(key);
    if (this.#queue.has(name) || this.#queue.size >= this.#options.queueKeysMax) return;
    this.#queue.set(name, { key: Buffer.from(key), atMs: 0 });
    if (this.#isHealing) return;
    this.#isHealing = true;
    this.#again(() => this.#healOne());
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all(this.#running);
  }

  /** Runs the action again and again, with the pause after it that it asks for; null: no more. */
  #again(action: () => Promise<number | null>): void {
    if (this.#closed) return;
    const running = action();
    this.#running.add(running);
    running.then((delayMs) => {
      this.#running.delete(running);
      if (delayMs === null) return;
      this.#parts.host.clock.after(delayMs, () => this.#again(action));
    });
  }

  async #healOne(): Promise<number | null> {
    const nowMs = this.#parts.host.clock.nowMs();
    let nextMs = Number.POSITIVE_INFINITY;
    for (const [name, { key, atMs }] of this.#queue) {
      nextMs = Math.min(nextMs, atMs);
      if (atMs > nowMs) continue;
      this.#queue.delete(name);
      const healed = await this.#heal(key);
      if (healed === "later") {
        this.#queue.set(name, { key, atMs: nowMs + this.#options.healRetryMs });
      }
      const bytes = typeof healed === "number" ? healed : 0;
      return Math.max(1, (bytes / this.#options.healBytesPerSecond) * 1000);
    }
    this.#isHealing = this.#queue.size > 0;
    return this.#isHealing ? nextMs - nowMs : null;
  }

  /** Bytes fetched; "later" when who may have it is away. */
  async #heal(key: Buffer): Promise<number | "later"> {
    const { calls, self, store, state } = this.#parts;
    if (store.has(key)) return 0;
    let isAnyoneAway = false;
    for (const brick of this.#placements.forRead(state()).order(key)) {
      if (brick === self) continue;
      const record = state().bricks[String(brick)];
      const bytes = isReachable(record) ? await fetchChunk(calls, key, brick) : "away";
      if (this.#closed) return 0;
      if (bytes === "away") isAnyoneAway = true;
      else if (bytes !== "without") return this.#replace(key, bytes);
    }
    if (isAnyoneAway) return "later";
    // What the medium, or the way to it, refused once it may give another time.
    if (!(await store.recheck(key))) this.counters.unhealedChunks += 1;
    return 0;
  }

  async #replace(key: Buffer, bytes: Buffer): Promise<number | "later"> {
    const { store } = this.#parts;
    const origin = { branch: 0, grain: 0, firstSector: 0, sequence: 0 };
    const kept = await new Promise<boolean>((resolve) => {
      store.put(key, bytes, origin, (result) => resolve(result.ok));
    });
    if (!kept) return "later";
    this.counters.healBytes += bytes.length;
    this.counters.healedChunks += 1;
    return bytes.length;
  }

  async #scrub(): Promise<number> {
    const { store } = this.#parts;
    const host: Host = this.#parts.host;
    const bytesPerSecond = scrubBytesPerSecond(store.space().usedBytes, this.#options);
    try {
      await store.scrubStep(bytesPerSecond / scrubStepsPerSecond);
    } catch (error) {
      if (!(error instanceof DiskError)) host.crash(error);
      host.log(`scrub: ${error.message}`);
    }
    return 1000 / scrubStepsPerSecond;
  }
}
