import {
  type BrickHealth,
  type BrickRecord,
  brickOf,
  type ClusterState,
  isHeld,
  isReachable,
} from "../brick/cluster-state.ts";
import type { BrickNumber } from "../brick/units.ts";
import { type Applied, done, refuse } from "./command-result.ts";
import type { CommandOf } from "./commands.ts";
import { withGrowth, withSubstitute } from "./growth.ts";
import { holdsReplica, withDamaged, withInterruption } from "./shard-commands.ts";
import { withoutPort } from "./unit-commands.ts";

export const bricksMax = 1024;
/** Of a brick that has said nothing of itself. */
export const noHealth: BrickHealth = { corruptChunks: 0, repairPending: 0 };
const brickNumberMax = 65_535;

/** What a brick brings along, whether it begins the cluster or joins it. */
type NewBrickFacts = Pick<
  BrickRecord,
  "uuid" | "peerAddress" | "portalAddress" | "apiAddress" | "domain" | "capacityBytes"
>;

export function newBrick(number: BrickNumber, facts: NewBrickFacts): BrickRecord {
  return {
    number,
    uuid: facts.uuid,
    status: "joining",
    reachable: false,
    boot: 0,
    peerAddress: facts.peerAddress,
    portalAddress: facts.portalAddress,
    apiAddress: facts.apiAddress,
    domain: facts.domain,
    capacityBytes: facts.capacityBytes,
    usedBytes: 0,
    full: false,
    voter: false,
    downSinceMs: 0,
  };
}

/** A token serves once; the same brick asking again with it gets the number it was given. */
export function joinBrick(state: ClusterState, command: CommandOf<"joinBrick">): Applied {
  const { tokenId, tokenHash, uuid } = command;
  const token = state.joinTokens[tokenId];
  if (token === undefined || token.hash !== tokenHash || token.endsMs <= state.clusterTimeMs) {
    const message = `brick ${uuid} cannot join with token ${tokenId}: it is unknown, wrong or has ended; make a new one`;
    return refuse(state, "token_refused", message);
  }
  const known = Object.values(state.bricks).find((brick) => brick.uuid === uuid);
  if (token.usedBy !== undefined) {
    if (token.usedBy === uuid && known !== undefined) return done(state, known.number);
    const message = `brick ${uuid} cannot join with token ${tokenId}: another brick has used it; make a new one`;
    return refuse(state, "token_refused", message);
  }
  if (known !== undefined) {
    const message = `brick ${uuid} cannot join: it is brick ${known.number} (${known.status}) already; a new brick needs an empty folder`;
    return refuse(state, "taken", message);
  }
  const number = state.brickNumberNext;
  if (Object.keys(state.bricks).length >= bricksMax || number > brickNumberMax) {
    const message = `brick ${uuid} cannot join: a cluster has at most ${bricksMax} bricks, numbered to ${brickNumberMax}`;
    return refuse(state, "limit", message);
  }
  const brick = newBrick(number, command);
  const joined = command.spare === true ? { ...brick, spare: true as const } : brick;
  return done(
    {
      ...state,
      bricks: { ...state.bricks, [number]: withGrowth(state, joined) },
      brickNumberNext: number + 1,
      joinTokens: { ...state.joinTokens, [tokenId]: { ...token, usedBy: uuid } },
    },
    number,
  );
}

export function announceBrick(state: ClusterState, command: CommandOf<"announceBrick">): Applied {
  const { number, boot } = command;
  const brick = brickOf(state, number);
  if (brick === undefined) return unknownBrick(state, "announce", number);
  const stale = staleStore(brick, command);
  if (stale !== null) return refuse(state, "store_refused", stale);
  if (brick.status === "failed" && !command.discarded) {
    const message = `brick ${number} cannot return as it is: it was given up; it must drop its replicas of the map first`;
    return refuse(state, "given_up", message);
  }
  if (boot === brick.boot && isReachable(brick)) {
    return refuse(state, "no_change", `brick ${number} has announced boot ${boot} already`);
  }
  const restarted = boot !== brick.boot;
  const { unwitnessed, health, ...known } = brick;
  const open = restarted ? command.witnessed === false : unwitnessed === true;
  const announced: BrickRecord = {
    ...known,
    status: brick.status === "draining" ? "draining" : "up",
    reachable: true,
    boot,
    incarnation: command.incarnation,
    peerAddress: command.peerAddress,
    portalAddress: command.portalAddress,
    apiAddress: command.apiAddress,
    domain: command.domain,
    capacityBytes: command.capacityBytes,
    downSinceMs: 0,
    ...(open && { unwitnessed: true }),
    ...(!restarted && health !== undefined && { health }),
  };
  // What it held as a brick that was given up is made anew on others: it begins with nothing.
  const begun = command.discarded ? withGrowth(state, announced) : announced;
  const after = withoutPort(withBrick(state, begun), number);
  const damaged = command.cut && restarted;
  if (!damaged) return done(after);
  return done({ ...after, shards: after.shards.map((shard) => withDamaged(shard, number)) });
}

