import type { ChunkIndex } from "../chunk/chunk-index.ts";
import type { KvChange } from "../host.ts";
import type { Log, LogPlace } from "../log/log.ts";
import type { Segments } from "../log/segments.ts";
import { isCheckpointDue } from "./checkpoint-due.ts";
import type { IndexRoom } from "./index-room.ts";
import { rowChange, rowsKept, segmentRowsAt } from "./segment-rows.ts";
import { checkpointKvKey, encodeCheckpoint } from "./store-keys.ts";
import type { StoreParticipant } from "./store-options.ts";

interface CheckpointParts {
  readonly log: Log;
  readonly index: ChunkIndex;
  readonly segments: Segments;
  readonly indexRoom: IndexRoom;
  readonly participants: readonly StoreParticipant[];
  readonly counters: { checkpoints: number };
}

/**
 * A checkpoint is one synced batch that makes the log before a moment unnecessary for the next start,
 * but for the chunks in it. Writing it takes as long as hundreds of commands do: they go on meanwhile,
 * and what they change is of the next one. There is one at a time.
 */
export class Checkpoints {
  /** The log before this position is covered by one. */
  coveredPosition: number;
  readonly #parts: CheckpointParts;
  #coveredLogBytes = 0;
  #wanted = false;
  #ending = false;
  #waiting: (() => void)[] = [];

  constructor(parts: CheckpointParts, coveredPosition: number) {
    this.#parts = parts;
    this.coveredPosition = coveredPosition;
  }

  /**
   * One that covers all until now. Inside the callbacks of a commit it is put off until they have run;
   * while one is under way, until that has ended; without room for it, until there is some.
   */
  ask(): void {
    if (this.#ending) return;
    this.#wanted = true;
    this.again();
  }

  /** What put off one that was asked for may be over. */
  again(): void {
    const { log, indexRoom } = this.#parts;
    if (!this.#wanted || indexRoom.isWriting || indexRoom.isShort) return;
    if (log.answered !== null) this.#begin(log.answered);
  }

  /** After a commit. */
  look(): void {
    if (!this.#parts.indexRoom.isWriting && !this.#ending && this.#isDue()) this.#wanted = true;
    this.again();
  }

  /** Resolves when none is under way. */
  async settled(): Promise<void> {
    const { indexRoom } = this.#parts;
    while (indexRoom.isWriting) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  /** A last one, whatever is asked for meanwhile; resolves when it has ended. */
  end(): Promise<void> {
    this.ask();
    this.#ending = true;
    return this.settled();
  }

  #isDue(): boolean {
    const { log, index, participants } = this.#parts;
    let participantEntries = 0;
    for (const one of participants) participantEntries += one.dirtyCount();
    const logBytes = log.counters.writtenBytes - this.#coveredLogBytes;
    return isCheckpointDue({ indexEntries: index.dirtyCount, participantEntries, logBytes });
  }

  #begin(place: LogPlace): void {
    const { log, index, segments, indexRoom, participants, counters } = this.#parts;
    this.#wanted = false;
    const changes: KvChange[] = index.collect();
    for (const participant of participants) {
      for (const change of participant.collect()) changes.push(change);
    }
    const rows = segmentRowsAt(segments, place);
    for (const row of rows) changes.push(rowChange(row));
    const totals = { chunkCount: index.count, chunkBytes: index.bytes };
    changes.push({ key: checkpointKvKey, value: encodeCheckpoint({ ...place, ...totals }) });
    const logBytes = log.counters.writtenBytes;
    indexRoom.writeLater(changes, (isWritten) => {
      if (isWritten) {
        index.collected();
        rowsKept(rows);
        for (const participant of participants) participant.collected();
        this.coveredPosition = place.position;
        this.#coveredLogBytes = logBytes;
        counters.checkpoints += 1;
      } else this.#wanted = true;
      this.again();
      if (indexRoom.isWriting) return;
      const waiting = this.#waiting;
      this.#waiting = [];
      for (const resolve of waiting) resolve();
    });
  }
}
