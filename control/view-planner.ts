import { assert } from "../brick/assert.ts";
import {
  brickOf,
  type ClusterState,
  isReachable,
  replicasOf,
  type ShardRecord,
} from "../brick/cluster-state.ts";
import { leavingForRoom } from "../brick/map/full-bricks.ts";
import type { BrickNumber } from "../brick/units.ts";
import { isLasting, Placement } from "../brick/volume/placement.ts";
import { BackupSpread } from "./backup-spread.ts";
import { shardKey, shardOrders } from "./balanced-orders.ts";
import { type CommandOf, replicasMax } from "./commands.ts";
import { LeadCounts } from "./lead-counts.ts";
import { chainBricks, isDamaged, liveMembers, replicasNow } from "./shard-commands.ts";
import { ShardHomes } from "./shard-homes.ts";

/** Whole shards that take a new replica for balance at the same time; empty ones are not counted. */
export const growthShardsMax = 4;
/** Primaries asked to give way to a gateway, or for balance, in one round of planning. */
export const handoversMax = 4;

/** What the Raft leader knows beyond the cluster state; it may be lost at any time. */
export interface PlanInput {
  /** The leader's estimate of the cluster's time. */
  readonly nowMs: number;
  readonly transferAfterMs: number;
  /** Bricks that answered this leader under the boot that the state names. */
  readonly heard: ReadonlySet<BrickNumber>;
  /** Per shard, what its replicas reported of the present view. Reports of others are left out. */
  readonly reports: ReadonlyMap<number, ShardReport>;
  /** Volumes, by uuid, that one brick has served for `transferAfterMs` as far as this leader knows. */
  readonly standing: ReadonlySet<string>;
  /** The cluster has been calm (calm.ts) for `transferAfterMs`, and is. */
  readonly calm: boolean;
}

export interface ShardReport {
  readonly view: number;
  /** Candidates that are complete. */
  readonly complete: readonly BrickNumber[];
  /** The primary answers nothing in this view any more. */
  readonly released: boolean;
  /** The shard holds nothing. */
  readonly empty: boolean;
}

export type PlannedChange =
  | CommandOf<"changeView">
  | CommandOf<"setTransfer">
  /** Ask the primary to answer nothing in this view any more, so that another may lead. */
  | { readonly type: "release"; shard: number; view: number; primary: BrickNumber }
  /** No complete member answers: gather what these bricks hold. */
  | { readonly type: "recover"; shard: number; view: number; bricks: readonly BrickNumber[] };

interface Planning {
  readonly state: ClusterState;
  readonly input: PlanInput;
  readonly wanted: number;
  /** Where replicas of a shard belong when everyone is up. */
  orderOf(number: number): readonly BrickNumber[];
  /** Where volumes are served. */
  readonly gateways: Placement;
  readonly homes: ShardHomes;
  /** Counted when it is asked for: most plans, and those of recoveries, move no backups. */
  spread(): BackupSpread;
  readonly led: LeadCounts;
  /** Full bricks whose place in a view others take, as if they were down. */
  readonly leaving: ReadonlySet<BrickNumber>;
  growthLeft: number;
  handoversLeft: number;
}

/** The replicas that a shard should have next, before it is compared with what it has. */
interface Aim {
  primary: BrickNumber;
  members: BrickNumber[];
  candidates: BrickNumber[];
  /** The primary should give way although it stands. */
  release: boolean;
}

/** What should be done now, at most one step per shard. Applying it may lead to further steps. */
export function planViews(state: ClusterState, input: PlanInput): PlannedChange[] {
  const planning = beginPlanning(state, input);
  const changes: PlannedChange[] = [];
  for (const [number, shard] of state.shards.entries()) {
    const change = planShard(planning, number, shard);
    if (change !== null) changes.push(change);
  }
  if (!changes.some((change) => change.type === "recover")) {
    changes.push(...planHandovers(planning, changes));
  }
  // Backups are evened out when there is nothing else to do.
  return changes.length === 0 && input.calm ? planSpread(planning) : changes;
}

/**
 * Who joins the primary that a recovery has found: those that hold something, and no fewer than
 * wanted; and whether they are sent the older records at once.
 */
