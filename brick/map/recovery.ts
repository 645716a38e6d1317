import { assert } from "../assert.ts";
import { chunkBytesMax } from "../chunk/key.ts";
import { pooledZeros } from "../pooled-zeros.ts";
import { messageBodyBytesMax } from "../rpc/frame.ts";
import {
  decodeEntry,
  type Entry,
  encodeEntryHead,
  entryBytesMax,
  entryHeadBytes,
} from "./entry.ts";
import { decodeGrain, grainRecordBytesMax } from "./grain.ts";
import type { GrainKey } from "./map-table-keys.ts";
import { apply, completeAt, mergeOne, mergeOverlay, overlaysOf, type Replica } from "./replica.ts";
import { decodeRecords, encodeRecords } from "./replica-messages.ts";
import type { ReplicaReport, UnionPlan, UnionStep } from "./union.ts";
import { imageOf, windowsFrom } from "./windows.ts";

/** What the replica holds, once it has promised: to be said only when the promise is durable. */
export function reportOf(replica: Replica): ReplicaReport {
  const { facts, pending, self } = replica;
  let pendingFrom = facts.lastOp + 1;
  while (pendingFrom > facts.commitOp + 1 && pending.has(pendingFrom - 1)) pendingFrom -= 1;
  const { promised, accepted, baseOp, commitOp, lastOp, starts, windows } = facts;
  return {
    brick: self,
    promised,
    accepted,
    baseOp,
    overlays: overlaysOf(facts),
    commitOp,
    lastOp,
    pendingFrom,
    damaged: facts.lossy,
    windows: imageOf(windows),
    starts,
    ...(!replica.effects.mayCheckpoint() && { noRoom: true }),
  };
}

/**
 * A page of what another brick gathers, 36 bytes: shard[2] kind[1] (1 overlay, 2 entries) zero[1]
 * view[4] firstOp[6] lastOp[6], then for an overlay the key after which to go on (branch[6]
 * grain[6] generation[4]; all ones: from the start), for entries zeros.
 */
export interface FetchRequest {
  shard: number;
  view: number;
  /** An overlay's are the whole interval that it was reported to hold. */
  firstOp: number;
  lastOp: number;
  what: { kind: "overlay"; after: GrainKey | null } | { kind: "entries" };
}

const fetchBytes = 36;
const fetchKeyAt = 20;
/** Entries with the largest chunks, and the largest map records, that fit one message. */
const fetchEntriesMax = 16;
const fetchRecordsMax = 128;
assert(fetchEntriesMax * (entryBytesMax + chunkBytesMax) < messageBodyBytesMax);
assert(fetchRecordsMax * (grainRecordBytesMax + 32) < messageBodyBytesMax);

export function encodeFetch(request: FetchRequest): Buffer {
  const bytes = pooledZeros(fetchBytes);
  bytes.writeUInt16BE(request.shard, 0);
  bytes.writeUInt32BE(request.view, 4);
  bytes.writeUIntBE(request.firstOp, 8, 6);
  bytes.writeUIntBE(request.lastOp, 14, 6);
  const { what } = request;
  bytes[2] = what.kind === "overlay" ? 1 : 2;
  if (what.kind === "entries") return bytes;
  if (what.after === null) bytes.fill(0xff, fetchKeyAt);
  else {
    bytes.writeUIntBE(what.after.branch, fetchKeyAt, 6);
    bytes.writeUIntBE(what.after.grain, fetchKeyAt + 6, 6);
    bytes.writeUInt32BE(what.after.generation, fetchKeyAt + 12);
  }
  return bytes;
}

