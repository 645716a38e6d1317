import { replicasOf } from "../cluster-state.ts";
import { isTooOld } from "../gc/epochs.ts";
import type { BrickNumber } from "../units.ts";
import { changesOf, type Entry, type EntryKind } from "./entry.ts";
import { type ChunkPart, type Extent, withKeyDomain } from "./grain.ts";
import { type GroupPart, groupPartsMax } from "./group.ts";
import type { MapGroupRequest } from "./group-messages.ts";
import {
  lookupGrainBytes,
  type MapCancelRequest,
  type MapFenceRequest,
  type MapLookupReply,
  type MapLookupRequest,
  type MapRehintRequest,
  type MapReply,
  type MapStatus,
  type MapWriteRequest,
} from "./map-messages.ts";
import { owedBranch } from "./owed.ts";
import { awaitCommit, hasRoom, type Primary, propose, underWay } from "./primary.ts";
import type { Replica } from "./replica.ts";
import { windowSpanMax } from "./windows.ts";

/** Extents in one answer to a look-up; the asker comes again for the rest. */
const lookupBytesMax = 256 * 1024;
const newestGeneration = 2 ** 32 - 1;

type Answer = (reply: MapReply) => void;

/** The role, if this replica may take requests now: it leads, under a valid lease. */
function leading(replica: Replica): Primary | null {
  const { role, facts, effects } = replica;
  if (role.is !== "primary" || role.released || facts.lossy || !effects.leaseValid()) return null;
  return role;
}

function say(
  replica: Replica,
  answer: Answer,
  status: MapStatus,
  holders: readonly BrickNumber[] = [],
) {
  answer({ status, view: replica.view?.view ?? 0, holders });
}

/** Answers once the entry has landed; the lease is looked at again, right before. */
function whenLanded(replica: Replica, role: Primary, answer: Answer): (entry: Entry) => void {
  return (entry) => {
    if (replica.role !== role || leading(replica) === null) return;
    const cancelled = entry.kind === "cancel";
    // A chunk inside an entry of an older view is where this view is, whatever the entry names.
    const holders = entry.inlineBytes > 0 ? replicasOf(replica.view!) : entry.holders;
    say(replica, answer, cancelled ? "cancelled" : "ok", holders);
  };
}

interface Draft {
  kind: EntryKind;
  branch: number;
  generation?: number;
  epoch?: number;
  sequence?: number;
  lowWater?: number;
  grain?: number;
  grainCount?: number;
  firstSector?: number;
  sectorCount?: number;
  part?: ChunkPart | null;
  key?: Buffer | null;
  holders?: readonly BrickNumber[];
  keyDomain?: number | undefined;
  parts?: readonly GroupPart[];
  inline?: Buffer | null;
}

function entryOf(replica: Replica, draft: Draft, op: number, view: number): Entry {
  const { effects } = replica;
  const entry = {
    kind: draft.kind,
    shard: replica.shard,
    op,
    view,
    branch: draft.branch,
    generation: draft.generation ?? 0,
    epoch: draft.epoch ?? 0,
    sequence: draft.sequence ?? 0,
    lowWater: draft.lowWater ?? 0,
    grain: draft.grain ?? 0,
    grainCount: draft.grainCount ?? 0,
    firstSector: draft.firstSector ?? 0,
    sectorCount: draft.sectorCount ?? 0,
    chunkSector: draft.part?.chunkSector ?? 0,
    chunkSectors: draft.part?.chunkSectors ?? (draft.kind === "write" ? draft.sectorCount! : 0),
    key: draft.key ?? null,
    holders: draft.holders ?? [],
    parts: draft.parts ?? [],
    clusterTimeMs: effects.clusterTimeMs(),
    gcEpoch: effects.gcEpoch(),
    inlineBytes: draft.inline?.length ?? 0,
    inline: draft.inline ?? null,
  };
  return withKeyDomain(entry, draft.keyDomain);
}

/** By which a gateway's request is known; what a write names. */
interface Numbered {
  branch: number;
  epoch: number;
  sequence: number;
  lowWater: number;
  grain?: number;
  key?: Buffer | null;
}

/**
 * Who has the chunk of a write that landed before: those that its record names. The present view may have
 * others, which were sent the record and not the chunk.
 */