export function replicasAfterRecovery(
  state: ClusterState,
  number: number,
  primary: BrickNumber,
): { candidates: BrickNumber[]; transfer: boolean } {
  const reachable = Object.values(state.bricks).filter((brick) => isReachable(brick));
  const heard = new Set(reachable.map((brick) => brick.number));
  const standing = new Set<string>();
  const input = { nowMs: 0, transferAfterMs: 0, heard, reports: new Map(), standing, calm: false };
  const planning = beginPlanning(state, input);
  const shard = state.shards[number]!;
  const order = orderFor(planning, number, shard);
  const members = [primary];
  const candidates = withReplacements(planning, shard, members, [], order);
  const aim = { primary, members, candidates, release: false };
  return { candidates, transfer: isTransferDue(planning, number, shard, aim) };
}

function beginPlanning(state: ClusterState, input: PlanInput): Planning {
  const wanted = replicasNow(state);
  const holders = Object.values(state.bricks)
    .filter(isLasting)
    .map(({ number, capacityBytes, domain, full }) => {
      // A full brick cannot log what its shards are asked to: they belong where there is room.
      return { number, weight: full ? 1 : Math.max(1, capacityBytes), domain };
    });
  let growing = 0;
  for (const [number, shard] of state.shards.entries()) {
    const spare = shard.members.length >= wanted && shard.candidates.length > 0;
    if (spare && !reportOf(input, number, shard).empty) growing += 1;
  }
  const growthLeft = Math.max(0, growthShardsMax - growing);
  const homes = new ShardHomes(state, input.standing);
  let spread: BackupSpread | null = null;
  const gateways = gatewaysOf(state);
  return {
    state,
    input,
    wanted,
    orderOf: shardOrders(state, holders),
    gateways,
    homes,
    spread: () => {
      spread ??= new BackupSpread(state, homes);
      return spread;
    },
    led: new LeadCounts(state.shards.map(({ primary }) => primary)),
    leaving: leavingForRoom(state),
    growthLeft,
    handoversLeft: handoversMax,
  };
}

/** The bricks that serve volumes, each with the number of its volumes for a weight. */
function gatewaysOf(state: ClusterState): Placement {
  const volumes = new Map<BrickNumber, number>();
  for (const { brick } of Object.values(state.attachments)) {
    volumes.set(brick, (volumes.get(brick) ?? 0) + 1);
  }
  return new Placement([...volumes].map(([number, weight]) => ({ number, weight, domain: "" })));
}

function planShard(planning: Planning, number: number, shard: ShardRecord): PlannedChange | null {
  const { state, input } = planning;
  const report = reportOf(input, number, shard);
  const live = liveMembers(state, shard);
  if (live.length === 0) {
    const bricks = chainBricks(shard).filter((one) => mayBegin(planning, one));
    return bricks.length === 0
      ? null
      : { type: "recover", shard: number, view: shard.view, bricks };
  }
  const stands = !report.released && primaryStands(state, shard);
  // A member that is up by the state alone may have gone with the last leader: wait for its word.
  const leaders = live.filter((one) => input.heard.has(one));
  if (!stands && leaders.length === 0) return null;
  const aim = aimFor(planning, number, shard, report);
  if (!stands) {
    aim.primary = nextPrimary(planning, number, leaders, aim.members);
    if (!aim.members.includes(aim.primary)) aim.members = sorted([...aim.members, aim.primary]);
    planning.led.move(shard.primary, aim.primary);
  }
  return stepTo(planning, number, shard, aim);
}

