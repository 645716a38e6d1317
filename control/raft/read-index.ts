import { quorumValue } from "./configuration.ts";
import { send } from "./outbox.ts";
import { configurationOf, type Leader, type Raft } from "./raft-state.ts";

/**
 * Linearizable reads (thesis, section 6.4): a read is confirmed by a heartbeat round begun after
 * it was asked for. Reads that come while a round is under way share the next one.
 */
export function takeRead(raft: Raft, id: number): void {
  const { role } = raft;
  if (role.name !== "leader") {
    const fault = { code: "not_leader", leader: raft.leader } as const;
    raft.effects.push({ type: "readRejected", id, fault });
    return;
  }
  if (role.reads.length >= raft.limits.readsMax) {
    raft.effects.push({ type: "readRejected", id, fault: { code: "busy" } });
    return;
  }
  role.reads.push({ id, round: role.round + 1 });
  // The reads before this one, if any, wait for a round that is under way or for the term's first
  // commit; the end of that round begins theirs.
  if (role.confirmedRound === role.round) beginRound(raft, role);
}

export function beginRound(raft: Raft, leader: Leader): void {
  leader.round += 1;
  for (const peer of leader.peers.values()) {
    send(raft.outbox, peer.brick, {
      type: "heartbeat",
      term: raft.term,
      round: leader.round,
      commitIndex: Math.min(raft.commitIndex, peer.matchIndex),
    });
  }
}

/** Called at the end of every step of a leader, after its commit index has advanced. */
export function confirmReads(raft: Raft, leader: Leader): void {
  for (;;) {
    leader.confirmedRound = quorumValue(configurationOf(raft), (voter) =>
      voter === raft.self ? leader.round : (leader.peers.get(voter)?.ackedRound ?? 0),
    );
    // Only with an entry of its own term committed does a leader know what is committed.
    if (raft.commitIndex < leader.firstIndex) return;
    while (leader.reads.length > 0 && leader.reads[0]!.round <= leader.confirmedRound) {
      const { id } = leader.reads.shift()!;
      raft.effects.push({ type: "readConfirmed", id, index: raft.commitIndex });
    }
    const waiting = leader.reads.length > 0 && leader.reads[0]!.round > leader.round;
    if (!waiting || leader.confirmedRound < leader.round) return;
    beginRound(raft, leader);
  }
}
