import { ChunkIndex, keyName } from "../chunk/chunk-index.ts";
import { FilterLearning } from "../chunk/filter-learning.ts";
import { chunkBytesMax, chunkBytesMin } from "../chunk/key.ts";
import { type Keyed, KeyTable } from "../chunk/key-table.ts";
import { Stamps, slotBytesFor } from "../gc/stamps.ts";
import type { Host, Kv } from "../host.ts";
import type { LatencyHistogram } from "../latency-histogram.ts";
import { type ChunkOrigin, type RecordChunk, recordType } from "../log/batch-format.ts";
import { Log, type RecordLocation } from "../log/log.ts";
import type { DamagedRange } from "../log/replay.ts";
import { SegmentFiles } from "../log/segment-files.ts";
import { type Claim, Segments } from "../log/segments.ts";
import { type MemoryParts, memoryPartsDefault } from "../memory-budget.ts";
import type { StageTimes } from "../stage-times.ts";
import { sweptEntriesMax } from "./checkpoint-due.ts";
import { Checkpoints } from "./checkpoints.ts";
import { chunkEntry, replaySinks } from "./chunk-entries.ts";
import { type ChunkRead, ChunkReads } from "./chunk-reads.ts";
import { Compaction, type CompactionStep } from "./compaction.ts";
import { FatalKv } from "./fatal-kv.ts";
import { IndexRoom, indexFloors } from "./index-room.ts";
import { KeptRoom } from "./kept-room.ts";
import { recycleSegments } from "./recycle.ts";
import { Scrub, type ScrubStep } from "./scrub.ts";
import { SliceReads } from "./slice-reads.ts";
import { type StoreSpace, segmentBytesFor, spaceOf, withoutFree } from "./space.ts";
import { SpaceWatch } from "./space-watch.ts";
import type { ChunkEntry } from "./store-keys.ts";
import {
  beginBoot,
  eraseTorn,
  findSegments,
  logIdentity,
  readCheckpoint,
  refuseLostIndex,
  replayFrom,
} from "./store-open.ts";
import {
  diskFloorBytesDefault,
  type PutFault,
  type PutResult,
  type StoreOptions,
  type StoreParticipant,
} from "./store-options.ts";
import type { Superblock, SuperblockCopies } from "./superblock.ts";
import { type SweepStep, sweepStep } from "./sweep.ts";

export type { ChunkOrigin, PutFault, PutResult, RecordLocation, StoreOptions, StoreParticipant };

/** Damaged chunks that a start remembers; the scrub meets the others. */
const damagedAtOpenMax = 4096;

type PutDone = (result: PutResult) => void;
/** In any number of parts. */
type ChunkData = Buffer | readonly Buffer[];

interface PendingChunk extends Keyed<PendingChunk> {
  parts: readonly Buffer[];
  chunk: RecordChunk;
  /** Puts of the same key that wait for this record. */
  waiters: ((result: PutResult) => void)[];
}

/** One brick's log, chunk index and key-value store, on one data directory. */
export class Store {
  readonly superblock: Superblock;
  readonly kv: Kv;
  /** When each chunk was protected last: what garbage collection goes by. */
  readonly stamps: Stamps;
  /** What the replay found damaged between whole batches. */
  readonly damage: readonly DamagedRange[];
  /** Chunks of which the replay found the record, but not the bytes; some of them, if many. */
  readonly damagedAtOpen: readonly Buffer[];
  readonly counters = {
    puts: 0,
    dedupHits: 0,
    dedupBytes: 0,
    chunkBytesWritten: 0,
    checkpoints: 0,
    mapRecords: 0,
    corruptChunks: 0,
    damagedRanges: 0,
    recycledSegments: 0,
    sweptChunks: 0,
    sweptBytes: 0,
    compactedBytes: 0,
    flushes: 0,
    logBytesWritten: 0,
    noSpace: 0,
  };
  /** Reads of parts of chunks. What is not durable yet is too young to be asked for in parts. */
  readonly slices: SliceReads;
  readonly #host: Host;
  readonly #options: StoreOptions;
  readonly #memory: MemoryParts;
  readonly #diskFloorBytes: number;
  readonly #copies: SuperblockCopies;
  readonly #segments: Segments;
  readonly #files: SegmentFiles;
  readonly #indexRoom: IndexRoom;
  readonly #keptRoom: KeptRoom;
  readonly #log: Log;
  readonly #index: ChunkIndex;
  readonly #reads: ChunkReads;
  readonly #scrub: Scrub;
  readonly #compaction: Compaction;
  readonly #pending = new KeyTable<PendingChunk>();
  #answers: (() => void)[] = [];
  readonly #checkpoints: Checkpoints;
  #recycling = false;
  readonly #learning: FilterLearning;
  #spaceWatch: SpaceWatch | null = null;
  #closed = false;