/** Who should hold the shard, given who does and who is up; its primary is the present one. */
function aimFor(planning: Planning, number: number, shard: ShardRecord, report: ShardReport): Aim {
  const { state, wanted } = planning;
  const live = liveMembers(state, shard);
  const completed = shard.candidates.filter(
    (one) =>
      report.complete.includes(one) && isReachable(brickOf(state, one)) && !isDamaged(shard, one),
  );
  const complete = [...live, ...completed];
  // Somebody complete has to lead on, full or not.
  const left = complete.filter((one) => !planning.leaving.has(one));
  const leaves = (one: BrickNumber) => left.length > 0 && planning.leaving.has(one);
  const members = sorted(left.length > 0 ? left : complete);
  const staying = members.filter((one) => !isDraining(state, one) && !planning.leaving.has(one));
  // Damaged members begin again as candidates: what they lack comes from the primary.
  const candidates = [...shard.candidates, ...shard.members].filter(
    (one) =>
      !members.includes(one) &&
      !leaves(one) &&
      isReachable(brickOf(state, one)) &&
      !isDraining(state, one),
  );
  const order = orderFor(planning, number, shard);
  const aim = { primary: shard.primary, members, candidates: sorted(candidates), release: false };
  if (leaves(shard.primary) && !report.released && primaryStands(state, shard)) {
    // Until it has given way it is asked to log what comes.
    aim.members = sorted([...members, shard.primary]);
    aim.release = true;
  }
  if (staying.length < wanted) {
    aim.candidates = withReplacements(planning, shard, staying, candidates, order);
    return aim;
  }
  const ideal = order.slice(0, wanted);
  aim.candidates = sorted(candidates.filter((one) => ideal.includes(one)));
  const kept = [...staying].sort((a, b) => order.indexOf(a) - order.indexOf(b)).slice(0, wanted);
  const stands = !report.released && primaryStands(state, shard);
  aim.members = sorted(kept);
  if (stands && !kept.includes(shard.primary)) {
    // It stays a member until it has given way; the others are enough without it.
    aim.members = sorted([...kept, shard.primary]);
    aim.release = true;
  }
  if (isWhole(shard, wanted) && sameReplicas(shard, aim)) growTowards(planning, aim, ideal, report);
  return aim;
}

/** Where the shard belongs: the first ones, when all are up. */
function orderFor(planning: Planning, number: number, shard: ShardRecord): readonly BrickNumber[] {
  const { input, orderOf, homes } = planning;
  const order = orderOf(number);
  const holders = holdersOf(planning, number, shard, order);
  return homes.orderFor(number, holders, reportOf(input, number, shard).empty, order);
}

/** Who has replicas of the shard, first those that shall keep them. */
function holdersOf(
  { homes, spread, wanted }: Planning,
  number: number,
  shard: ShardRecord,
  order: readonly BrickNumber[],
): readonly BrickNumber[] {
  const [whole = shard] = shard.chain;
  const more = shard.members.length >= wanted ? shard.candidates : [];
  const home = homes.of(number, shard.members);
  if (more.length > 0 && home !== null && shard.members.includes(home.brick)) {
    // A backup more than is wanted: one that has many others goes.
    return spread().ranked(number, replicasOf(shard));
  }
  // Whoever is away for a moment has its place before those that stand in for it; and a replica that
  // a whole shard has begun is brought to its end.
  const groups = [whole.members, shard.members, more];
  return groups.flatMap((group) => order.filter((one) => group.includes(one)));
}

/** Candidates for a shard with too few members: those it had, those that return, then fresh ones. */
function withReplacements(
  planning: Planning,
  shard: ShardRecord,
  staying: readonly BrickNumber[],
  candidates: readonly BrickNumber[],
  order: readonly BrickNumber[],
): BrickNumber[] {
  const { state, wanted } = planning;
  const chosen = [...candidates];
  const fits = (one: BrickNumber): boolean =>
    !staying.includes(one) &&
    !chosen.includes(one) &&
    !planning.leaving.has(one) &&
    isReachable(brickOf(state, one)) &&
    !isDraining(state, one) &&
    staying.length + chosen.length < replicasMax - 1;
  for (const one of chainBricks(shard)) {
    if (mayBegin(planning, one) && fits(one)) chosen.push(one);
  }
  // A nearly full brick takes a replica only when no other can, and one that is not heard now only
  // because a view may be short of replicas only when the state itself says that bricks are gone:
  // until it is heard again, or known to be down, nothing commits.
  const heard = order.filter((one) => mayBegin(planning, one));
  const roomy = heard.filter((one) => !brickOf(state, one)!.full);
  for (const one of [...roomy, ...heard, ...order]) {
    if (staying.length + chosen.length >= wanted) break;
    if (fits(one)) chosen.push(one);
  }
  return sorted(chosen);
}