export function decodeFetch(body: Buffer): FetchRequest | null {
  if (body.length !== fetchBytes || body[3] !== 0) return null;
  const shard = body.readUInt16BE(0);
  const view = body.readUInt32BE(4);
  const firstOp = body.readUIntBE(8, 6);
  const lastOp = body.readUIntBE(14, 6);
  const place = { shard, view, firstOp, lastOp };
  if (body[2] === 2) return { ...place, what: { kind: "entries" } };
  if (body[2] !== 1) return null;
  const fromStart = body.subarray(fetchKeyAt).every((byte) => byte === 0xff);
  const key = {
    branch: body.readUIntBE(fetchKeyAt, 6),
    grain: body.readUIntBE(fetchKeyAt + 6, 6),
    generation: body.readUInt32BE(fetchKeyAt + 12),
  };
  return { ...place, what: { kind: "overlay", after: fromStart ? null : key } };
}

/**
 * The page asked for; its first byte is 1 when nothing follows. null: what the replica reported
 * under that promise is not what it holds now.
 */
export function answerFetch(replica: Replica, request: FetchRequest): Buffer[] | null {
  const { facts, table, shard } = replica;
  if (facts.promised !== request.view || replica.view !== null) return null;
  const { what, firstOp, lastOp } = request;
  if (what.kind === "overlay") {
    const overlay = overlaysOf(facts).find((one) => one.fromOp === firstOp && one.toOp === lastOp);
    if (overlay === undefined) return null;
    const { incarnation } = overlay;
    const page = table.scan("overlay", shard, incarnation, what.after, fetchRecordsMax);
    return [Buffer.of(page.done ? 1 : 0), ...encodeRecords(page.entries)];
  }
  const parts: Buffer[] = [];
  let op = firstOp;
  for (; op <= lastOp && op < firstOp + fetchEntriesMax; op += 1) {
    const entry = replica.pending.get(op);
    if (entry === undefined) return null;
    parts.push(encodeEntryHead(entry, facts.commitOp, entry.inline !== null));
    if (entry.inline !== null) parts.push(entry.inline);
  }
  return [Buffer.of(op > lastOp ? 1 : 0), ...parts];
}

/** Fetches one page from a brick; null: it does not answer. */
export type Fetch = (from: number, request: FetchRequest) => Promise<Buffer | null>;

/** Gathers the union; every await leaves the replica as whole as it was found. */
export async function assemble(
  replica: Replica,
  view: number,
  plan: UnionPlan,
  fetch: Fetch,
  store: (entry: Entry) => Promise<boolean>,
  durable: () => Promise<void>,
): Promise<boolean> {
  const { facts } = replica;
  if (facts.promised !== view || replica.view !== null) return false;
  // It has said nothing but what it has durably.
  if (isHeldAlready(replica, plan)) return true;
  if (!replica.effects.mayCheckpoint()) return false;
  // 1. Everything is fetched before anything is changed.
  const gathered: ({ records: ReturnType<typeof decodeRecords> } | { entries: Entry[] })[] = [];
  for (const step of plan.steps) {
    if (step.kind === "overlay") {
      const records =
        step.from === replica.self ? null : await fetchOverlay(replica, view, step, fetch);
      if (step.from !== replica.self && records === null) return false;
      gathered.push({ records });
    } else {
      const entries = await fetchEntries(replica, view, step, fetch);
      if (entries === null) return false;
      gathered.push({ entries });
    }
  }
  // 2. Their chunks are stored before an entry here names them.
  for (const got of gathered) {
    if (!("entries" in got)) continue;
    if (!(await Promise.all(got.entries.map(store))).every(Boolean)) return false;
  }
  if (replica.facts !== facts || facts.promised !== view || replica.view !== null) return false;
  // 3. In order: entries before the last overlay are committed, those after it stay pending.
  const lastOverlay = plan.steps.findLastIndex((step) => step.kind === "overlay");
  const rest: Entry[] = [];
  let baseOp = facts.baseOp;
  for (const [index, step] of plan.steps.entries()) {
    const got = gathered[index]!;
    if ("entries" in got) {
      for (const entry of got.entries) {
        if (index < lastOverlay || entry.op <= plan.windowsOp) {
          apply(replica, entry, "base");
          baseOp = entry.op;
        } else rest.push(entry);
      }
    } else if (step.kind === "overlay") {
      if (got.records === null) mergeOwn(replica, step);
      else for (const one of got.records) mergeOne(replica, one, decodeGrain(one.bytes)!);
      baseOp = step.lastOp;
    }
  }
  facts.windows = windowsFrom(plan.windows);
  facts.starts = plan.starts;
  facts.accepted = plan.accepted;
  completeAt(facts, baseOp);
  facts.commitOp = baseOp;
  facts.lastOp = plan.endOp;
  replica.pending.clear();
  for (const entry of rest) replica.pending.set(entry.op, entry);
  // 4. All of it at once, in a checkpoint: its entries are in no log of this brick.
  replica.undurable.clear();
  replica.acceptedDurable = plan.accepted;
  replica.isGathering = true;
  await durable();
  replica.isGathering = false;
  return replica.facts === facts && facts.promised === view;
}

