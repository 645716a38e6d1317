import type { BrickRecord, ClusterState } from "../brick/cluster-state.ts";
import type { BrickNumber } from "../brick/units.ts";
import type { Command } from "./commands.ts";
import { raftLimits } from "./raft/raft-limits.ts";

/** Raft's own configuration, as its leader knows it. */
export interface RaftMembers {
  readonly voters: readonly BrickNumber[];
  readonly learners: readonly BrickNumber[];
}

/** One single-server change of the configuration; the next is planned when it is done. */
export type VoterChange =
  | { readonly type: "addLearner"; readonly brick: BrickNumber }
  /** Takes effect once the learner has caught up. */
  | { readonly type: "promote"; readonly brick: BrickNumber }
  | { readonly type: "demote"; readonly brick: BrickNumber }
  | { readonly type: "remove"; readonly brick: BrickNumber };

/** Two voters survive no more than one does, so that there are 1, 3 or 5. */
export function votersWanted(brickCount: number): number {
  if (brickCount < 3) return 1;
  return brickCount < 5 ? 3 : 5;
}

/**
 * The next change that brings the configuration towards what the bricks call for: everyone a
 * learner, the right number voters, nobody voting who was given up or is leaving. A voter that is
 * merely down keeps its vote, for it returns with its log.
 */
export function planVoters(state: ClusterState, members: RaftMembers): VoterChange | null {
  const bricks = Object.values(state.bricks);
  const known = new Set([...members.voters, ...members.learners]);
  for (const brick of bricks) {
    if (isMember(brick) && !known.has(brick.number)) {
      return { type: "addLearner", brick: brick.number };
    }
  }
  const lasting = bricks.filter((brick) => brick.status === "up" || brick.status === "down");
  const fit = members.voters.filter((one) => lasting.some((brick) => brick.number === one));
  const unfit = members.voters.filter((one) => !fit.includes(one));
  const wanted = votersWanted(lasting.length);
  const next = nextVoter(lasting, members, fit);
  // A new voter comes before an old one goes, so that there is never one fewer than there could be;
  // unless there are as many as may be: then one that was given up makes room.
  const hasRoom = members.voters.length < raftLimits.votersMax;
  if (fit.length < wanted && next !== null && hasRoom) return { type: "promote", brick: next };
  if (unfit.length > 0 && fit.length > 0) return { type: "demote", brick: unfit[0]! };
  if (fit.length > wanted) return { type: "demote", brick: surplusVoter(lasting, fit) };
  const gone = members.learners.find((one) => {
    const brick = state.bricks[one];
    return brick === undefined || brick.status === "removed";
  });
  return gone === undefined ? null : { type: "remove", brick: gone };
}

/** What the cluster state must say of the votes, so that everyone sees Raft's configuration. */
export function voterCommands(state: ClusterState, { voters }: RaftMembers): Command[] {
  return Object.values(state.bricks)
    .filter((brick) => brick.voter !== voters.includes(brick.number))
    .map(({ number, voter }) => ({ type: "setVoter", number, voter: !voter }));
}

/** A failed brick stays a learner: should it return, it must learn what became of it. */
function isMember(brick: BrickRecord): boolean {
  return brick.status !== "removed";
}

/** The learner to promote: one that answers, from a domain without a voter if there is one. */
function nextVoter(
  lasting: readonly BrickRecord[],
  { voters, learners }: RaftMembers,
  fit: readonly BrickNumber[],
): BrickNumber | null {
  const domains = new Set(
    lasting.filter((brick) => fit.includes(brick.number)).map((brick) => brick.domain),
  );
  const able = lasting.filter(
    (brick) =>
      brick.status === "up" && learners.includes(brick.number) && !voters.includes(brick.number),
  );
  const apart = able.find((brick) => brick.domain === "" || !domains.has(brick.domain));
  return (apart ?? able[0])?.number ?? null;
}

/** The voter to spare: one that is down, else the newest brick. */
function surplusVoter(lasting: readonly BrickRecord[], fit: readonly BrickNumber[]): BrickNumber {
  const down = lasting.find((brick) => brick.status === "down" && fit.includes(brick.number));
  return down?.number ?? Math.max(...fit);
}