/** Begins one more replica of a whole shard where the shard belongs; a few shards at a time. */
function growTowards(
  planning: Planning,
  aim: Aim,
  ideal: readonly BrickNumber[],
  report: ShardReport,
): void {
  const missing = ideal.find(
    (one) =>
      !aim.members.includes(one) && mayBegin(planning, one) && !brickOf(planning.state, one)!.full,
  );
  if (missing === undefined) return;
  if (!report.empty) {
    if (planning.growthLeft === 0) return;
    planning.growthLeft -= 1;
  }
  aim.candidates = [missing];
}

function stepTo(
  planning: Planning,
  number: number,
  shard: ShardRecord,
  aim: Aim,
): PlannedChange | null {
  const { state, input, wanted } = planning;
  const report = reportOf(input, number, shard);
  const stands = !report.released && primaryStands(state, shard);
  const transfer = aim.candidates.length > 0 && isTransferDue(planning, number, shard, aim);
  const settled = isWhole(shard, wanted) && shard.chain.length > 0;
  // A damaged candidate must begin again, and a replica begins with a view.
  const anew = (shard.damaged ?? []).length > 0 || shard.interrupted === true;
  if (!stands || !sameReplicas(shard, aim) || settled || anew) {
    assert(aim.members.includes(aim.primary));
    return {
      type: "changeView",
      shard: number,
      expect: shard.view,
      primary: aim.primary,
      members: aim.members,
      candidates: aim.candidates,
      transfer,
      completed: aim.members.filter((one) => !shard.members.includes(one)),
      released: report.released,
      recovery: false,
    };
  }
  if (transfer && !shard.transfer) {
    return { type: "setTransfer", shard: number, view: shard.view, transfer };
  }
  if (aim.release && (planning.handoversLeft > 0 || planning.leaving.has(shard.primary))) {
    planning.handoversLeft -= 1;
    return { type: "release", shard: number, view: shard.view, primary: shard.primary };
  }
  return null;
}

/**
 * Older records are copied at once, unless a fresh candidate stands in for a brick that is expected
 * back: then only after `transferAfterMs`, for that brick has them already.
 */
function isTransferDue(planning: Planning, number: number, shard: ShardRecord, aim: Aim): boolean {
  const { state, input, wanted } = planning;
  const staying = aim.members.filter((one) => !isDraining(state, one));
  if (staying.length >= wanted || reportOf(input, number, shard).empty) return true;
  const returning = aim.candidates.some(
    (one) => shard.members.includes(one) || shard.chain.some((view) => view.members.includes(one)),
  );
  if (returning) return true;
  const absent = chainBricks(shard).some((one) => {
    const brick = brickOf(state, one);
    // It is back, and joins as soon as it is heard.
    if (isReachable(brick)) return !input.heard.has(one);
    return brick?.status === "down" || brick?.status === "draining";
  });
  if (!absent) return true;
  return shard.shortSinceMs > 0 && input.nowMs - shard.shortSinceMs >= input.transferAfterMs;
}

/**
 * Of these members, the one that should lead because it serves volumes: a small write then needs no
 * message to its shard's primary and back. Who serves many leads many; null when none of them serves any.
 */
function gatewayAmong(
  { state, gateways, homes }: Planning,
  number: number,
  members: readonly BrickNumber[],
): BrickNumber | null {
  if (state.shardSpan !== undefined) {
    const home = homes.of(number, members);
    return home !== null && members.includes(home.brick) ? home.brick : null;
  }
  if (gateways.size === 0) return null;
  return gateways.order(shardKey(number)).find((one) => members.includes(one)) ?? null;
}

/**
 * Whole shards that another member should lead: a gateway, or, where none is a member, one that leads at
 * least two shards less.
 */
