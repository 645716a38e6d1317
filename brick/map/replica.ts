import { assert } from "../assert.ts";
import { replicasOf, type ShardRecord } from "../cluster-state.ts";
import type { NumberMap } from "../number-map.ts";
import type { Roster } from "../roster.ts";
import type { StageTimes } from "../stage-times.ts";
import { type BrickNumber, sectorBytes } from "../units.ts";
import type { Backup } from "./backup.ts";
import { changesOf, type Entry, encodeEntryHead } from "./entry.ts";
import type { SpaceInView } from "./full-bricks.ts";
import { clearSectors, type Grain, mappedSectors, overlayOver, rehint } from "./grain.ts";
import { mappedInRecord, overwriteRecord, recordOp } from "./grain-splice.ts";
import type { MapChange } from "./group.ts";
import type { MapTable } from "./map-table.ts";
import type { GrainKey } from "./map-table-keys.ts";
import { owedBranch } from "./owed.ts";
import type { Primary } from "./primary.ts";
import { encodeReplicaHead, type ReplicaKind } from "./replica-messages.ts";
import {
  type Cut,
  encodeFacts,
  type OverlayInterval,
  type ReplicaFacts,
  viewStartsMax,
} from "./replica-state.ts";
import { fence, settle } from "./windows.ts";

/** What a replica does to the world. Nothing of it waits; `done` is called later, in order. */
export interface ReplicaEffects {
  nowMs(): number;
  /** Whether this brick may answer for what it leads, at this instant. */
  leaseValid(): boolean;
  boot(): number;
  clusterTimeMs(): number;
  gcEpoch(): number;
  /** Whether these bricks of the view have room for another chunk. */
  spaceIn(bricks: readonly BrickNumber[]): SpaceInView;
  /** Whether the chunk is durable here. */
  has(key: Buffer): boolean;
  /** The same; and if it is, it is protected from garbage collection as one stored in that epoch. */
  protect(key: Buffer, gcEpoch: number): boolean;
  /**
   * Appends a record to the log; `inline` is its last part, and a chunk of that key. A small one that
   * the shard needs to change hands is for control: it has room when others wait for some. `done`: it is
   * there, or was given up. Records of one shard stay in order.
   */
  journal(
    shard: number,
    record: { parts: readonly Buffer[]; inline: Entry | null; control: boolean },
    done: (isThere: boolean) => void,
  ): void;
  /** The log has no room for all that it must take. */
  isLogShort(): boolean;
  /** Gives up what waits for room of the shard's records; false when nothing does. */
  giveUp(shard: number): boolean;
  send(to: BrickNumber, parts: readonly Buffer[]): void;
  /** Makes tables and facts durable, then calls back. */
  checkpoint(durable: () => void): void;
  /** Without room a checkpoint is made once there is some. */
  mayCheckpoint(): boolean;
  /** Runs the action once this tick's work is done. */
  soon(action: () => void): void;
  /** Asks for a call of `wake` once, not before so many milliseconds. */
  wakeAfter(shard: number, delayMs: number): void;
  counters: MapCounters;
  stages(): StageTimes;
  /** Told of every commit, after the entry took effect here. */
  committed(replica: Replica, entry: Entry): void;
}

export interface MapCounters {
  commits: number;
  transferBytes: number;
  settleBytes: number;
  inlineDedupHits: number;
  inlineDedupBytes: number;
  /** Mapped bytes that were overwritten or unmapped, on complete replicas. */
  releasedBytes: number;
}

/** One replica of one shard. */
export interface Replica {
  readonly shard: number;
  readonly self: BrickNumber;
  readonly table: MapTable;
  readonly effects: ReplicaEffects;
  facts: ReplicaFacts;
  /** Entries commitOp + 1 .. lastOp, by op. */
  readonly pending: NumberMap<Entry>;
  /** Pending entries that no flush has covered yet; a checkpoint leaves them out. */
  readonly undurable: Roster<Entry>;
  /** `accepted` as far as the log has it. */
  acceptedDurable: number;
  /** `accepted` as facts on their way to the log say it. */
  readonly acceptedUnderWay: Roster<number>;
  /** `promised` as far as facts that this boot has logged say it. */
  promisedDurable: number;
  /** What it has gathered for a recovery is not on the medium yet: it takes part in nothing. */
  isGathering: boolean;
  /**
   * What was dropped from the log by facts that no flush has covered yet. A checkpoint made now is
   * ahead of the log: when entries before those facts are read again, these tell which still count.
   */
  cuts: Cut[];
  /** The present view, while this brick takes part in it. */
  view: ShardRecord | null;
  role: { is: "idle" } | Primary | Backup;
  /** The log cannot be followed any further: what comes after does not count. */
  broken: boolean;
  /** Mapped sectors by branch, of the base table. */
  readonly mapped: Map<number, number>;
}

