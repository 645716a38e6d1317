import { decodeEntry, type Entry } from "./entry.ts";
import { commitTo, type Replica, recordTagBytes, recordType, truncate } from "./replica.ts";
import {
  decodeCheckpoint,
  decodeFacts,
  encodeCheckpoint,
  type FactsImage,
} from "./replica-state.ts";

/** The replica's part of a checkpoint: what of it the log has flushed, and nothing else. */
export function checkpointImage(replica: Replica): Buffer {
  const { facts, pending, undurable, shard, mapped, cuts } = replica;
  let { lastOp } = facts;
  for (const { op } of undurable) lastOp = Math.min(lastOp, op - 1);
  // What has committed is durable in the tables, wherever its entry may be.
  lastOp = Math.max(lastOp, facts.commitOp);
  const kept: Entry[] = [];
  for (let op = facts.commitOp + 1; op <= lastOp; op += 1) kept.push(pending.get(op)!);
  const durable = { ...facts, lastOp, accepted: replica.acceptedDurable };
  return encodeCheckpoint(shard, durable, { mapped, cuts }, kept);
}

/** Begins from a checkpoint; false when it is not one. */
export function restore(replica: Replica, bytes: Buffer): boolean {
  const image = decodeCheckpoint(bytes);
  if (image === null || image.shard !== replica.shard) return false;
  replica.facts = image.facts;
  replica.acceptedDurable = image.facts.accepted;
  replica.cuts = image.cuts;
  replica.pending.clear();
  for (const entry of image.pending) replica.pending.set(entry.op, entry);
  replica.mapped.clear();
  for (const [branch, sectors] of image.mapped) replica.mapped.set(branch, sectors);
  return true;
}

/** Which shard a log record belongs to; null when it cannot be read. */
export function shardOfRecord(record: Buffer): number | null {
  if (record[0] === recordType.entry) return record.length >= 10 ? record.readUInt16BE(8) : null;
  return record[0] === recordType.facts
    ? (decodeFacts(record.subarray(recordTagBytes))?.shard ?? null)
    : null;
}

/**
 * Repeats one record of the log. Records that the checkpoint covers change nothing. At what cannot
 * be followed (a hole that damage left) the replica stays as it was before, and says so.
 */
export function replayRecord(replica: Replica, record: Buffer): void {
  if (replica.broken) return;
  if (record[0] === recordType.facts) {
    const image = decodeFacts(record.subarray(recordTagBytes));
    if (image === null) replica.broken = true;
    else replayFacts(replica, image);
    return;
  }
  const decoded = decodeEntry(record, recordTagBytes);
  if (decoded === null) replica.broken = true;
  else replayEntry(replica, decoded.entry, decoded.commitOp);
}

function replayEntry(replica: Replica, entry: Entry, commitOp: number): void {
  const { facts, pending } = replica;
  if (entry.op <= facts.commitOp || replica.cuts.some((cut) => entry.op > cut.keptTo)) return;
  if (entry.op > facts.lastOp + 1) {
    replica.broken = true;
    return;
  }
  pending.set(entry.op, entry);
  facts.lastOp = Math.max(facts.lastOp, entry.op);
  commitTo(replica, Math.min(Math.max(commitOp, facts.commitOp), entry.op));
}

function replayFacts(replica: Replica, image: FactsImage): void {
  const next = image.facts;
  const { facts, pending } = replica;
  replica.cuts = replica.cuts.filter((cut) => cut.number > next.number);
  if (next.number <= facts.number) {
    // The checkpoint was made when these were on their way, and knows all but what waits for them.
    if (next.incarnation !== facts.incarnation) return;
    for (const entry of pending.values()) {
      if (entry.op <= image.acceptedTo) entry.view = Math.max(entry.view, next.accepted);
    }
    facts.accepted = Math.max(facts.accepted, next.accepted);
    replica.acceptedDurable = facts.accepted;
    return;
  }
  if (next.incarnation > facts.incarnation) {
    pending.clear();
    replica.mapped.clear();
  } else if (next.overlayFrom > 0 && next.overlayFrom !== facts.overlayFrom) {
    // It fell behind: what was there before ends here, and an overlay begins further on.
    const closed = next.overlays.at(-1)?.toOp ?? 0;
    commitAvailable(replica, Math.max(next.baseOp, closed));
    if (replica.broken) return;
    pending.clear();
  } else {
    // Completion is durable by a checkpoint before any record can tell of it.
    if (next.overlayFrom !== facts.overlayFrom) replica.broken = true;
    else commitAvailable(replica, next.commitOp);
    if (replica.broken) return;
    truncate(replica, Math.max(next.lastOp, facts.commitOp));
  }
  if (pending.size < next.lastOp - Math.max(next.commitOp, facts.commitOp)) {
    replica.broken = true;
    return;
  }
  for (const entry of pending.values()) {
    if (entry.op <= image.acceptedTo) entry.view = next.accepted;
  }
  if (next.incarnation === facts.incarnation && next.commitOp < facts.commitOp) {
    // The entries before told of a commit that the replica itself had not heard of yet.
    next.commitOp = facts.commitOp;
    next.windows = facts.windows;
    next.lastOp = Math.max(next.lastOp, facts.commitOp);
    if (next.overlayFrom === 0) next.baseOp = facts.commitOp;
  }
  replica.facts = next;
  replica.acceptedDurable = next.accepted;
}

function commitAvailable(replica: Replica, op: number): void {
  const { facts, pending } = replica;
  let to = facts.commitOp;
  while (to < op && pending.has(to + 1)) to += 1;
  commitTo(replica, to);
  if (to < op) replica.broken = true;
}