function planHandovers(planning: Planning, changes: readonly PlannedChange[]): PlannedChange[] {
  const { state, input, led, wanted } = planning;
  const busy = new Set(changes.map((change) => change.shard));
  const handovers: PlannedChange[] = [];
  for (const [number, shard] of state.shards.entries()) {
    if (planning.handoversLeft === 0) break;
    if (busy.has(number) || !isWhole(shard, wanted) || !primaryStands(state, shard)) continue;
    const others = liveMembers(state, shard).filter(
      (one) => one !== shard.primary && input.heard.has(one) && !isDraining(state, one),
    );
    const gateway = gatewayAmong(planning, number, [shard.primary, ...others]);
    if (gateway === shard.primary) continue;
    const next = gateway ?? led.least(others);
    if (next === null) continue;
    if (gateway === null && led.of(shard.primary) - led.of(next) < 2) continue;
    led.move(shard.primary, next);
    planning.handoversLeft -= 1;
    handovers.push({ type: "release", shard: number, view: shard.view, primary: shard.primary });
  }
  return handovers;
}

/** Begins the replicas that make backups more even: those of one volume, while all is calm. */
function planSpread(planning: Planning): PlannedChange[] {
  const { state, homes, orderOf, wanted, growthLeft } = planning;
  const spread = planning.spread();
  const move = spread.next((number, from, to) => {
    if (!mayBegin(planning, to) || brickOf(state, to)!.full) return false;
    const { members } = state.shards[number]!;
    const holders = spread.ranked(number, [...members, to]);
    const ideal = homes.orderFor(number, holders, false, orderOf(number)).slice(0, wanted);
    return ideal.includes(to) && members.every((one) => one === from || ideal.includes(one));
  });
  if (move === null) return [];
  return move.shards.slice(0, growthLeft).flatMap((number) => {
    const shard = state.shards[number]!;
    const { primary, members } = shard;
    const aim = { primary, members: [...members], candidates: [move.to], release: false };
    return stepTo(planning, number, shard, aim) ?? [];
  });
}

/**
 * The leader for a shard whose primary is gone: one that stays a member, a gateway before others, and
 * of those the one that leads the fewest.
 */
function nextPrimary(
  planning: Planning,
  number: number,
  leaders: readonly BrickNumber[],
  members: readonly BrickNumber[],
): BrickNumber {
  const others = leaders.filter((one) => one !== planning.state.shards[number]!.primary);
  const staying = others.filter((one) => members.includes(one) && !isDraining(planning.state, one));
  const again = leaders.filter((one) => !isDraining(planning.state, one));
  const { led } = planning;
  const next =
    gatewayAmong(planning, number, staying) ??
    led.least(staying) ??
    led.least(again) ??
    led.least(others) ??
    leaders[0];
  assert(next !== undefined);
  return next;
}

/** Whether the primary of the view may go on leading it. */
export function primaryStands(state: ClusterState, shard: ShardRecord): boolean {
  const brick = brickOf(state, shard.primary);
  return (
    isReachable(brick) && brick!.boot === shard.primaryBoot && !isDamaged(shard, shard.primary)
  );
}

/** As many complete members as wanted, and nobody catching up. */
function isWhole(shard: ShardRecord, wanted: number): boolean {
  return shard.candidates.length === 0 && shard.members.length >= wanted;
}

/** Whether the brick may begin to take part in a view: it answers, and has said so to this leader. */
function mayBegin({ state, input }: Planning, number: BrickNumber): boolean {
  return isReachable(brickOf(state, number)) && input.heard.has(number);
}

function isDraining(state: ClusterState, number: BrickNumber): boolean {
  return brickOf(state, number)?.status === "draining";
}

function reportOf(input: PlanInput, number: number, shard: ShardRecord): ShardReport {
  const report = input.reports.get(number);
  if (report !== undefined && report.view === shard.view) return report;
  return { view: shard.view, complete: [], released: false, empty: false };
}

function sameReplicas(shard: ShardRecord, aim: Aim): boolean {
  return equal(shard.members, aim.members) && equal(shard.candidates, aim.candidates);
}

function equal(a: readonly BrickNumber[], b: readonly BrickNumber[]): boolean {
  return a.length === b.length && a.every((one, at) => one === b[at]);
}

function sorted(numbers: readonly BrickNumber[]): BrickNumber[] {
  return [...new Set(numbers)].sort((a, b) => a - b);
}