export function isComplete(replica: Replica): boolean {
  return replica.facts.overlayFrom === 0;
}

/** All bricks of the view but this one. */
export function others(replica: Replica): BrickNumber[] {
  const { view, self } = replica;
  if (view === null) return [];
  return replicasOf(view).filter((brick) => brick !== self);
}

export function send(
  replica: Replica,
  to: BrickNumber,
  kind: ReplicaKind,
  op: number,
  payload: readonly Buffer[] = [],
): void {
  assert(replica.view !== null);
  const head = encodeReplicaHead({ kind, shard: replica.shard, view: replica.view.view, op });
  replica.effects.send(to, [head, ...payload]);
}

/** Record types in the log; an entry begins with its own version and kind. */
export const recordType = { entry: 1, facts: 2 } as const;

const entryTag = Buffer.from([recordType.entry, 0, 0, 0]);
const factsTag = Buffer.from([recordType.facts, 0, 0, 0]);
/** Offset of an entry's inline chunk in its record. */
export const recordTagBytes = 4;

/**
 * Logs an entry with its chunk, but without the bytes of a chunk that this brick has already:
 * identical small writes are stored once on each brick.
 */
export function journalEntry(
  replica: Replica,
  entry: Entry,
  commitOp: number,
  durable: () => void,
): void {
  const { effects, undurable } = replica;
  const seat = undurable.enter(entry);
  const done = (isThere: boolean) => {
    undurable.leave(seat);
    if (isThere) durable();
  };
  const stored =
    entry.inlineBytes > 0 && (effects.protect(entry.key!, entry.gcEpoch) || entry.inline === null);
  if (stored && entry.inline !== null) {
    effects.counters.inlineDedupHits += 1;
    effects.counters.inlineDedupBytes += entry.inlineBytes;
  }
  const withInline = entry.inlineBytes > 0 && !stored;
  const head = encodeEntryHead(entry, commitOp, withInline);
  const inline = withInline ? entry : null;
  const parts = withInline ? [entryTag, head, entry.inline!] : [entryTag, head];
  // Without its fences no other gateway could go on.
  effects.journal(replica.shard, { parts, inline, control: entry.kind === "fence" }, done);
}

/** Logs the facts; `acceptedTo`: pending entries up to there count as accepted in `accepted`. */
export function journalFacts(replica: Replica, acceptedTo: number, durable: () => void): void {
  replica.facts.number += 1;
  const { accepted, promised, number } = replica.facts;
  const image = encodeFacts(replica.shard, replica.facts, acceptedTo);
  const seat = replica.acceptedUnderWay.enter(accepted);
  const record = { parts: [factsTag, image], inline: null, control: true };
  replica.effects.journal(replica.shard, record, (isThere) => {
    replica.acceptedUnderWay.leave(seat);
    if (!isThere) return;
    replica.acceptedDurable = accepted;
    replica.promisedDurable = promised;
    replica.cuts = replica.cuts.filter((cut) => cut.number > number);
    durable();
  });
}

/**
 * A view ends for this replica while records of it wait for room in the log: they are given up, as by a
 * crash, so that what comes next has not to wait behind them. Nobody was told of them. Not so once what
 * one of them says has committed, elsewhere: without it the log could not be followed.
 */
export function giveUpWaiting(replica: Replica): void {
  const { facts, effects, undurable, acceptedUnderWay, shard } = replica;
  const before = undurable.members();
  if (before.some(({ op }) => op <= facts.commitOp) || !effects.giveUp(shard)) return;
  const left = new Set(undurable);
  const given = before.filter((entry) => !left.has(entry)).map(({ op }) => op);
  if (given.length > 0) truncate(replica, Math.max(facts.commitOp, Math.min(...given) - 1));
  // What was accepted with them was not.
  facts.accepted = Math.max(replica.acceptedDurable, ...acceptedUnderWay);
}

