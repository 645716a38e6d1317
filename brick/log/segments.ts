import { assert } from "../assert.ts";
import { DiskError, type DiskFile, type Host, isNoSpace } from "../host.ts";
import { MiB } from "../units.ts";
import {
  batchAlignBytes,
  batchHeaderBytes,
  recordAlignBytes,
  recordHeaderBytes,
} from "./batch-format.ts";
import { logFolder, type SegmentFiles } from "./segment-files.ts";

export const segmentBytesDefault = 64 * MiB;
export const segmentBytesMin = 16 * 1024;
export const segmentBytesMax = 1024 * MiB;
/** Fewer segments than this leave no room between the reserve and the one in use. */
export const segmentCountMin = 3;
/** The step in which a segment is filled with zeros ahead of use. */
const sliceBytes = 1 * MiB;
/** No record is longer, whatever the segment would hold: a commit must not take forever. */
export const recordBodyBytesMax = 1 * MiB;
/** Zeros kept ahead of a log that has hardly been written. */
const aheadBytesMin = 4 * MiB;
/** Segments of zeros kept ahead of a log that is written a lot, */
const aheadSegmentsMax = 16;
/** but no more than this part of the capacity; one segment in any case. */
const aheadCapacityShare = 1 / 8;
/** A log that was not written for this long uses the time: half as many, whatever was written; */
const idleMs = 5000;
const idleShare = 1 / 2;
/** but with so much rest before each slice: nobody waits for it, and others use the disk. */
const idleRestMs = 250;
/** While the log is busy, zeros wait until fewer than this many segments of them are left. */
const aheadSegmentsUrgent = 1;
/** A log that was not written for this long is not busy. */
const quietMs = 20;
/** How soon a full disk is asked again. */
const retryMs = 1000;
/** There is room again when this part of the floor is free above it: not at the next file's end. */
export const roomAboveFloorShare = 1 / 4;
/**
 * Of the zeros at hand when the disk is full, what is left to records that must be logged: a second
 * or two of all that comes in, until everybody knows that this brick is full, and then a long time.
 */
const reserveBytesMax = 32 * MiB;
const reserveSegmentShare = 1 / 2;
/**
 * Of these, what is left to small control records alone, such as promises and the beginnings of views:
 * what a shard must log to be led again, a few times over.
 */
const controlBytesMax = 1 * MiB;
const controlSegmentShare = 1 / 8;

const zeros = Buffer.alloc(sliceBytes);

/**
 *     (new) ──zeros──▶ ready ──switch──▶ current ──switch──▶ closed ──recycle──▶ free
 *                        ▲                                                        │
 *                        └──────────────────────── taken again ───────────────────┘
 */
export type SegmentState = "free" | "ready" | "current" | "closed";

export interface Segment {
  readonly number: number;
  /** Counts the uses of the file; what points to an older use is void. */
  epoch: number;
  state: SegmentState;
  /** Bytes on the medium, zeros or more: only they may be written. Of one found closed: not known yet. */
  preparedBytes: number;
  /** Bytes taken by batches. */
  writtenBytes: number;
  /** Bytes taken by batches that are on the medium. */
  flushedBytes: number;
  /** Log position of its last batch; 0 before the first. */
  lastPosition: number;
  /** Bytes of the chunks that the index still finds here. */
  liveBytes: number;
  /** What is in the file must be thrown away before use. */
  wipe: boolean;
  /** Its row in the key-value store is older than this. */
  dirty: boolean;
}

export function newSegment(number: number): Segment {
  return {
    number,
    epoch: 1,
    state: "ready",
    preparedBytes: 0,
    writtenBytes: 0,
    flushedBytes: 0,
    lastPosition: 0,
    liveBytes: 0,
    wipe: false,
    dirty: false,
  };
}

export interface SegmentLimits {
  segmentBytes: number;
  capacityBytes: number;
  /** Bytes of the file system that are left to others: index, superblock, neighbours. */
  diskFloorBytes: number;
}

