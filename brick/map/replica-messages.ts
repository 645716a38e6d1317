import { pooledZeros } from "../pooled-zeros.ts";
import { type DecodedEntry, decodeEntry } from "./entry.ts";
import { type ViewStart, viewStartsMax } from "./replica-state.ts";
import type { WindowsImage } from "./windows.ts";

/**
 * Messages between the replicas of a shard, version 1, big-endian:
 *
 *     0 version[1] kind[1] shard[2]   4 view[4]   8 zero[2] op[6]   16 payload
 *
 * `op` and the payload by kind: start: the primary's commitOp; JSON {lastOp, starts}. hello: the
 * sender's match point; JSON. overlay: the primary's commitOp; JSON {fresh, windows, starts}.
 * prepare: the primary's commitOp; one entry. ack: everything up to op is durable. need: send from
 * op on (0: from a start message on). commit: the commit point. records: the number of this part;
 * transfer[4] end[1] zero[3], map records. recordsTaken: that number; transfer[4] zero[4].
 */
export const replicaKinds = {
  start: 1,
  hello: 2,
  overlay: 3,
  prepare: 4,
  ack: 5,
  need: 6,
  commit: 7,
  records: 8,
  recordsTaken: 9,
} as const;

export type ReplicaKind = keyof typeof replicaKinds;
const kindNames = new Map<number, ReplicaKind>(
  Object.entries(replicaKinds).map(([name, value]) => [value, name as ReplicaKind]),
);

export const replicaHeadBytes = 16;
const version = 1;

export interface ReplicaHead {
  kind: ReplicaKind;
  shard: number;
  view: number;
  op: number;
}

export interface StartPayload {
  lastOp: number;
  starts: readonly ViewStart[];
}

export interface HelloPayload {
  /** The sender's boot: a new one has forgotten what was sent to the one before. */
  boot: number;
  accepted: number;
  commitOp: number;
  baseOp: number;
}

export interface OverlayPayload {
  /** The base cannot be used: begin with an empty one. */
  fresh: boolean;
  windows: WindowsImage;
  starts: readonly ViewStart[];
}

export function encodeReplicaHead(head: ReplicaHead): Buffer {
  const bytes = pooledZeros(replicaHeadBytes);
  bytes[0] = version;
  bytes[1] = replicaKinds[head.kind];
  bytes.writeUInt16BE(head.shard, 2);
  bytes.writeUInt32BE(head.view, 4);
  bytes.writeUIntBE(head.op, 10, 6);
  return bytes;
}

export function decodeReplicaHead(body: Buffer): ReplicaHead | null {
  if (body.length < replicaHeadBytes || body[0] !== version) return null;
  const kind = kindNames.get(body[1]!);
  if (kind === undefined) return null;
  return {
    kind,
    shard: body.readUInt16BE(2),
    view: body.readUInt32BE(4),
    op: body.readUIntBE(10, 6),
  };
}

export function encodeJson(payload: StartPayload | HelloPayload | OverlayPayload): Buffer {
  return Buffer.from(JSON.stringify(payload));
}

function parse(body: Buffer): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(body.toString("utf8", replicaHeadBytes));
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : null;
  } catch {
    return null;
  }
}

const isCount = (value: unknown): value is number =>
  Number.isSafeInteger(value) && Number(value) >= 0;

function readStarts(value: unknown): ViewStart[] | null {
  if (!Array.isArray(value) || value.length > viewStartsMax) return null;
  const good = value.every((one) => isCount(one?.view) && isCount(one?.lastOp));
  return good ? value.map(({ view, lastOp }) => ({ view, lastOp })) : null;
}

export function decodeStart(body: Buffer): StartPayload | null {
  const value = parse(body);
  const starts = readStarts(value?.starts);
  const lastOp = value?.lastOp;
  return starts !== null && isCount(lastOp) ? { starts, lastOp } : null;
}

export function decodeHello(body: Buffer): HelloPayload | null {
  const value = parse(body);
  if (value === null) return null;
  const { boot, accepted, commitOp, baseOp } = value;
  if (!isCount(boot) || !isCount(accepted) || !isCount(commitOp) || !isCount(baseOp)) return null;
  return { boot, accepted, commitOp, baseOp };
}

export function decodeOverlay(body: Buffer): OverlayPayload | null {
  const value = parse(body);
  const starts = readStarts(value?.starts);
  const windows = value?.windows;
  if (starts === null || !Array.isArray(windows)) return null;
  const rows = windows.every(
    (row) => Array.isArray(row) && row.length >= 3 && row.every(Number.isSafeInteger),
  );
  if (!rows || typeof value?.fresh !== "boolean") return null;
  return { starts, windows: windows as WindowsImage, fresh: value.fresh };
}

export function decodePrepare(body: Buffer): DecodedEntry | null {
  const decoded = decodeEntry(body, replicaHeadBytes);
  return decoded !== null && decoded.endBytes === body.length ? decoded : null;
}

/** A map record on its way: branch[6] grain[6] generation[4] length[4] record. */
export interface RecordPart {
  branch: number;
  grain: number;
  generation: number;
  bytes: Buffer;
}

const recordHeadBytes = 20;

export function encodeRecords(records: readonly RecordPart[]): Buffer[] {
  const parts: Buffer[] = [];
  for (const record of records) {
    const head = pooledZeros(recordHeadBytes);
    head.writeUIntBE(record.branch, 0, 6);
    head.writeUIntBE(record.grain, 6, 6);
    head.writeUInt32BE(record.generation, 12);
    head.writeUInt32BE(record.bytes.length, 16);
    parts.push(head, record.bytes);
  }
  return parts;
}

export function decodeRecords(body: Buffer, from: number): RecordPart[] | null {
  const records: RecordPart[] = [];
  for (let at = from; at < body.length; ) {
    if (body.length - at < recordHeadBytes) return null;
    const length = body.readUInt32BE(at + 16);
    const end = at + recordHeadBytes + length;
    if (end > body.length) return null;
    records.push({
      branch: body.readUIntBE(at, 6),
      grain: body.readUIntBE(at + 6, 6),
      generation: body.readUInt32BE(at + 12),
      // Copied: records stay, received slabs should not.
      bytes: Buffer.from(body.subarray(at + recordHeadBytes, end)),
    });
    at = end;
  }
  return records;
}
