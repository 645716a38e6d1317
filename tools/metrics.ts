import { collectDefaultMetrics, type Metric, Registry } from "prom-client";
import type { LatencyHistogram } from "../brick/latency-histogram.ts";
import { type StageTimes, stageTable } from "../brick/stage-times.ts";

/**
 * A brick's metrics. The parts keep plain numbers; they are read when someone scrapes, so that the
 * hot path pays an addition and nothing else.
 */

/** Every counter and gauge, by name; docs/operations.md explains the important ones. */
export const metricTable = {
  endisk_repair_bytes_total: [
    "counter",
    "Chunk bytes copied to restore copies on failed or drained bricks",
  ],
  endisk_rebalance_bytes_total: ["counter", "Chunk bytes moved to even out the bricks"],
  endisk_settle_bytes_total: [
    "counter",
    "Chunk bytes copied for writes in flight when a brick died",
  ],
  endisk_heal_bytes_total: ["counter", "Chunk bytes fetched to replace damaged ones on this brick"],
  endisk_healed_chunks_total: ["counter", "Damaged chunks written anew from another brick"],
  endisk_unhealed_chunks_total: ["counter", "Damaged chunks that no other brick had"],
  endisk_map_transfer_bytes_total: ["counter", "Map bytes sent to replicas that catch up"],
  endisk_chunk_written_bytes_total: ["counter", "Chunk bytes written to the log"],
  endisk_chunk_corrupt_total: ["counter", "Chunks whose bytes did not hash to their key"],
  endisk_dedup_hits_total: ["counter", "Chunks that were there already when they were put"],
  endisk_dedup_bytes_total: ["counter", "Bytes of those chunks"],
  endisk_log_written_bytes_total: ["counter", "Bytes written to the log, all kinds"],
  endisk_flushes_total: ["counter", "Flushes of the log"],
  endisk_checkpoints_total: ["counter", "Checkpoints of the index"],
  endisk_read_bytes_total: ["counter", "Bytes read by initiators of the volumes attached here"],
  endisk_written_bytes_total: [
    "counter",
    "Bytes written by initiators of the volumes attached here",
  ],
  endisk_unmapped_bytes_total: [
    "counter",
    "Bytes unmapped by initiators of the volumes attached here",
  ],
  endisk_volume_faults_total: ["counter", "Volume operations that ended with a fault"],
  endisk_degraded_writes_total: ["counter", "Writes acknowledged with fewer copies than wanted"],
  endisk_forwarded_total: ["counter", "Operations forwarded to another brick's gateway"],
  endisk_map_lookups_total: ["counter", "Look-ups in the address map"],
  endisk_read_ahead_bytes_total: ["counter", "Chunk bytes asked for ahead of sequential reads"],
  endisk_read_ahead_used_bytes_total: ["counter", "Bytes of those that reads then asked for"],
  endisk_read_ahead_dropped_bytes_total: ["counter", "Bytes of those that no read asked for"],
  endisk_read_ahead_held_bytes: ["gauge", "Bytes of those that wait for their read now"],
  endisk_sent_bytes_total: ["counter", "Bytes sent to other bricks"],
  endisk_received_bytes_total: ["counter", "Bytes received from other bricks"],
  endisk_capacity_bytes: ["gauge", "Space offered to the cluster"],
  endisk_used_bytes: ["gauge", "Space taken of it"],
  endisk_chunks: ["gauge", "Chunks stored"],
  endisk_chunk_bytes: ["gauge", "Bytes of those chunks"],
  endisk_free_bytes: ["gauge", "Space that writes may still take"],
  endisk_reclaimable_bytes: ["gauge", "Used space that compaction can give back"],
  endisk_gc_epoch: ["gauge", "Epoch of garbage collection"],
  endisk_gc_swept_epoch: ["gauge", "Epoch by whose marks this brick has swept last"],
  endisk_gc_marks_total: ["counter", "Keys marked at the bricks that the map names for them"],
  endisk_gc_broadcasts_total: ["counter", "Keys marked at every brick, being where no hint says"],
  endisk_gc_corrections_total: ["counter", "Map records that learnt where their chunks are"],
  endisk_compaction_grains_total: ["counter", "Grains in many chunks that were rewritten as one"],
  endisk_compaction_bytes_total: ["counter", "Bytes of the chunks that they became"],
  endisk_compaction_chunks_replaced_total: ["counter", "Chunks that they were in before"],
  endisk_compaction_refused_total: ["counter", "Grains that changed while they were rewritten"],
  endisk_compaction_failed_total: ["counter", "Grains to rewrite that could not be read or stored"],
  endisk_gc_trims_total: ["counter", "Map records that named more bricks than copies are wanted"],
  endisk_gc_dropped_runs_total: ["counter", "Runs of grains of deleted volumes dropped"],
  endisk_gc_swept_chunks_total: ["counter", "Chunks that nobody referred to, dropped"],
  endisk_gc_swept_bytes_total: ["counter", "Bytes of those chunks"],
  endisk_gc_compacted_bytes_total: ["counter", "Live chunk bytes copied out of dead segments"],
  endisk_gc_recycled_segments_total: ["counter", "Segments given back"],
  endisk_gc_stamp_memory_bytes: ["gauge", "Memory that the chunks' stamps take"],
  endisk_repair_pending_shards: [
    "gauge",
    "Shards led here in which copies that left with bricks may still be missing",
  ],
  endisk_repair_left_bytes: [
    "gauge",
    "Bytes that are still to be copied, as far as repair has found",
  ],
  endisk_repair_short_extents: [
    "gauge",
    "Extents short of copies in the shards led here, as the last walks found",
  ],
  endisk_log_damaged_ranges: ["gauge", "Damaged places that the start found inside the log"],
  endisk_keys_lacking: ["gauge", "Encrypted volumes whose keys this brick lacks"],
  endisk_full: ["gauge", "1 when this brick takes no new chunks for want of space"],
  endisk_lease_valid: ["gauge", "1 while this brick has a lease, and may serve"],
  endisk_bricks_down: ["gauge", "Bricks of the cluster that are down"],
  endisk_bricks_failed: ["gauge", "Bricks that count as lost and are not removed yet"],
  endisk_shards_unavailable: ["gauge", "Map shards of the cluster without a complete replica up"],
  endisk_shards_unled: ["gauge", "Map shards of the cluster without a primary"],
  endisk_shards_short: ["gauge", "Map shards served by fewer complete replicas than wanted"],
  endisk_replicas_damaged: ["gauge", "Replicas of map shards that may lack something"],
  endisk_sessions: ["gauge", "iSCSI sessions"],
  endisk_shards_led: ["gauge", "Map shards led by this brick"],
  endisk_raft_leader: ["gauge", "1 when this brick leads the control plane"],
  endisk_boot: ["gauge", "Boot number of the store"],
} as const satisfies Record<string, readonly ["counter" | "gauge", string]>;

