import { pooledZeros } from "../pooled-zeros.ts";
import { decodeGrain } from "./grain.ts";
import type { GrainKey } from "./map-table-keys.ts";
import type { Peer, Primary } from "./primary.ts";
import { putBase, type Replica, send } from "./replica.ts";
import {
  decodeRecords,
  encodeRecords,
  type RecordPart,
  replicaHeadBytes,
} from "./replica-messages.ts";

/** Map records in one message, and their bytes. */
const partRecordsMax = 512;
const partBytesMax = 256 * 1024;
/** Records looked at for one message: most may be older than what the candidate lacks. */
const partScanMax = 4096;
const resendAfterMs = 200;

/**
 * The primary's side of bringing a candidate's base up to date: its table in key order, every
 * record whose op is above `sinceOp`. One message is under way at a time. A record says all of its
 * grain up to its own op, so it does not matter when it is read.
 */
export interface Transfer {
  readonly id: number;
  readonly sinceOp: number;
  /** Everything up to here was taken by the candidate. */
  after: GrainKey | null;
  /** Numbers the parts from 1. */
  part: number;
  underWay: { last: GrainKey | null; end: boolean; sentMs: number; parts: Buffer[] } | null;
  done: boolean;
}

export function beginTransfer(role: Primary, sinceOp: number): Transfer {
  const id = role.transferNext;
  role.transferNext += 1;
  return { id, sinceOp, after: null, part: 1, underWay: null, done: false };
}

/** Sends the next part, or the one under way again when its answer is late. */
export function pumpTransfer(replica: Replica, peer: Peer): void {
  const { transfer } = peer;
  const { role, facts } = replica;
  if (transfer === null || transfer.done || replica.view?.transfer !== true) return;
  // The candidate's overlay may begin after what was committed before this view without our
  // knowing: a scan before that is committed here would miss it.
  if (role.is !== "primary" || facts.commitOp < role.startOp) return;
  if (standsIn(replica, role, peer)) return;
  // Nor does an overlay take new holders of what is in the base: they are in the records first.
  if (transfer.part === 1 && transfer.underWay === null && isNaming(replica)) return;
  const nowMs = replica.effects.nowMs();
  if (transfer.underWay === null) transfer.underWay = { ...readPart(replica, transfer), sentMs: 0 };
  else if (nowMs - transfer.underWay.sentMs < resendAfterMs) return;
  transfer.underWay.sentMs = nowMs;
  const { end, parts } = transfer.underWay;
  for (const part of parts) replica.effects.counters.transferBytes += part.length;
  send(replica, peer.brick, "records", transfer.part, [partHead(transfer.id, end), ...parts]);
}

/**
 * Whether it has everything still to be sent, while another candidate comes back with most of it:
 * when that one is complete, the next view may need no stand-in.
 */
function standsIn(replica: Replica, role: Primary, peer: Peer): boolean {
  const lacksAll = (one: Peer | undefined) => one?.transfer?.sinceOp === 0;
  if (!lacksAll(peer)) return false;
  return replica.view!.candidates.some((brick) => !lacksAll(role.peers.get(brick)));
}

function isNaming({ pending }: Replica): boolean {
  for (const { kind } of pending.values()) if (kind === "rehint") return true;
  return false;
}

function readPart(replica: Replica, transfer: Transfer) {
  const { table, shard, facts } = replica;
  const records: RecordPart[] = [];
  let bytes = 0;
  let after = transfer.after;
  let looked = 0;
  while (looked < partScanMax && records.length < partRecordsMax && bytes < partBytesMax) {
    const { entries, done } = table.scan("base", shard, facts.incarnation, after, 256);
    looked += entries.length;
    for (const entry of entries) {
      const { branch, grain, generation } = entry;
      after = { branch, grain, generation };
      if (entry.value.op <= transfer.sinceOp) continue;
      records.push({ branch, grain, generation, bytes: entry.bytes });
      bytes += entry.bytes.length;
    }
    if (done) return { last: after, end: true, parts: encodeRecords(records) };
  }
  return { last: after, end: false, parts: encodeRecords(records) };
}

const partHeadBytes = 8;

function partHead(id: number, end: boolean): Buffer {
  const head = pooledZeros(partHeadBytes);
  head.writeUInt32BE(id, 0);
  head[4] = end ? 1 : 0;
  return head;
}

export function onRecordsTaken(replica: Replica, peer: Peer, part: number, body: Buffer): void {
  const { transfer } = peer;
  if (transfer === null || transfer.underWay === null || part !== transfer.part) return;
  if (body.length < replicaHeadBytes + partHeadBytes) return;
  if (body.readUInt32BE(replicaHeadBytes) !== transfer.id) return;
  transfer.after = transfer.underWay.last;
  transfer.done = transfer.underWay.end;
  transfer.underWay = null;
  transfer.part += 1;
  pumpTransfer(replica, peer);
}

/** Where a candidate stands in a transfer: parts are taken once each, in order. */
export interface Taking {
  transfer: number;
  partNext: number;
  end: boolean;
}

/** The candidate's side: takes what is newer than its own, and answers. */
export function takeRecords(replica: Replica, taking: Taking, part: number, body: Buffer): void {
  if (body.length < replicaHeadBytes + partHeadBytes) return;
  const id = body.readUInt32BE(replicaHeadBytes);
  if (id > taking.transfer && part === 1) Object.assign(taking, { transfer: id, partNext: 1 });
  if (id !== taking.transfer || part > taking.partNext) return;
  if (part === taking.partNext) {
    const records = decodeRecords(body, replicaHeadBytes + partHeadBytes);
    if (records === null || !putRecords(replica, records)) return;
    taking.partNext += 1;
    taking.end = body[replicaHeadBytes + 4] === 1;
  }
  send(replica, replica.view!.primary, "recordsTaken", part, [partHead(id, false)]);
}

export function putRecords(replica: Replica, records: readonly RecordPart[]): boolean {
  const { table, shard, facts } = replica;
  for (const { branch, grain, generation, bytes } of records) {
    const key = { branch, grain, generation };
    const value = decodeGrain(bytes);
    if (value === null) return false;
    const old = table.get("base", shard, facts.incarnation, key);
    if (old === undefined || old.op < value.op) putBase(replica, key, value, old);
  }
  return true;
}
