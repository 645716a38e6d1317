import { chunkBytesMax } from "../chunk/key.ts";
import type { Host } from "../host.ts";
import type { Calls } from "../rpc/calls.ts";
import { messageType } from "../rpc/message-types.ts";
import type { Store } from "../store/store.ts";
import { CopyBudget, type CopyRates, copyRatesDefault } from "./copy-budget.ts";
import { type CopyRequest, decodeChunkCopy, encodeChunkCopyReply } from "./copy-messages.ts";
import { fetchChunk } from "./fetch-chunk.ts";

/** Copies that wait for the budget; more are refused, and asked for again. */
export const copiesQueuedMax = 1024;
/** Nobody waits for the answer any more (see `copyTimeoutMs`). */
const queuedMsMax = 10_000;

interface Queued {
  readonly request: CopyRequest;
  readonly sinceMs: number;
  readonly answer: (bytes: number | null) => void;
}

interface ServiceParts {
  readonly host: Host;
  readonly calls: Calls;
  readonly store: Store;
  readonly rates?: Partial<CopyRates>;
}

/**
 * Fetches the chunks that shard primaries want this brick to hold, no more of them in a time than
 * the budget says: what protects initiators is decided where the bytes arrive, for any number of
 * primaries may ask at once. Copies that restore go before those that balance.
 */
export class CopyService {
  readonly #parts: ServiceParts;
  readonly #budget: CopyBudget;
  readonly #queues: Record<CopyRequest["urgency"], Queued[]> = { repair: [], balance: [] };
  #pumping = false;
  #closed = false;

  constructor(parts: ServiceParts) {
    this.#parts = parts;
    const rates = { ...copyRatesDefault, ...parts.rates };
    this.#budget = new CopyBudget(rates, parts.host.clock.nowMs());
    parts.calls.serve(messageType.chunkCopy, (_from, body, reply) => {
      const request = decodeChunkCopy(body);
      if (request === null) return;
      parts.store.stamps.reach(request.gcEpoch);
      this.#ask(request, (bytes) => reply(encodeChunkCopyReply(bytes)));
    });
  }

  close(): void {
    this.#closed = true;
  }

  #ask(request: CopyRequest, answer: (bytes: number | null) => void): void {
    const { store, host } = this.#parts;
    const queue = this.#queues[request.urgency];
    if (store.protect(request.key)) {
      answer(0);
      return;
    }
    if (queue.length >= copiesQueuedMax) {
      answer(null);
      return;
    }
    queue.push({ request, sinceMs: host.clock.nowMs(), answer });
    if (!this.#pumping) this.#pump();
  }

  /** Begins what the budget allows, and comes again for the rest. */
  #pump(): void {
    const { host, store } = this.#parts;
    this.#pumping = false;
    for (;;) {
      const nowMs = host.clock.nowMs();
      const queue = this.#queues.repair.length > 0 ? this.#queues.repair : this.#queues.balance;
      const next = queue[0];
      if (next === undefined || this.#closed) return;
      if (nowMs - next.sinceMs >= queuedMsMax) {
        queue.shift();
        continue;
      }
      const { urgency } = next.request;
      const waitMs = this.#budget.waitMs(nowMs, urgency, store.queuedBytes === 0);
      if (waitMs > 0) {
        this.#pumping = true;
        host.clock.after(waitMs, () => this.#pump());
        return;
      }
      queue.shift();
      this.#budget.take(nowMs, urgency, chunkBytesMax);
      this.#fetchAndKeep(next.request).then((bytes) => {
        this.#budget.take(host.clock.nowMs(), urgency, (bytes ?? 0) - chunkBytesMax);
        next.answer(bytes);
      });
    }
  }

  /** Bytes that were fetched and kept; null: no source gave them, or there is no room. */
  async #fetchAndKeep({ key, sources }: CopyRequest): Promise<number | null> {
    const { calls, store } = this.#parts;
    if (store.protect(key)) return 0;
    for (const source of sources) {
      const bytes = await fetchChunk(calls, key, source);
      if (typeof bytes === "string") continue;
      const origin = { branch: 0, grain: 0, firstSector: 0, sequence: 0 };
      return new Promise((resolve) => {
        store.put(key, bytes, origin, (result) => {
          if (!result.ok) resolve(null);
          else resolve(result.deduplicated ? 0 : bytes.length);
        });
      });
    }
    return null;
  }
}
