import type { Kv, KvChange } from "../host.ts";
import type { RecordLocation } from "../log/log.ts";
import type { MemoryParts } from "../memory-budget.ts";
import { MiB } from "../units.ts";
import type { StoreIdentity } from "./store-open.ts";

/** Whoever keeps state in the key-value store that follows from records of the log. */
export interface StoreParticipant {
  /** Before the first replay: the state as of the last checkpoint is in the key-value store. */
  begin?(kv: Kv): void;
  /** Records since the last checkpoint, in order, possibly some before it; the buffer is yours. */
  replay(record: Buffer, location: RecordLocation): void;
  /** Everything that a checkpoint made now must hold. */
  collect(): KvChange[];
  /** What `collect` gave is durable. */
  collected(): void;
  dirtyCount(): number;
}

export const diskFloorBytesDefault = 64 * MiB;

export interface StoreOptions {
  capacityBytes: number;
  /** Counts only when the folder is new. */
  segmentBytes?: number;
  participants: readonly StoreParticipant[];
  /** Who the brick is; counts only when the folder is new. */
  identity?: StoreIdentity;
  /** Free bytes of the file system below which no segment is made, and the brick is soon full. */
  diskFloorBytes?: number;
  memory?: MemoryParts;
}

export type PutFault =
  /** The brick is full: put it elsewhere. */
  | { code: "no_space" }
  /** No chunk has this size. */
  | { code: "bad_size"; lengthBytes: number }
  /** Too much waits for the log already: put it elsewhere, or later. */
  | { code: "busy" };
export type PutResult = { ok: true; deduplicated: boolean } | { ok: false; fault: PutFault };
