import { assert, assertNever } from "../brick/assert.ts";
import type { ClusterState, ShardRecord } from "../brick/cluster-state.ts";
import * as access from "./access-commands.ts";
import * as bricks from "./brick-commands.ts";
import { type Applied, type CommandResult, done, refuse } from "./command-result.ts";
import type { Command, CommandOf } from "./commands.ts";
import * as gc from "./gc-commands.ts";
import * as growth from "./growth-commands.ts";
import * as keys from "./key-commands.ts";
import * as levels from "./levels.ts";
import { withoutStaleKeys } from "./pending-keys.ts";
import * as shards from "./shard-commands.ts";
import * as units from "./unit-commands.ts";
import * as volumes from "./volume-commands.ts";

/** Before `initCluster` there is nothing: version 0, no bricks, no shards. */
export const emptyClusterState: ClusterState = {
  clusterId: "",
  version: 0,
  clusterTimeMs: 0,
  bricks: {},
  brickNumberNext: 1,
  shards: [],
  volumes: {},
  branchNext: 1,
  attachments: {},
  attachmentEpochNext: 1,
  gcEpoch: 0,
  joinTokens: {},
};

export const joinTokensMax = 1024;

/**
 * Applies one command: the same state and command give the same state and result on every brick.
 * A refusal leaves the state as it is.
 */
export function apply(
  state: ClusterState,
  command: Command,
): { state: ClusterState; result: CommandResult } {
  if (command.type === "initCluster") return finish(state, initCluster(state, command));
  if (state.version === 0) {
    const message = `cannot ${command.type}: the cluster is not initialised; run init first`;
    return refuse(state, "not_initialised", message);
  }
  return finish(state, dispatch(state, command));
}

/** Moves the cluster's time forward; an earlier time changes nothing. */
export function advanceTime(state: ClusterState, toMs: number): ClusterState {
  if (state.version === 0 || toMs <= state.clusterTimeMs) return state;
  const live = Object.entries(state.joinTokens).filter(([, token]) => token.endsMs > toMs);
  const joinTokens =
    live.length === Object.keys(state.joinTokens).length
      ? state.joinTokens
      : Object.fromEntries(live);
  const kept = withoutStaleKeys(state, toMs);
  return { ...kept, version: state.version + 1, clusterTimeMs: toMs, joinTokens };
}

function finish(before: ClusterState, applied: Applied): Applied {
  const { state, result } = applied;
  if (!result.ok) {
    assert(state === before, "a refused command changes nothing");
    return applied;
  }
  if (state === before) return applied;
  const after = units.afterPowerLoss(shards.withShortage(state));
  return { state: { ...after, version: before.version + 1 }, result };
}

function dispatch(state: ClusterState, command: Exclude<Command, { type: "initCluster" }>) {
  switch (command.type) {
    case "advanceTime":
      return done(advanceTime(state, command.toMs));
    case "addJoinToken":
      return addJoinToken(state, command);
    case "joinBrick":
      return bricks.joinBrick(state, command);
    case "useSpare":
      return growth.useSpare(state, command);
    case "brickGrown":
      return growth.brickGrown(state, command);
    case "setRebalance":
      return growth.setRebalance(state, command);
    case "announceBrick":
      return bricks.announceBrick(state, command);
    case "witness":
      return units.witness(state);
    case "brickUp":
      return bricks.brickUp(state, command);
    case "brickDown":
      return bricks.brickDown(state, command);
    case "brickFailed":
      return bricks.brickFailed(state, command);
    case "drainBrick":
      return bricks.drainBrick(state, command);
    case "removeBrick":
      return bricks.removeBrick(state, command);
    case "brickSpace":
      return bricks.brickSpace(state, command);
    case "raiseLevel":
      return levels.raiseLevel(state, command);
    case "setVoter":
      return bricks.setVoter(state, command);
    case "changeView":
      return shards.changeView(state, command);
    case "setTransfer":
      return shards.setTransfer(state, command);
    case "markDamaged":
      return shards.markDamaged(state, command);
    case "beginGc":
      return gc.beginGc(state, command);
    case "finishGc":
      return gc.finishGc(state, command);
    case "createVolume":
      return volumes.createVolume(state, command);
    case "reserveKeyDomain":
      return keys.reserveKeyDomain(state, command);
    case "rekeyVolume":
      return keys.rekeyVolume(state, command);
    case "resizeVolume":
      return volumes.resizeVolume(state, command);
    case "deleteVolume":
      return volumes.deleteVolume(state, command);
    case "forgetVolume":
      return volumes.forgetVolume(state, command);
    case "attach":
      return volumes.attach(state, command);
    case "detach":
      return volumes.detach(state, command);
    case "setInitiator":
      return access.setInitiator(state, command);
    case "removeInitiator":
      return access.removeInitiator(state, command);
    case "allowVolume":
      return access.allowVolume(state, command);
    case "denyVolume":
      return access.denyVolume(state, command);
    case "openVolume":
      return access.openVolume(state, command);
    case "setDiscoveryChap":
      return access.setDiscoveryChap(state, command);
    case "changeUnit":
      return units.changeUnit(state, command);
    default:
      return assertNever(command);
  }
}

function initCluster(state: ClusterState, command: CommandOf<"initCluster">): Applied {
  if (state.version !== 0) {
    const message = `cannot initialise: this is cluster ${state.clusterId} already`;
    return refuse(state, "already_initialised", message);
  }
  const number = 1;
  const record = {
    ...bricks.newBrick(number, command),
    status: "up" as const,
    reachable: true,
    boot: command.boot,
    incarnation: command.incarnation,
    voter: true,
  };
  const shard: ShardRecord = {
    view: 1,
    primary: number,
    primaryBoot: command.boot,
    members: [number],
    candidates: [],
    transfer: false,
    chain: [],
    shortSinceMs: 0,
  };
  const made: ClusterState = {
    ...emptyClusterState,
    clusterId: command.clusterId,
    // From 1, because 0 means "never" in downSinceMs and shortSinceMs.
    clusterTimeMs: 1,
    bricks: { [number]: record },
    brickNumberNext: number + 1,
    shards: Array.from({ length: command.shardCount }, () => shard),
    ...(command.shardSpan !== undefined && { shardSpan: command.shardSpan }),
    ...(command.level !== undefined && { level: command.level }),
  };
  return done(made, number);
}

function addJoinToken(state: ClusterState, command: CommandOf<"addJoinToken">): Applied {
  const { id, hash, lifeMs } = command;
  if (state.joinTokens[id] !== undefined) {
    return refuse(state, "taken", `cannot add join token ${id}: it exists; make a new one`);
  }
  if (Object.keys(state.joinTokens).length >= joinTokensMax) {
    const message = `cannot add join token ${id}: there are ${joinTokensMax} already; wait until some have ended`;
    return refuse(state, "limit", message);
  }
  const token = { hash, endsMs: state.clusterTimeMs + lifeMs };
  return done({ ...state, joinTokens: { ...state.joinTokens, [id]: token } });
}