  /**
   * Opens the data directory, or makes a new one when `identity` is given. A power cut at any
   * instant of it is harmless: the order of the steps is what makes it so.
   */
  static async open(host: Host, options: StoreOptions): Promise<Store> {
    const segmentBytes = options.segmentBytes ?? segmentBytesFor(options.capacityBytes);
    // 0. Room for all that follows, before anything of it begins.
    const keptRoom = await KeptRoom.find(host);
    await keptRoom.untilStart();
    // 1. A boot number of our own, durable in both copies before anything else happens.
    const { superblock, copies } = await beginBoot(host, options.identity, segmentBytes);
    const identity = logIdentity(superblock);
    const files = new SegmentFiles(host.disk);
    const segments = new Segments(host, files, {
      segmentBytes: superblock.segmentBytes,
      capacityBytes: options.capacityBytes,
      diskFloorBytes: options.diskFloorBytes ?? diskFloorBytesDefault,
    });
    // 2. What the last checkpoint covers.
    const kv = new FatalKv(host, await keptRoom.opening(() => host.disk.openKv("index")));
    const { checkpoint, rows } = readCheckpoint(kv);
    await host.disk.syncFolder("");
    await findSegments(host, segments, rows);
    await refuseLostIndex(host, { superblock, segments, hasRows: rows.size > 0 });
    const totals = { count: checkpoint.chunkCount, bytes: checkpoint.chunkBytes };
    const index = new ChunkIndex(kv, segments, totals, options.memory);
    for (const participant of options.participants) participant.begin?.(kv);
    // 3. What the log holds beyond it.
    const damagedKeys: Buffer[] = [];
    const sinks = replaySinks(index, options.participants, (key) => {
      if (damagedKeys.length < damagedAtOpenMax) damagedKeys.push(key);
    });
    const replayed = await replayFrom(host, identity, segments, checkpoint, sinks);
    if (!replayed.clean) host.log("log: its end is torn, or cannot be told from a torn one");
    // 4. What is known to be missing is durable knowledge before the log says anything else.
    const cut = superblock.cut || !replayed.clean;
    const damaged = superblock.damaged || replayed.damage.length > 0;
    const known: Superblock = { ...superblock, cut, damaged };
    if (cut !== superblock.cut || damaged !== superblock.damaged) await copies.write(known);
    // 5. A torn batch is made unreadable; the log continues elsewhere.
    if (replayed.torn !== null) await eraseTorn(files, replayed.torn);
    const last = replayed.clean ? segments.byNumber.get(replayed.end.segment) : undefined;
    segments.start(last ?? null);
    const log = new Log(host, identity, segments, files, replayed.end);
    kv.start();
    const parts = { superblock: known, copies, files, segments, kv, index, log, keptRoom };
    const found = { damage: replayed.damage, damagedKeys };
    const store = new Store(host, options, parts, found, checkpoint.position);
    // Who starts full says so from the first moment on.
    const freeBytes = await host.disk.freeBytes();
    segments.look(freeBytes);
    store.#indexRoom.look(freeBytes);
    return store;
  }

