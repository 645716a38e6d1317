import { type ClusterState, isReachable } from "../brick/cluster-state.ts";
import { levelOf, levelsBefore } from "../brick/feature-level.ts";
import { type Applied, done, refuse } from "./command-result.ts";
import type { Command, CommandOf } from "./commands.ts";
import type { LeaderBook } from "./membership.ts";

/**
 * From which level on a command may be proposed: before, there may be bricks that cannot apply it.
 * `raiseLevel` itself is of the first: it is decided when all know it.
 */
function levelOfCommand(command: Command): number {
  // TAS is a member that older bricks would not keep.
  if (command.type !== "changeUnit" || command.change.type !== "setMode") return 1;
  return command.change.mode.taskAborted === true ? 2 : 1;
}

/** Why the command must not be proposed in this state; null when it may. */
export function levelTooLow(
  state: ClusterState,
  command: Command,
  levelOfIt: (command: Command) => number = levelOfCommand,
): string | null {
  const needed = levelOfIt(command);
  const level = levelOf(state);
  if (needed <= level) return null;
  return `${command.type} needs feature level ${needed}, and the cluster is at ${level}: upgrade every brick first`;
}

export function raiseLevel(state: ClusterState, { expect }: CommandOf<"raiseLevel">): Applied {
  const level = levelOf(state);
  if (level !== expect) return refuse(state, "stale", `the feature level is ${level} already`);
  return done({ ...state, level: level + 1 });
}

/**
 * The next level, when every brick that is not given up has been heard to know it, in the start that
 * counts. It rests on what this leader has heard: what an older brick
 * says of itself cannot be in the state, which that brick would not write alike. Should one be started
 * with an older build right after, it stops at this command.
 */
export function levelCommand(
  book: Pick<LeaderBook, "heard">,
  state: ClusterState,
): CommandOf<"raiseLevel"> | null {
  const level = levelOf(state);
  for (const brick of Object.values(state.bricks)) {
    if (brick.status === "failed" || brick.status === "removed") continue;
    const heard = book.heard.get(brick.number);
    if (!isReachable(brick) || heard?.boot !== brick.boot) return null;
    const { newest } = heard.keepalive.levels ?? levelsBefore;
    if (newest <= level) return null;
  }
  return { type: "raiseLevel", expect: level };
}