function holdersInForce(
  replica: Replica,
  { branch, grain, key }: Numbered,
): readonly BrickNumber[] {
  if (grain === undefined || !key) return [];
  const { table, shard, facts } = replica;
  const found = table.lookup(shard, facts.incarnation, branch, grain, 1, newestGeneration);
  const extents = found.flatMap(({ value }) => value.extents).filter((one) => one.key.equals(key));
  return extents.sort((a, b) => a.holders.length - b.holders.length)[0]?.holders ?? [];
}

/**
 * Whether a sequence has been answered, or will be; else it is new, and may be proposed.
 */
function known(replica: Replica, role: Primary, request: Numbered, answer: Answer): boolean {
  const { windows } = replica.facts;
  const window = windows.get(request.branch);
  const fencing = Math.max(role.fencing.get(request.branch) ?? 0, window?.epoch ?? 0);
  if (request.epoch < fencing) say(replica, answer, "fenced");
  else if (window === undefined || window.epoch !== request.epoch) say(replica, answer, "not_now");
  else if (request.sequence < window.lowWater) say(replica, answer, "refused");
  else if (request.sequence >= window.lowWater + windowSpanMax) say(replica, answer, "refused");
  else {
    const landed = window.settled.get(request.sequence);
    if (landed !== undefined) {
      if (landed) say(replica, answer, "ok", holdersInForce(replica, request));
      else say(replica, answer, "cancelled");
      return true;
    }
    const entry = underWay(role, request);
    if (entry === undefined) return false;
    awaitCommit(role, entry, whenLanded(replica, role, answer));
  }
  return true;
}

/** The role when the request's sequence may be proposed; null when it has been answered otherwise. */
function leadingForNew(replica: Replica, request: Numbered, answer: Answer): Primary | null {
  const role = leading(replica);
  if (role !== null && known(replica, role, request, answer)) return null;
  if (role !== null && hasRoom(replica, role)) return role;
  say(replica, answer, "not_now");
  return null;
}

/** Whether all of them can log what takes space; answered when not. */
function hasSpace(replica: Replica, bricks: readonly BrickNumber[], answer: Answer): boolean {
  const space = replica.effects.spaceIn(bricks);
  if (space !== "room") say(replica, answer, space === "soon" ? "not_now" : "no_space");
  return space === "room";
}

export function onWrite(replica: Replica, request: MapWriteRequest, answer: Answer): void {
  const role = leadingForNew(replica, request, answer);
  if (role === null) return;
  const bricks = replicasOf(replica.view!);
  if (request.key !== null && !hasSpace(replica, bricks, answer)) return;
  const stored = request.key !== null && request.inline === null;
  if (stored && isTooOld(request.gcEpoch, replica.effects.gcEpoch())) {
    say(replica, answer, "stale");
    return;
  }
  const draft: Draft = {
    ...request,
    kind: request.key === null ? "unmap" : request.part === null ? "write" : "reference",
    // Copied: the request's slice would keep its whole slab in memory.
    key: request.key === null ? null : Buffer.from(request.key),
    holders: request.inline === null ? request.holders : bricks,
    inline: request.inline === null ? null : inOnePiece(request.inline),
  };
  const make = (op: number, view: number) => entryOf(replica, draft, op, view);
  propose(replica, role, make, whenLanded(replica, role, answer));
}

function inOnePiece(parts: readonly Buffer[]): Buffer {
  return parts.length === 1 ? parts[0]! : Buffer.concat(parts);
}

/** Changes of several grains, as one entry. What holds for a chunk that was stored before holds for each. */
export function onGroup(replica: Replica, request: MapGroupRequest, answer: Answer): void {
  const role = leadingForNew(replica, request, answer);
  if (role === null) return;
  if (request.parts.some(({ key }) => key !== null)) {
    if (!hasSpace(replica, replicasOf(replica.view!), answer)) return;
    if (isTooOld(request.gcEpoch, replica.effects.gcEpoch())) {
      say(replica, answer, "stale");
      return;
    }
  }
  const draft: Draft = { ...request, kind: "group", grain: request.parts[0]!.grain };
  const make = (op: number, view: number) => entryOf(replica, draft, op, view);
  propose(replica, role, make, whenLanded(replica, role, answer));
}

