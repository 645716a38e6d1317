import { isDeepStrictEqual } from "node:util";
import { assert } from "../brick/assert.ts";
import {
  type BrickHealth,
  type BrickRecord,
  brickOf,
  type ClusterState,
  isReachable,
} from "../brick/cluster-state.ts";
import { levelOf, levelRefusal, levelsBefore } from "../brick/feature-level.ts";
import { gcOf } from "../brick/gc/epochs.ts";
import type { BrickNumber } from "../brick/units.ts";
import { noHealth, staleStore } from "./brick-commands.ts";
import { type CalmSpell, nextSpell } from "./calm.ts";
import type { Command } from "./commands.ts";
import type { GarbageReport } from "./gc-planner.ts";
import type { Keepalive, ShardStatus } from "./keepalive.ts";
import { isDamaged } from "./shard-commands.ts";
import { mayHaveLostPower } from "./unit-commands.ts";
import type { ShardReport } from "./view-planner.ts";

export interface MembershipTiming {
  readonly keepaliveEveryMs: number;
  /** A brick may act for this long after it sent a keepalive that was answered. */
  readonly leaseMs: number;
  /** Keepalives missed in a row before a brick counts as gone. */
  readonly missedRounds: number;
  /** Clocks of different machines run at rates that differ by at most this share. */
  readonly clockDriftPercent: number;
  /** `down` for this long is `failed`. */
  readonly permanentAfterMs: number;
  readonly transferAfterMs: number;
  /** From the beginning of one epoch of garbage collection to the next, at least; */
  readonly gcEveryMs: number;
  /** the same while a brick with garbage is short of space. */
  readonly gcUrgentEveryMs: number;
}

export const defaultTiming: MembershipTiming = {
  keepaliveEveryMs: 400,
  leaseMs: 2000,
  missedRounds: 3,
  clockDriftPercent: 5,
  permanentAfterMs: 24 * 3600 * 1000,
  transferAfterMs: 60_000,
  gcEveryMs: 300_000,
  gcUrgentEveryMs: 500,
};

/** Space is noted in the cluster state in steps of this share of the capacity. */
const spaceSteps = 64;
/** The progress of repair is noted in steps of this share of the shards. */
const repairSteps = 8;
/** The cluster's time lags by at most this, while something waits for it; a new leader starts there. */
const timeStepMs = 5000;

/**
 * What the Raft leader remembers of the bricks while it leads; a new leader begins anew. Times are
 * of the leader's own clock.
 */
export interface LeaderBook {
  readonly timing: MembershipTiming;
  /** This leader's own start. */
  readonly self: { readonly brick: BrickNumber; readonly boot: number };
  /** When this leader was elected: whoever led before may have granted leases until then. */
  readonly sinceMs: number;
  /** Keepalives missed before this moment are not counted: this leader was not looking. */
  quietFromMs: number;
  checkedMs: number;
  readonly heard: Map<BrickNumber, HeardBrick>;
  /** Counts the keepalives that said of shards what was not known. */
  newsCount: number;
  /** Bricks whose `brickDown` is under way: nothing may be granted to them until it is settled. */
  readonly falling: Set<BrickNumber>;
  /** Per attached volume, by uuid: the brick that serves it, and since when that is known here. */
  readonly served: Map<string, { readonly brick: BrickNumber; readonly sinceMs: number }>;
  /** Since when nothing is missing and nothing is under way; null: something is. */
  calm: CalmSpell | null;
}

interface HeardBrick {
  boot: number;
  heardMs: number;
  /** When the newest lease was granted; null: none by this leader. */
  grantedMs: number | null;
  keepalive: Keepalive;
}

export function beginBook(
  timing: MembershipTiming,
  nowMs: number,
  self: LeaderBook["self"],
): LeaderBook {
  return {
    timing,
    self,
    sinceMs: nowMs,
    quietFromMs: nowMs,
    checkedMs: nowMs,
    heard: new Map(),
    newsCount: 0,
    falling: new Set(),
    served: new Map(),
    calm: null,
  };
}

/** How long after a grant its lease may still be used, by the leader's clock. */
export function leaseSpanMs(timing: MembershipTiming): number {
  return timing.leaseMs * (1 + timing.clockDriftPercent / 100);
}

/** Why a keepalive must not be heard at all: it is not from the store that the cluster knows. */
export function strangeness(
  state: ClusterState,
  number: BrickNumber,
  keepalive: Keepalive,
): string | null {
  const brick = brickOf(state, number);
  if (keepalive.clusterId !== state.clusterId) {
    return `this is cluster ${state.clusterId}, not ${keepalive.clusterId}`;
  }
  if (brick === undefined) return `brick ${number} is not known; it must join first`;
  const level = levelRefusal(levelOf(state), keepalive.levels ?? levelsBefore);
  if (level !== null) return `brick ${number} is refused: ${level}`;
  return staleStore(brick, keepalive);
}

