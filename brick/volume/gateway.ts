import type { ChunkCache } from "../chunk/chunk-cache.ts";
import { type ClusterState, isReachable, shardOf, type VolumeRecord } from "../cluster-state.ts";
import { CopyCarrier } from "../crypt/copy-carrier.ts";
import type { VolumeCipher } from "../crypt/volume-cipher.ts";
import type { TimerHandle } from "../host.ts";
import { Roster } from "../roster.ts";
import type { UnitRecord } from "../unit/unit-record.ts";
import { sectorBytes } from "../units.ts";
import type { AheadRoom } from "./ahead-room.ts";
import { AtomicPieces, compareThenWrite, setBits } from "./atomic-pieces.ts";
import type { AttachmentContext } from "./attachment-context.ts";
import type { ChunkContext } from "./chunk-context.ts";
import type { ChunkReader } from "./chunk-reader.ts";
import type { ChunkWriter } from "./chunk-writer.ts";
import { ForeignLookup, OwnLookup } from "./copy-lookup.ts";
import { CopyPieces } from "./copy-pieces.ts";
import type { CopySource } from "./forward-messages.ts";
import { Reads } from "./gateway-reads.ts";
import { type ChangeKind, type Locks, Writes } from "./gateway-writes.ts";
import { atomicBytesMax, compareBytesMax, copyBytesMax, orBytesMax } from "./limits.ts";
import { MapCache } from "./map-cache.ts";
import { type EndReason, type Operation, type Origin, unavailable } from "./operation.ts";
import { type PieceSource, UnmapPieces, WritePieces } from "./piece-source.ts";
import { RangeLock } from "./range-lock.ts";
import { Seams } from "./seams.ts";
import { ShardLink } from "./shard-link.ts";
import type { SliceReader } from "./slice-reader.ts";
import { crossesGrains, groupStored, lengthOf, splitAtomic, splitWrite } from "./split.ts";
import { type Access, isEnded, refusalUnder } from "./unit-check.ts";
import type { VolumeAllocation, VolumeDone, VolumeFault, VolumeRead } from "./volume.ts";

/** Commands of one volume under way; more are refused. */
export const operationsMax = 4096;
/** Deadlines and the lease are looked at this often. */
const sweepEveryMs = 20;

/** What one brick's gateways share. */
export interface GatewayParts {
  readonly context: ChunkContext;
  readonly chunks: ChunkCache;
  readonly aheadRoom: AheadRoom;
  readonly reader: ChunkReader;
  readonly slices: SliceReader;
  readonly writer: ChunkWriter;
  /** Whether this brick may still answer for what it is attached to. */
  leaseValid(nowMs: number): boolean;
  /** What the volume is encrypted with. */
  cipherOf(volume: VolumeRecord): VolumeCipher | null;
  /** A shard has refused this epoch: a newer attachment exists. */
  fenced(epoch: number): void;
}

/** Serves one volume under one attachment: the only gateway that may, until the epoch ends. */
export class Gateway {
  readonly context: AttachmentContext;
  readonly epoch: number;
  readonly ranges = new RangeLock();
  readonly map: MapCache;
  readonly chunks: ChunkCache;
  readonly aheadRoom: AheadRoom;
  readonly reader: ChunkReader;
  readonly slices: SliceReader;
  readonly writer: ChunkWriter;
  readonly seams = new Seams(this);
  /** null: the volume is not encrypted. */
  cipher: VolumeCipher | null;
  readonly #parts: GatewayParts;
  readonly #reads: Reads;
  readonly #writes: Writes;
  readonly #links = new Map<number, ShardLink>();
  readonly #operations = new Roster<Operation>();
  #leaseWaiters: (() => void)[] = [];
  #sweep: TimerHandle | null = null;
  #volume: VolumeRecord;
  /** null: nobody has ever asked anything of the unit. */
  #unit: UnitRecord | null;
  #ended: EndReason | null = null;
  #originSequence = 0;

  constructor(parts: GatewayParts, volume: VolumeRecord, epoch: number) {
    const { host, calls, options, stats } = parts.context;
    this.#parts = parts;
    this.#volume = volume;
    this.cipher = parts.cipherOf(volume);
    this.epoch = epoch;
    this.chunks = parts.chunks;
    this.aheadRoom = parts.aheadRoom;
    this.reader = parts.reader;
    this.slices = parts.slices;
    this.writer = parts.writer;
    this.context = {
      host,
      calls,
      options,
      stats,
      branch: volume.branch,
      epoch,
      state: () => parts.context.state(),
      generation: () => this.#volume.generation,
      fenced: () => parts.fenced(epoch),
    };
    this.map = new MapCache({
      grainsMax: options.mapCacheGrainsMax,
      cellsMax: options.mapCacheCellsMax,
    });
    this.#unit = this.#unitNow();
    this.#reads = new Reads(this);
    this.#writes = new Writes(this);
  }

