import { MiB } from "../units.ts";

/**
 * A checkpoint is made when more index entries than this have changed: with the records of the map that
 * go with them, to hand them over holds up the brick for some 15 ms, and to write them takes 50 to 100;
 * twice as many, for twice as long, cost a write 1 us less,
 */
const entriesMax = 8192;
/** or, before a step of a sweep, than this: what is dropped leaves in pieces that hold up nobody, */
export const sweptEntriesMax = 4096;
/** or participants hold more dirty entries than this, */
const participantEntriesMax = 16_384;
/** or the log has grown by this much: it is what a start-up must read. */
const logBytesMax = 64 * MiB;

/** Since the last checkpoint. */
export interface SinceCheckpoint {
  readonly indexEntries: number;
  readonly participantEntries: number;
  readonly logBytes: number;
}

export function isCheckpointDue(since: SinceCheckpoint): boolean {
  const { indexEntries, participantEntries, logBytes } = since;
  return (
    indexEntries > entriesMax ||
    participantEntries > participantEntriesMax ||
    logBytes > logBytesMax
  );
}
