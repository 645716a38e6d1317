import {
  brickOf,
  type ClusterState,
  isReachable,
  replicasOf,
  replicasWanted,
  type ShardRecord,
  type ShardView,
} from "../brick/cluster-state.ts";
import type { BrickNumber } from "../brick/units.ts";
import { isLasting } from "../brick/volume/placement.ts";
import { type Applied, done, refuse } from "./command-result.ts";
import { type CommandOf, replicasMax } from "./commands.ts";

/**
 * Views kept in a chain. When more would be needed, the second oldest goes: recovery may then find
 * a gap where it would have found an entry, and waits; it never takes a gap for whole.
 */
export const chainViewsMax = 16;

/**
 * Replicas that every shard should have now: as many as wanted, but no more than there are bricks
 * to hold them. A `down` brick counts, because it is expected back.
 */
export function replicasNow(state: ClusterState): number {
  let holders = 0;
  for (const brick of Object.values(state.bricks)) {
    if (isLasting(brick)) holders += 1;
  }
  return Math.max(1, Math.min(replicasWanted(state), holders, replicasMax));
}

/** Complete replicas of the present view that answer. */
export function liveMembers(state: ClusterState, shard: ShardRecord): BrickNumber[] {
  return shard.members.filter(
    (number) => isReachable(brickOf(state, number)) && !isDamaged(shard, number),
  );
}

export function isDamaged(shard: ShardRecord, number: BrickNumber): boolean {
  return shard.damaged?.includes(number) ?? false;
}

/** Whether the shard may need what the brick holds. */
export function holdsReplica(shard: ShardRecord, number: BrickNumber): boolean {
  return inView(shard, number) || shard.chain.some((view) => inView(view, number));
}

/** Every brick of the present view and of the chain before it, each once, sorted. */
export function chainBricks(shard: ShardRecord): BrickNumber[] {
  const bricks = new Set<BrickNumber>();
  for (const view of [...shard.chain, shard]) {
    for (const number of view.members) bricks.add(number);
    for (const number of view.candidates) bricks.add(number);
  }
  return [...bricks].sort((a, b) => a - b);
}

export function withDamaged(shard: ShardRecord, number: BrickNumber): ShardRecord {
  if (!holdsReplica(shard, number) || isDamaged(shard, number)) return shard;
  return { ...shard, damaged: [...(shard.damaged ?? []), number] };
}

export function withInterruption(shard: ShardRecord, downBrick: BrickNumber): ShardRecord {
  if (shard.primary !== downBrick || shard.interrupted) return shard;
  return { ...shard, interrupted: true };
}

/** The state with every shard's clock of shortage started, kept or cleared. */
export function withShortage(state: ClusterState): ClusterState {
  const wanted = replicasNow(state);
  let changed = false;
  const shards = state.shards.map((shard) => {
    const short = liveMembers(state, shard).length < wanted;
    if (short === shard.shortSinceMs > 0) return shard;
    changed = true;
    return { ...shard, shortSinceMs: short ? state.clusterTimeMs : 0 };
  });
  return changed ? { ...state, shards } : state;
}

export function changeView(state: ClusterState, command: CommandOf<"changeView">): Applied {
  const shard = state.shards[command.shard];
  if (shard === undefined) return unknownShard(state, command.shard);
  if (shard.view !== command.expect) return staleView(state, command.shard, shard, command.expect);
  const wrong =
    wrongReplicas(state, command) ??
    (command.recovery ? wrongRecovery(state, shard, command) : wrongStep(state, shard, command));
  if (wrong !== null) {
    const message = `shard ${command.shard} view ${command.expect} cannot be followed: ${wrong}`;
    return refuse(state, "not_now", message);
  }
  const view = shard.view + 1;
  const { primary, members, candidates } = command;
  const next: ShardView = {
    view,
    primary,
    primaryBoot: brickOf(state, primary)!.boot,
    members,
    candidates,
  };
  const record: ShardRecord = {
    ...next,
    transfer: candidates.length > 0 && command.transfer,
    chain: nextChain(shard, next, replicasNow(state)),
    shortSinceMs: shard.shortSinceMs,
  };
  return done(withShard(state, command.shard, record), view);
}

export function setTransfer(state: ClusterState, command: CommandOf<"setTransfer">): Applied {
  const { shard: number, view, transfer } = command;
  const shard = state.shards[number];
  if (shard === undefined) return unknownShard(state, number);
  if (shard.view !== view) return staleView(state, number, shard, view);
  if (shard.transfer === transfer) {
    return refuse(state, "no_change", `shard ${number} has transfer ${transfer} already`);
  }
  if (shard.candidates.length === 0) {
    const message = `shard ${number} has no candidate in view ${view} to transfer to`;
    return refuse(state, "not_now", message);
  }
  return done(withShard(state, number, { ...shard, transfer }));
}

export function markDamaged(state: ClusterState, command: CommandOf<"markDamaged">): Applied {
  const { shard: number, view, brick } = command;
  const shard = state.shards[number];
  if (shard === undefined) return unknownShard(state, number);
  if (shard.view !== view) return staleView(state, number, shard, view);
  const marked = withDamaged(shard, brick);
  if (marked === shard) {
    const message = `brick ${brick} is not in view ${view} of shard ${number}, or is marked already`;
    return refuse(state, "no_change", message);
  }
  return done(withShard(state, number, marked));
}

