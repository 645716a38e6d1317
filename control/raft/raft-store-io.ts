import { type Disk, DiskError, type DiskFile, isNoSpace } from "../../brick/host.ts";
import { SegmentReader } from "../../brick/log/segment-reader.ts";
import { raftLimits } from "./raft-limits.ts";
import {
  decodeTail,
  encodeRecords,
  encodeTail,
  type FoundTail,
  type LogRecord,
  recordBytes,
  recordsOf,
  restartRecords,
  type Tail,
  tailSlotBytes,
} from "./raft-log-format.ts";
import { type LogFile, type Replayed, replayLog } from "./raft-log-replay.ts";
import {
  decodeHardState,
  decodeSnapshotFile,
  encodeHardState,
  encodeSnapshotFile,
  type HardStateCopy,
} from "./raft-state-format.ts";
import type { HardState, Loaded, PersistEffect, Snapshot } from "./raft-types.ts";

export type StoreFault =
  /** Neither copy of term and vote holds, though the server has voted: it must not take part. */
  { readonly code: "hard_state_lost" };

export interface StoreReport {
  readonly torn: Replayed["torn"];
  readonly damage: Replayed["damage"];
  readonly holes: number;
  readonly lostThroughIndex: number | null;
  readonly damagedSnapshots: readonly number[];
}

export type OpenedStore =
  | { ok: true; store: RaftStore; loaded: Loaded; report: StoreReport }
  | { ok: false; fault: StoreFault };

export interface StoreOptions {
  readonly disk: Disk;
  readonly folder: string;
  /** Every persist effect up to this ticket survives a power cut. */
  readonly onPersisted: (ticket: number) => void;
  /** A write or flush failed: what is on the medium is not known any more. */
  readonly onFailure: (reason: unknown) => void;
  /** The file system has no room: resolves when it may be asked again. */
  readonly untilAsked: (reason: unknown) => Promise<void>;
  /** Zeros kept ahead of the log's end. */
  readonly aheadBytes?: number;
}

interface CurrentFile {
  readonly file: DiskFile;
  readonly number: number;
  /** The log's end, */
  sizeBytes: number;
  /** and that of the zeros behind it. */
  preparedBytes: number;
}

/** Flushed together at most; more wait for the next flush. */
const groupBytesMax = raftLimits.logFileBytesMax;

/**
 * Term, vote, log and snapshots in one folder:
 *
 *     state-a state-b     term and vote
 *     log-NUMBER          the log, in order of the numbers; a start never appends to an old file
 *     tail                how far the log was flushed
 *     snapshot-INDEX      the last two, so that one damaged snapshot costs nothing
 *
 * The file of the log that is written has zeros ahead, and term and vote have their place: while the
 * file system is full, a server goes on with them. When they are used up, it waits for room and says
 * meanwhile that nothing more is durable, as one whose disk is slow. A write for which there was no
 * room is done again, all of it and in the same place; a flush that failed never is.
 */
export class RaftStore {
  readonly #options: StoreOptions;
  readonly #queue: PersistEffect[] = [];
  #busy = false;
  #running: Promise<void> = Promise.resolve();
  #closed = false;
  #sequence = 0;
  #nextBatch = 1;
  #tail: Tail = { batch: 0, lastIndex: 0, lastTerm: 0 };
  /** Indexes of the snapshot files that hold, ascending. */
  #snapshots: number[] = [];
  /** Log files with the highest index each has; the last one is written to. */
  #files: { number: number; highestIndex: number }[] = [];
  #current: CurrentFile | null = null;
  #stateFiles: DiskFile[] = [];
  #tailFile: DiskFile | null = null;

  static async open(options: StoreOptions): Promise<OpenedStore> {
    return new RaftStore(options).#open();
  }

  private constructor(options: StoreOptions) {
    this.#options = options;
  }

