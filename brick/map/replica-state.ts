import { z } from "zod";
import { decodeEntry, type Entry, encodeEntryHead } from "./entry.ts";
import { imageOf, type Windows, type WindowsImage, windowsFrom } from "./windows.ts";

/** The start of a view: the entries that its primary held then; nothing above had committed. */
export interface ViewStart {
  readonly view: number;
  readonly lastOp: number;
}

/** Starts remembered per shard. Replicas that none of them connects share only what committed. */
export const viewStartsMax = 256;

/** What committed in [fromOp, toOp], in an overlay table of its own. */
export interface OverlayInterval {
  readonly incarnation: number;
  readonly fromOp: number;
  readonly toOp: number;
}

/** Overlays kept of earlier times as a candidate. */
export const overlaysMax = 16;

/**
 * What a replica keeps besides its tables. `baseOp`, `overlayFrom`, `commitOp`, `lastOp` and the
 * pending entries are explained in docs/replication.md.
 */
export interface ReplicaFacts {
  /** Counts the facts that were logged. */
  number: number;
  /** Of the base table. Tables of incarnations that the facts do not name are garbage. */
  incarnation: number;
  overlayIncarnation: number;
  incarnationLast: number;
  promised: number;
  accepted: number;
  baseOp: number;
  /** 0 when there is no overlay. */
  overlayFrom: number;
  /** Overlays that ended when the replica fell behind again: recovery may need them. */
  overlays: readonly OverlayInterval[];
  /**
   * Something that it acknowledged may be missing. What the facts say it holds, it does hold; but it
   * does not lead, and reports nothing that counts, before a primary has it as a candidate.
   */
  lossy: boolean;
  commitOp: number;
  /** Pending entries above it do not count. */
  lastOp: number;
  /**
   * The views through which the log came to be what it is, oldest first: up to the last of them it
   * is a part of that view's log, from its beginning.
   */
  starts: readonly ViewStart[];
  windows: Windows;
}

/**
 * Two logs are the same up to here, at least as far as the first one reaches: both followed the
 * newest view that they have in common, and each view after it kept what its primary then held.
 */
export function sharedTo(
  log: { starts: readonly ViewStart[]; commitOp: number; lastOp: number },
  starts: readonly ViewStart[],
): number {
  const views = new Set(starts.map((start) => start.view));
  const common = log.starts.findLast((start) => views.has(start.view));
  if (common === undefined) return log.commitOp;
  let op = log.lastOp;
  for (const start of [...log.starts, ...starts]) {
    if (start.view > common.view) op = Math.min(op, start.lastOp);
  }
  return Math.max(op, log.commitOp);
}

export function emptyFacts(incarnation: number): ReplicaFacts {
  return {
    number: 0,
    incarnation,
    overlayIncarnation: incarnation,
    incarnationLast: incarnation,
    promised: 0,
    accepted: 0,
    baseOp: 0,
    overlayFrom: 0,
    overlays: [],
    lossy: false,
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
  number: count,
  incarnation: count,
  overlayIncarnation: count,
  incarnationLast: count,
  promised: count,
  accepted: count,
  baseOp: count,
  overlayFrom: count,
  overlays: z.array(z.object({ incarnation: count, fromOp: count, toOp: count })).max(overlaysMax),
  lossy: z.boolean(),
  commitOp: count,
  lastOp: count,
  /** Pending entries up to here count as accepted in `accepted`. */
  acceptedTo: count,
  starts: z.array(z.tuple([count, count])).max(viewStartsMax),
  windows: z.array(z.array(z.int()).min(3)),
  /** Only in checkpoints: mapped sectors by branch, as the table has them, and Replica.cuts. */
  mapped: z.array(z.tuple([count, z.int()])).optional(),
  cuts: z.array(z.tuple([count, count])).optional(),
});

/** Entries above `keptTo` that stand in the log before facts of this number do not count. */
export interface Cut {
  readonly number: number;
  readonly keptTo: number;
}

export interface FactsImage {
  facts: ReplicaFacts;
  shard: number;
  acceptedTo: number;
  mapped: Map<number, number>;
  cuts: Cut[];
}

/** A state record, version 1: the facts as JSON. Absolute: it replaces all earlier ones. */
export function encodeFacts(
  shard: number,
  facts: ReplicaFacts,
  acceptedTo: number,
  checkpoint?: { mapped: ReadonlyMap<number, number>; cuts: readonly Cut[] },
): Buffer {
  const { starts, windows, ...plain } = facts;
  const image = {
    version: 1,
    shard,
    ...plain,
    acceptedTo,
    starts: starts.map(({ view, lastOp }) => [view, lastOp]),
    windows: imageOf(windows),
    ...(checkpoint && {
      mapped: [...checkpoint.mapped],
      cuts: checkpoint.cuts.map(({ number, keptTo }) => [number, keptTo]),
    }),
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
  const { version: _, shard, acceptedTo, starts, windows, mapped, cuts, ...rest } = parsed.data;
  const facts: ReplicaFacts = {
    ...rest,
    starts: starts.map(([view, lastOp]) => ({ view, lastOp })),
    windows: windowsFrom(windows as WindowsImage),
  };
  const cutList = (cuts ?? []).map(([number, keptTo]) => ({ number, keptTo }));
  return { facts, shard, acceptedTo, mapped: new Map(mapped ?? []), cuts: cutList };
}

/**
 * A replica's part of a checkpoint, version 1: factsBytes[4] facts, then the heads of its pending
 * entries; their inline chunks are in the chunk store.
 */
export function encodeCheckpoint(
  shard: number,
  facts: ReplicaFacts,
  checkpoint: { mapped: ReadonlyMap<number, number>; cuts: readonly Cut[] },
  pending: Iterable<Entry>,
): Buffer {
  const image = encodeFacts(shard, facts, 0, checkpoint);
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
