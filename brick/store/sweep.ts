import { type ChunkIndex, keyName } from "../chunk/chunk-index.ts";
import type { Kv } from "../host.ts";
import { keyAfter } from "../kv-key.ts";
import { type ChunkEntry, indexEnd, indexStart } from "./store-keys.ts";

export interface SweepStep {
  /** Where the next step begins; null when the walk has come to the end of the index. */
  next: Buffer | null;
  droppedChunks: number;
  droppedBytes: number;
}

/**
 * Looks at up to `limit` chunks of the index as the last checkpoint left it, in the order of their
 * keys, and gives up those that `mayDrop` names. What has come since the checkpoint is not looked
 * at: it is too young to be garbage.
 */
export function sweepStep(
  { index, kv }: { index: ChunkIndex; kv: Kv },
  from: Buffer | null,
  limit: number,
  mayDrop: (name: string, entry: ChunkEntry) => boolean,
): SweepStep {
  const found = kv.range(from ?? indexStart, indexEnd, limit);
  const step: SweepStep = { next: null, droppedChunks: 0, droppedBytes: 0 };
  for (const [kvKey, value] of found) {
    const name = keyName(kvKey.subarray(1));
    const entry = index.findStored(name, value);
    if (entry === null || !mayDrop(name, entry)) continue;
    index.remove(name, entry);
    step.droppedChunks += 1;
    step.droppedBytes += entry.lengthBytes;
  }
  const last = found.at(-1);
  if (last !== undefined && found.length === limit) step.next = keyAfter(last[0]);
  return step;
}