/** Of a refusal for that: what a brick that was removed must learn, to destroy what it keeps of others'. */
export function strangerCode(
  state: ClusterState,
  number: BrickNumber,
  { clusterId, uuid }: Keepalive,
): "removed" | "stranger" {
  const brick = brickOf(state, number);
  const known = clusterId === state.clusterId && brick?.uuid === uuid;
  return known && brick.status === "removed" ? "removed" : "stranger";
}

/** Notes a keepalive. Those of an older boot than already heard are void: false. */
export function hear(
  book: LeaderBook,
  from: BrickNumber,
  keepalive: Keepalive,
  nowMs: number,
): boolean {
  const known = book.heard.get(from);
  if (known !== undefined && known.boot > keepalive.boot) return false;
  if (known === undefined || known.boot !== keepalive.boot) {
    book.heard.set(from, { boot: keepalive.boot, heardMs: nowMs, grantedMs: null, keepalive });
    book.newsCount += 1;
    return true;
  }
  if (!isDeepStrictEqual(known.keepalive.shards, keepalive.shards)) book.newsCount += 1;
  known.heardMs = Math.max(known.heardMs, nowMs);
  known.keepalive = keepalive;
  return true;
}

/** Whether the brick may hold a lease under this boot: it is up in the state, and not falling. */
export function mayGrant(
  book: LeaderBook,
  state: ClusterState,
  number: BrickNumber,
  boot: number,
): boolean {
  const brick = brickOf(state, number);
  return isReachable(brick) && brick!.boot === boot && !book.falling.has(number);
}

/** Notes a lease right before its answer is sent. */
export function grant(book: LeaderBook, number: BrickNumber, nowMs: number): void {
  const known = book.heard.get(number);
  assert(known !== undefined && !book.falling.has(number));
  known.grantedMs = nowMs;
}

/**
 * What must become committed state by what was heard, and not heard, until now. Bricks that fall
 * are noted in `falling`; the caller ends that by `landed` once the command is settled.
 */
export function membershipCommands(
  book: LeaderBook,
  state: ClusterState,
  clusterNowMs: number,
  nowMs: number,
): Command[] {
  const { timing } = book;
  // This leader has slept: keepalives wait unread in its sockets. They get a full count anew.
  if (nowMs - book.checkedMs > timing.keepaliveEveryMs) book.quietFromMs = nowMs;
  book.checkedMs = nowMs;
  const commands: Command[] = [];
  if (mayHaveLostPower(state) && hasWitness(book, state)) commands.push({ type: "witness" });
  for (const brick of Object.values(state.bricks)) {
    const { number } = brick;
    const newest = book.heard.get(number);
    // A start that is not announced yet says nothing of the one before it, but that it has ended.
    const heard = newest?.boot === brick.boot ? newest : undefined;
    if (isReachable(brick)) {
      if (!book.falling.has(number) && isGone(book, heard, nowMs)) {
        book.falling.add(number);
        commands.push({ type: "brickDown", number, boot: brick.boot });
      } else if (heard !== undefined) commands.push(...spaceCommands(state, heard));
      continue;
    }
    const waiting = brick.status === "down" || brick.status === "draining";
    if (waiting && clusterNowMs - brick.downSinceMs >= timing.permanentAfterMs) {
      const back = newest !== undefined && isHeardNow(book, newest, nowMs);
      if (!back) commands.push({ type: "brickFailed", number });
    }
  }
  return commands;
}

/** What a keepalive calls for at once: a start to announce, or a brick that is back. */
export function arrivalCommand(
  book: LeaderBook,
  state: ClusterState,
  number: BrickNumber,
  keepalive: Keepalive,
): Command | null {
  const brick = brickOf(state, number);
  if (brick === undefined) return null;
  const known = brick.boot === keepalive.boot && brick.incarnation === keepalive.incarnation;
  if (known && isReachable(brick)) return null;
  if (known && (brick.status === "down" || brick.status === "draining")) {
    return { type: "brickUp", number, boot: brick.boot };
  }
  const { uuid, boot, incarnation, peerAddress, portalAddress, apiAddress } = keepalive;
  const { domain, capacityBytes, cut, discarded } = keepalive;
  return {
    type: "announceBrick",
    number,
    uuid,
    boot,
    incarnation,
    peerAddress,
    portalAddress,
    apiAddress,
    domain,
    capacityBytes,
    cut,
    discarded,
    witnessed: hasWitness(book, state),
  };
}