/** Why this start of this store may not take part; null when it may. */
export function staleStore(
  brick: BrickRecord,
  { uuid, boot, incarnation }: { uuid: string; boot: number; incarnation: string },
): string | null {
  const { number } = brick;
  if (uuid !== brick.uuid) {
    return `brick ${number} is refused: its store is ${uuid}, the cluster's brick ${number} is ${brick.uuid}`;
  }
  if (brick.status === "removed") {
    return `brick ${number} is refused: it was removed from the cluster; to use the machine again, join it with an empty folder`;
  }
  // A store older than the cluster knows has forgotten what it acknowledged. It is kept aside.
  if (boot < brick.boot) {
    return `brick ${number} is refused: its store is at boot ${boot}, the cluster has seen boot ${brick.boot}; it is an older copy`;
  }
  if (boot === brick.boot && incarnation !== brick.incarnation) {
    return `brick ${number} is refused: boot ${boot} was announced by another start; only one copy of a store may run`;
  }
  return null;
}

export function brickUp(state: ClusterState, command: CommandOf<"brickUp">): Applied {
  const { number, boot } = command;
  const brick = brickOf(state, number);
  if (brick === undefined) return unknownBrick(state, "mark up", number);
  if (boot !== brick.boot) return otherBoot(state, brick, boot);
  if (isReachable(brick)) return refuse(state, "no_change", `brick ${number} is up already`);
  if (brick.status !== "down" && brick.status !== "draining") {
    const message = `brick ${number} is ${brick.status}; only a down or draining brick comes up without announcing itself`;
    return refuse(state, "not_now", message);
  }
  const status = brick.status === "draining" ? "draining" : "up";
  return done(withBrick(state, { ...brick, status, reachable: true, downSinceMs: 0 }));
}

export function brickDown(state: ClusterState, command: CommandOf<"brickDown">): Applied {
  const { number, boot } = command;
  const brick = brickOf(state, number);
  if (brick === undefined) return unknownBrick(state, "mark down", number);
  // A new boot has other leases than the one that was seen to end.
  if (boot !== brick.boot) return otherBoot(state, brick, boot);
  if (!isReachable(brick)) {
    return refuse(state, "no_change", `brick ${number} (${brick.status}) is not up`);
  }
  const status = brick.status === "draining" ? "draining" : "down";
  const downSinceMs = state.clusterTimeMs;
  const absences = (brick.absences ?? 0) + 1;
  const down = { ...brick, status, reachable: false, downSinceMs, absences } as const;
  const after = withoutPort(withBrick(state, down), number);
  return done({ ...after, shards: after.shards.map((shard) => withInterruption(shard, number)) });
}

export function brickFailed(state: ClusterState, command: CommandOf<"brickFailed">): Applied {
  const brick = brickOf(state, command.number);
  if (brick === undefined) return unknownBrick(state, "give up", command.number);
  if (brick.status === "failed" || brick.status === "removed") {
    return refuse(state, "no_change", `brick ${brick.number} is ${brick.status} already`);
  }
  if (isReachable(brick)) {
    const message = `cannot give up brick ${brick.number}: it is ${brick.status} and answers; drain it instead`;
    return refuse(state, "not_now", message);
  }
  const failed = withBrick(state, { ...brick, status: "failed", reachable: false, downSinceMs: 0 });
  return done(withSubstitute(failed, brick));
}

export function drainBrick(state: ClusterState, command: CommandOf<"drainBrick">): Applied {
  const { number, drain } = command;
  const brick = brickOf(state, number);
  if (brick === undefined) return unknownBrick(state, "drain", number);
  if ((brick.status === "draining") === drain) {
    return refuse(state, "no_change", `brick ${number} is ${drain ? "" : "not "}draining already`);
  }
  if (!drain) {
    return done(withBrick(state, { ...brick, status: brick.reachable ? "up" : "down" }));
  }
  if (brick.status !== "up" && brick.status !== "down") {
    const message = `cannot drain brick ${number}: it is ${brick.status}; only an up or down brick can be drained`;
    return refuse(state, "not_now", message);
  }
  const others = Object.values(state.bricks).filter(
    (one) => one.status === "up" && one.spare !== true && one !== brick,
  );
  if (others.length === 0) {
    const message = `cannot drain brick ${number}: no other brick is up to take its data; add one first`;
    return refuse(state, "not_now", message);
  }
  return done(withBrick(state, { ...brick, status: "draining" }));
}