/** What is wrong with the replicas named, whoever they follow; null when nothing is. */
function wrongReplicas(state: ClusterState, command: CommandOf<"changeView">): string | null {
  const { primary, members, candidates } = command;
  if (!members.includes(primary)) {
    return `primary ${primary} is not among the members ${listed(members)}`;
  }
  if (!isSorted(members) || !isSorted(candidates)) {
    return `members ${listed(members)} and candidates ${listed(candidates)} must be sorted, each once`;
  }
  const both = candidates.find((number) => members.includes(number));
  if (both !== undefined) return `brick ${both} is named both member and candidate`;
  if (members.length + candidates.length > replicasMax) {
    return `${members.length + candidates.length} replicas; at most ${replicasMax}`;
  }
  for (const number of replicasOf(command)) {
    const brick = brickOf(state, number);
    if (isReachable(brick)) continue;
    return `brick ${number} is ${brick?.status ?? "unknown"}; every replica of a new view must answer`;
  }
  return null;
}

/** The rules of a step from a view that has a complete member to lead on. */
function wrongStep(
  state: ClusterState,
  shard: ShardRecord,
  command: CommandOf<"changeView">,
): string | null {
  const { primary, members, candidates, completed, released } = command;
  for (const number of completed) {
    if (shard.candidates.includes(number) && !isDamaged(shard, number)) continue;
    return `brick ${number} is no undamaged candidate of that view, so it cannot have completed in it`;
  }
  for (const number of members) {
    if (completed.includes(number)) continue;
    if (shard.members.includes(number) && !isDamaged(shard, number)) continue;
    return `brick ${number} is no complete replica of that view; it may only be a candidate`;
  }
  if (!shard.members.includes(primary)) {
    return `primary ${primary} was no member of that view; the members were ${listed(shard.members)}`;
  }
  // The old primary may answer under its lease until it is seen down, restarts, or gives way.
  const old = brickOf(state, shard.primary);
  const oldMayAnswer = isReachable(old) && old!.boot === shard.primaryBoot;
  if (primary !== shard.primary && oldMayAnswer && !released) {
    return `primary ${shard.primary} may still answer; it must be down, restarted or released`;
  }
  if (members.length + candidates.length === 0) return "a view without replicas";
  return null;
}

/** The rules of beginning anew from what the reachable bricks of the chain hold together. */
function wrongRecovery(
  state: ClusterState,
  shard: ShardRecord,
  command: CommandOf<"changeView">,
): string | null {
  const { primary, members } = command;
  const live = liveMembers(state, shard);
  if (live.length > 0) return `members ${listed(live)} are complete and answer; one of them leads`;
  if (members.length !== 1) {
    return `members ${listed(members)}; after a recovery the primary is the only complete replica`;
  }
  if (!holdsReplica(shard, primary)) {
    return `brick ${primary} is not in the chain; its bricks are ${listed(chainBricks(shard))}`;
  }
  return null;
}

/**
 * The chain that a new view stands on: none if it is whole, else one view more than before, less
 * the views that tell recovery nothing that the others do not.
 */
function nextChain(shard: ShardRecord, next: ShardView, wanted: number): readonly ShardView[] {
  if (next.candidates.length === 0 && next.members.length >= wanted) return [];
  const { view, primary, primaryBoot, members, candidates } = shard;
  const old: ShardView = { view, primary, primaryBoot, members, candidates };
  const chain = withoutRedundant([...shard.chain, old], next);
  while (chain.length > chainViewsMax) chain.splice(1, 1);
  return chain;
}

/**
 * A view is redundant when all its replicas are met in other views, and another view's replicas
 * are all in it: whoever reports for that view reports for this one too. The oldest stays.
 */
function withoutRedundant(chain: readonly ShardView[], next: ShardView): ShardView[] {
  const kept = [...chain];
  for (let at = 1; at < kept.length; ) {
    const view = kept[at]!;
    const others = [...kept.slice(0, at), ...kept.slice(at + 1), next];
    const covered = others.some((other) => replicasOf(other).every((one) => inView(view, one)));
    const met = replicasOf(view).every((one) => others.some((other) => inView(other, one)));
    if (covered && met) kept.splice(at, 1);
    else at += 1;
  }
  return kept;
}

function inView(view: ShardView, number: BrickNumber): boolean {
  return view.members.includes(number) || view.candidates.includes(number);
}

function withShard(state: ClusterState, number: number, record: ShardRecord): ClusterState {
  return { ...state, shards: state.shards.with(number, record) };
}

function isSorted(numbers: readonly BrickNumber[]): boolean {
  return numbers.every((number, at) => at === 0 || numbers[at - 1]! < number);
}

function listed(numbers: readonly BrickNumber[]): string {
  return numbers.length === 0 ? "none" : numbers.join(", ");
}

function unknownShard(state: ClusterState, shard: number): Applied {
  const message = `there is no shard ${shard}; they are 0 to ${state.shards.length - 1}`;
  return refuse(state, "unknown", message);
}

function staleView(state: ClusterState, number: number, shard: ShardRecord, expect: number) {
  const message = `shard ${number} is in view ${shard.view}, not ${expect}; look again`;
  return refuse(state, "stale", message);
}
