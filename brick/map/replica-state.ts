import { z } from "zod";
import { decodeEntry, type Entry, encodeEntryHead } from "./entry.ts";
import { imageOf, type Windows, type WindowsImage, windowsFrom } from "./windows.ts";

/** The start of a view: the entries that its primary held then; nothing above had committed. */
export interface ViewStart {
  readonly view: number;
  readonly lastOp: number;
}

/** Starts remembered per shard: enough for every view of a chain. */
export const viewStartsMax = 64;

/**
 * What a replica keeps besides its tables. `baseOp`, `overlayFrom`, `commitOp`, `lastOp` and the
 * pending entries are explained in docs/replication.md.
 */
export interface ReplicaFacts {
  /** Tables of other incarnations of this shard are garbage. */
  incarnation: number;
  promised: number;
  accepted: number;
  baseOp: number;
  /** 0 when there is no overlay. */
  overlayFrom: number;
  commitOp: number;
  /** Pending entries above it do not count. */
  lastOp: number;
  starts: ViewStart[];
  windows: Windows;
}

export function emptyFacts(incarnation: number): ReplicaFacts {
  return {
    incarnation,
    promised: 0,
    accepted: 0,
    baseOp: 0,
    overlayFrom: 0,
    commitOp: 0,
    lastOp: 0,
    starts: [],
    windows: new Map(),
  };
}

const count = z.int().min(0);
const imageSchema = z.object({
  version: z.literal(1),
  shard: count,
  incarnation: count,
  promised: count,
  accepted: count,
  baseOp: count,
  overlayFrom: count,
  commitOp: count,
  lastOp: count,
  /** Pending entries up to here count as accepted in `accepted`. */
  acceptedTo: count,
  starts: z.array(z.tuple([count, count])).max(viewStartsMax),
  windows: z.array(z.array(z.int()).min(3)),
  /** Mapped sectors by branch; only in checkpoints, where it fits the table. */
  mapped: z.array(z.tuple([count, z.int()])).optional(),
});

export interface FactsImage {
  facts: ReplicaFacts;
  shard: number;
  acceptedTo: number;
  mapped: Map<number, number>;
}

/** A state record, version 1: the facts as JSON. Absolute: it replaces all earlier ones. */
export function encodeFacts(
  shard: number,
  facts: ReplicaFacts,
  acceptedTo: number,
  mapped?: ReadonlyMap<number, number>,
): Buffer {
  const { starts, windows, ...plain } = facts;
  const image = {
    version: 1,
    shard,
    ...plain,
    acceptedTo,
    starts: starts.map(({ view, lastOp }) => [view, lastOp]),
    windows: imageOf(windows),
    ...(mapped && { mapped: [...mapped] }),
  };
  return Buffer.from(JSON.stringify(image));
}

export function decodeFacts(bytes: Buffer): FactsImage | null {
  let plain: unknown;
  try {
    plain = JSON.parse(bytes.toString("utf8"));
  } catch {
    return null;
  }
  const parsed = imageSchema.safeParse(plain);
  if (!parsed.success) return null;
  const { version: _, shard, acceptedTo, starts, windows, mapped, ...rest } = parsed.data;
  const facts: ReplicaFacts = {
    ...rest,
    starts: starts.map(([view, lastOp]) => ({ view, lastOp })),
    windows: windowsFrom(windows as WindowsImage),
  };
  return { facts, shard, acceptedTo, mapped: new Map(mapped ?? []) };
}

/**
 * A replica's part of a checkpoint, version 1: factsBytes[4] facts, then the heads of its pending
 * entries; their inline chunks are in the chunk store.
 */
export function encodeCheckpoint(
  shard: number,
  facts: ReplicaFacts,
  mapped: ReadonlyMap<number, number>,
  pending: Iterable<Entry>,
): Buffer {
  const image = encodeFacts(shard, facts, 0, mapped);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(image.length);
  const heads: Buffer[] = [];
  for (const entry of pending) heads.push(encodeEntryHead(entry, 0, false));
  return Buffer.concat([length, image, ...heads]);
}

export function decodeCheckpoint(bytes: Buffer): (FactsImage & { pending: Entry[] }) | null {
  if (bytes.length < 4) return null;
  let at = 4 + bytes.readUInt32BE(0);
  const image = decodeFacts(bytes.subarray(4, at));
  if (image === null) return null;
  const pending: Entry[] = [];
  while (at < bytes.length) {
    const decoded = decodeEntry(bytes, at);
    if (decoded === null) return null;
    pending.push(decoded.entry);
    at = decoded.endBytes;
  }
  return { ...image, pending };
}
