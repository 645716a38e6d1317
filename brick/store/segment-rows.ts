import type { KvChange } from "../host.ts";
import type { LogPlace } from "../log/log.ts";
import type { Segment, Segments } from "../log/segments.ts";
import { encodeSegmentRow, segmentKvKey } from "./store-keys.ts";

/** A row on its way into the index. */
export interface WrittenRow {
  readonly segment: Segment;
  readonly value: Buffer;
}

/**
 * What a checkpoint at `place` says of segments that have changed: what a commit under way has
 * taken is not in it.
 */
export function segmentRowsAt(segments: Segments, place: LogPlace): WrittenRow[] {
  const rows: WrittenRow[] = [];
  for (const segment of segments.byNumber.values()) {
    if (!segment.dirty || segment.state === "free" || segment.state === "ready") continue;
    const isLast = segment.number === place.segment;
    // A segment begun after `place` is found by the replay.
    if (segment.lastPosition >= place.position && !isLast) continue;
    const row: Segment = isLast
      ? {
          ...segment,
          state: "current",
          writtenBytes: place.offsetBytes,
          lastPosition: place.position - 1,
        }
      : segment;
    rows.push({ segment, value: encodeSegmentRow(row) });
  }
  return rows;
}

export function rowChange({ segment, value }: WrittenRow): KvChange {
  return { key: segmentKvKey(segment.number), value };
}

/** The rows are durable: a segment that still is as its row says is dirty no more. */
export function rowsKept(rows: readonly WrittenRow[]): void {
  for (const { segment, value } of rows) {
    if (encodeSegmentRow(segment).equals(value)) segment.dirty = false;
  }
}
