import type { KvChange } from "../host.ts";
import type { LogPlace } from "../log/log.ts";
import type { Segment, Segments } from "../log/segments.ts";
import { encodeSegmentRow, segmentKvKey } from "./store-keys.ts";

/**
 * What a checkpoint at `place` says of segments that have changed: what a commit under way has
 * taken is not in it. `clean` are those whose row is then up to date.
 */
export function segmentRowsAt(
  segments: Segments,
  place: LogPlace,
): { changes: KvChange[]; clean: Segment[] } {
  const changes: KvChange[] = [];
  const clean: Segment[] = [];
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
    changes.push({ key: segmentKvKey(segment.number), value: encodeSegmentRow(row) });
    if (!isLast) clean.push(segment);
  }
  return { changes, clean };
}
