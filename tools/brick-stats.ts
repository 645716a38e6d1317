import { z } from "zod";
import { levelsBefore } from "../brick/feature-level.ts";
import type { Calls } from "../brick/rpc/calls.ts";
import { messageType } from "../brick/rpc/message-types.ts";
import type { BrickNumber } from "../brick/units.ts";
import type { BrickNode } from "./brick-node.ts";
import { buildVersion } from "./build-version.ts";

/** Of the volumes whose keys a brick lacks, as many are named. */
const keysNamedMax = 8;
const count = z.number().min(0);

/** What a brick knows of itself, for `endisk status`; JSON between bricks. */
const statsSchema = z.object({
  version: z.literal(1),
  capacityBytes: count,
  usedBytes: count,
  freeBytes: count,
  reserveBytes: z.number(),
  overheadBytes: count,
  reclaimableBytes: z.number(),
  chunkCount: count,
  chunkBytes: count,
  dedupHits: count,
  dedupBytes: count,
  shardsLed: count,
  shardsMember: count,
  shardsCandidate: count,
  /** Of the cluster state by which the rest was said. */
  stateVersion: count,
  /** Shards led here that may still need chunks of bricks that leave. */
  repairPending: count,
  /** Shards led here that were not found in order since the last brick left or was lost. */
  restoringShards: count.default(0),
  /** Extents that the last walks of these shards could not put in order; of them, ones for which
   * nothing can be done until more bricks are up, or less full. Absent: an older brick. */
  repairShort: count.default(0),
  repairStuck: count.default(0),
  /** Bytes of them that are still to be copied, and how many a second are at present. */
  repairLeftBytes: count.default(0),
  repairBytesPerSecond: count.default(0),
  /** Since its start: chunks found damaged, and damage in its log that the replay met. */
  corruptChunks: count.default(0),
  damagedRanges: count.default(0),
  /** The log may lack what was acknowledged, until other replicas have made that good. */
  logLoss: z.boolean().default(false),
  /** The file system has no room, whatever the brick has offered; absent: an older brick. */
  fileSystemFull: z.boolean().default(false),
  /** Names of encrypted volumes whose keys it lacks; absent: an older brick. */
  keysLacking: z.array(z.string()).max(keysNamedMax).default([]),
  /** The build that runs, and its wall clock when it answered; absent: an older brick. */
  build: z.string().max(64).default(""),
  wallMs: count.default(0),
  /** Feature levels that it knows; absent: it is of before there were any. */
  levels: z.object({ oldest: count, newest: count }).default(levelsBefore),
  /** What its process may take (0: not bounded) and takes; absent: an older brick. */
  memoryBytes: count.default(0),
  residentBytes: count.default(0),
  /** Of the shards led here: mapped bytes by branch. */
  mapped: z.array(z.tuple([count, z.number()])),
});
export type BrickStats = Omit<z.infer<typeof statsSchema>, "version">;

const statsTimeoutMs = 1500;

export function brickStats(node: BrickNode): BrickStats {
  const { full: _full, dedupHits, dedupBytes, ...space } = node.store.space();
  const { inlineDedupHits, inlineDedupBytes } = node.map.counters;
  const { short, stuck, leftBytes, bytesPerSecond } = node.repair.progress();
  const self = node.number;
  const { shards } = node.control.state();
  return {
    ...space,
    dedupHits: dedupHits + inlineDedupHits,
    dedupBytes: dedupBytes + inlineDedupBytes,
    shardsLed: shards.filter((shard) => shard.primary === self).length,
    shardsMember: shards.filter((shard) => shard.members.includes(self)).length,
    shardsCandidate: shards.filter((shard) => shard.candidates.includes(self)).length,
    stateVersion: node.control.state().version,
    repairPending: node.repair.pendingShards().length,
    restoringShards: node.repair.restoringShards(),
    repairShort: short,
    repairStuck: stuck,
    repairLeftBytes: leftBytes,
    repairBytesPerSecond: bytesPerSecond,
    corruptChunks: node.store.counters.corruptChunks,
    damagedRanges: node.store.counters.damagedRanges,
    logLoss: node.store.cut || node.store.damaged,
    fileSystemFull: node.store.isFileSystemFull,
    keysLacking: node.keys.lackingVolumes.slice(0, keysNamedMax).map(({ name }) => name),
    build: buildVersion,
    levels: node.levels,
    memoryBytes: node.memory.budgetBytes,
    residentBytes: node.memory.residentBytes(),
    wallMs: Math.max(0, node.host.clock.wallMs()),
    mapped: [...node.map.mappedBytes()],
  };
}

export function serveStats(node: BrickNode): void {
  node.calls.serve(messageType.brickStats, (_from, _body, reply) => {
    reply([Buffer.from(JSON.stringify({ version: 1, ...brickStats(node) }))]);
  });
}

/** null: the brick does not answer now. */
export function askStats(calls: Calls, brick: BrickNumber): Promise<BrickStats | null> {
  return new Promise((resolve) => {
    calls.call(brick, messageType.brickStats, [], statsTimeoutMs, (reply) => {
      resolve(reply.ok ? decodeStats(reply.body) : null);
    });
  });
}

function decodeStats(body: Buffer): BrickStats | null {
  try {
    const parsed = statsSchema.safeParse(JSON.parse(body.toString("utf8")));
    return parsed.success ? parsed.data : null;
  } catch {
    return null;
  }
}