export type MetricName = keyof typeof metricTable;

export interface CommandCount {
  /** The command's name, as "READ(10)". */
  opcode: string;
  /** The SCSI status, as "GOOD". */
  status: string;
  count: number;
}

/** What the parts of a brick can tell; read at each scrape. */
export interface MetricSources {
  /** Counters and gauges; what is left out is 0. */
  values(): Partial<Record<MetricName, number>>;
  commands(): Iterable<CommandCount>;
  /** By kind, as "read", "write", "unmap", "flush". */
  latencies: ReadonlyMap<string, LatencyHistogram>;
  stages: StageTimes;
}

interface Sample {
  metricName?: string;
  labels: Record<string, string | number>;
  value: number;
}

/** Text in Prometheus' format at each call. */
export function metricsText(brick: number, sources: MetricSources): () => Promise<string> {
  const registry = new Registry();
  registry.setDefaultLabels({ brick: String(brick) });
  collectDefaultMetrics({ register: registry });
  let values: Partial<Record<MetricName, number>> = {};
  for (const [name, [type, help]] of Object.entries(metricTable)) {
    register(registry, name, type, help, () => [
      { labels: {}, value: values[name as MetricName] ?? 0 },
    ]);
  }
  register(registry, "endisk_commands_total", "counter", "SCSI commands answered", () =>
    [...sources.commands()].map(({ opcode, status, count }) => ({
      labels: { opcode, status },
      value: count,
    })),
  );
  const latencyName = "endisk_latency_seconds";
  register(registry, latencyName, "histogram", "Time until the answer, by kind", () =>
    [...sources.latencies].flatMap(([kind, histogram]) =>
      histogramSamples(latencyName, { kind }, histogram),
    ),
  );
  const stageName = "endisk_stage_seconds";
  register(registry, stageName, "histogram", "Time of each step of reads and writes", () =>
    stageTable.flatMap(([op, stage], row) =>
      histogramSamples(stageName, { op, stage }, sources.stages.histograms[row]!),
    ),
  );
  return () => {
    values = sources.values();
    return registry.metrics();
  };
}

/** A metric whose samples are made when asked for, as prom-client's own classes cannot. */
function register(
  registry: Registry,
  name: string,
  type: "counter" | "gauge" | "histogram",
  help: string,
  samples: () => Sample[],
): void {
  const metric = {
    name,
    help,
    type,
    aggregator: "sum",
    async get() {
      return { name, help, type, aggregator: "sum", values: samples() };
    },
  };
  registry.registerMetric(metric as unknown as Metric<string>);
}

function histogramSamples(
  name: string,
  labels: Record<string, string>,
  { boundsMs, counts, sumMs }: LatencyHistogram,
): Sample[] {
  let total = 0;
  const samples: Sample[] = boundsMs.map((boundMs, bucket) => {
    total += counts[bucket]!;
    const le = boundMs / 1000;
    return { metricName: `${name}_bucket`, labels: { ...labels, le }, value: total };
  });
  total += counts[boundsMs.length]!;
  samples.push({ metricName: `${name}_bucket`, labels: { ...labels, le: "+Inf" }, value: total });
  samples.push({ metricName: `${name}_sum`, labels, value: sumMs / 1000 });
  samples.push({ metricName: `${name}_count`, labels, value: total });
  return samples;
}
