import type { Stamps } from "../gc/stamps.ts";
import { batchAlignBytes } from "../log/batch-format.ts";
import type { SegmentFiles } from "../log/segment-files.ts";
import { beginAnew, type Segments } from "../log/segments.ts";
import type { IndexRoom } from "./index-room.ts";
import { encodeSegmentRow, segmentKvKey } from "./store-keys.ts";
import { recycledIn } from "./store-open.ts";
import type { Superblock, SuperblockCopies } from "./superblock.ts";

interface RecycleParts {
  readonly segments: Segments;
  readonly files: SegmentFiles;
  readonly stamps: Stamps;
  readonly indexRoom: IndexRoom;
  readonly superblock: Superblock;
  readonly copies: SuperblockCopies;
}

/** Takes back segments that nothing needs any more; says how many. One call at a time. */
export async function recycleSegments(
  { segments, files, stamps, indexRoom, superblock, copies }: RecycleParts,
  coveredPosition: number,
): Promise<number> {
  const found = segments.recyclable(coveredPosition);
  if (found.length === 0) return 0;
  // 1. The new epoch is durable: whatever still points into the old use is void.
  const rows = found.map((segment) => {
    const anew = { ...segment };
    beginAnew(anew);
    const value = encodeSegmentRow({ ...anew, state: "free" });
    return { key: segmentKvKey(segment.number), value };
  });
  if (!indexRoom.write(rows)) return 0;
  for (const segment of found) beginAnew(segment);
  // 2. So is that there is one, outside the index: an older state of that would not know.
  superblock.recycled = recycledIn(segments);
  await copies.write(superblock);
  // 3. The first page is zeros, so that a first batch that never came is told from a torn one.
  for (const segment of found) {
    await files.with(segment.number, async (file) => {
      await file.write(0, [Buffer.alloc(batchAlignBytes)]);
      await file.sync();
      // One that was closed in a full file system, or at a torn end, is shorter than others: what its
      // file lacks would have to be found when it is written, and a commit must not meet a full disk.
      const sizeBytes = Math.min(await file.sizeBytes(), segments.segmentBytes);
      segment.preparedBytes = sizeBytes - (sizeBytes % batchAlignBytes);
    });
    // 4. Only now may it be written again.
    stamps.forget(segment.number);
    segments.release(segment);
  }
  return found.length;
}