/** Whether the union is what the replica holds, to the last entry: its own log has it, and its tables. */
function isHeldAlready({ facts, self }: Replica, plan: UnionPlan): boolean {
  const isOwn = plan.steps.every(({ kind, from }) => kind === "entries" && from === self);
  const isWhole = facts.overlayFrom === 0 && !facts.lossy;
  const reached = [plan.endOp, plan.windowsOp, plan.accepted];
  const held = [facts.lastOp, facts.commitOp, facts.accepted];
  return isOwn && isWhole && reached.every((one, at) => one === held[at]);
}

function mergeOwn(replica: Replica, step: { firstOp: number; lastOp: number }): void {
  const { firstOp, lastOp } = step;
  const own = overlaysOf(replica.facts);
  const overlay = own.find((one) => one.fromOp === firstOp && one.toOp === lastOp);
  assert(overlay !== undefined, "an overlay to merge is missing");
  while (!mergeOverlay(replica, overlay.incarnation));
}

async function fetchOverlay(replica: Replica, view: number, step: UnionStep, fetch: Fetch) {
  const records: NonNullable<ReturnType<typeof decodeRecords>> = [];
  let after: GrainKey | null = null;
  for (;;) {
    const { firstOp, lastOp } = step;
    const what = { kind: "overlay" as const, after };
    const page = await fetch(step.from, { shard: replica.shard, view, firstOp, lastOp, what });
    const part = page === null || page.length < 1 ? null : decodeRecords(page, 1);
    if (part === null || part.some((one) => decodeGrain(one.bytes) === null)) return null;
    records.push(...part);
    if (page![0] === 1) return records;
    const last = part.at(-1);
    if (last === undefined) return null;
    after = { branch: last.branch, grain: last.grain, generation: last.generation };
  }
}

async function fetchEntries(
  replica: Replica,
  view: number,
  step: { from: number; firstOp: number; lastOp: number },
  fetch: Fetch,
): Promise<Entry[] | null> {
  const entries: Entry[] = [];
  if (step.from === replica.self) {
    for (let op = step.firstOp; op <= step.lastOp; op += 1) {
      const entry = replica.pending.get(op);
      if (entry === undefined) return null;
      entries.push(entry);
    }
    return entries;
  }
  let { firstOp } = step;
  while (firstOp <= step.lastOp) {
    const { lastOp } = step;
    const what = { kind: "entries" as const };
    const page = await fetch(step.from, { shard: replica.shard, view, firstOp, lastOp, what });
    if (page === null || page.length < 1 + entryHeadBytes) return null;
    for (let at = 1; at < page.length; ) {
      const decoded = decodeEntry(page, at);
      if (decoded === null || decoded.entry.op !== firstOp) return null;
      entries.push(decoded.entry);
      at = decoded.endBytes;
      firstOp += 1;
    }
  }
  return entries;
}
