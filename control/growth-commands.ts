import { brickOf, type ClusterState } from "../brick/cluster-state.ts";
import { type Applied, done, refuse } from "./command-result.ts";
import type { CommandOf } from "./commands.ts";
import { withSpareUsed } from "./growth.ts";

export function useSpare(state: ClusterState, { number }: CommandOf<"useSpare">): Applied {
  const brick = brickOf(state, number);
  if (brick === undefined) return refuse(state, "unknown", `there is no brick ${number} to use`);
  if (brick.spare !== true) {
    return refuse(state, "no_change", `brick ${number} is no spare: it takes data already`);
  }
  return done(withSpareUsed(state, brick));
}

export function brickGrown(state: ClusterState, { number }: CommandOf<"brickGrown">): Applied {
  const brick = brickOf(state, number);
  if (brick?.growing !== true) {
    return refuse(state, "no_change", `brick ${number} is not waiting for its share`);
  }
  const { growing: _grown, ...grown } = brick;
  return done({ ...state, bricks: { ...state.bricks, [number]: grown } });
}

export function setRebalance(state: ClusterState, { mode }: CommandOf<"setRebalance">): Applied {
  if ((state.rebalance ?? "idle") === mode) {
    return refuse(state, "no_change", `rebalancing is ${mode} already`);
  }
  return done({ ...state, rebalance: mode });
}
