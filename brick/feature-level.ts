import { type MessageType, messageType } from "./rpc/message-types.ts";

/**
 * What bricks of one cluster may say to each other, and what they may write into its state, is numbered:
 * the **feature level** of the cluster is the newest that all of its bricks know. It is in the cluster
 * state, rises by one when every brick has announced that it knows the next, and never falls. So a
 * cluster is upgraded brick by brick, and nobody hears what it does not understand.
 *
 *     level  since then
 *         1  everything that was there before there were levels
 *         2  `raiseLevel`, `mapForget`, `volumeReadPart`, and TAS of a unit's mode
 *         3  a new cluster begins at the newest level, and may have `shardSpan`
 *
 * Whoever adds a command, a member of the state that decides something, or a message adds a level, says
 * below what belongs to it, and makes nothing of it before `levelOf(state)` has reached it.
 */
export interface LevelRange {
  readonly oldest: number;
  readonly newest: number;
}

/** Of this build. It can be a brick of a cluster at any level between, both included. */
export const ownLevels: LevelRange = { oldest: 1, newest: 3 };
/** From which on a cluster's families of branches may have shards of their own. */
export const levelOfShardSpan = 3;
/** Of a brick that says nothing of levels. */
export const levelsBefore: LevelRange = { oldest: 1, newest: 1 };

const messageLevels: ReadonlyMap<MessageType, number> = new Map([
  [messageType.mapForget, 2],
  [messageType.volumeReadPart, 2],
]);

/** The level from which on a message may be sent. */
export function levelOfMessage(type: number): number {
  return messageLevels.get(type as MessageType) ?? 1;
}

/** Of a cluster state; one that says nothing is of before there were levels. */
export function levelOf(state: { readonly level?: number }): number {
  return state.level ?? 1;
}

/** Why a brick of these levels cannot be in a cluster at that one, and what to do; null: it can. */
export function levelRefusal(level: number, { oldest, newest }: LevelRange): string | null {
  if (newest < level) {
    return `it knows feature levels up to ${newest}, and the cluster is at level ${level}, which does not fall: run a newer build on it`;
  }
  if (oldest > level) {
    return `it knows feature levels from ${oldest} on, and the cluster is at level ${level}: run a build on it that knows level ${level}, as on the others, and upgrade step by step`;
  }
  return null;
}