export function onFence(replica: Replica, request: MapFenceRequest, answer: Answer): void {
  const role = leading(replica);
  if (role === null || !hasRoom(replica, role)) {
    say(replica, answer, "not_now");
    return;
  }
  const { branch, epoch } = request;
  const present = replica.facts.windows.get(branch)?.epoch ?? 0;
  const fencing = Math.max(role.fencing.get(branch) ?? 0, present);
  if (epoch < fencing) say(replica, answer, "fenced");
  else if (epoch === present) say(replica, answer, "ok");
  else {
    const make = (op: number, view: number) =>
      entryOf(replica, { kind: "fence", branch, epoch }, op, view);
    propose(replica, role, make, whenLanded(replica, role, answer));
  }
}

export function onCancel(replica: Replica, request: MapCancelRequest, answer: Answer): void {
  const role = leadingForNew(replica, request, answer);
  if (role === null) return;
  const make = (op: number, view: number) =>
    entryOf(replica, { ...request, kind: "cancel" }, op, view);
  propose(replica, role, make, whenLanded(replica, role, answer));
}

/**
 * Whether records are on their way to a candidate. An overlay cannot say that extents of the base name
 * other bricks: a record sent before new holders were named, and taken, would go on naming the old
 * ones. What is named before that is in the records by the time they are sent.
 */
function isTransferring({ view }: Replica): boolean {
  return view?.transfer === true && view.candidates.length > 0;
}

/** Names new holders of a chunk. Nobody's sequence: doing it twice changes nothing. */
export function onRehint(replica: Replica, request: MapRehintRequest, answer: Answer): void {
  const role = leading(replica);
  if (role === null || !hasRoom(replica, role) || isTransferring(replica)) {
    say(replica, answer, "not_now");
    return;
  }
  if (isTooOld(request.gcEpoch, replica.effects.gcEpoch())) {
    say(replica, answer, "stale");
    return;
  }
  const draft: Draft = { ...request, kind: "rehint", key: Buffer.from(request.key) };
  const make = (op: number, view: number) => entryOf(replica, draft, op, view);
  propose(replica, role, make, whenLanded(replica, role, answer));
}

/** Takes whole grains of one run out of a branch that nobody can read any more: nobody's sequence. */
export function dropGrains(
  replica: Replica,
  of: { branch: number; generation: number; grain: number; grainCount: number },
  committed: () => void,
): boolean {
  const role = leading(replica);
  if (role === null || !hasRoom(replica, role)) return false;
  const make = (op: number, view: number) => entryOf(replica, { ...of, kind: "unmap" }, op, view);
  propose(replica, role, make, committed);
  return true;
}

/** Names the bricks that were found to have a chunk: nobody's sequence, like a rehint. */
export function nameHolders(
  replica: Replica,
  of: {
    branch: number;
    generation: number;
    grain: number;
    key: Buffer;
    holders: readonly BrickNumber[];
  },
  gcEpoch: number,
): boolean {
  const role = leading(replica);
  if (role === null || !hasRoom(replica, role) || isTransferring(replica)) return false;
  if (isTooOld(gcEpoch, replica.effects.gcEpoch())) return false;
  const make = (op: number, view: number) => entryOf(replica, { ...of, kind: "rehint" }, op, view);
  propose(replica, role, make, () => {});
  return true;
}

/** Parts of one grain that shall be named by one chunk, which lies with its first sector at `firstSector`. */
export interface CompactedGrain {
  readonly branch: number;
  readonly generation: number;
  readonly grain: number;
  /** Its record as it was when the chunk was made of what it names. */
  readonly record: Buffer;
  readonly key: Buffer;
  readonly holders: readonly BrickNumber[];
  readonly keyDomain: number | undefined;
  readonly firstSector: number;
  /** Sectors of the chunk. */
  readonly sectorCount: number;
  readonly runs: readonly { readonly firstSector: number; readonly sectorCount: number }[];
}

/**
 * Names one chunk where a record named many, if that record is still what it was and nothing that
 * changes it is under way: nobody's sequence. A reference for each run that is mapped; each says what
 * the record says already, so that any of them may land without the others. `committed` is told when
 * all have landed.
 */
