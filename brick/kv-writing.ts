/** What passes between a brick's own thread and the one that writes batches for it. */

export interface KvWriterData {
  readonly bindingPath: string;
  /** The store itself, which both threads use. */
  readonly handle: bigint;
}

/** Answers a batch: why it was not written; null when it is there, synced. */
export type KvWritten = string | null;