export function removeBrick(state: ClusterState, command: CommandOf<"removeBrick">): Applied {
  const { number } = command;
  const brick = brickOf(state, number);
  if (brick === undefined) return unknownBrick(state, "remove", number);
  if (brick.status === "removed") {
    return refuse(state, "no_change", `brick ${number} is removed already`);
  }
  const needed = neededBy(state, brick, command);
  if (needed !== null) return refuse(state, "not_now", `cannot remove brick ${number}: ${needed}`);
  const left = withBrick(state, { ...brick, status: "removed", reachable: false, downSinceMs: 0 });
  // Who had failed has been replaced; who drained was emptied in good order.
  const isLost = brick.status === "up" || brick.status === "down";
  return done(isLost ? withSubstitute(left, brick) : left);
}

/** What still needs the brick; null when it may go. */
function neededBy(
  state: ClusterState,
  brick: BrickRecord,
  { emptied, force }: CommandOf<"removeBrick">,
): string | null {
  const { number } = brick;
  // Force gives up data, never safety: whoever may still act under a lease must have ended first.
  // The vote of a lost brick is taken by a change of Raft's own, which is safe by itself.
  if (brick.voter && (isReachable(brick) || !force)) {
    return "it is a voter of the control plane; another takes over once it drains";
  }
  if (isReachable(brick)) {
    const led = state.shards.filter((shard) => shard.primary === number).length;
    if (led > 0) return `it answers and leads ${led} map shards; drain it, or stop it first`;
    // What an earlier boot of it served nobody serves: only use gives that to another brick.
    const attachments = Object.values(state.attachments).filter((one) => one.brick === number);
    const held = attachments.filter((one) => isHeld(state, one)).length;
    if (held > 0) return `it answers and serves ${held} volumes; drain it, or stop it first`;
  }
  if (force || (brick.status === "joining" && !brick.reachable)) return null;
  if (brick.status === "up" || brick.status === "down") {
    return `it is ${brick.status}; drain it first, or force its removal`;
  }
  const kept = state.shards.filter((shard) => holdsReplica(shard, number)).length;
  if (kept > 0) return `${kept} map shards still need it; wait, or force its removal`;
  if (!emptied) return "its chunks are not yet all on other bricks; wait, or force its removal";
  return null;
}

export function brickSpace(state: ClusterState, command: CommandOf<"brickSpace">): Applied {
  const { number, capacityBytes, usedBytes, full, health } = command;
  const brick = brickOf(state, number);
  if (brick === undefined) return unknownBrick(state, "note the space of", number);
  const same =
    brick.capacityBytes === capacityBytes &&
    brick.usedBytes === usedBytes &&
    brick.full === full &&
    (health === undefined || sameHealth(brick.health, health));
  if (same) return refuse(state, "no_change", `brick ${number}: the same space is noted already`);
  const noted = health === undefined ? brick : { ...brick, health };
  return done(withBrick(state, { ...noted, capacityBytes, usedBytes, full }));
}

function sameHealth(known: BrickHealth | undefined, said: BrickHealth): boolean {
  const { corruptChunks, repairPending, keysLacking = 0 } = known ?? noHealth;
  const sameKeys = (said.keysLacking ?? 0) === keysLacking;
  return said.corruptChunks === corruptChunks && said.repairPending === repairPending && sameKeys;
}

export function setVoter(state: ClusterState, command: CommandOf<"setVoter">): Applied {
  const { number, voter } = command;
  const brick = brickOf(state, number);
  if (brick === undefined) return unknownBrick(state, "set the vote of", number);
  if (brick.voter === voter) {
    return refuse(state, "no_change", `brick ${number} is ${voter ? "" : "not "}a voter already`);
  }
  return done(withBrick(state, { ...brick, voter }));
}

function withBrick(state: ClusterState, brick: BrickRecord): ClusterState {
  return { ...state, bricks: { ...state.bricks, [brick.number]: brick } };
}

function unknownBrick(state: ClusterState, action: string, number: BrickNumber): Applied {
  const known = Object.keys(state.bricks).join(", ");
  return refuse(state, "unknown", `cannot ${action} brick ${number}: the bricks are ${known}`);
}

function otherBoot(state: ClusterState, brick: BrickRecord, boot: number): Applied {
  const message = `brick ${brick.number} is at boot ${brick.boot}, not ${boot}`;
  return refuse(state, "stale", message);
}