/** What a record of a certain size can expect. */
export type Room = "now" | "later" | "never";

/**
 * Who wants to write, by how far they may go when space is short. Each leaves something for those
 * after it: ordinary records for compaction, without which a full brick would never have room
 * again; compaction for the records that keep the brick governable; these for the small ones without
 * which a shard of the map could not change hands.
 */
export type Claim = "ordinary" | "compaction" | "reserve" | "control";

/** Stores of fewer segments have none to set aside for compaction. */
const compactionSegmentsMin = 16;

/** Nothing of what is in it counts any more. To be made durable before it is written again. */
export function beginAnew(segment: Segment): void {
  segment.epoch += 1;
  segment.lastPosition = 0;
  segment.writtenBytes = 0;
  segment.flushedBytes = 0;
}

/**
 * The segments of one brick's log, and the work of having zeros ready ahead of the writer. One
 * segment's worth of capacity is a reserve that only records marked so may use, so that a full
 * brick can still log what keeps it governable; one more is for compaction.
 */
export class Segments {
  readonly byNumber = new Map<number, Segment>();
  readonly segmentBytes: number;
  readonly countMax: number;
  /** Called when room has been made, or when it turned out that there is none. */
  onChange: () => void = () => {};
  readonly #host: Host;
  readonly #files: SegmentFiles;
  readonly #limits: SegmentLimits;
  /** Segments that a record of each claim leaves unused. */
  readonly #keptSegments: Readonly<Record<Claim, number>>;
  readonly #free: Segment[] = [];
  #current: Segment | null = null;
  /** Prepared, or being prepared, in the order of their use. */
  readonly #ready: Segment[] = [];
  #numberNext = 1;
  #usedCount = 0;
  #closedBytes = 0;
  #writtenThisBootBytes = 0;
  /** What had been written when it was last asked whether the log is quiet. */
  #writtenAtLookBytes = 0;
  #quietTimer = false;
  /** What had been written when the log was last found idle. */
  #idleAtBytes = -1;
  #idleTimer = false;
  #isPreparing = false;
  /** The end of the work last begun. */
  #preparing: Promise<void> = Promise.resolve();
  /** The disk is full: asked again after a while, and no longer so once it has taken what was wanted. */
  #stuck = false;
  #askedAgain = false;
  #waitsForRoom = false;
  #waitsEnded = false;
  #stopped = false;

  constructor(host: Host, files: SegmentFiles, limits: SegmentLimits) {
    const { segmentBytes, capacityBytes } = limits;
    assert(segmentBytes % batchAlignBytes === 0, "segments are made of 4 KiB pages");
    assert(segmentBytes >= segmentBytesMin && segmentBytes <= segmentBytesMax);
    this.#host = host;
    this.#files = files;
    this.#limits = limits;
    this.segmentBytes = segmentBytes;
    this.countMax = Math.max(segmentCountMin, Math.floor(capacityBytes / segmentBytes));
    const ordinary = this.countMax < compactionSegmentsMin ? 1 : 2;
    this.#keptSegments = { ordinary, compaction: 1, reserve: 0, control: 0 };
  }