/** Entries logged so far count only up to `keptTo`; the facts logged next will say so. */
export function cutLog(replica: Replica, keptTo: number): void {
  replica.cuts.push({ number: replica.facts.number + 1, keptTo });
}

export function rememberStart(facts: ReplicaFacts, view: number, lastOp: number): void {
  if (facts.starts.some((start) => start.view === view)) return;
  facts.starts = [...facts.starts, { view, lastOp }].slice(-viewStartsMax);
}

/** Pending entries above `op` never committed, and do not count any more. */
export function truncate(replica: Replica, op: number): void {
  const { facts, pending } = replica;
  assert(op >= facts.commitOp, "a committed entry cannot be taken back");
  for (let above = op + 1; above <= facts.lastOp; above += 1) pending.delete(above);
  facts.lastOp = Math.min(facts.lastOp, op);
}

/** Commits everything up to `op`; `applied` sees each entry after it took effect. */
export function commitTo(replica: Replica, op: number, applied?: (entry: Entry) => void): void {
  const { facts, pending, effects } = replica;
  while (facts.commitOp < op) {
    const entry = pending.get(facts.commitOp + 1);
    assert(entry !== undefined, "an entry to commit is missing");
    apply(replica, entry, facts.overlayFrom === 0 ? "base" : "overlay");
    pending.delete(entry.op);
    facts.commitOp = entry.op;
    if (facts.overlayFrom === 0) facts.baseOp = entry.op;
    effects.counters.commits += 1;
    effects.committed(replica, entry);
    applied?.(entry);
  }
}

/** Takes the entry's effect on the table and the windows. */
export function apply(replica: Replica, entry: Entry, kind: "base" | "overlay"): void {
  const { facts } = replica;
  for (const one of changesOf(entry)) {
    const branch = one.owed ? owedBranch(entry.branch) : entry.branch;
    const place = { branch, generation: entry.generation, op: entry.op };
    if (one.key === null) applyUnmap(replica, place, kind, one);
    else applyWrite(replica, place, kind, one);
  }
  switch (entry.kind) {
    case "write":
    case "reference":
    case "unmap":
    case "group":
      settle(facts.windows, entry, true);
      return;
    case "rehint":
      change(replica, entry, kind, entry.grain, (grain) =>
        grain === undefined ? null : rehint(grain, entry.op, entry.key!, entry.holders),
      );
      return;
    case "fence":
      fence(facts.windows, entry.branch, entry.epoch);
      return;
    case "cancel":
      settle(facts.windows, entry, false);
      return;
    case "noop":
      return;
  }
}

/** In which line of the table an entry makes a change. */
type Place = Pick<Entry, "branch" | "generation" | "op">;

function applyWrite(
  replica: Replica,
  { branch, generation, op }: Place,
  kind: "base" | "overlay",
  change: MapChange,
): void {
  const { grain, firstSector, sectorCount, chunkSector, chunkSectors, key, holders } = change;
  assert(key !== null);
  const { table, shard, facts, effects } = replica;
  const { keyDomain } = change;
  const extent = { firstSector, sectorCount, chunkSector, chunkSectors, key, holders, keyDomain };
  const incarnation = kind === "base" ? facts.incarnation : facts.overlayIncarnation;
  const place = { branch, grain, generation };
  const old = table.getRecord(kind, shard, incarnation, place);
  if (old !== undefined && recordOp(old) >= op) return;
  const made = overwriteRecord(old, op, extent);
  table.putRecord(kind, shard, incarnation, place, made);
  if (kind === "overlay") return;
  const more = mappedInRecord(made) - mappedInRecord(old);
  noteMapped(replica, branch, more);
  effects.counters.releasedBytes += (sectorCount - more) * sectorBytes;
}