/**
 * Whether a start had better not be announced yet: a brick that ran before may still be heard, and
 * the next start must not come before it is known that this one was witnessed.
 */
export function awaitsWitness(book: LeaderBook, state: ClusterState, nowMs: number): boolean {
  const { keepaliveEveryMs, missedRounds } = book.timing;
  if (nowMs - book.sinceMs >= keepaliveEveryMs * missedRounds) return false;
  if (hasWitness(book, state)) return false;
  const ranBefore = Object.values(state.bricks).filter(
    (brick) => isReachable(brick) && brick.unwitnessed !== true && brick.number !== book.self.brick,
  );
  // One that is heard under another boot has started anew itself.
  return ranBefore.some((brick) => !book.heard.has(brick.number));
}

/**
 * Whether this leader ran before itself, or has heard since it leads a brick that did: under the
 * boot by which it is up, and not itself open to doubt. This leader lives since then, so there was
 * power.
 */
function hasWitness(book: LeaderBook, state: ClusterState): boolean {
  const heard = [...book.heard].map(([brick, { boot }]) => ({ brick, boot }));
  return [book.self, ...heard].some(({ brick: number, boot }) => {
    const brick = brickOf(state, number);
    return isReachable(brick) && brick!.unwitnessed !== true && brick!.boot === boot;
  });
}

/** Whether something waits for the cluster's time, and it has moved on enough to be worth an entry. */
export function isTimeWorthNoting(state: ClusterState, clusterNowMs: number): boolean {
  if (clusterNowMs - state.clusterTimeMs < timeStepMs) return false;
  return (
    Object.keys(state.joinTokens).length > 0 ||
    gcOf(state).marked < state.gcEpoch ||
    Object.values(state.bricks).some((brick) => brick.downSinceMs > 0) ||
    state.shards.some((shard) => shard.shortSinceMs > 0)
  );
}

/** The settlement of a `brickDown`, whichever way it went. */
export function landed(book: LeaderBook, number: BrickNumber): void {
  book.falling.delete(number);
}

/** Bricks heard of late under the boot that the state names. */
export function heardBricks(
  book: LeaderBook,
  state: ClusterState,
  nowMs: number,
): Set<BrickNumber> {
  const bricks = new Set<BrickNumber>();
  for (const [number, heard] of book.heard) {
    if (brickOf(state, number)?.boot !== heard.boot) continue;
    if (isHeardNow(book, heard, nowMs)) bricks.add(number);
  }
  return bricks;
}

/** What the newest keepalives say of the present views, per shard. */
export function shardReports(book: LeaderBook, state: ClusterState): Map<number, ShardReport> {
  const reports = new Map<number, ShardReport>();
  for (const { from, status } of statuses(book, state)) {
    const shard = state.shards[status.shard]!;
    const known = reports.get(status.shard);
    const leads = from === shard.primary && brickOf(state, from)?.boot === shard.primaryBoot;
    const report = known ?? { view: shard.view, complete: [], released: false, empty: false };
    const candidate = status.complete === true && shard.candidates.includes(from);
    // A damaged primary has stopped answering: that is a release too. But only once the state knows of
    // the damage: until then it would be made the primary of the next view, and of the one after that.
    const stopped = status.damaged === true && isDamaged(shard, from);
    const released = leads && (status.released === true || stopped);
    reports.set(status.shard, {
      view: shard.view,
      complete: candidate ? [...report.complete, from] : report.complete,
      released: report.released || released,
      empty: report.empty || (leads && status.empty === true),
    });
  }
  return reports;
}

/**
 * Volumes that one brick, in whichever of its starts, has served for `transferAfterMs`. A gateway that
 * took over from a brick which may soon be back does not have map records moved to it.
 */
export function standingVolumes(book: LeaderBook, state: ClusterState, nowMs: number): Set<string> {
  const { served, timing } = book;
  for (const uuid of served.keys()) {
    if (state.attachments[uuid]?.brick !== served.get(uuid)!.brick) served.delete(uuid);
  }
  const standing = new Set<string>();
  for (const [uuid, { brick }] of Object.entries(state.attachments)) {
    const known = served.get(uuid);
    if (known === undefined) served.set(uuid, { brick, sinceMs: nowMs });
    else if (nowMs - known.sinceMs >= timing.transferAfterMs) standing.add(uuid);
  }
  return standing;
}

/** Whether the cluster has been calm for `transferAfterMs`, for each plan that this leader made. */
export function hasLongBeenCalm(book: LeaderBook, state: ClusterState, nowMs: number): boolean {
  book.calm = nextSpell(book.calm, state, heardBricks(book, state, nowMs), nowMs);
  return book.calm !== null && nowMs - book.calm.sinceMs >= book.timing.transferAfterMs;
}