  private constructor(
    host: Host,
    options: StoreOptions,
    parts: {
      superblock: Superblock;
      copies: SuperblockCopies;
      files: SegmentFiles;
      segments: Segments;
      kv: Kv;
      index: ChunkIndex;
      log: Log;
      keptRoom: KeptRoom;
    },
    { damage, damagedKeys }: { damage: readonly DamagedRange[]; damagedKeys: readonly Buffer[] },
    checkpointPosition: number,
  ) {
    this.#host = host;
    this.#options = options;
    this.#memory = options.memory ?? memoryPartsDefault;
    this.superblock = parts.superblock;
    this.kv = parts.kv;
    this.damage = damage;
    this.damagedAtOpen = damagedKeys;
    this.counters.damagedRanges = damage.length;
    this.#copies = parts.copies;
    this.#files = parts.files;
    this.#segments = parts.segments;
    this.#index = parts.index;
    this.#log = parts.log;
    this.#keptRoom = parts.keptRoom;
    this.#diskFloorBytes = options.diskFloorBytes ?? diskFloorBytesDefault;
    const floors = indexFloors(this.#diskFloorBytes);
    this.#indexRoom = new IndexRoom(host, this.kv, floors, () => {
      if (!this.#closed) this.#checkpoints.again();
    });
    const { log, index, segments } = parts;
    const { participants } = options;
    this.#checkpoints = new Checkpoints(
      { log, index, segments, indexRoom: this.#indexRoom, participants, counters: this.counters },
      checkpointPosition,
    );
    this.#reads = new ChunkReads(this.#index, this.#files, this.counters);
    this.slices = new SliceReads(
      this.#index,
      this.#files,
      this.#reads,
      this.#memory.outlineCacheBytes,
    );
    this.stamps = new Stamps(
      this.superblock.segmentBytes,
      slotBytesFor(options.capacityBytes, this.#memory.stampBytes),
    );
    const identity = logIdentity(this.superblock);
    this.#scrub = new Scrub(host, identity, parts, this.#reads);
    const { stamps } = this;
    this.#compaction = new Compaction(identity, { ...parts, stamps, reads: this.#reads });
    this.#log.onCommitted = () => this.#afterCommit();
    this.#learning = new FilterLearning(host.clock, this.#index);
  }

  /** How long the log's writes and flushes took. */
  get flushLatency(): LatencyHistogram {
    return this.#log.flushLatency;
  }

  /** Where the time of this brick's commands goes; the log's own steps and all others. */
  get stages(): StageTimes {
    return this.#log.stages;
  }

  /**
   * The log's tail was cut, or its end cannot be told from a cut one: what was acknowledged may be
   * missing. Stays so, over restarts too, until `settleLoss`.
   */
  get cut(): boolean {
    return this.superblock.cut;
  }

  /** Records were lost in the middle of the log since the last checkpoint; as lasting as `cut`. */
  get damaged(): boolean {
    return this.superblock.damaged;
  }

  /** The participants have made durable what follows from `cut` and `damaged`: forget them. */
  async settleLoss(): Promise<void> {
    this.superblock.cut = false;
    this.superblock.damaged = false;
    await this.#copies.write(this.superblock);
  }

  /**
   * Stores a chunk. The key must be the hash of the bytes: the caller has computed or checked it.
   * `done` never runs before `put` returns; when it does, the bytes are needed no more.
   */
  put(key: Buffer, data: ChunkData, origin: ChunkOrigin, done: PutDone): void {
    this.counters.puts += 1;
    const parts = Buffer.isBuffer(data) ? [data] : data;
    const lengthBytes = parts.reduce((sum, part) => sum + part.length, 0);
    const bytesMax = Math.min(chunkBytesMax, this.#segments.bodyBytesMax);
    if (lengthBytes < chunkBytesMin || lengthBytes > bytesMax) {
      this.#answer(done, { ok: false, fault: { code: "bad_size", lengthBytes } });
      return;
    }
    const name = keyName(key);
    const pending = this.#pending.get(name);
    if (pending !== undefined) {
      this.#countDedup(lengthBytes);
      pending.waiters.push(done);
      return;
    }
    const known = this.#index.find(key, name);
    if (known !== null && !known.damaged) {
      this.stamps.stamp(known);
      this.#countDedup(lengthBytes);
      this.#answer(done, { ok: true, deduplicated: true });
      return;
    }
    if (this.#segments.waitsForRoom) {
      this.#answer(done, { ok: false, fault: { code: "no_space" } });
      return;
    }
    if (this.#log.queuedBytes > this.#memory.logQueueBytes) {
      this.#answer(done, { ok: false, fault: { code: "busy" } });
      return;
    }
    const chunk: RecordChunk = { key, offsetBytes: 0, lengthBytes, origin };
    const added: PendingChunk = { name, next: null, parts, chunk, waiters: [] };
    this.#pending.add(added);
    this.#log.append({
      type: recordType.chunk,
      parts,
      bodyBytes: lengthBytes,
      chunk,
      claim: "ordinary",
      order: 0,
      done: (location) => {
        this.#settleChunk(name, chunk, location);
        if (location !== null) done({ ok: true, deduplicated: false });
        else done({ ok: false, fault: { code: "no_space" } });
        this.#settleWaiters(added, location !== null);
      },
    });
  }

