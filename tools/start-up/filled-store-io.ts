import { randomBytes } from "node:crypto";
import type { KvChange } from "../../brick/host.ts";
import { openRealDisk } from "../../brick/host-io.ts";
import { logFolder, segmentOfName, segmentPath } from "../../brick/log/segment-files.ts";
import { newSegment, segmentBytesDefault } from "../../brick/log/segments.ts";
import {
  checkpointKvKey,
  chunkKvKey,
  encodeCheckpoint,
  encodeChunkEntry,
  encodeSegmentRow,
  segmentKvKey,
} from "../../brick/store/store-keys.ts";
import { readCheckpoint } from "../../brick/store/store-open.ts";
import { KiB } from "../../brick/units.ts";

/** Where a chunk of 64 KiB begins behind the one before: its record's head, and padding. */
const chunkStrideBytes = 64 * KiB + 512;
const chunkBytes = 64 * KiB;
const firstOffsetBytes = 4 * KiB;
const changesPerBatch = 16_384;

/**
 * Makes a store that is closed what it would be with so many more bytes of chunks: their index entries and
 * the segments' rows are there, the segments are holes in files. A start reads no closed segment.
 */
export async function fillStore(storeFolder: string, bytes: number): Promise<number> {
  const disk = await openRealDisk(storeFolder);
  const kv = await disk.openKv("index");
  const { checkpoint, rows } = readCheckpoint(kv);
  const perSegment = Math.floor((segmentBytesDefault - firstOffsetBytes) / chunkStrideBytes);
  const chunkCount = Math.ceil(bytes / chunkBytes);
  const files = (await disk.list(logFolder)).map((name) => segmentOfName(name) ?? 0);
  let segment = Math.max(0, ...rows.keys(), ...files);
  let changes: KvChange[] = [];
  const write = () => {
    kv.write(changes, { sync: false });
    changes = [];
  };
  for (let made = 0; made < chunkCount; ) {
    segment += 1;
    const inThis = Math.min(perSegment, chunkCount - made);
    for (let at = 0; at < inThis; at += 1) {
      const offsetBytes = firstOffsetBytes + at * chunkStrideBytes;
      const place = { segment, epoch: 1, offsetBytes, lengthBytes: chunkBytes };
      const value = encodeChunkEntry({ ...place, damaged: false });
      changes.push({ key: chunkKvKey(randomBytes(32)), value });
    }
    made += inThis;
    const liveBytes = inThis * chunkBytes;
    const of = { lastPosition: 1, liveBytes, writtenBytes: segmentBytesDefault };
    const row = encodeSegmentRow({ ...newSegment(segment), ...of, state: "closed" });
    changes.push({ key: segmentKvKey(segment), value: row });
    const file = await disk.open(segmentPath(segment), { create: true });
    await file.truncate(segmentBytesDefault);
    await file.close();
    if (changes.length > changesPerBatch) write();
  }
  const totals = {
    chunkCount: checkpoint.chunkCount + chunkCount,
    chunkBytes: checkpoint.chunkBytes + chunkCount * chunkBytes,
  };
  const value = encodeCheckpoint({ ...checkpoint, ...totals });
  changes.push({ key: checkpointKvKey, value });
  kv.write(changes, { sync: true });
  await kv.close();
  await disk.syncFolder(logFolder);
  return chunkCount;
}
