import type { BrickNumber } from "../../brick/units.ts";

/** "noop" opens a leader's term; "configuration" carries an encoded Configuration. */
export type EntryKind = "command" | "configuration" | "noop";

export interface Entry {
  readonly index: number;
  readonly term: number;
  readonly kind: EntryKind;
  readonly payload: Buffer;
}

/** Who belongs to the cluster; both lists sorted, no brick in both. */
export interface Configuration {
  readonly voters: readonly BrickNumber[];
  readonly learners: readonly BrickNumber[];
}

/** One single-server change; the next may begin when it is committed. */
export type MembershipChange =
  | { readonly type: "addLearner"; readonly brick: BrickNumber }
  | { readonly type: "promote"; readonly brick: BrickNumber }
  | { readonly type: "demote"; readonly brick: BrickNumber }
  | { readonly type: "remove"; readonly brick: BrickNumber };

export interface Snapshot {
  /** The last entry it covers. */
  readonly index: number;
  readonly term: number;
  readonly configuration: Configuration;
  readonly data: Buffer;
}

/**
 * The store lost entries whose identity (index, term) it cannot tell: this server may have
 * acknowledged them. It neither votes nor stands for election until a leader has given it back
 * everything that might have been committed with its help.
 */
export interface Healing {
  /** No entry beyond this was ever acknowledged. */
  readonly throughIndex: number;
  /** The server's term when the damage was found. */
  readonly term: number;
}

/** What must survive besides the log (Raft figure 2, "persistent state"). */
export interface HardState {
  readonly term: number;
  /** 0 when the vote of this term is not given. */
  readonly votedFor: BrickNumber;
  readonly healing: Healing | null;
}

/** An entry whose content is damaged on this server, though its identity is known. */
export interface Hole {
  readonly index: number;
  readonly term: number;
}

/** What the store found at the start. Entries are dense after the snapshot, holes included. */
export interface Loaded {
  readonly hardState: HardState | null;
  readonly snapshot: Snapshot | null;
  readonly entries: readonly (Entry | Hole)[];
}

export type RaftMessage =
  | PreVote
  | PreVoteReply
  | Vote
  | VoteReply
  | Append
  | AppendReply
  | Heartbeat
  | HeartbeatReply
  | SnapshotChunk
  | SnapshotReply
  | TimeoutNow
  | RepairRequest
  | RepairReply;

/** "Would you vote for me in this term?" Changes nothing at the receiver. */
export interface PreVote {
  readonly type: "preVote";
  /** The term the sender would stand in. */
  readonly term: number;
  readonly lastIndex: number;
  readonly lastTerm: number;
}
export interface PreVoteReply {
  readonly type: "preVoteReply";
  /** The term asked for when granted, else the receiver's own. */
  readonly term: number;
  readonly granted: boolean;
}
export interface Vote {
  readonly type: "vote";
  readonly term: number;
  readonly lastIndex: number;
  readonly lastTerm: number;
  /** The leader itself asked the sender to stand: stickiness does not apply. */
  readonly transfer: boolean;
}
export interface VoteReply {
  readonly type: "voteReply";
  readonly term: number;
  readonly granted: boolean;
}
export interface Append {
  readonly type: "append";
  readonly term: number;
  readonly previousIndex: number;
  readonly previousTerm: number;
  readonly commitIndex: number;
  readonly entries: readonly Entry[];
}
export interface AppendReply {
  readonly type: "appendReply";
  readonly term: number;
  readonly ok: boolean;
  /** ok: everything up to here is durable and the leader's. Not ok: the previousIndex refused. */
  readonly index: number;
  /** Not ok: the last entry of the follower that may be the leader's. */
  readonly hintIndex: number;
  readonly hintTerm: number;
  /** The follower lost entries it once had: what the leader believes of it may be too much. */
  readonly healing: boolean;
}
export interface Heartbeat {
  readonly type: "heartbeat";
  readonly term: number;
  readonly round: number;
  readonly commitIndex: number;
}
export interface HeartbeatReply {
  readonly type: "heartbeatReply";
  readonly term: number;
  readonly round: number;
  /** The follower's log is whole up to here. */
  readonly lastIndex: number;
  /** It knows its log to be the leader's up to here; less than before when it has restarted. */
  readonly agreedIndex: number;
  readonly healing: boolean;
}
export interface SnapshotChunk {
  readonly type: "snapshotChunk";
  readonly term: number;
  readonly index: number;
  readonly snapshotTerm: number;
  readonly configuration: Configuration;
  readonly sizeBytes: number;
  /** CRC-32 of the whole snapshot. */
  readonly checksum: number;
  readonly offsetBytes: number;
  readonly bytes: Buffer;
}
export interface SnapshotReply {
  readonly type: "snapshotReply";
  readonly term: number;
  readonly index: number;
  /** The receiver has everything before this. */
  readonly offsetBytes: number;
}
export interface TimeoutNow {
  readonly type: "timeoutNow";
  readonly term: number;
}
/** Asks anybody for entries whose content was damaged; no part of the consensus. */
export interface RepairRequest {
  readonly type: "repairRequest";
  readonly term: number;
  readonly fromIndex: number;
  readonly toIndex: number;
}
export interface RepairReply {
  readonly type: "repairReply";
  readonly term: number;
  readonly entries: readonly Entry[];
}