  /**
   * Appends a record of a participant. With `chunk`, the body holds a chunk, which is indexed like
   * any other once durable. `done`: see LogRecord; false means no space.
   */
  appendMap(
    parts: readonly Buffer[],
    chunk: RecordChunk | null,
    done: (ok: boolean, location: RecordLocation | null) => void,
    { claim = "ordinary", order = 0 }: { claim?: Claim; order?: number } = {},
  ): void {
    this.counters.mapRecords += 1;
    let bodyBytes = 0;
    for (const part of parts) bodyBytes += part.length;
    const name = chunk === null ? "" : keyName(chunk.key);
    let offered: PendingChunk | null = null;
    if (chunk !== null && this.#pending.get(name) === undefined) {
      offered = { name, next: null, parts, chunk, waiters: [] };
      this.#pending.add(offered);
    }
    this.#log.append({
      type: recordType.map,
      parts,
      bodyBytes,
      chunk,
      claim,
      order,
      done: (location) => {
        if (chunk !== null) this.#settleChunk(name, chunk, location);
        done(location !== null, location);
        if (offered !== null) this.#settleWaiters(offered, location !== null);
      },
    });
  }

  /** Something that must be logged waits for room. */
  get waitsForRoom(): boolean {
    return this.#segments.waitsForRoom;
  }

  /** What waits of this order is refused after all; false when nothing does. */
  giveUp(order: number): boolean {
    return this.#log.giveUp(order);
  }

  /** Durable, indexed, and not known to be damaged. */
  has(key: Buffer): boolean {
    const entry = this.#index.find(key);
    return entry !== null && !entry.damaged;
  }

  /** The same; and if it is here, it is protected from garbage collection like one stored now. */
  protect(key: Buffer): boolean {
    return this.#protectAt(this.#index.find(key));
  }

  protectMany(keys: readonly Buffer[]): boolean[] {
    return this.#index.findMany(keys).map((entry) => this.#protectAt(entry));
  }

  #protectAt(entry: ChunkEntry | null): boolean {
    if (entry === null || entry.damaged) return false;
    this.stamps.stamp(entry);
    return true;
  }

  /** The chunk's bytes, which have been checked against the key, in memory of the caller's own. */
  readChunk(key: Buffer): Promise<ChunkRead> {
    const pending = this.#pending.get(keyName(key));
    if (pending !== undefined) {
      const { offsetBytes, lengthBytes } = pending.chunk;
      // A copy: the parts are given back when they are durable.
      const bytes = Buffer.concat(pending.parts).subarray(offsetBytes, offsetBytes + lengthBytes);
      return Promise.resolve({ ok: true, bytes });
    }
    const entry = this.#index.find(key);
    if (entry === null) return Promise.resolve({ ok: false, fault: { code: "absent" } });
    return this.#reads.read(key, entry);
  }

  /** Told of each chunk that a read or the scrub finds damaged. */
  set onDamaged(action: (key: Buffer) => void) {
    this.#reads.onDamaged = action;
  }

  /** Whether a chunk that counts as damaged can be read after all; then it counts no more. */
  recheck(key: Buffer): Promise<boolean> {
    return this.#reads.recheck(key);
  }

  /** Gives up a chunk: no look-up finds it from now on. Its space comes back by `recycle`. */
  dropChunk(key: Buffer): void {
    const entry = this.#index.find(key);
    if (entry !== null) this.#index.remove(keyName(key), entry);
  }

  /** Gives up those of about `limit` chunks from a place of the index on that `mayDrop` names. */
  sweepStep(
    from: Buffer | null,
    limit: number,
    mayDrop: (name: string, entry: ChunkEntry) => boolean,
  ): SweepStep {
    if (this.#index.dirtyCount > sweptEntriesMax) this.checkpoint();
    const step = sweepStep({ index: this.#index, kv: this.kv }, from, limit, mayDrop);
    this.counters.sweptChunks += step.droppedChunks;
    this.counters.sweptBytes += step.droppedBytes;
    return step;
  }

  /** Copies live chunks out of a segment that is mostly dead; see Compaction. */
  async compactStep(budgetBytes: number, shareMax: number): Promise<CompactionStep> {
    const step = await this.#compaction.step(budgetBytes, shareMax);
    this.counters.compactedBytes += step.copiedBytes;
    return step;
  }

  /** Bytes that wait for the log: foreground work is under way. */
  get queuedBytes(): number {
    return this.#log.queuedBytes;
  }

  space(): StoreSpace {
    const { capacityBytes } = this.#options;
    const space = spaceOf(capacityBytes, this.#segments, this.#index, this.counters);
    return this.#indexRoom.isShort ? withoutFree(space) : space;
  }

  /** The file system has no room for the log or the index, whatever the brick has offered. */
  get isFileSystemFull(): boolean {
    return this.#segments.stuck || this.#indexRoom.isShort;
  }

  /** Checkpoints are put off until the file system has room: what would need one may not grow. */
  get putsOffCheckpoints(): boolean {
    return this.#indexRoom.isShort;
  }

  /** From now on others are reckoned with who fill the file system; told when it makes a difference. */
  watchSpace(changed: () => void): void {
    this.#spaceWatch = new SpaceWatch({
      host: this.#host,
      kv: this.kv,
      segments: this.#segments,
      indexRoom: this.#indexRoom,
      keptRoom: this.#keptRoom,
      diskFloorBytes: this.#diskFloorBytes,
      isFull: () => this.space().full,
      isClosed: () => this.#closed,
      changed,
    });
    this.#spaceWatch.start();
  }

  /** Asks for one that covers all until now: see Checkpoints. */
  checkpoint(): void {
    this.#checkpoints.ask();
  }

  /** Resolves when no checkpoint is under way. */
  checkpointed(): Promise<void> {
    return this.#checkpoints.settled();
  }

  /** Takes back segments in which nothing is needed any more; says how many. One call at a time. */
  async recycle(): Promise<number> {
    if (this.#recycling) return 0;
    this.#recycling = true;
    const parts = { segments: this.#segments, files: this.#files, stamps: this.stamps };
    const known = { indexRoom: this.#indexRoom, superblock: this.superblock, copies: this.#copies };
    // A row that is on its way must not come after the one that voids it.
    await this.#checkpoints.settled();
    const count = await recycleSegments({ ...parts, ...known }, this.#checkpoints.coveredPosition);
    this.counters.recycledSegments += count;
    this.#recycling = false;
    return count;
  }

  /** Verifies about `budgetBytes` more of the log; see Scrub. */
  scrubStep(budgetBytes: number): Promise<ScrubStep> {
    return this.#scrub.step(budgetBytes);
  }

  /** Ends the log with a seal, so that the next start knows that nothing is missing. */
  async close(): Promise<void> {
    this.#segments.endWaiting();
    this.#indexRoom.stop();
    await this.#log.idle();
    await this.#checkpoints.end();
    await new Promise<void>((resolve) => {
      this.#log.append({
        type: recordType.seal,
        parts: [],
        bodyBytes: 0,
        chunk: null,
        claim: "control",
        order: 0,
        done: () => resolve(),
      });
    });
    await this.#log.idle();
    this.#closed = true;
    this.#learning.end();
    await this.#spaceWatch?.ended();
    await this.#segments.stop();
    await this.#files.closeAll();
    await this.kv.close();
  }

  #settleChunk(name: string, chunk: RecordChunk, location: RecordLocation | null): void {
    if (location === null) return;
    const known = this.#index.find(chunk.key, name);
    // A chunk inside a map record may be stored already: the first place stays, as in replay.
    if (known !== null && !known.damaged) {
      this.stamps.stamp(known);
      return;
    }
    const entry = chunkEntry(chunk, location);
    this.stamps.stamp(entry);
    this.#index.set(name, entry, known);
    this.counters.chunkBytesWritten += chunk.lengthBytes;
  }

  #settleWaiters(pending: PendingChunk, ok: boolean): void {
    this.#pending.remove(pending);
    for (const done of pending.waiters) {
      if (ok) done({ ok: true, deduplicated: true });
      else done({ ok: false, fault: { code: "no_space" } });
    }
  }

  #countDedup(lengthBytes: number): void {
    this.counters.dedupHits += 1;
    this.counters.dedupBytes += lengthBytes;
  }

  /** Answers that need no flush wait for the next tick, so that callers see one order of things. */
  #answer(done: (result: PutResult) => void, result: PutResult): void {
    this.#answers.push(() => done(result));
    if (this.#answers.length > 1) return;
    this.#host.clock.soon(() => {
      const answers = this.#answers;
      this.#answers = [];
      for (const answer of answers) answer();
    });
  }

  #afterCommit(): void {
    if (this.#closed) return;
    this.#learning.wake();
    this.counters.flushes = this.#log.counters.flushes;
    this.counters.logBytesWritten = this.#log.counters.writtenBytes;
    this.counters.noSpace = this.#log.counters.refused;
    this.#checkpoints.look();
  }
}