  /** Takes work; onPersisted answers, in order. */
  persist(work: PersistEffect): void {
    this.#queue.push(work);
    if (this.#busy || this.#closed) return;
    this.#busy = true;
    this.#running = this.#run().catch((reason) => {
      if (reason !== closedFull) this.#options.onFailure(reason);
    });
  }

  /** What was begun is ended; what waits is dropped, as a crash would. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#running;
    const files = [...this.#stateFiles, this.#tailFile, this.#current?.file];
    for (const file of files) await file?.close();
  }

  async #open(): Promise<OpenedStore> {
    const { disk, folder } = this.#options;
    const names = await disk.list(folder);
    const hardState = await this.#readHardState(names);
    const { snapshot, damaged } = await this.#readSnapshots(names);
    const logFiles = await this.#readLogFiles(names);
    const known = snapshot !== null || damaged.length > 0 || logFiles.length > 0;
    if (hardState === null && known) return { ok: false, fault: { code: "hard_state_lost" } };
    const tail = await this.#openTail();
    const base = { index: snapshot?.index ?? 0, term: snapshot?.term ?? 0 };
    const replayed = replayLog(logFiles, tail, base);
    const lostThroughIndex = lostThrough(replayed, { snapshot, damaged });
    this.#nextBatch = replayed.nextBatch;
    this.#files = replayed.files;
    const { log } = replayed;
    const { index: lastIndex, term: lastTerm } = log.at(-1) ?? base;
    this.#tail = { batch: replayed.nextBatch - 1, lastIndex, lastTerm };
    if (replayed.torn !== null) await this.#cut(replayed.torn);
    // What was read may not have been flushed: it is, before anybody is told of it. The zeros behind it
    // are of no more use, for a start begins a file of its own.
    const last = logFiles.at(-1);
    if (last !== undefined && last.number !== replayed.torn?.file) {
      await this.#cut({ file: last.number, atBytes: replayed.lastFileEndBytes });
    }
    await disk.syncFolder(folder);
    const state = healed(hardState, lostThroughIndex);
    if (lostThroughIndex !== null) await this.#writeHardState(state!);
    if (replayed.mustRestart || lostThroughIndex !== null) await this.#restartLog(log);
    else if (this.#tail.batch !== tail.latest.batch) await this.#writeTail();
    for (const index of damaged) await disk.remove(this.#path(snapshotName(index)));
    const { torn, damage } = replayed;
    const holes = log.filter((entry) => !("payload" in entry)).length;
    const report = { torn, damage, holes, lostThroughIndex, damagedSnapshots: damaged };
    return { ok: true, store: this, loaded: { hardState: state, snapshot, entries: log }, report };
  }

  #path(name: string): string {
    return `${this.#options.folder}/${name}`;
  }

  async #readHardState(names: readonly string[]): Promise<HardState | null> {
    const { disk, folder } = this.#options;
    let latest: HardStateCopy | null = null;
    for (const name of ["state-a", "state-b"]) {
      const file = await disk.open(this.#path(name), { create: true });
      this.#stateFiles.push(file);
      if (!names.includes(name)) continue;
      const copy = decodeHardState(await readWhole(file));
      if (copy !== null && copy.sequence > (latest?.sequence ?? 0)) latest = copy;
    }
    if (!names.includes("state-b")) {
      await disk.syncFolder(folder);
      await disk.syncFolder("");
    }
    this.#sequence = latest?.sequence ?? 0;
    if (latest === null) return null;
    // Both copies hold the same from here on, whatever a crash or damage did to one.
    await this.#writeHardState(latest.state);
    return latest.state;
  }

  async #readSnapshots(names: readonly string[]) {
    const { disk } = this.#options;
    let snapshot: Snapshot | null = null;
    const damaged: number[] = [];
    for (const index of numbersOf(names, "snapshot-").reverse()) {
      const file = await disk.open(this.#path(snapshotName(index)));
      const read = decodeSnapshotFile(await readWhole(file));
      await file.close();
      if (read === null || read.index !== index) damaged.push(index);
      else {
        snapshot ??= read;
        this.#snapshots.unshift(index);
      }
    }
    return { snapshot, damaged };
  }

  async #readLogFiles(names: readonly string[]): Promise<LogFile[]> {
    const files: LogFile[] = [];
    for (const number of numbersOf(names, "log-")) {
      const bytes = await this.#withLogFile(number, readWhole);
      files.push({ number, bytes });
    }
    return files;
  }

  async #withLogFile<T>(number: number, action: (file: DiskFile) => Promise<T>): Promise<T> {
    const file = await this.#options.disk.open(this.#path(logName(number)));
    const result = await action(file);
    await file.close();
    return result;
  }

  async #openTail(): Promise<FoundTail> {
    this.#tailFile = await this.#options.disk.open(this.#path("tail"), { create: true });
    return decodeTail((await readWhole(this.#tailFile)).subarray(0, 2 * tailSlotBytes));
  }

  async #cut({ file: number, atBytes }: NonNullable<Replayed["torn"]>): Promise<void> {
    await this.#withLogFile(number, async (file) => {
      await file.truncate(atBytes);
      await file.sync();
    });
  }

  /**
   * After damage the log is written anew into one file; only when it is durable do the others go.
   * A crash in between leaves either the old files or the new one.
   */
  async #restartLog(log: Loaded["entries"]): Promise<void> {
    const old = this.#files.slice();
    await this.#openLogFile();
    const batch = this.#nextBatch++;
    await this.#writeRecords(restartRecords(log, batch), batch);
    for (const { number } of old) await this.#options.disk.remove(this.#path(logName(number)));
    this.#files = this.#files.slice(old.length);
    await this.#options.disk.syncFolder(this.#options.folder);
  }

  async #run(): Promise<void> {
    while (this.#queue.length > 0 && !this.#closed) {
      const group = this.#takeGroup();
      const hardState = group.findLast((work) => work.hardState !== null)?.hardState;
      const snapshot = group.findLast((work) => work.snapshot !== null)?.snapshot;
      // 1. A vote never comes after what it allowed; entries never lack their term.
      if (hardState) await this.#withRoom(() => this.#writeHardState(hardState));
      // 2. A snapshot is there before the log that it replaces goes.
      const replacesLog = group.some((work) => work.resetsLog);
      if (snapshot) await this.#keepSnapshot(snapshot, replacesLog);
      // 3. One write and one flush for all the entries that wait.
      const batch = this.#nextBatch;
      const records = recordsOf(group, batch);
      if (records.length > 0) {
        this.#nextBatch += 1;
        await this.#withRoom(() => this.#appendBatch(records, batch));
      }
      // 4. Only now may the core count on it.
      this.#options.onPersisted(group.at(-1)!.ticket);
      if (snapshot) await this.#compact(group.at(-1)!.compactThroughIndex);
      // 5. Nobody waits for the zeros, unless more has come meanwhile.
      await this.#prepare();
    }
    this.#busy = false;
  }

  /** Does it again until the file system has room for it, or the store is closed. */
  async #withRoom(action: () => Promise<void>): Promise<void> {
    for (;;) {
      try {
        return await action();
      } catch (error) {
        if (!isNoSpace(error)) throw error;
        await this.#options.untilAsked(error);
        if (this.#closed) throw closedFull;
      }
    }
  }

  /**
   * A snapshot of what this log holds can wait for the next one: until then the log is not compacted.
   * What another server sent in place of the log has to be kept.
   */
  async #keepSnapshot(snapshot: Snapshot, replacesLog: boolean): Promise<void> {
    if (replacesLog) return this.#withRoom(() => this.#writeSnapshot(snapshot));
    try {
      await this.#writeSnapshot(snapshot);
    } catch (error) {
      if (!isNoSpace(error)) throw error;
    }
  }

  /** Zeros behind the log's end; as many as there is room for. */
  async #prepare(): Promise<void> {
    const current = this.#current;
    const { aheadBytes = raftLimits.logAheadBytes } = this.#options;
    if (current === null || current.preparedBytes - current.sizeBytes >= aheadBytes / 2) return;
    const lengthBytes = current.sizeBytes + aheadBytes - current.preparedBytes;
    try {
      await current.file.write(current.preparedBytes, [Buffer.alloc(lengthBytes)]);
      await unrepeated(current.file.sync());
      current.preparedBytes += lengthBytes;
    } catch (error) {
      if (!isNoSpace(error)) throw error;
    }
  }

  #takeGroup(): PersistEffect[] {
    let bytes = 0;
    let count = 0;
    for (const { entries, repairs } of this.#queue) {
      for (const { payload } of [...entries, ...repairs]) bytes += recordBytes(payload.length);
      if (count > 0 && bytes > groupBytesMax) break;
      count += 1;
    }
    return this.#queue.splice(0, count);
  }

  async #writeHardState(state: HardState): Promise<void> {
    this.#sequence += 1;
    for (const file of this.#stateFiles) {
      await file.write(0, [encodeHardState({ sequence: this.#sequence, state })]);
      await unrepeated(file.sync());
    }
  }

  async #writeSnapshot(snapshot: Snapshot): Promise<void> {
    const { disk, folder } = this.#options;
    const temporary = this.#path("snapshot.tmp");
    const file = await disk.open(temporary, { create: true });
    await file.truncate(0);
    try {
      await file.write(0, encodeSnapshotFile(snapshot));
      await unrepeated(file.sync());
    } catch (error) {
      // What room it took is given back.
      if (isNoSpace(error)) await file.truncate(0);
      throw error;
    } finally {
      await file.close();
    }
    await disk.rename(temporary, this.#path(snapshotName(snapshot.index)));
    await unrepeated(disk.syncFolder(folder));
    this.#snapshots.push(snapshot.index);
  }

  async #appendBatch(records: readonly LogRecord[], batch: number): Promise<void> {
    const sizeBytes = records.reduce((sum, { payload }) => sum + recordBytes(payload.length), 0);
    const current = this.#current;
    if (current === null) await this.#openLogFile();
    else if (current.sizeBytes + sizeBytes > raftLimits.logFileBytesMax) {
      try {
        await this.#openLogFile();
      } catch (error) {
        // The zeros at hand reach a little further than a file shall.
        const isAhead = current.sizeBytes + sizeBytes <= current.preparedBytes;
        if (!isNoSpace(error) || !isAhead) throw error;
      }
    }
    await this.#writeRecords(records, batch);
  }

  async #openLogFile(): Promise<void> {
    const { disk, folder } = this.#options;
    const before = this.#current;
    const number = (this.#files.at(-1)?.number ?? 0) + 1;
    const file = await disk.open(this.#path(logName(number)), { create: true });
    await unrepeated(disk.syncFolder(folder));
    this.#current = { file, number, sizeBytes: 0, preparedBytes: 0 };
    this.#files.push({ number, highestIndex: 0 });
    await before?.file.truncate(before.sizeBytes);
    await before?.file.close();
  }

  async #writeRecords(records: readonly LogRecord[], batch: number): Promise<void> {
    const current = this.#current!;
    const parts = encodeRecords(records, { file: current.number, offsetBytes: current.sizeBytes });
    await current.file.write(current.sizeBytes, parts);
    await unrepeated(current.file.sync());
    for (const part of parts) current.sizeBytes += part.length;
    current.preparedBytes = Math.max(current.preparedBytes, current.sizeBytes);
    const described = this.#files.at(-1)!;
    let { lastIndex, lastTerm } = this.#tail;
    for (const { kind, index, term } of records) {
      if (kind === "begin") continue;
      described.highestIndex = Math.max(described.highestIndex, index);
      if (kind === "entry" || kind === "hole") [lastIndex, lastTerm] = [index, term];
      else if (kind === "restart") [lastIndex, lastTerm] = [0, 0];
      else if (kind === "cut" && index < lastIndex) [lastIndex, lastTerm] = [index, 0];
    }
    this.#tail = { batch, lastIndex, lastTerm };
    await this.#writeTail();
  }

  /** Before anybody is told of the batch: where the log is damaged, it tells what must have been there. */
  async #writeTail(): Promise<void> {
    const file = this.#tailFile!;
    await file.write((this.#tail.batch % 2) * tailSlotBytes, [encodeTail(this.#tail)]);
    await unrepeated(file.sync());
  }

  /** Removes what neither of the last two snapshots leaves of use, oldest first. */
  async #compact(throughIndex: number): Promise<void> {
    const { disk, folder } = this.#options;
    const kept = this.#snapshots.slice(-2);
    const through = Math.min(throughIndex, kept.length < 2 ? 0 : kept[0]!);
    const dropped = this.#snapshots.slice(0, -2);
    this.#snapshots = kept;
    for (const index of dropped) await disk.remove(this.#path(snapshotName(index)));
    if (dropped.length > 0) await disk.syncFolder(folder);
    while (this.#files.length > 1 && this.#files[0]!.highestIndex <= through) {
      await disk.remove(this.#path(logName(this.#files.shift()!.number)));
      // Each by itself: an older file that a power cut brought back without the next would look
      // like a log whose middle is gone.
      await disk.syncFolder(folder);
    }
  }
}

/** Ends what waits for room when the store is closed; what it waited for was acknowledged to nobody. */
const closedFull = new Error("closed while the file system was full");

/** A flush that failed, for whatever reason, is never repeated: the next would succeed and prove nothing. */
async function unrepeated(flush: Promise<void>): Promise<void> {
  try {
    await flush;
  } catch (error) {
    if (!isNoSpace(error)) throw error;
    throw new DiskError("EIO", `a flush failed: ${(error as Error).message}`);
  }
}

/** What the disk refuses to read is damage like any other: junk in its place. */
async function readWhole(file: DiskFile): Promise<Buffer> {
  const sizeBytes = await file.sizeBytes();
  return Buffer.from(await new SegmentReader(file, sizeBytes).read(0, sizeBytes));
}

/** A damaged snapshot loses what the log before it no longer has. */
function lostThrough(
  { log, lostThroughIndex }: Replayed,
  { snapshot, damaged }: { snapshot: Snapshot | null; damaged: readonly number[] },
): number | null {
  const reached = log.at(-1)?.index ?? snapshot?.index ?? 0;
  const highest = Math.max(0, ...damaged);
  if (highest > reached) return Math.max(highest, lostThroughIndex ?? 0);
  return lostThroughIndex;
}

function healed(state: HardState | null, lostThroughIndex: number | null): HardState | null {
  if (state === null || lostThroughIndex === null) return state;
  const throughIndex = Math.max(lostThroughIndex, state.healing?.throughIndex ?? 0);
  return { ...state, healing: { throughIndex, term: state.term } };
}

function logName(number: number): string {
  return `log-${String(number).padStart(16, "0")}`;
}

function snapshotName(index: number): string {
  return `snapshot-${String(index).padStart(16, "0")}`;
}

/** Ascending. */
function numbersOf(names: readonly string[], prefix: string): number[] {
  return names
    .filter((name) => name.startsWith(prefix))
    .map((name) => Number(name.slice(prefix.length)))
    .filter((number) => Number.isSafeInteger(number))
    .sort((a, b) => a - b);
}
