import { assert } from "../../brick/assert.ts";
import { KiB, MiB } from "../../brick/units.ts";

/** How long Raft waits for what. */
export interface RaftTiming {
  readonly heartbeatMs: number;
  /** A follower that heard nothing for a random time between these asks for votes. */
  readonly electionTimeoutMsMin: number;
  readonly electionTimeoutMsMax: number;
  /** An append or a snapshot chunk without answer is sent again after this. */
  readonly retryMs: number;
  /** A proposal whose fate is not known after this is answered "uncertain". */
  readonly proposalTimeoutMs: number;
  /** A read that no quorum confirmed within this is given up. */
  readonly readTimeoutMs: number;
}

export const defaultRaftTiming: RaftTiming = {
  heartbeatMs: 150,
  electionTimeoutMsMin: 700,
  electionTimeoutMsMax: 1400,
  retryMs: 300,
  proposalTimeoutMs: 10_000,
  readTimeoutMs: 5_000,
};

/** The bounds of everything; each is explained at its value. */
export interface RaftLimits {
  readonly payloadBytesMax: number;
  readonly appendBytesMax: number;
  readonly appendEntriesMax: number;
  readonly inflightAppendsMax: number;
  readonly uncommittedBytesMax: number;
  readonly uncommittedEntriesMax: number;
  readonly readsMax: number;
  readonly snapshotBytesMax: number;
  readonly snapshotChunkBytes: number;
  readonly trailingEntries: number;
  readonly snapshotEveryEntries: number;
  readonly snapshotEveryLogBytes: number;
  readonly votersMax: number;
  readonly membersMax: number;
  readonly promotionLagEntriesMax: number;
  readonly heldMessagesMax: number;
  readonly logFileBytesMax: number;
  readonly logAheadBytes: number;
}

export const raftLimits: RaftLimits = {
  /** One proposal. */
  payloadBytesMax: 4 * MiB,
  /** Entries' bytes in one append; a single larger entry travels alone. */
  appendBytesMax: 256 * KiB,
  appendEntriesMax: 512,
  /** Appends without answer, per follower. */
  inflightAppendsMax: 32,
  /** Proposed and not yet committed; more are refused as "busy". */
  uncommittedBytesMax: 64 * MiB,
  uncommittedEntriesMax: 16_384,
  /** Reads that wait for their round. */
  readsMax: 16_384,
  snapshotBytesMax: 256 * MiB,
  snapshotChunkBytes: 256 * KiB,
  /** Entries kept behind a snapshot, so that a follower a little late needs none. */
  trailingEntries: 1024,
  /** A snapshot is made after this much log. */
  snapshotEveryEntries: 8192,
  snapshotEveryLogBytes: 16 * MiB,
  votersMax: 5,
  membersMax: 1024,
  /** A learner may become a voter when it lacks at most this many committed entries. */
  promotionLagEntriesMax: 256,
  /** Messages that wait for durability; beyond, the oldest are dropped as a network would. */
  heldMessagesMax: 4096,
  /** One log file of the store. */
  logFileBytesMax: 8 * MiB,
  /** Zeros written ahead of the log's end: at least half of them are there at any time. */
  logAheadBytes: 1 * MiB,
};

// A message holds whole what may be proposed, and a chunk is no larger than an append.
assert(raftLimits.payloadBytesMax < raftLimits.logFileBytesMax);
assert(raftLimits.logAheadBytes < raftLimits.logFileBytesMax);
assert(raftLimits.snapshotChunkBytes <= raftLimits.payloadBytesMax);
assert(raftLimits.trailingEntries < raftLimits.snapshotEveryEntries);