  get operationCount(): number {
    return this.#operations.size;
  }

  read(offsetBytes: number, lengthBytes: number, origin: Origin = ours): Promise<VolumeRead> {
    const refusal = this.#refusal(offsetBytes, lengthBytes);
    if (refusal !== null) return Promise.resolve({ ok: false, fault: refusal });
    if (lengthBytes === 0) return Promise.resolve({ ok: true, buffers: [] });
    return this.#reads.run(offsetBytes, lengthBytes, origin);
  }

  write(offsetBytes: number, data: readonly Buffer[], origin: Origin = ours): Promise<VolumeDone> {
    const { inlineMaxBytes } = this.context.options;
    const source = new WritePieces(offsetBytes, data, (...range) =>
      groupStored(splitWrite(...range), inlineMaxBytes),
    );
    return this.#change("write", offsetBytes, lengthOf(data), source, origin);
  }

  /** WRITE ATOMIC: the whole range or nothing of it. At most `atomicBytesMax`. */
  writeAtomic(
    offsetBytes: number,
    data: readonly Buffer[],
    origin: Origin = ours,
  ): Promise<VolumeDone> {
    const lengthBytes = lengthOf(data);
    if (lengthBytes > atomicBytesMax) return tooLong;
    const source = new WritePieces(offsetBytes, data, splitAtomic);
    return this.#changeAsOne(offsetBytes, lengthBytes, source, origin);
  }

  unmap(offsetBytes: number, lengthBytes: number, origin: Origin = ours): Promise<VolumeDone> {
    const source = new UnmapPieces(offsetBytes, lengthBytes);
    return this.#change("unmap", offsetBytes, lengthBytes, source, origin);
  }

  /** Unmaps for a sanitize, while nobody else may do anything. */
  erase(offsetBytes: number, lengthBytes: number): Promise<VolumeDone> {
    const source = new UnmapPieces(offsetBytes, lengthBytes);
    return this.#change("unmap", offsetBytes, lengthBytes, source, ours, "erase");
  }