  get current(): Segment {
    assert(this.#current !== null, "the log has no current segment yet");
    return this.#current;
  }

  /** The longest body that a record may have. */
  get bodyBytesMax(): number {
    const bytes = this.segmentBytes - batchHeaderBytes - recordHeaderBytes - recordAlignBytes;
    return Math.min(bytes, recordBodyBytesMax);
  }

  /** The file system has no room for more of the log. */
  get stuck(): boolean {
    return this.#stuck;
  }

  /** A record that must be logged waits until there is room. */
  get waitsForRoom(): boolean {
    return this.#waitsForRoom;
  }

  /** Segments that may still be taken into use, the reserve included. */
  get leftCount(): number {
    return this.countMax - this.#usedCount;
  }

  usedBytes(): number {
    return this.#closedBytes + (this.#current?.writtenBytes ?? 0);
  }

  /** Bytes that ordinary records may still take. */
  freeBytes(): number {
    const kept = this.#keptSegments.ordinary;
    if (this.leftCount < kept) return 0;
    const ordinary = (this.leftCount - kept) * this.segmentBytes;
    const free = ordinary + this.segmentBytes - this.current.writtenBytes;
    if (!this.#stuck) return free;
    return Math.max(0, Math.min(free, this.#preparedAheadBytes() - this.#reserveBytes));
  }

  /** Before start: a segment as the open procedure found it. */
  add(segment: Segment): void {
    assert(!this.byNumber.has(segment.number));
    this.byNumber.set(segment.number, segment);
    this.#numberNext = Math.max(this.#numberNext, segment.number + 1);
  }

  /** Continues in `current`; with null the log continues in a fresh segment. */
  start(current: Segment | null): void {
    this.#usedCount = 0;
    for (const segment of this.byNumber.values()) {
      if (segment === current) continue;
      if (segment.state === "closed") {
        this.#usedCount += 1;
        this.#closedBytes += this.segmentBytes;
      } else this.#free.push(segment);
    }
    this.#free.sort((a, b) => b.number - a.number);
    this.#current = current ?? this.#takeSegment({ zeroed: true });
    this.#current.state = "current";
    this.#usedCount += 1;
    this.prepare();
  }

  /**
   * Whether `bytes` (whole pages) can be written in the current segment, after a switch if need be
   * and possible. What must be logged is never refused while the brick serves: it waits for room,
   * however long, and nobody is told meanwhile that it is there.
   */
  room(bytes: number, claim: Claim): Room {
    const room = this.#roomFor(bytes, claim);
    if (claim === "ordinary" || claim === "compaction") return room;
    const waits = room === "never" && !this.#waitsEnded;
    // That a control record finds room says nothing of the others.
    if (claim === "reserve" || waits) this.#waitsForRoom = waits;
    return waits ? "later" : room;
  }

  /** The brick stops serving: what waits for room is refused. */
  endWaiting(): void {
    this.#waitsEnded = true;
    this.onChange();
  }

  #roomFor(bytes: number, claim: Claim): Room {
    const kept = this.#keptSegments[claim];
    if (this.leftCount < kept) return "never";
    if (this.fits(bytes, claim)) return "now";
    const { preparedBytes, writtenBytes } = this.current;
    // A full disk takes no zeros behind those that are there.
    const endBytes = this.#stuck ? preparedBytes : this.segmentBytes;
    if (writtenBytes + bytes <= endBytes) {
      return this.#stuck || this.#isKeptFrom(bytes, claim) ? "never" : "later";
    }
    if (this.leftCount < kept + 1) return "never";
    const next = this.#ready[0];
    const lostBytes = preparedBytes - writtenBytes;
    const may = !this.#isKeptFrom(bytes + lostBytes, claim);
    if (next !== undefined && next.preparedBytes >= bytes && may) {
      this.#switch();
      return "now";
    }
    return this.#stuck ? "never" : "later";
  }

  /** Whether `bytes` can be written in the current segment as it stands. */
  fits(bytes: number, claim: Claim): boolean {
    if (this.leftCount < this.#keptSegments[claim]) return false;
    if (this.#isKeptFrom(bytes, claim)) return false;
    return this.current.writtenBytes + bytes <= this.current.preparedBytes;
  }

  /** A batch of `bytes` is about to be written at the end of the current segment. */
  take(bytes: number, position: number): void {
    const current = this.current;
    current.writtenBytes += bytes;
    current.lastPosition = position;
    current.dirty = true;
    assert(current.writtenBytes <= current.preparedBytes, "writing beyond the prepared zeros");
    this.#writtenThisBootBytes += bytes;
    this.prepare();
  }

  addLive(number: number, epoch: number, bytes: number): void {
    const segment = this.byNumber.get(number);
    if (segment === undefined || segment.epoch !== epoch) return;
    segment.liveBytes += bytes;
    segment.dirty = true;
    assert(segment.liveBytes >= 0, "a segment cannot hold less than nothing");
  }

  /**
   * Closed segments without a live chunk whose records a durable checkpoint has passed; with a row
   * as old as that checkpoint, which so does not point into them either.
   */
  recyclable(coveredPosition: number): Segment[] {
    const found: Segment[] = [];
    for (const segment of this.byNumber.values()) {
      if (segment.state !== "closed" || segment.liveBytes > 0 || segment.dirty) continue;
      if (segment.lastPosition < coveredPosition) found.push(segment);
    }
    return found;
  }

  /** The caller has made the new epoch durable: from here on the old use of the file is void. */
  release(segment: Segment): void {
    assert(segment.state === "closed" && segment.liveBytes === 0);
    assert(segment.writtenBytes === 0, "a recycled segment begins anew");
    segment.state = "free";
    this.#usedCount -= 1;
    this.#closedBytes -= this.segmentBytes;
    this.#free.push(segment);
    this.#free.sort((a, b) => b.number - a.number);
    this.#waitsForRoom = false;
    this.prepare();
    this.onChange();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#preparing;
  }

  /** What the file system has left now. Others fill it, too: it is not only asked for more segments. */
  look(freeBytes: number): void {
    if (!this.#stuck && freeBytes < this.#limits.diskFloorBytes) {
      this.#beStuck(`${freeBytes} bytes are left of the file system`);
    }
  }

  get #reserveBytes(): number {
    return Math.min(reserveBytesMax, this.segmentBytes * reserveSegmentShare);
  }

  get #controlBytes(): number {
    return Math.min(controlBytesMax, this.segmentBytes * controlSegmentShare);
  }

  /**
   * With a full disk the zeros at hand are all there is: the last of them are the reserve, and the last
   * of these are for control records, as is the end of the last segment of all.
   */
  #isKeptFrom(bytes: number, claim: Claim): boolean {
    if (claim === "control") return false;
    const keptBytes = claim === "reserve" ? this.#controlBytes : this.#reserveBytes;
    if (this.#stuck) return this.#preparedAheadBytes() - bytes < keptBytes;
    if (claim !== "reserve" || this.leftCount > 0) return false;
    return this.segmentBytes - this.current.writtenBytes - bytes < keptBytes;
  }

  #preparedAheadBytes(): number {
    const current = this.current;
    const inCurrent = current.preparedBytes - current.writtenBytes;
    return this.#ready.reduce((sum, segment) => sum + segment.preparedBytes, inCurrent);
  }

  #switch(): void {
    const next = this.#ready.shift();
    assert(next !== undefined && next.writtenBytes === 0 && !next.wipe);
    this.current.state = "closed";
    this.current.dirty = true;
    this.#closedBytes += this.segmentBytes;
    next.state = "current";
    next.dirty = true;
    this.#current = next;
    this.#usedCount += 1;
    this.prepare();
  }

  /** Starts the background work of zeroing when it is needed and not under way. */
  prepare(): void {
    if (this.#isPreparing || this.#stopped) return;
    if (this.#stuck) {
      this.#takeWritten();
      return;
    }
    this.#lookForIdle();
    if (this.#toPrepare() === null || this.#isWaitingForQuiet()) return;
    // Not told from the promise: the work may end before it is there.
    this.#isPreparing = true;
    this.#preparing = this.#prepareAll();
  }

  /** Zeros cost commits their speed: best they are written while nobody waits for the disk. */
  #isWaitingForQuiet(): boolean {
    const aheadBytes = this.#preparedAheadBytes();
    const urgentBytes = Math.max(aheadBytesMin, this.segmentBytes * aheadSegmentsUrgent);
    if (aheadBytes < urgentBytes) return false;
    if (!this.#quietTimer && this.#writtenAtLookBytes === this.#writtenThisBootBytes) return false;
    if (!this.#quietTimer) {
      this.#quietTimer = true;
      this.#writtenAtLookBytes = this.#writtenThisBootBytes;
      const isForLater = aheadBytes >= this.#wantedAheadBytes("soon");
      this.#host.clock.after(isForLater ? idleRestMs : quietMs, () => {
        this.#quietTimer = false;
        this.prepare();
      });
    }
    return true;
  }

  get #isIdle(): boolean {
    return this.#idleAtBytes === this.#writtenThisBootBytes;
  }

