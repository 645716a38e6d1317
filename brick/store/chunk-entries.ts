import { type ChunkIndex, keyName } from "../chunk/chunk-index.ts";
import { type RecordChunk, type RecordHeader, recordType } from "../log/batch-format.ts";
import type { RecordLocation } from "../log/log.ts";
import type { ReplaySinks } from "../log/replay.ts";
import type { StoreParticipant } from "./store.ts";
import type { ChunkEntry } from "./store-keys.ts";

/** Replayed chunks enter the index like new ones; the first of equal ones stays. */
export function replaySinks(
  index: ChunkIndex,
  participants: readonly StoreParticipant[],
  onDamaged: (key: Buffer) => void,
): ReplaySinks {
  const indexChunk = (chunk: RecordChunk, location: RecordLocation, damaged: boolean) => {
    const name = keyName(chunk.key);
    const known = index.find(chunk.key, name);
    if (known !== null && (damaged || !known.damaged)) return;
    index.set(name, { ...chunkEntry(chunk, location), damaged }, known);
  };
  return {
    record: (header: RecordHeader, body: Buffer, location: RecordLocation) => {
      if (header.chunk !== null) indexChunk(header.chunk, location, false);
      if (header.type !== recordType.map) return;
      // Each participant may keep the record: not a view of a large read.
      const record = Buffer.from(body);
      for (const participant of participants) participant.replay(record, location);
    },
    damagedRecord: (header: RecordHeader, _body: Buffer, location: RecordLocation) => {
      if (header.chunk === null) return;
      indexChunk(header.chunk, location, true);
      onDamaged(header.chunk.key);
    },
  };
}

/** Where the chunk inside a record at `location` is. */
export function chunkEntry(chunk: RecordChunk, location: RecordLocation): ChunkEntry {
  return {
    segment: location.segment,
    epoch: location.epoch,
    offsetBytes: location.offsetBytes + chunk.offsetBytes,
    lengthBytes: chunk.lengthBytes,
    damaged: false,
  };
}
