/** What the thread that opens the key-value store anew is given, and what it says by `state`. */
export interface KvReopening {
  readonly bindingPath: string;
  /** The store itself, which both threads may use, though never at the same time. */
  readonly handle: bigint;
  readonly options: Record<string, unknown>;
  readonly state: Int32Array;
}

export const reopenWaits = 0;
export const reopenDone = 1;
export const reopenFailed = 2;
