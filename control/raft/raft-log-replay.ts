import {
  decodeIdentities,
  decodeRecord,
  entryOf,
  type FoundTail,
  recordAlignBytes,
  recordBytes,
  restartIdentity,
  type ScannedRecord,
  type Tail,
} from "./raft-log-format.ts";
import type { Entry, Hole } from "./raft-types.ts";

/** Of what was lost: it reaches no one knows how far. */
export const unknownIndex = Number.MAX_SAFE_INTEGER;

export interface LogFile {
  readonly number: number;
  readonly bytes: Buffer;
}

export interface Replayed {
  /** In order and dense. */
  readonly log: readonly (Entry | Hole)[];
  /** The batch that follows. */
  readonly nextBatch: number;
  /** A flush that never ended: the file is to be cut here. It was acknowledged to nobody. */
  readonly torn: { readonly file: number; readonly atBytes: number } | null;
  /** Bytes that were once durable and cannot be read: never cut, but healed. */
  readonly damage: readonly {
    readonly file: number;
    readonly fromBytes: number;
    readonly toBytes: number;
  }[];
  /**
   * Entries are missing after the log given here and not even their identities are known; none
   * beyond this index was ever acknowledged (`unknownIndex`: nobody can say). null: everything is known.
   */
  readonly lostThroughIndex: number | null;
  /** The highest index in each file. */
  readonly files: { number: number; highestIndex: number }[];
  /** Where the last file's records end, and what else is in it: behind that are zeros, if anything. */
  readonly lastFileEndBytes: number;
  /** Something was damaged, or all is void, so that the log has to be written anew. */
  readonly mustRestart: boolean;
}

/** A record, or a stretch of bytes between two records that is none. */
type Piece =
  | { readonly type: "record"; readonly file: number; readonly record: ScannedRecord }
  | {
      readonly type: "gap";
      readonly file: number;
      readonly fromBytes: number;
      readonly toBytes: number;
    };

/**
 * Makes the log out of its files. What tells a torn tail from damage (PAR, Alagappan et al., FAST
 * 2018): a batch is written only when the one before is durable, and `tail` is, too. So a bad batch
 * is torn only if it is the last one and `tail` does not cover it; and what `tail` covers is all that was
 * acknowledged, unless `tail` itself is damaged.
 */
export function replayLog(
  files: readonly LogFile[],
  tail: FoundTail,
  /** What the snapshot covers; zeros when there is none. */
  snapshot: Hole,
): Replayed {
  let pieces: readonly Piece[] = files.flatMap(scanFile);
  const lastFileEndBytes = Math.max(
    0,
    ...pieces.filter(({ file }) => file === files.at(-1)?.number).map(endOf),
  );
  const batches = batchNumbers(pieces);
  const lastBatch = batches.at(-1) ?? 0;
  const flushedBatch = tail.latest.batch;
  const isTailKnown = tail.isLast && lastBatch <= flushedBatch + 1;
  // The batch that may be torn: the last one begun, when nothing says that it was flushed. Behind a
  // complete one may be the beginning of another.
  let torn: Replayed["torn"] = null;
  const isLastComplete = lastBatch === 0 || isComplete(pieces, lastBatch);
  const isLastFlushed = lastBatch <= flushedBatch || !isTailKnown;
  const suspect = isLastFlushed || isLastComplete ? null : lastBatch;
  const readable = (piece: Piece) => piece.type === "record" && piece.record.batch !== suspect;
  const end = pieces.findLastIndex(readable) + 1;
  const goodBatch = suspect === null ? lastBatch : lastBatch - 1;
  const isNextBegun = isLastComplete && isTailKnown && flushedBatch <= lastBatch;
  const mayBeTorn = suspect !== null || isNextBegun;
  if (end < pieces.length && mayBeTorn) {
    torn = cutPlace(pieces, end);
    pieces = pieces.slice(0, end);
  }
  pieces = sinceRestart(pieces);
  const assembly = new Assembly(snapshot);
  assembly.take(pieces);
  const assembled = assembly.end(tail.latest, isTailKnown);
  const stale = isStale(assembled, snapshot);
  const log = stale ? [] : assembled.filter((entry) => entry.index > snapshot.index);
  return {
    log,
    nextBatch: Math.max(goodBatch, flushedBatch) + 1,
    torn,
    damage: pieces.filter((piece) => piece.type === "gap"),
    files: files.map(({ number }) => {
      const own = pieces.filter((piece) => piece.file === number);
      return { number, highestIndex: highestIndex(own) };
    }),
    lostThroughIndex: assembly.lost
      ? boundOfLoss(pieces, snapshot, isTailKnown ? tail : null)
      : null,
    mustRestart: assembly.isDamaged || assembly.lost || stale,
    lastFileEndBytes,
  };
}

