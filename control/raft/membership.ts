import { changeConfiguration, encodeConfiguration, isVoter } from "./configuration.ts";
import { send } from "./outbox.ts";
import { configurationOf, type Leader, type Raft } from "./raft-state.ts";
import type { MembershipChange, RejectFault } from "./raft-types.ts";
import { appendAsLeader, syncPeers } from "./replication.ts";
import { becomeFollower } from "./roles.ts";

/** Begins a single-server change (thesis, chapter 4). It rules as soon as it is in the log. */
export function takeMembershipChange(raft: Raft, id: number, change: MembershipChange): void {
  const { role } = raft;
  if (role.name !== "leader") {
    reject(raft, id, { code: "not_leader", leader: raft.leader });
    return;
  }
  // One change at a time, and none before an entry of this term is committed: an uncommitted change
  // of an earlier term might still come to rule elsewhere.
  const pending = raft.configurations.at(-1)!.index > raft.commitIndex;
  if (pending || raft.commitIndex < role.firstIndex) {
    reject(raft, id, { code: "change_pending" });
    return;
  }
  if (role.transfer !== null) {
    reject(raft, id, { code: "transferring", leader: role.transfer.to });
    return;
  }
  const changed = changeConfiguration(configurationOf(raft), change);
  if (!changed.ok) {
    reject(raft, id, changed.fault);
    return;
  }
  if (change.type === "promote" && !hasCaughtUp(raft, role, change.brick)) {
    reject(raft, id, { code: "not_caught_up" });
    return;
  }
  const payload = encodeConfiguration(changed.configuration);
  const { index, term } = appendAsLeader(raft, role, "configuration", payload);
  syncPeers(raft, role);
  raft.effects.push({ type: "accepted", id, index, term });
}

function reject(raft: Raft, id: number, fault: RejectFault): void {
  raft.effects.push({ type: "rejected", id, fault });
}

/** A voter that must first fetch the log would only make majorities harder to reach. */
function hasCaughtUp(raft: Raft, leader: Leader, brick: number): boolean {
  const peer = leader.peers.get(brick);
  if (peer === undefined) return false;
  const silentMs = raft.nowMs - peer.lastContactMs;
  const near = peer.matchIndex + raft.limits.promotionLagEntriesMax >= raft.commitIndex;
  return near && peer.matchIndex > 0 && silentMs <= raft.timing.electionTimeoutMsMin;
}

/** Thesis, section 4.2.2: a leader without a vote leads until the change that took it commits. */
export function leaveIfNoVoter(raft: Raft, leader: Leader): void {
  const { index, configuration } = raft.configurations.at(-1)!;
  if (isVoter(configuration, raft.self) || index > raft.commitIndex) return;
  const voters = [...leader.peers.values()].filter((peer) => isVoter(configuration, peer.brick));
  const best = voters.sort((a, b) => b.matchIndex - a.matchIndex)[0];
  if (best !== undefined) send(raft.outbox, best.brick, { type: "timeoutNow", term: raft.term });
  becomeFollower(raft, raft.term, 0);
}