  /**
   * Compares, and when it is the same writes, under one lock of the range. At most
   * `compareBytesMax`. Settled like any write: a fault other than `unavailable` means that nothing
   * landed.
   */
  compareAndWrite(
    offsetBytes: number,
    compare: readonly Buffer[],
    data: readonly Buffer[],
    origin: Origin = ours,
  ): Promise<VolumeDone> {
    const lengthBytes = lengthOf(data);
    if (lengthOf(compare) !== lengthBytes || lengthBytes > compareBytesMax) return tooLong;
    const decide = compareThenWrite(compare, data);
    const source = new AtomicPieces(this.#reads, offsetBytes, lengthBytes, decide);
    return this.#changeAsOne(offsetBytes, lengthBytes, source, origin);
  }

  /** Reads, sets bits and writes under one lock of the range. At most `orBytesMax`. */
  orWrite(
    offsetBytes: number,
    data: readonly Buffer[],
    origin: Origin = ours,
  ): Promise<VolumeDone> {
    const lengthBytes = lengthOf(data);
    if (lengthBytes > orBytesMax) return tooLong;
    const source = new AtomicPieces(this.#reads, offsetBytes, lengthBytes, setBits(data));
    return this.#changeAsOne(offsetBytes, lengthBytes, source, origin);
  }

  /**
   * Makes the range read as the source's does, by references to the chunks that are there; where one
   * of the two is encrypted, by reading and writing. At most
   * `copyBytesMax`. A source of this volume is locked as the range is, for writes and reads alike,
   * so that what is copied is what it was between two commands; another volume's is not locked.
   */
  copyFrom(
    source: CopySource,
    offsetBytes: number,
    lengthBytes: number,
    origin: Origin = ours,
  ): Promise<VolumeDone> {
    if (lengthBytes > copyBytesMax) return tooLong;
    const { uuid, offsetBytes: fromBytes } = source;
    const volume = Object.values(this.state().volumes).find((one) => one.uuid === uuid);
    if (volume?.status !== "ready") {
      return Promise.resolve({ ok: false, fault: { code: "deleted" } });
    }
    const refusal = outside(fromBytes, lengthBytes, volume.sizeBytes);
    if (refusal !== null) return Promise.resolve({ ok: false, fault: refusal });
    const sameVolume = uuid === this.#volume.uuid;
    const lookup = sameVolume
      ? new OwnLookup(this)
      : new ForeignLookup(this, volume, { task: origin.task ?? null });
    const range = { fromBytes, toBytes: offsetBytes, lengthBytes, sameVolume };
    const carrier =
      this.cipher === null && volume.keyDomain === undefined ? null : this.#carry(uuid);
    const pieces = new CopyPieces(lookup, range, carrier);
    const locks = sameVolume
      ? locksOf(offsetBytes, fromBytes, lengthBytes)
      : { offsetBytes, lengthBytes };
    return this.#change("copy", offsetBytes, lengthBytes, pieces, origin, "write", locks);
  }

  allocation(
    offsetBytes: number,
    lengthBytes: number,
    runsMax: number,
    origin: Origin = ours,
  ): Promise<VolumeAllocation> {
    const refusal = this.#refusal(offsetBytes, lengthBytes);
    if (refusal !== null) return Promise.resolve({ ok: false, fault: refusal });
    return this.#reads.allocation(offsetBytes, lengthBytes, runsMax, origin);
  }

  /** Whether no command is under way, answered or not. */
  isIdle(): boolean {
    return this.#operations.size === 0 && this.ranges.heldCount === 0;
  }

  isEnded(): boolean {
    return this.#ended !== null;
  }

  /** The volume's record as it is now; the last known one once it is gone. */
  volume(): VolumeRecord {
    return this.#volume;
  }

  state(): ClusterState {
    return this.#parts.context.state();
  }

  onState(volume: VolumeRecord): void {
    // Only a sanitize changes it, while nobody reads or writes.
    if (volume.keyDomain !== this.#volume.keyDomain) this.cipher = this.#parts.cipherOf(volume);
    this.#volume = volume;
    const unit = this.#unitNow();
    if (unit !== this.#unit) {
      this.#unit = unit;
      if (unit !== null) this.#endTasks(unit);
    }
    for (const link of this.#links.values()) link.onState();
  }

  /**
   * Whether it acts by this version of the unit's record, and every change of a command that the
   * record ends, or would not let begin any more, has landed or never can.
   */
  hasSettled(unitVersion: number): boolean {
    const unit = this.#unit;
    if (unit === null) return unitVersion === 0;
    if (unit.version < unitVersion) return false;
    for (const { task, access } of this.#writes.unsettled()) {
      if (refusalUnder(unit, task, access) !== null) return false;
    }
    return true;
  }

  /** The attachment is over: everything under way is answered, nothing is kept. */
  end(reason: EndReason): void {
    if (this.#ended !== null) return;
    this.#ended = reason;
    for (const link of this.#links.values()) link.end();
    this.#links.clear();
    this.seams.end();
    for (const operation of this.#operations.members()) operation.fail(this.endFault());
    this.#reads.end();
    this.#leaseWaiters = [];
    this.#sweep?.cancel();
    this.#sweep = null;
    this.map.clear();
  }

  // For the reading and the writing half.

  endFault(): VolumeFault {
    if (this.#ended === "deleted") return { code: "deleted" };
    return unavailable("the volume is moving to another gateway, or a shard is away");
  }

  nowMs(): number {
    return this.context.host.clock.nowMs();
  }

  leaseValid(): boolean {
    return this.#ended === null && this.#parts.leaseValid(this.nowMs());
  }

  /** Runs the action now when the lease holds, else as soon as it does again under this epoch. */
  whenLeased(action: () => void): void {
    if (this.leaseValid()) action();
    else if (this.#ended === null) {
      this.#leaseWaiters.push(action);
      this.#startSweep();
    }
  }

  /** Asks for what reads have found that they need. */
  flushReads(): void {
    this.slices.flush();
    this.reader.flush();
  }

  linkOf(grain: number): ShardLink {
    return this.linkTo(shardOf(this.state(), this.#volume.family, grain));
  }

  linkTo(shard: number): ShardLink {
    let link = this.#links.get(shard);
    if (link === undefined) {
      link = new ShardLink(this.context, shard);
      if (this.#ended === null) this.#links.set(shard, link);
      else link.end();
    }
    return link;
  }

  originNext(): number {
    this.#originSequence += 1;
    return this.#originSequence;
  }

  /**
   * Why the command may not begin: the one place where reservations, notices and the absence of
   * its portal are looked at, whichever way it came. To be asked right before it can take effect.
   */
  refusalNow(command: Pick<Operation, "task" | "portal">, access: Access): VolumeFault | null {
    const { task, portal } = command;
    if (portal !== null) {
      const record = this.state().bricks[portal.brick];
      // Also one that was drained and removed: it was never away, and is no more.
      const gone = !isReachable(record) || (record!.absences ?? 0) > portal.absences;
      // Its initiator may have gone elsewhere, and be served there, since.
      if (gone || record!.boot > portal.boot) {
        return unavailable("its portal was away since it began");
      }
    }
    return this.#unit === null ? null : refusalUnder(this.#unit, task, access);
  }

  /** Counts the operation in and watches its deadline; false when there are too many. */
  admit(operation: Operation): boolean {
    if (this.#operations.size >= operationsMax) return false;
    operation.admitted = this.#operations.enter(operation);
    this.#startSweep();
    return true;
  }

  answered(
    operation: Operation,
    kind: "read" | ChangeKind,
    fault: VolumeFault | null,
    lengthBytes: number,
  ): void {
    if (operation.admitted !== null) this.#operations.leave(operation.admitted);
    const { stats, hooks } = this.#parts.context;
    if (fault !== null) stats.faults += 1;
    else if (kind === "read") {
      stats.reads += 1;
      stats.readBytes += lengthBytes;
    } else if (kind === "write") {
      stats.writes += 1;
      stats.writeBytes += lengthBytes;
    } else if (kind === "unmap") {
      stats.unmaps += 1;
      stats.unmapBytes += lengthBytes;
    } else {
      stats.copies += 1;
      stats.copyBytes += lengthBytes;
    }
    hooks.latency(kind, this.nowMs() - operation.startMs);
  }

  #carry(sourceUuid: string): CopyCarrier {
    const source = () => Object.values(this.state().volumes).find((one) => one.uuid === sourceUuid);
    const cipherOf = (volume: VolumeRecord) => this.#parts.cipherOf(volume);
    return new CopyCarrier({ gateway: this, source, cipherOf });
  }

  #unitNow(): UnitRecord | null {
    return this.state().units?.[this.#volume.uuid] ?? null;
  }

  #endTasks(unit: UnitRecord): void {
    for (const operation of this.#operations.members()) {
      if (endedBy(unit, operation)) operation.fail({ code: "cancelled" });
    }
  }

  /** Ranges come from other bricks too: they are checked, not asserted. */
  #refusal(offsetBytes: number, lengthBytes: number): VolumeFault | null {
    if (this.#ended !== null) return this.endFault();
    return outside(offsetBytes, lengthBytes, this.#volume.sizeBytes);
  }

  #changeAsOne(
    offsetBytes: number,
    lengthBytes: number,
    source: PieceSource,
    origin: Origin,
  ): Promise<VolumeDone> {
    const locks = { offsetBytes, lengthBytes, whole: crossesGrains(offsetBytes, lengthBytes) };
    return this.#change("write", offsetBytes, lengthBytes, source, origin, "write", locks);
  }

  #change(
    kind: ChangeKind,
    offsetBytes: number,
    lengthBytes: number,
    source: PieceSource,
    origin: Origin,
    access: Access = "write",
    locks: Locks = { offsetBytes, lengthBytes },
  ): Promise<VolumeDone> {
    const refusal = this.#refusal(offsetBytes, lengthBytes);
    if (refusal !== null) return Promise.resolve({ ok: false, fault: refusal });
    if (lengthBytes === 0) return Promise.resolve({ ok: true });
    return this.#writes.run({ kind, lengthBytes, source, access, locks }, origin);
  }

  #startSweep(): void {
    this.#sweep ??= this.context.host.clock.after(sweepEveryMs, () => {
      this.#sweep = null;
      this.#look();
      if (this.#ended !== null) return;
      if (this.#operations.size > 0 || this.#leaseWaiters.length > 0) this.#startSweep();
    });
  }

  #look(): void {
    const nowMs = this.nowMs();
    if (this.#leaseWaiters.length > 0 && this.leaseValid()) {
      const waiters = this.#leaseWaiters;
      this.#leaseWaiters = [];
      for (const action of waiters) action();
    }
    // In order of arrival, and all have the same time to live: the first that may stay ends it.
    for (const operation of this.#operations.members()) {
      if (operation.deadlineMs > nowMs) break;
      operation.expire();
    }
  }
}

/** The cluster's own work. */
const ours: Origin = {};

function endedBy(unit: UnitRecord, { task }: Operation): boolean {
  return task !== null && task.nexus !== null && isEnded(unit, task.nexus, task.noticeNext);
}

function outside(offsetBytes: number, lengthBytes: number, sizeBytes: number): VolumeFault | null {
  const whole = offsetBytes % sectorBytes === 0 && lengthBytes % sectorBytes === 0;
  const inside = offsetBytes >= 0 && lengthBytes >= 0 && offsetBytes + lengthBytes <= sizeBytes;
  return whole && inside ? null : { code: "out_of_range", sizeBytes };
}

/** Both ranges of a copy; one around them when they overlap. */
function locksOf(toBytes: number, fromBytes: number, lengthBytes: number): Locks {
  const apart = Math.abs(toBytes - fromBytes);
  if (apart >= lengthBytes) {
    return { offsetBytes: toBytes, lengthBytes, also: { offsetBytes: fromBytes, lengthBytes } };
  }
  return { offsetBytes: Math.min(toBytes, fromBytes), lengthBytes: lengthBytes + apart };
}

const tooLong = Promise.resolve<VolumeDone>({
  ok: false,
  fault: unavailable("longer than one command may be"),
});
