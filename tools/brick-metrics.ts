import { brickOf, type ClusterState, isReachable } from "../brick/cluster-state.ts";
import type { LatencyHistogram } from "../brick/latency-histogram.ts";
import type { RealNetwork } from "../brick/rpc/network-io.ts";
import { liveMembers, replicasNow } from "../control/shard-commands.ts";
import type { BrickNode } from "./brick-node.ts";
import type { CommandCounters } from "./command-counters.ts";
import type { MetricName, MetricSources } from "./metrics.ts";

/** What the cluster state says of the whole cluster, as far as this brick has it. */
function clusterGauges(state: ClusterState): Partial<Record<MetricName, number>> {
  const bricks = Object.values(state.bricks);
  const wanted = replicasNow(state);
  let unavailable = 0;
  let unled = 0;
  let short = 0;
  for (const shard of state.shards) {
    const live = liveMembers(state, shard).length;
    const primary = brickOf(state, shard.primary);
    const leads = isReachable(primary) && primary!.boot === shard.primaryBoot;
    if (live === 0) unavailable += 1;
    else if (live < wanted || shard.candidates.length > 0) short += 1;
    if (live === 0 || !leads) unled += 1;
  }
  return {
    endisk_bricks_down: bricks.filter(({ downSinceMs }) => downSinceMs > 0).length,
    endisk_bricks_failed: bricks.filter(({ status }) => status === "failed").length,
    endisk_shards_unavailable: unavailable,
    endisk_shards_unled: unled,
    endisk_shards_short: short,
    endisk_replicas_damaged: state.shards.reduce((n, one) => n + (one.damaged?.length ?? 0), 0),
  };
}

/** Where each metric of a brick comes from; read when someone scrapes. */
export function brickMetrics(parts: {
  node: BrickNode;
  wire: () => RealNetwork | null;
  commands: CommandCounters;
  latencies: ReadonlyMap<string, LatencyHistogram>;
}): MetricSources {
  const { node, wire, commands, latencies } = parts;
  const { store, map, volumes, repair, heal, control, gc, compaction } = node;
  return {
    values: () => {
      const space = store.space();
      const { stats } = volumes;
      const { counters } = map;
      const network = wire()?.stats;
      const { shards } = control.state();
      const progress = repair.progress();
      return {
        endisk_repair_bytes_total: repair.counters.repairBytes,
        endisk_rebalance_bytes_total: repair.counters.rebalanceBytes,
        endisk_heal_bytes_total: heal.counters.healBytes,
        endisk_healed_chunks_total: heal.counters.healedChunks,
        endisk_unhealed_chunks_total: heal.counters.unhealedChunks,
        endisk_settle_bytes_total: counters.settleBytes,
        endisk_map_transfer_bytes_total: counters.transferBytes,
        endisk_chunk_written_bytes_total: store.counters.chunkBytesWritten,
        endisk_chunk_corrupt_total: store.counters.corruptChunks,
        endisk_dedup_hits_total: space.dedupHits + counters.inlineDedupHits,
        endisk_dedup_bytes_total: space.dedupBytes + counters.inlineDedupBytes,
        endisk_log_written_bytes_total: store.counters.logBytesWritten,
        endisk_flushes_total: store.counters.flushes,
        endisk_checkpoints_total: store.counters.checkpoints,
        endisk_read_bytes_total: stats.readBytes,
        endisk_written_bytes_total: stats.writeBytes,
        endisk_unmapped_bytes_total: stats.unmapBytes,
        endisk_volume_faults_total: stats.faults,
        endisk_degraded_writes_total: stats.degradedWrites,
        endisk_forwarded_total: stats.forwarded,
        endisk_map_lookups_total: stats.lookups,
        endisk_read_ahead_bytes_total: stats.aheadBytes,
        endisk_read_ahead_used_bytes_total: stats.aheadUsedBytes,
        endisk_read_ahead_dropped_bytes_total: stats.aheadDroppedBytes,
        endisk_read_ahead_held_bytes: volumes.aheadBytes,
        endisk_sent_bytes_total: network?.sentBytes ?? 0,
        endisk_received_bytes_total: network?.receivedBytes ?? 0,
        endisk_capacity_bytes: space.capacityBytes,
        endisk_used_bytes: space.usedBytes,
        endisk_chunks: space.chunkCount,
        endisk_chunk_bytes: space.chunkBytes,
        endisk_free_bytes: space.freeBytes,
        endisk_reclaimable_bytes: space.reclaimableBytes,
        endisk_gc_epoch: control.state().gcEpoch,
        endisk_gc_swept_epoch: gc.sweptEpoch,
        endisk_gc_marks_total: gc.counters.marks,
        endisk_gc_broadcasts_total: gc.counters.broadcasts,
        endisk_gc_corrections_total: gc.counters.corrections,
        endisk_gc_trims_total: gc.counters.trims,
        endisk_compaction_grains_total: compaction.counters.grains,
        endisk_compaction_bytes_total: compaction.counters.bytes,
        endisk_compaction_chunks_replaced_total: compaction.counters.chunksReplaced,
        endisk_compaction_refused_total: compaction.counters.refused,
        endisk_compaction_failed_total: compaction.counters.failed,
        endisk_gc_dropped_runs_total: gc.counters.droppedRuns,
        endisk_gc_swept_chunks_total: store.counters.sweptChunks,
        endisk_gc_swept_bytes_total: store.counters.sweptBytes,
        endisk_gc_compacted_bytes_total: store.counters.compactedBytes,
        endisk_gc_recycled_segments_total: store.counters.recycledSegments,
        endisk_gc_stamp_memory_bytes: store.stamps.memoryBytes,
        endisk_repair_pending_shards: repair.restoringShards(),
        endisk_repair_short_extents: progress.short,
        endisk_repair_left_bytes: progress.leftBytes,
        endisk_log_damaged_ranges: store.counters.damagedRanges,
        endisk_keys_lacking: node.keys.lackingVolumes.length,
        endisk_full: space.full ? 1 : 0,
        endisk_lease_valid: control.leaseValid(node.host.clock.nowMs()) ? 1 : 0,
        ...clusterGauges(control.state()),
        endisk_sessions: commands.sessionCount,
        endisk_shards_led: shards.filter((shard) => shard.primary === node.number).length,
        endisk_raft_leader: control.leader() === node.number ? 1 : 0,
        endisk_boot: store.superblock.boot,
      };
    },
    commands: () => commands,
    latencies: new Map([...latencies, ["flush", store.flushLatency]]),
    stages: store.stages,
  };
}