function applyUnmap(
  replica: Replica,
  place: Place,
  kind: "base" | "overlay",
  { grain: first, grainCount, firstSector, sectorCount }: MapChange,
): void {
  const { branch, generation, op } = place;
  if (grainCount === 0) {
    change(replica, place, kind, first, (grain) => {
      if (grain === undefined && kind === "base") return null;
      return clearSectors(grain, op, firstSector, sectorCount, kind === "overlay");
    });
    return;
  }
  if (kind === "overlay") {
    for (let grain = first; grain < first + grainCount; grain += 1) {
      change(replica, place, kind, grain, (old) => clearSectors(old, op, 0, 128, true));
    }
    return;
  }
  const { table, shard, facts } = replica;
  const found = table.lookup(shard, facts.incarnation, branch, first, grainCount, generation);
  for (const { grain } of found) {
    change(replica, place, kind, grain, (old) => old && clearSectors(old, op, 0, 128, false));
  }
}

/** Changes one grain, unless its record holds the entry's effect already. */
function change(
  replica: Replica,
  entry: Place,
  kind: "base" | "overlay",
  grain: number,
  make: (old: Grain | undefined) => Grain | null | undefined,
): void {
  const { table, shard, facts } = replica;
  const key: GrainKey = { branch: entry.branch, grain, generation: entry.generation };
  const incarnation = kind === "base" ? facts.incarnation : facts.overlayIncarnation;
  const old = table.get(kind, shard, incarnation, key);
  if (old !== undefined && old.op >= entry.op) return;
  const made = make(old);
  if (made === null || made === undefined) return;
  if (kind === "base") {
    const more = putBase(replica, key, made, old);
    replica.effects.counters.releasedBytes -= more * sectorBytes;
  } else table.put(kind, shard, incarnation, key, made);
}

/**
 * A grain emptied while some brick of the chain is away stays as an empty record: else the brick
 * would not learn, when it catches up, that the grain is gone. Returns how many sectors more are mapped.
 */
export function putBase(
  replica: Replica,
  key: GrainKey,
  grain: Grain,
  old: Grain | undefined,
): number {
  const { table, shard, facts } = replica;
  const more = mappedSectors(grain) - mappedSectors(old);
  noteMapped(replica, key.branch, more);
  const keep = grain.extents.length > 0 || replica.view === null || replica.view.chain.length > 0;
  table.put("base", shard, facts.incarnation, key, keep ? grain : null);
  return more;
}

function noteMapped({ mapped }: Replica, branch: number, moreSectors: number): void {
  if (moreSectors !== 0) mapped.set(branch, (mapped.get(branch) ?? 0) + moreSectors);
}

/** Base records merged in one go; more are left for the next wake. */
const mergeStepGrains = 512;

/** Merges an overlay over the base, a step at a time; true when nothing is left of it. */
export function mergeOverlay(replica: Replica, incarnation: number): boolean {
  const { table, shard } = replica;
  const { entries, done } = table.scan("overlay", shard, incarnation, null, mergeStepGrains);
  for (const { branch, grain, generation, value } of entries) {
    mergeOne(replica, { branch, grain, generation }, value);
    table.put("overlay", shard, incarnation, { branch, grain, generation }, null);
  }
  return done;
}

/** The base is whole up to `op`: no overlay is needed any more. */
export function completeAt(facts: ReplicaFacts, op: number): void {
  facts.overlayFrom = 0;
  facts.overlays = [];
  facts.lossy = false;
  facts.incarnationLast += 1;
  facts.overlayIncarnation = facts.incarnationLast;
  facts.baseOp = op;
}

export function isLiveIncarnation(facts: ReplicaFacts, incarnation: number): boolean {
  return (
    incarnation === facts.incarnation ||
    incarnation === facts.overlayIncarnation ||
    facts.overlays.some((overlay) => overlay.incarnation === incarnation)
  );
}

/** All overlays, the present one last. */
export function overlaysOf(facts: ReplicaFacts): OverlayInterval[] {
  const { overlays, overlayFrom: fromOp, commitOp: toOp, overlayIncarnation: incarnation } = facts;
  return fromOp > 0 && toOp >= fromOp
    ? [...overlays, { incarnation, fromOp, toOp }]
    : [...overlays];
}

/** The base record is exact as of its op, so an overlay that ends before it adds nothing. */
export function mergeOne(replica: Replica, key: GrainKey, overlay: Grain): void {
  const base = replica.table.get("base", replica.shard, replica.facts.incarnation, key);
  if (base !== undefined && base.op >= overlay.op) return;
  putBase(replica, key, overlayOver(base, overlay), base);
}
