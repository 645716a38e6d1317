import { z } from "zod";
import { brickHealth } from "./commands.ts";

/**
 * What a brick tells the Raft leader every `keepaliveEveryMs`, and the answer, which is its lease.
 * JSON with a version: fields may be added, and a reader ignores those it does not know.
 */
export const keepaliveVersion = 1;
export const keepaliveBytesMax = 1024 * 1024;
/** Shards reported in one keepalive. */
export const shardStatusMax = 4096;

const counter = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);
const text = z.string().max(255);

/** What a replica has to say of the view it is in; silence means "nothing new". */
const shardStatus = z.object({
  shard: counter,
  view: counter,
  /** A candidate that has become complete. */
  complete: z.boolean().optional(),
  /** A primary that answers nothing in this view any more. */
  released: z.boolean().optional(),
  /** A primary whose shard holds nothing. */
  empty: z.boolean().optional(),
  /** The replica cannot be trusted, and has stopped answering. */
  damaged: z.boolean().optional(),
  /** A primary: the epoch of garbage collection in which all that its shard refers to is marked. */
  marked: counter.optional(),
});
export type ShardStatus = z.infer<typeof shardStatus>;

const keepalive = z.object({
  version: z.literal(keepaliveVersion),
  clusterId: text,
  uuid: text,
  boot: counter,
  incarnation: text,
  /** The sender's clock when it sent this; comes back in the answer. */
  sentMs: z.number(),
  peerAddress: text,
  portalAddress: text,
  apiAddress: text,
  domain: text,
  capacityBytes: counter,
  usedBytes: counter,
  full: z.boolean(),
  cut: z.boolean(),
  discarded: z.boolean(),
  shards: z.array(shardStatus).max(shardStatusMax),
  /** Feature levels that the brick knows; absent: it is of before there were any. */
  levels: z.object({ oldest: counter, newest: counter }).optional(),
  /** Absent: there is nothing to tell. */
  health: brickHealth.optional(),
  /** Garbage that waits to be collected; absent: none that would be worth it. */
  garbage: z
    .object({
      /** Epochs are wanted up to this one. */
      wantedEpoch: counter,
      /** The brick is short of space. */
      urgent: z.boolean(),
    })
    .optional(),
});
export type Keepalive = Omit<z.infer<typeof keepalive>, "version">;

const answer = z.discriminatedUnion("type", [
  /** The lease runs from `sentMs`, once the brick's own state has reached `stateVersion`. */
  z.object({
    type: z.literal("lease"),
    version: z.literal(keepaliveVersion),
    sentMs: z.number(),
    boot: counter,
    leaseMs: z.number().min(0).max(60_000),
    stateVersion: counter,
    /** Shards led by the brick that it should give up: it answers nothing in these views again. */
    release: z.array(z.object({ shard: counter, view: counter })).max(shardStatusMax),
  }),
  /** Another brick leads (0: unknown). */
  z.object({
    type: z.literal("elsewhere"),
    version: z.literal(keepaliveVersion),
    leader: z.number().int().min(0).max(65_535),
  }),
  /** Heard, but no lease now: the brick is being brought up, or may not take part. */
  z.object({
    type: z.literal("refused"),
    version: z.literal(keepaliveVersion),
    code: text,
    message: z.string().max(1024),
  }),
]);
export type KeepaliveAnswer =
  | {
      type: "lease";
      sentMs: number;
      boot: number;
      leaseMs: number;
      stateVersion: number;
      release: { shard: number; view: number }[];
    }
  | { type: "elsewhere"; leader: number }
  | { type: "refused"; code: string; message: string };

export function encodeKeepalive(value: Keepalive): Buffer {
  return Buffer.from(JSON.stringify({ version: keepaliveVersion, ...value }));
}

/** null when the bytes are no keepalive of this version. */
export function decodeKeepalive(bytes: Buffer): Keepalive | null {
  return decode(bytes, keepalive);
}

export function encodeAnswer(value: KeepaliveAnswer): Buffer {
  return Buffer.from(JSON.stringify({ version: keepaliveVersion, ...value }));
}

export function decodeAnswer(bytes: Buffer): KeepaliveAnswer | null {
  return decode(bytes, answer);
}

function decode<Value>(bytes: Buffer, schema: z.ZodType<Value>): Value | null {
  if (bytes.length > keepaliveBytesMax) return null;
  try {
    const checked = schema.safeParse(JSON.parse(bytes.toString("utf8")));
    return checked.success ? checked.data : null;
  } catch {
    return null;
  }
}