/** Shards whose primary has marked all that they refer to, in the present epoch. */
export function markedShards(book: LeaderBook, state: ClusterState): Set<number> {
  const marked = new Set<number>();
  for (const { from, status } of statuses(book, state)) {
    const shard = state.shards[status.shard]!;
    const leads = from === shard.primary && brickOf(state, from)?.boot === shard.primaryBoot;
    if (leads && status.marked === state.gcEpoch) marked.add(status.shard);
  }
  return marked;
}

/** What the bricks that answer say of garbage. */
export function garbageReports(book: LeaderBook, state: ClusterState): GarbageReport[] {
  const reports: GarbageReport[] = [];
  for (const [number, { boot, keepalive }] of book.heard) {
    const brick = brickOf(state, number);
    if (!isReachable(brick) || brick!.boot !== boot) continue;
    if (keepalive.garbage !== undefined) reports.push(keepalive.garbage);
  }
  return reports;
}

/** Replicas that report themselves damaged and are not marked yet. */
export function damageCommands(book: LeaderBook, state: ClusterState): Command[] {
  const commands: Command[] = [];
  for (const { from, status } of statuses(book, state)) {
    const shard = state.shards[status.shard]!;
    if (status.damaged !== true || shard.damaged?.includes(from)) continue;
    if (!shard.members.includes(from) && !shard.candidates.includes(from)) continue;
    commands.push({ type: "markDamaged", shard: status.shard, view: shard.view, brick: from });
  }
  return commands;
}

function* statuses(
  book: LeaderBook,
  state: ClusterState,
): Generator<{ from: BrickNumber; status: ShardStatus }> {
  for (const [from, heard] of book.heard) {
    if (brickOf(state, from)?.boot !== heard.boot) continue;
    for (const status of heard.keepalive.shards) {
      if (state.shards[status.shard]?.view === status.view) yield { from, status };
    }
  }
}

/** Rounds missed, and every lease that could run has ended. */
function isGone(book: LeaderBook, heard: HeardBrick | undefined, nowMs: number): boolean {
  const { keepaliveEveryMs, missedRounds } = book.timing;
  const quietSinceMs = Math.max(heard?.heardMs ?? book.sinceMs, book.quietFromMs);
  const leaseFromMs = Math.max(heard?.grantedMs ?? book.sinceMs, book.sinceMs);
  return (
    nowMs - quietSinceMs >= keepaliveEveryMs * missedRounds &&
    nowMs >= leaseFromMs + leaseSpanMs(book.timing)
  );
}

function isHeardNow(book: LeaderBook, heard: HeardBrick, nowMs: number): boolean {
  const { keepaliveEveryMs, missedRounds } = book.timing;
  const fromMs = Math.max(heard.heardMs, book.quietFromMs);
  return nowMs - fromMs < keepaliveEveryMs * missedRounds;
}

function spaceCommands(state: ClusterState, heard: HeardBrick): Command[] {
  const { capacityBytes, usedBytes, full, health } = heard.keepalive;
  const brick = Object.values(state.bricks).find((one) => one.uuid === heard.keepalive.uuid);
  if (brick === undefined) return [];
  const stepBytes = Math.max(1, Math.floor(capacityBytes / spaceSteps));
  const near = Math.abs(brick.usedBytes - usedBytes) < stepBytes;
  const known = near && brick.full === full && brick.capacityBytes === capacityBytes;
  const worse = health !== undefined && isHealthWorthNoting(state, brick, health);
  if (known && !worse) return [];
  const { number } = brick;
  const coarseBytes = Math.floor(usedBytes / stepBytes) * stepBytes;
  const space = {
    type: "brickSpace",
    number,
    capacityBytes,
    usedBytes: coarseBytes,
    full,
  } as const;
  return [worse ? { ...space, health } : space];
}

/** Its progress in repair is noted when it begins, when it ends, and in steps in between. */
function isHealthWorthNoting(
  state: ClusterState,
  brick: BrickRecord,
  { corruptChunks, repairPending, keysLacking = 0 }: BrickHealth,
): boolean {
  const known = brick.health ?? noHealth;
  if (corruptChunks !== known.corruptChunks) return true;
  if (keysLacking !== (known.keysLacking ?? 0)) return true;
  if (repairPending > 0 !== known.repairPending > 0) return true;
  const step = Math.max(1, Math.floor(state.shards.length / repairSteps));
  return Math.abs(repairPending - known.repairPending) >= step;
}
