import type { BrickNumber } from "../brick/units.ts";
import type { RaftMembers, VoterChange } from "./voters.ts";

/** What the control plane needs of Raft; control/raft/ keeps it. */
export interface RaftPort {
  /** Resolves when the entry is committed; not ok when this brick does not lead, or no more. */
  propose(payload: Buffer): Promise<{ ok: boolean }>;
  /**
   * ok: at some moment after the call this brick was still the leader, and everything committed
   * until then has been applied here.
   */
  readBarrier(): Promise<{ ok: boolean }>;
  receive(from: BrickNumber, body: Buffer): void;
  leader(): BrickNumber;
  isLeader(): boolean;
  term(): number;
  members(): RaftMembers;
  change(change: VoterChange): Promise<boolean>;
  transferLeadership(to: BrickNumber): void;
  close(): Promise<void>;
}

export interface RaftCallbacks {
  apply(payloads: readonly Buffer[]): void;
  snapshot(): Buffer;
  restore(snapshot: Buffer): void;
  /** `term` grows with each leader; a brick that leads again in a later term begins anew. */
  onRoleChange(leads: boolean, term: number): void;
}

export type OpenRaft = (bootstrap: boolean, callbacks: RaftCallbacks) => Promise<RaftPort>;