  #lookForIdle(): void {
    if (this.#idleTimer || this.#isIdle) return;
    this.#idleTimer = true;
    const writtenBytes = this.#writtenThisBootBytes;
    this.#host.clock.after(idleMs, () => {
      this.#idleTimer = false;
      if (this.#writtenThisBootBytes === writtenBytes) this.#idleAtBytes = writtenBytes;
      this.prepare();
    });
  }

  async #prepareAll(): Promise<void> {
    try {
      await this.#prepareForControl();
      for (;;) {
        const segment = this.#stopped || this.#stuck ? null : this.#toPrepare();
        if (segment === null || this.#isWaitingForQuiet()) return;
        await this.#prepareSlice(segment);
        this.onChange();
        // Beyond what is wanted soon each slice waits for a rest of its own.
        if (this.#preparedAheadBytes() >= this.#wantedAheadBytes("soon"))
          this.#writtenAtLookBytes = -1;
      }
    } catch (error) {
      if (!isNoSpace(error)) this.#host.crash(error);
      this.#beStuck((error as DiskError).message);
    } finally {
      this.#isPreparing = false;
      // A recycled segment is ready without work, so the loop above may have had nothing to tell.
      this.onChange();
    }
  }

  #beStuck(why: string): void {
    if (!this.#stuck) this.#host.log(`log: no space for more of it (${why})`);
    this.#stuck = true;
    this.#takeWritten();
    this.onChange();
    if (this.#askedAgain) return;
    this.#askedAgain = true;
    this.#host.clock.after(retryMs, () => {
      this.#askedAgain = false;
      if (this.#stopped) return;
      if (this.#isPreparing) this.#beStuck("the last slice is still being written");
      else {
        this.#isPreparing = true;
        this.#preparing = this.#tryAgain();
      }
    });
  }

  /** As far as segments were written before, they need nothing of the file system. */
  #takeWritten(): void {
    while (this.leftCount > this.#ready.length) {
      if (this.#preparedAheadBytes() >= this.#wantedAheadBytes()) return;
      const at = this.#free.findLastIndex(isWritten);
      if (at < 0) return;
      const [segment] = this.#free.splice(at, 1);
      segment!.state = "ready";
      this.#ready.unshift(segment!);
    }
  }

  /** There is room when the file system says so, and has taken what is wanted next. */
  async #tryAgain(): Promise<void> {
    const { diskFloorBytes } = this.#limits;
    try {
      await this.#prepareForControl();
      const freeBytes = await this.#host.disk.freeBytes();
      if (freeBytes < diskFloorBytes * (1 + roomAboveFloorShare)) {
        throw new DiskError("ENOSPC", `${freeBytes} bytes are left of the file system`);
      }
      const segment = this.#stopped ? null : this.#toPrepare();
      if (segment !== null) await this.#prepareSlice(segment);
      this.#stuck = false;
      // What waits still is asked again, and there may be nothing that does.
      this.#waitsForRoom = false;
      this.#host.log("log: there is space again");
    } catch (error) {
      if (!isNoSpace(error)) this.#host.crash(error);
      this.#beStuck((error as DiskError).message);
    } finally {
      this.#isPreparing = false;
      this.prepare();
      this.onChange();
    }
  }

  /** What is below the floor is not for the log, but for what control records need of it. */
  async #prepareForControl(): Promise<void> {
    if (this.#stopped || this.#preparedAheadBytes() >= this.#controlBytes) return;
    const segment = this.#toPrepare();
    if (segment !== null) await this.#prepareSlice(segment, { floorBytes: 0 });
  }

  /** The segment that needs a slice of zeros now. */
  #toPrepare(): Segment | null {
    const current = this.current;
    const [next] = this.#ready;
    // After a time without room, segments are begun in any number: the log must get through the first.
    if (next !== undefined && this.#endsSoon(current)) return current;
    if (next !== undefined && this.#endsSoon(next)) return next;
    if (this.#preparedAheadBytes() >= this.#wantedAheadBytes()) return null;
    const unfinished = ({ preparedBytes, wipe }: Segment) =>
      preparedBytes < this.segmentBytes || wipe;
    if (current.preparedBytes < this.segmentBytes) return current;
    const begun = this.#ready.find(unfinished);
    if (begun !== undefined) return begun;
    if (this.leftCount <= this.#ready.length) return null;
    const segment = this.#takeSegment();
    this.#ready.push(segment);
    return unfinished(segment) ? segment : null;
  }

  /** Its zeros end before its file does, and a batch may not find room in them. */
  #endsSoon({ preparedBytes, writtenBytes, wipe }: Segment): boolean {
    const enoughBytes = Math.min(aheadBytesMin, this.segmentBytes - writtenBytes);
    return !wipe && preparedBytes < this.segmentBytes && preparedBytes - writtenBytes < enoughBytes;
  }

  /** Little before data comes; then as much as was written, within bounds. An idle log has time for more. */
  #wantedAheadBytes(when: "soon" | "any" = "any"): number {
    const { segmentBytes } = this;
    const share = this.#limits.capacityBytes * aheadCapacityShare;
    const bytesMax = Math.max(segmentBytes, Math.min(aheadSegmentsMax * segmentBytes, share));
    const written = this.#writtenThisBootBytes;
    const soon =
      written < aheadBytesMin / 4
        ? Math.min(aheadBytesMin, segmentBytes)
        : Math.min(bytesMax, Math.max(segmentBytes, written));
    return when === "any" && this.#isIdle ? Math.max(soon, bytesMax * idleShare) : soon;
  }

  #takeSegment({ zeroed } = { zeroed: false }): Segment {
    const at = zeroed ? this.#free.findLastIndex(isWritten) : -1;
    let segment = at < 0 ? this.#free.pop() : this.#free.splice(at, 1)[0];
    if (segment === undefined) {
      segment = newSegment(this.#numberNext);
      this.add(segment);
    }
    segment.state = "ready";
    if (segment.wipe) segment.preparedBytes = 0;
    return segment;
  }

  async #prepareSlice(
    segment: Segment,
    { floorBytes } = { floorBytes: this.#limits.diskFloorBytes },
  ): Promise<void> {
    const from = segment.preparedBytes;
    const length = Math.min(sliceBytes, this.segmentBytes - from);
    const { disk } = this.#host;
    if ((await disk.freeBytes()) < length + floorBytes) {
      throw new DiskError("ENOSPC", "the file system is at its floor");
    }
    const write = async (file: DiskFile) => {
      if (segment.wipe) await file.truncate(0);
      segment.wipe = false;
      await file.write(from, [zeros.subarray(0, length)]);
      await file.sync();
    };
    await this.#files.with(segment.number, write, true);
    if (from === 0) {
      await disk.syncFolder(logFolder);
      if (segment.number === 1) await disk.syncFolder("");
    }
    segment.preparedBytes = from + length;
  }
}

/** Zeros, or an earlier use that is over: it can be written, as far as it reaches. */
function isWritten({ preparedBytes, wipe }: Segment): boolean {
  return preparedBytes > 0 && !wipe;
}