function endOf(piece: Piece): number {
  if (piece.type === "gap") return piece.toBytes;
  const { offsetBytes, payload } = piece.record;
  return offsetBytes + recordBytes(payload.length);
}

/** The log was written anew there: what is before no longer counts. */
function sinceRestart(pieces: readonly Piece[]): readonly Piece[] {
  const restart = pieces.findLast((one) => one.type === "record" && one.record.kind === "restart");
  if (restart?.type !== "record") return pieces;
  return pieces.slice(pieces.findIndex((one) => isOfBatch(one, restart.record.batch)));
}

function scanFile({ number: file, bytes }: LogFile): Piece[] {
  const pieces: Piece[] = [];
  let at = 0;
  let gapFrom = 0;
  const closeGap = (toBytes: number) => {
    if (toBytes > gapFrom) pieces.push({ type: "gap", file, fromBytes: gapFrom, toBytes });
  };
  // Zeros up to the end are where nothing was written yet. If something was, it is missing as if the
  // file ended here.
  const endBytes = bytes.length - zerosAtEnd(bytes);
  while (at < endBytes) {
    const record = decodeRecord(bytes, { file, offsetBytes: at });
    if (record === null) {
      at += recordAlignBytes;
      continue;
    }
    closeGap(at);
    pieces.push({ type: "record", file, record });
    at += recordBytes(record.payload.length);
    gapFrom = at;
  }
  closeGap(Math.min(bytes.length, Math.ceil(endBytes / recordAlignBytes) * recordAlignBytes));
  return pieces;
}

const zeroPage = Buffer.alloc(4096);

function zerosAtEnd(bytes: Buffer): number {
  let end = bytes.length;
  while (end >= zeroPage.length && zeroPage.equals(bytes.subarray(end - zeroPage.length, end))) {
    end -= zeroPage.length;
  }
  while (end > 0 && bytes[end - 1] === 0) end -= 1;
  return bytes.length - end;
}

function batchNumbers(pieces: readonly Piece[]): number[] {
  const numbers = new Set<number>();
  for (const piece of pieces) if (piece.type === "record") numbers.add(piece.record.batch);
  return [...numbers].sort((a, b) => a - b);
}

/** Everything that the batch says it has is there, whole. */
function isComplete(pieces: readonly Piece[], batch: number): boolean {
  const records = pieces.flatMap((piece) => (isOfBatch(piece, batch) ? [piece.record] : []));
  const begin = records[0]!;
  if (begin.kind !== "begin" || begin.index !== records.length - 1) return false;
  return records.every((record) => record.whole);
}

function recordCount(pieces: readonly Piece[], batch: number): number {
  return pieces.filter((piece) => isOfBatch(piece, batch)).length;
}

function isOfBatch(piece: Piece, batch: number): piece is Piece & { type: "record" } {
  return piece.type === "record" && piece.record.batch === batch;
}

/** The end of the last good record, when it is in the file that has the first bad piece. */
function cutPlace(pieces: readonly Piece[], end: number): { file: number; atBytes: number } {
  const { file } = pieces[end]!;
  const before = pieces[end - 1];
  if (before?.type !== "record" || before.file !== file) return { file, atBytes: 0 };
  return { file, atBytes: endOf(before) };
}

class Assembly {
  readonly #base: Hole;
  #log: (Entry | Hole)[] = [];
  isDamaged = false;
  /** Entries are missing, and which is not known: nothing is taken any more. */
  lost = false;
  /** Records may be missing since the last one taken. */
  #gap = false;
  /** The batch of the last record. */
  #batch: number | null = null;
  /** The last batch that came with its list. */
  #listedBatch: number | null = null;

  constructor(snapshot: Hole) {
    this.#base = snapshot;
  }