export function compactGrain(
  replica: Replica,
  of: CompactedGrain,
  gcEpoch: number,
  committed: () => void,
): "proposed" | "changed" | "not_now" | "stale" {
  const role = leading(replica);
  if (role === null || !hasRoom(replica, role)) return "not_now";
  if (replica.effects.spaceIn(replicasOf(replica.view!)) !== "room") return "not_now";
  if (!isGrainAsItWas(replica, of)) return "changed";
  if (isTooOld(gcEpoch, replica.effects.gcEpoch())) return "stale";
  const { branch, generation, grain, keyDomain, holders } = of;
  const key = Buffer.from(of.key);
  let left = of.runs.length;
  for (const { firstSector, sectorCount } of of.runs) {
    const part = { chunkSector: firstSector - of.firstSector, chunkSectors: of.sectorCount };
    const place = { branch, generation, grain, firstSector, sectorCount, part };
    const draft: Draft = { ...place, kind: "reference", key, holders, keyDomain };
    const make = (op: number, view: number) => entryOf(replica, draft, op, view);
    propose(replica, role, make, () => {
      left -= 1;
      if (left === 0) committed();
    });
  }
  return "proposed";
}

/** Every entry takes effect in its order, so what holds now of all that is logged holds at the next. */
function isGrainAsItWas(
  { table, shard, facts, pending }: Replica,
  { branch, generation, grain, record }: CompactedGrain,
): boolean {
  for (let op = facts.commitOp + 1; op <= facts.lastOp; op += 1) {
    const entry = pending.get(op)!;
    if (entry.branch !== branch) continue;
    if (entry.kind === "rehint" && entry.grain === grain) return false;
    for (const change of changesOf(entry)) {
      const end = change.grain + Math.max(1, change.grainCount);
      if (grain >= change.grain && grain < end) return false;
    }
  }
  const present = table.getRecord("base", shard, facts.incarnation, { branch, grain, generation });
  return present?.equals(record) === true;
}

/**
 * Whether what this replica holds now is all that its shard refers to, but for what it will yet
 * propose itself: it leads, and every other brick of the view has acknowledged that it does.
 */
export function isSettled(replica: Replica): boolean {
  const role = leading(replica);
  if (role === null || !role.startDurable || replica.facts.commitOp < role.startOp) return false;
  return [...role.peers.values()].every((peer) => peer.acked);
}

/** Extents from the table: everything that was ever acknowledged is in it. */
export function lookUp(replica: Replica, request: MapLookupRequest): MapLookupReply {
  const role = leading(replica);
  const view = replica.view?.view ?? 0;
  const { facts, table, shard } = replica;
  const refuse = (status: MapStatus): MapLookupReply => {
    return { status, view, coveredCount: 0, grains: new Map() };
  };
  if (role === null || facts.commitOp < role.startOp || !role.startDurable)
    return refuse("not_now");
  const epoch = facts.windows.get(request.branch)?.epoch ?? 0;
  if (request.epoch < epoch) return refuse("fenced");
  if (request.epoch > epoch) return refuse("not_now");
  if (request.owed) return { status: "ok", view, ...findOwed(replica, request) };
  const { branch, firstGrain, grainCount } = request;
  const found = table.lookup(
    shard,
    facts.incarnation,
    branch,
    firstGrain,
    grainCount,
    newestGeneration,
  );
  const grains = new Map<number, readonly Extent[]>();
  let bytes = 0;
  let coveredCount = grainCount;
  for (const { grain, value } of found) {
    bytes += lookupGrainBytes(value.extents.length);
    if (bytes > lookupBytesMax && grains.size > 0) {
      coveredCount = grain - firstGrain;
      break;
    }
    if (value.extents.length > 0) grains.set(grain, value.extents);
  }
  return { status: "ok", view, coveredCount, grains };
}

const owedScanRecords = 64;

/** The first of what is owed of a branch from a grain on: as much as one group may have left. */
function findOwed(
  { table, shard, facts }: Replica,
  request: MapLookupRequest,
): Pick<MapLookupReply, "coveredCount" | "grains"> {
  const branch = owedBranch(request.branch);
  const grains = new Map<number, readonly Extent[]>();
  const found = { coveredCount: groupPartsMax, grains };
  // Of a grain, the newest generation comes first.
  let after = { branch, grain: Math.max(0, request.firstGrain - 1), generation: 0 };
  let first: number | null = null;
  for (;;) {
    const page = table.scan("base", shard, facts.incarnation, after, owedScanRecords);
    for (const { branch: of, grain, generation, value } of page.entries) {
      if (of !== branch || grain >= (first ?? grain) + groupPartsMax) return found;
      after = { branch, grain, generation };
      if (value.extents.length === 0) continue;
      first ??= grain;
      grains.set(grain, value.extents);
    }
    if (page.done) return found;
  }
}