/** Why a proposal, a read or a change was not taken. None of them has any effect. */
export type RejectFault =
  /** Ask the leader; 0 when none is known. */
  | { readonly code: "not_leader"; readonly leader: BrickNumber }
  /** Leadership is on its way to this brick. */
  | { readonly code: "transferring"; readonly leader: BrickNumber }
  /** A bound is reached: try again later. */
  | { readonly code: "busy" }
  | { readonly code: "too_large"; readonly bytesMax: number }
  /** The previous change, or the first entry of this term, is not yet committed. */
  | { readonly code: "change_pending" }
  | { readonly code: "not_caught_up" }
  /** The change makes no sense in this configuration. */
  | { readonly code: "invalid_change"; readonly reason: string };

export type RaftEvent =
  | { readonly type: "message"; readonly from: BrickNumber; readonly message: RaftMessage }
  /** Every persist effect up to this ticket survives a power cut. */
  | { readonly type: "persisted"; readonly ticket: number }
  /** raft.wakeAtMs has passed. */
  | { readonly type: "wake" }
  | {
      readonly type: "propose";
      readonly proposals: readonly { readonly id: number; readonly payload: Buffer }[];
    }
  | { readonly type: "read"; readonly id: number }
  | { readonly type: "changeMembership"; readonly id: number; readonly change: MembershipChange }
  | { readonly type: "transferLeadership"; readonly to: BrickNumber }
  /** The state machine's state after the entry `index`, which must have been applied. */
  | { readonly type: "snapshotMade"; readonly index: number; readonly data: Buffer };

export type RaftEffect =
  | PersistEffect
  /** May be lost, doubled, reordered. */
  | { readonly type: "send"; readonly to: BrickNumber; readonly message: RaftMessage }
  /** Committed, in order, each once; only entries of kind "command" concern the state machine. */
  | { readonly type: "apply"; readonly entries: readonly Entry[] }
  /** The state machine begins anew from this snapshot. */
  | { readonly type: "restore"; readonly snapshot: Snapshot }
  | {
      readonly type: "accepted";
      readonly id: number;
      readonly index: number;
      readonly term: number;
    }
  | { readonly type: "rejected"; readonly id: number; readonly fault: RejectFault }
  /** This server led after the read was asked for, and has applied everything up to `index`. */
  | { readonly type: "readConfirmed"; readonly id: number; readonly index: number }
  | { readonly type: "readRejected"; readonly id: number; readonly fault: RejectFault }
  | {
      readonly type: "roleChanged";
      readonly leads: boolean;
      readonly term: number;
      readonly leader: BrickNumber;
    };

/**
 * Work for the store, to be done in the order of the tickets and answered by `persisted`. Within
 * one: the snapshot, the reset, the cut, the repairs, the entries; the hard state before them.
 */
export interface PersistEffect {
  readonly type: "persist";
  readonly ticket: number;
  readonly hardState: HardState | null;
  readonly snapshot: Snapshot | null;
  /** Every entry is void: the snapshot stands in place of a log that was not the leader's. */
  readonly resetsLog: boolean;
  /** Entries after this index are void. null: none are. */
  readonly cutAfterIndex: number | null;
  /** The content of holes; nothing after them is void. */
  readonly repairs: readonly Entry[];
  /** Dense; the first one voids every entry from its index on. */
  readonly entries: readonly Entry[];
  /** The log may forget everything up to here. */
  readonly compactThroughIndex: number;
}