  take(pieces: readonly Piece[]): void {
    for (let at = 0; at < pieces.length; at += 1) {
      const piece = pieces[at]!;
      if (piece.type === "gap") {
        this.#gap = this.isDamaged = true;
        continue;
      }
      const { record } = piece;
      const { kind, batch, whole } = record;
      const opens = kind === "begin" && whole;
      if (this.#batch === null ? !opens : batch > this.#batch + 1) this.#gap = true;
      // Its list is damaged, but not how many records it opens: fewer than those are left.
      if (kind === "begin" && !whole && recordCount(pieces, batch) <= record.index)
        this.#gap = true;
      // Two batches in sequence that both say what they hold leave nothing for what is between.
      if (opens && this.#listedBatch === batch - 1) this.#gap = false;
      this.#batch = batch;
      if (opens) at = this.#takeListed(pieces, at, decodeIdentities(record.payload));
      else this.#takeRecord(record);
    }
  }

  /** The end of the log, as `tail` knows it; or as it knew it once, and something came after. */
  end(tail: Tail, isKnown: boolean): readonly (Entry | Hole)[] {
    const batch = this.#batch ?? 0;
    const missing = this.#gap || tail.batch > batch;
    if (missing && !this.lost) {
      this.isDamaged = true;
      const last = this.#last();
      if (!isKnown || tail.batch < batch) this.lost = true;
      else if (tail.lastIndex > last.index || tail.lastTerm !== last.term) {
        this.#bridge({ index: tail.lastIndex + 1, term: tail.lastTerm });
      } else if (tail.lastIndex < last.index) this.lost = true;
    }
    return this.#log;
  }

  /** A batch whose list holds: whatever of it cannot be read is a hole. Gives the last piece. */
  #takeListed(pieces: readonly Piece[], begin: number, listed: readonly Hole[]): number {
    const batch = this.#batch!;
    this.#listedBatch = batch;
    let last = begin;
    while (
      last + 1 < pieces.length &&
      pieces.slice(last + 1, last + 3).some((one) => isOfBatch(one, batch))
    ) {
      last += isOfBatch(pieces[last + 1]!, batch) ? 1 : 2;
    }
    let next = 0;
    for (const piece of pieces.slice(begin + 1, last + 1)) {
      if (piece.type === "gap") {
        this.isDamaged = true;
        continue;
      }
      const { kind, index, term } = piece.record;
      if (kind === "entry" || kind === "hole" || kind === "restart") {
        while (next < listed.length && !isSame(listed[next]!, { index, term })) {
          this.#takeIdentity(listed[next]!, null);
          next += 1;
        }
        next += 1;
      }
      this.#takeRecord(piece.record);
    }
    for (const identity of listed.slice(next)) this.#takeIdentity(identity, null);
    return last;
  }

  #takeRecord(record: ScannedRecord): void {
    if (!record.whole) this.isDamaged = true;
    const { kind, index, term } = record;
    switch (kind) {
      case "entry":
        this.#takeIdentity({ index, term }, entryOf(record));
        return;
      case "hole":
        this.#takeIdentity({ index, term }, null);
        return;
      case "repair": {
        const at = this.#log.findIndex((one) => one.index === index);
        const entry = entryOf(record);
        if (at >= 0 && this.#log[at]!.term === term && entry !== null) this.#log[at] = entry;
        return;
      }
      case "cut":
        this.#log = this.#log.filter((one) => one.index <= index);
        return;
      case "restart":
        this.#takeIdentity(restartIdentity, null);
        return;
      case "begin":
    }
  }

  /** The entry before the next one: the log's last, unless the snapshot reaches further. */
  #last(): Hole {
    const last = this.#log.at(-1);
    return last === undefined || last.index < this.#base.index ? this.#base : last;
  }

  /** An entry of known identity comes to the log, with its content or as a hole. */
  #takeIdentity(identity: Hole, entry: Entry | null): void {
    if (identity.index === restartIdentity.index) {
      this.#log = [];
      this.#gap = this.lost = false;
      return;
    }
    if (entry === null) this.isDamaged = true;
    if (this.#gap && !this.lost) this.#bridge(identity);
    const { index } = identity;
    if (index > this.#last().index + 1) this.lost = true;
    if (this.lost) return;
    const last = this.#log.at(-1);
    // Below the snapshot the log may have a jump: entries that the snapshot made superfluous.
    if (last !== undefined && index > last.index + 1) this.#log = [];
    else if (last !== undefined && index <= last.index) {
      this.#log = this.#log.filter((one) => one.index < index);
    }
    this.#log.push(entry ?? identity);
  }

  /**
   * Records were lost between the log's last entry and this one. When both are of one term, nothing
   * was voided in between and all entries between them are of this term. Else nothing is known.
   */
  #bridge({ index, term }: Hole): void {
    this.#gap = false;
    this.isDamaged = true;
    const last = this.#last();
    if (last.term !== term) {
      this.lost = true;
      return;
    }
    if (last === this.#base && index > last.index + 1) this.#log = [];
    for (let hole = last.index + 1; hole < index; hole += 1) this.#log.push({ index: hole, term });
  }
}

function isSame(a: Hole, b: Hole): boolean {
  return a.index === b.index && a.term === b.term;
}

/**
 * The snapshot came from a leader, in place of a log that was not the leader's; the crash came
 * before the log was told.
 */
function isStale(log: readonly (Entry | Hole)[], { index, term }: Hole): boolean {
  const covered = log.find((entry) => entry.index === index);
  return covered !== undefined && covered.term !== term;
}

function boundOfLoss(pieces: readonly Piece[], snapshot: Hole, tail: FoundTail | null): number {
  if (tail === null) return unknownIndex;
  return Math.max(snapshot.index, tail.latest.lastIndex, highestIndex(pieces));
}

function highestIndex(pieces: readonly Piece[]): number {
  let highest = 0;
  for (const piece of pieces) {
    if (piece.type === "gap" || piece.record.kind === "begin") continue;
    highest = Math.max(highest, piece.record.index);
  }
  return highest;
}
