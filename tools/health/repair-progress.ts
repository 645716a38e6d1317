import { sizeText } from "../../brick/size-text.ts";
import { counted } from "../../control/counted-text.ts";
import { durationText } from "../../control/duration-text.ts";
import type { HealthFacts } from "./facts.ts";

/** How far the walks are that see to missing copies. */
export interface RepairProgress {
  readonly total: number;
  /** Shards that were not found in order since; those that nobody leads now are among them. */
  readonly left: number;
  /** As far as the walks have found. */
  readonly leftBytes: number;
  /** At the pace of the last seconds, or of all that was done since it began; null: not known. */
  readonly leftMs: number | null;
}

export function repairProgress(facts: HealthFacts, sinceMs: number): RepairProgress {
  const { state, stats, wallMs } = facts;
  const total = state.shards.length;
  let led = 0;
  let left = 0;
  let leftBytes = 0;
  let bytesPerSecond = 0;
  for (const one of stats.values()) {
    led += one.shardsLed;
    left += one.restoringShards;
    leftBytes += one.repairLeftBytes;
    bytesPerSecond += one.repairBytesPerSecond;
  }
  left = Math.min(total, left + Math.max(0, total - led));
  const done = total - left;
  if (left > 0 && leftBytes > 0 && bytesPerSecond > 0) {
    return { total, left, leftBytes, leftMs: (leftBytes / bytesPerSecond) * 1000 };
  }
  const known = sinceMs > 0 && done > 0 && left > 0;
  return { total, left, leftBytes, leftMs: known ? ((wallMs - sinceMs) / done) * left : null };
}

export function progressText(facts: HealthFacts, sinceMs: number): string {
  const { total, left, leftBytes, leftMs } = repairProgress(facts, sinceMs);
  if (left === 0) return "every copy is in place on bricks that stay";
  const pace = leftMs === null ? "" : `; at this pace ${durationText(leftMs)} more`;
  const bytes = leftBytes === 0 ? "" : `, ${sizeText(leftBytes)} to copy`;
  return `copies are made on bricks that stay: ${total - left} of ${counted(total, "map shard")} done${bytes}${pace}`;
}
