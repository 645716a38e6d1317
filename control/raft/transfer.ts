import type { BrickNumber } from "../../brick/units.ts";
import { isVoter } from "./configuration.ts";
import { startElection } from "./election.ts";
import { send } from "./outbox.ts";
import { configurationOf, type Leader, mayStand, type Raft } from "./raft-state.ts";

/** Thesis, section 3.10: proposals stop, the other catches up, then it stands at once. */
export function takeTransfer(raft: Raft, to: BrickNumber): void {
  const { role } = raft;
  if (role.name !== "leader" || to === raft.self) return;
  if (!isVoter(configurationOf(raft), to)) return;
  role.transfer = { to, untilMs: raft.nowMs + raft.timing.electionTimeoutMsMax };
  continueTransfer(raft, role);
}

/** Called when the other has answered and at each heartbeat: the message may be lost. */
export function continueTransfer(raft: Raft, leader: Leader): void {
  if (leader.transfer === null) return;
  const { to, untilMs } = leader.transfer;
  if (raft.nowMs >= untilMs || !isVoter(configurationOf(raft), to)) {
    leader.transfer = null;
    return;
  }
  if (leader.peers.get(to)?.matchIndex !== raft.log.lastIndex) return;
  send(raft.outbox, to, { type: "timeoutNow", term: raft.term });
}

export function receiveTimeoutNow(raft: Raft): void {
  if (raft.role.name !== "leader" && mayStand(raft)) startElection(raft, true);
}
