import { assert } from "../assert.ts";
import { chunkKey } from "../chunk/key.ts";
import { shardOf } from "../cluster-state.ts";
import type { MapChange } from "../map/group.ts";
import type { MapLookupReply } from "../map/map-messages.ts";
import { Roster, type Seat } from "../roster.ts";
import type { LentMemory } from "../rpc/lent-memory.ts";
import { stage } from "../stage-times.ts";
import type { BrickNumber } from "../units.ts";
import { copiesNeeded } from "./chunk-context.ts";
import type { Guarded } from "./chunk-guard.ts";
import type { StoreHandle, StoreOutcome } from "./chunk-writer.ts";
import type { Gateway } from "./gateway.ts";
import { type StorePiece, storeGroup } from "./group-store.ts";
import { Operation, type Origin, unavailable } from "./operation.ts";
import type { PieceSource } from "./piece-source.ts";
import type { HeldRange } from "./range-lock.ts";
import { Lookup, MapOperation, type MapOutcome, type ShardLink } from "./shard-link.ts";
import type { Piece } from "./split.ts";
import type { Access } from "./unit-check.ts";
import type { VolumeDone, VolumeFault, VolumeTask } from "./volume.ts";

/** A piece between its start and its end: first its chunk is stored, then the map is told. */
interface PieceUnderWay {
  readonly piece: Piece;
  storing: StoreHandle | null;
  link: ShardLink | null;
  operation: MapOperation | null;
  /** What its shard owes to another one after it is being brought there, or is there. */
  isPaid: boolean;
  ended: boolean;
  /** When its shard was told, if that is timed. */
  mapSinceMs: number;
}

/**
 * A part of a copy's source is looked up anew so often, when the chunk that it was in is nowhere to be
 * had; from then on that chunk is waited for until the command's time is over.
 */
export const renewalsMax = 8;

type GroupStored = Parameters<StorePiece>[2];

const done: VolumeDone = { ok: true };
/** What a command that changes the volume counts as. */
export type ChangeKind = "write" | "unmap" | "copy";

interface Range {
  readonly offsetBytes: number;
  readonly lengthBytes: number;
}

/** What a change locks: a range, and perhaps another one apart from it. */
export interface Locks extends Range {
  readonly also?: Range;
  /** What lands there lands as one, and must be seen so. */
  readonly whole?: boolean;
}

export interface Change {
  readonly kind: ChangeKind;
  readonly lengthBytes: number;
  readonly source: PieceSource;
  readonly access: Access;
  readonly locks: Locks;
}

interface ThinPiece {
  readonly piece: Piece;
  readonly copies: number;
}

/** A change of the volume. Its range stays locked until every piece has landed or never can. */
class WriteOperation extends Operation {
  readonly kind: ChangeKind;
  readonly lengthBytes: number;
  readonly source: PieceSource;
  readonly access: Access;
  readonly resolve: (result: VolumeDone) => void;
  readonly ranges: HeldRange[] = [];
  /** Ranges that are not ours yet. */
  waiting = 0;
  /** What the source gave last. */
  pieces: Piece[] = [];
  pieceNext = 0;
  /** The source has been asked for more. */
  taking = false;
  startedCount = 0;
  landedCount = 0;
  /** Pieces that have landed in fewer copies than the volume asks for, bricks being away. */
  thin: ThinPiece[] = [];
  readonly underWay: PieceUnderWay[] = [];
  /** What its data lie in, while only chunk stores have seen them. */
  memory: LentMemory | null;
  /** Among those that are not settled. */
  seat: Seat<WriteOperation> | null = null;
  /** Waits for its range, or for the lease. */
  started = false;
  cancelling = false;
  /** A cancel came before all pieces had begun. */
  curtailed = false;
  fault: VolumeFault | null = null;
  readonly #writes: Writes;

  constructor(
    writes: Writes,
    change: Change,
    origin: Origin,
    resolve: (result: VolumeDone) => void,
  ) {
    const nowMs = writes.gateway.nowMs();
    super(nowMs, nowMs + writes.gateway.context.options.operationDeadlineMs, origin);
    this.#writes = writes;
    this.kind = change.kind;
    this.lengthBytes = change.lengthBytes;
    this.source = change.source;
    this.access = change.access;
    this.resolve = resolve;
    this.memory = origin.task?.memory ?? null;
  }

  expire(): void {
    // The range stays locked meanwhile, so that no later command can tell when it settles.
    this.#writes.cancel(this, unavailable("the time of the operation is over"));
    this.answer(this.fault);
  }

  fail(fault: VolumeFault): void {
    this.#writes.cancel(this, fault);
  }

  answer(fault: VolumeFault | null): void {
    if (this.answered) return;
    this.answered = true;
    if (this.task !== null) this.task.onCancel = null;
    this.#writes.gateway.answered(this, this.kind, fault, this.lengthBytes);
    this.resolve(fault === null ? done : { ok: false, fault });
  }
}

/** The writing half of a gateway. */
export class Writes {
  readonly gateway: Gateway;
  readonly #unsettled = new Roster<WriteOperation>();

  constructor(gateway: Gateway) {
    this.gateway = gateway;
  }

  /** Changes of these commands may still land, whether they were answered or not. */
  unsettled(): Iterable<{ readonly task: VolumeTask | null; readonly access: Access }> {
    return this.#unsettled;
  }

  run(change: Change, origin: Origin): Promise<VolumeDone> {
    return new Promise((resolve) => {
      const { task } = origin;
      const operation = new WriteOperation(this, change, origin, resolve);
      if (!this.gateway.admit(operation)) {
        operation.answer(unavailable("too many commands are under way"));
        return;
      }
      if (task !== undefined) {
        if (task.cancelled) {
          operation.answer({ code: "cancelled" });
          return;
        }
        task.onCancel = () => this.cancel(operation, { code: "cancelled" });
      }
      this.#lock(operation, change.locks);
    });
  }

  /** Keeps what has not started from starting, and has the shards settle the rest. */
  cancel(operation: WriteOperation, fault: VolumeFault): void {
    operation.fault ??= fault;
    if (operation.cancelling) return;
    operation.cancelling = true;
    operation.curtailed = !allBegun(operation);
    operation.pieceNext = operation.pieces.length;
    operation.source.abandon();
    for (const one of [...operation.underWay]) {
      if (one.operation !== null) one.link!.cancel(one.operation);
      else this.#pieceEnded(operation, one);
    }
    this.#finishIfSettled(operation);
  }

  /**
   * Takes all ranges in one turn: as each waits only for what came before, no two commands can wait
   * for each other.
   */
  #lock(operation: WriteOperation, locks: Locks): void {
    const { ranges } = operation;
    const { also, whole } = locks;
    const both = also === undefined ? [locks] : [locks, also];
    const granted = () => {
      operation.waiting -= 1;
      if (operation.waiting > 0) return;
      this.gateway.seams.whenClear(both, () =>
        this.gateway.whenLeased(() => this.#begin(operation)),
      );
    };
    for (const { offsetBytes, lengthBytes } of both) {
      const endBytes = offsetBytes + lengthBytes;
      const range = this.gateway.ranges.write(offsetBytes, endBytes, granted, whole);
      if (range === null) {
        for (const held of ranges) this.gateway.ranges.release(held);
        ranges.length = 0;
        operation.answer(unavailable("too many commands are under way"));
        return;
      }
      ranges.push(range);
      if (range.blockers > 0) operation.waiting += 1;
    }
    operation.seat = this.#unsettled.enter(operation);
    if (operation.waiting > 0) return;
    operation.waiting = 1;
    granted();
  }

  #begin(operation: WriteOperation): void {
    if (operation.cancelling || operation.ranges.length === 0) return;
    const refusal = this.gateway.refusalNow(operation, operation.access);
    if (refusal !== null) {
      this.cancel(operation, refusal);
      return;
    }
    operation.started = true;
    const { stages } = this.gateway.context.stats;
    stages.took(stage.writeWait, stages.sample(stage.writeWait, operation.startMs));
    this.#startPieces(operation);
  }

  #startPieces(operation: WriteOperation): void {
    const { piecesUnderWayMax } = this.gateway.context.options;
    while (operation.underWay.length < piecesUnderWayMax && !operation.cancelling) {
      if (operation.pieceNext === operation.pieces.length) this.#takePieces(operation);
      if (operation.pieceNext === operation.pieces.length) break;
      operation.startedCount += 1;
      const piece = operation.pieces[operation.pieceNext]!;
      operation.pieceNext += 1;
      this.#startPiece(operation, piece);
    }
  }

  /** Asks for more pieces when those there are have begun; they may come at once, or later. */
  #takePieces(operation: WriteOperation): void {
    if (operation.taking || operation.source.exhausted) return;
    let now = true;
    operation.taking = true;
    operation.source.take(
      (pieces) => {
        operation.taking = false;
        const { cipher } = this.gateway;
        operation.pieces = cipher === null ? pieces : cipher.seal(pieces);
        operation.pieceNext = 0;
        if (now) return;
        this.#startPieces(operation);
        this.#finishIfSettled(operation);
      },
      (fault) => {
        operation.taking = false;
        this.cancel(operation, fault);
      },
    );
    now = false;
  }

  #startPiece(operation: WriteOperation, piece: Piece): void {
    const one: PieceUnderWay = {
      piece,
      storing: null,
      link: null,
      operation: null,
      isPaid: false,
      ended: false,
      mapSinceMs: 0,
    };
    operation.underWay.push(one);
    const { stats } = this.gateway.context;
    if (piece.group !== undefined) {
      stats.piecesGrouped += piece.group.length;
      this.#storeGroup(operation, one, piece.group);
      return;
    }
    if (piece.part !== undefined) {
      stats.piecesReferenced += 1;
      this.#refer(operation, one, piece.part);
      return;
    }
    if (piece.data === null) {
      stats.piecesZero += 1;
      if (piece.grainCount > 0) this.#unmapRun(operation, one);
      else this.#commit(operation, one, this.#unmapOf(operation, one));
      return;
    }
    const hashSinceMs = stats.stages.since(stage.writeHash);
    const key = chunkKey(piece.data);
    stats.stages.took(stage.writeHash, hashSinceMs);
    if (
      piece.lengthBytes < this.gateway.context.options.inlineMaxBytes &&
      this.#shardIsWide(piece)
    ) {
      stats.piecesInline += 1;
      // Its bytes go where no one tells when they are needed no more.
      operation.memory = null;
      const chunk = { key, holders: [], inline: piece.data, gcEpoch: 0 };
      this.#commit(operation, one, new MapOperation(piece, chunk, this.#settler(operation, one)));
      return;
    }
    stats.piecesStored += 1;
    this.#storePiece(operation, one, key, piece.data);
  }

  /** The chunk is there; it must stay until the record names it. */
  #refer(
    operation: WriteOperation,
    one: PieceUnderWay,
    { key, holders }: { key: Buffer; holders: readonly BrickNumber[] },
  ): void {
    const guarded = (kept: Guarded) => {
      if (one.ended) return;
      const chunk = { key, ...kept, inline: null };
      const settled = this.#settler(operation, one);
      this.#commit(operation, one, new MapOperation(one.piece, chunk, settled));
    };
    const missed = () => this.#renew(operation, one);
    one.storing = this.gateway.writer.guard(key, holders, guarded, missed);
  }

  /** What was in the chunk may be in another one by now. */
  #renew(operation: WriteOperation, one: PieceUnderWay): boolean {
    const { source } = operation;
    const { piece } = one;
    const renewals = (piece.renewals ?? 0) + 1;
    if (renewals > renewalsMax || source.renew === undefined) return false;
    const ready = (pieces: Piece[]) => {
      if (one.ended) return;
      this.#pieceEnded(operation, one);
      // All at once: there are as many at most as sectors in what they replace.
      operation.startedCount += pieces.length - 1;
      for (const next of pieces) {
        if (!operation.cancelling) this.#startPiece(operation, { ...next, renewals });
      }
      this.#finishIfSettled(operation);
    };
    return source.renew(piece, ready, (fault) => this.cancel(operation, fault));
  }

  #unmapOf(operation: WriteOperation, one: PieceUnderWay): MapOperation {
    return new MapOperation(one.piece, null, this.#settler(operation, one));
  }

  /**
   * Unmaps whole grains, but asks first: most of what a host discards (a whole new disk, to begin
   * with) was never written, and then there is nothing to log. The range is locked and ours alone,
   * so what the shard says of it stays true.
   */
  #unmapRun(operation: WriteOperation, one: PieceUnderWay): void {
    const { grain, grainCount } = one.piece;
    const answered = (reply: MapLookupReply | null): void => {
      if (one.ended) return;
      const unwritten =
        reply !== null && reply.coveredCount >= grainCount && reply.grains.size === 0;
      if (unwritten) this.#settled(operation, one, { code: "done", holders: [] });
      else this.#commit(operation, one, this.#unmapOf(operation, one));
    };
    const wanted = () => !one.ended;
    this.gateway.linkOf(grain).lookup(new Lookup(grain, grainCount, wanted, answered));
  }

  /** Whether the shard's replicas are as many as the copies that an inline chunk needs now. */
  #shardIsWide(piece: Piece): boolean {
    const state = this.gateway.state();
    const volume = this.gateway.volume();
    const view = state.shards[shardOf(state, volume.family, piece.grain)]!;
    return view.members.length + view.candidates.length >= copiesNeeded(state, volume);
  }

  #storePiece(operation: WriteOperation, one: PieceUnderWay, key: Buffer, data: Buffer[]): void {
    const { stages } = this.gateway.context.stats;
    const sinceMs = stages.since(stage.writeStore);
    one.storing = this.#store(operation, one.piece, key, data, (outcome) => {
      stages.took(stage.writeStore, sinceMs);
      if (one.ended) return;
      if (!outcome.ok) {
        one.storing = null;
        this.cancel(operation, { code: outcome.fault });
        return;
      }
      const { holders, gcEpoch } = outcome;
      const chunk = { key, holders, inline: null, gcEpoch };
      const settled = this.#settler(operation, one);
      this.#commit(operation, one, new MapOperation(one.piece, chunk, settled));
    });
    // Ended within the call: `cancel` has run before the handle was known.
    if (one.ended) one.storing.abandon();
  }

  /** A group's chunks are all stored before the shard hears of it, however small they are. */
  #storeGroup(operation: WriteOperation, one: PieceUnderWay, group: readonly Piece[]): void {
    const store = (piece: Piece, data: Buffer[], stored: GroupStored) => {
      const key = chunkKey(data);
      return this.#store(operation, piece, key, data, (outcome) => stored(key, outcome));
    };
    const handle = storeGroup(group, store, (outcome) => {
      if (one.ended) return;
      if (!outcome.ok) {
        one.storing = null;
        this.cancel(operation, { code: outcome.fault });
        return;
      }
      const { gcEpoch } = outcome;
      const parts = this.gateway.seams.marked(outcome.parts);
      const chunks = { key: null, holders: [], inline: null, gcEpoch, parts };
      const settled = this.#settler(operation, one);
      this.#commit(operation, one, new MapOperation(one.piece, chunks, settled));
    });
    if (one.ended) handle.abandon();
    else if (one.operation === null) one.storing = handle;
  }

  #store(
    { memory }: WriteOperation,
    { grain, firstSector, lengthBytes }: Piece,
    key: Buffer,
    data: Buffer[],
    done: (outcome: StoreOutcome) => void,
  ): StoreHandle {
    const { branch } = this.gateway.context;
    const origin = { branch, grain, firstSector, sequence: this.gateway.originNext() };
    const volume = () => this.gateway.volume();
    const chunk = { key, origin, data, lengthBytes, memory };
    return this.gateway.writer.store(chunk, volume, done);
  }

  #commit(operation: WriteOperation, one: PieceUnderWay, mapOperation: MapOperation): void {
    one.storing = null;
    one.link = this.gateway.linkOf(one.piece.grain);
    one.operation = mapOperation;
    one.mapSinceMs = this.gateway.context.stats.stages.since(stage.writeMap);
    assert(operation.started && operation.ranges.length > 0, "a piece outlives its command");
    one.link.submit(mapOperation);
  }

  #settler(operation: WriteOperation, one: PieceUnderWay): (outcome: MapOutcome) => void {
    return (outcome) => this.#settled(operation, one, outcome);
  }

  #settled(operation: WriteOperation, one: PieceUnderWay, outcome: MapOutcome): void {
    if (outcome.code === "stale") {
      this.#pieceEnded(operation, one);
      // Too much time has passed since its chunk was stored: from the beginning.
      if (!operation.cancelling) this.#startPiece(operation, one.piece);
      else this.#finishIfSettled(operation);
      return;
    }
    if (outcome.code === "done") {
      const owed = one.isPaid ? [] : one.operation?.parts.filter((part) => part.owed);
      if (owed !== undefined && owed.length > 0) {
        one.isPaid = true;
        this.gateway.seams.pay(one.link!, owed, (whole) =>
          this.#settled(operation, one, whole ? outcome : { code: "ended" }),
        );
        return;
      }
      this.gateway.context.stats.stages.took(stage.writeMap, one.mapSinceMs);
      operation.landedCount += 1;
      const copies = copiesOf(one, outcome.holders);
      if (copies < this.gateway.volume().copies) operation.thin.push({ piece: one.piece, copies });
      this.#cache(one, outcome.holders);
      this.#pieceEnded(operation, one);
    } else {
      this.#pieceEnded(operation, one);
      if (outcome.code === "ended") this.cancel(operation, this.gateway.endFault());
      else this.cancel(operation, { code: outcome.code });
    }
    this.#startPieces(operation);
    this.#finishIfSettled(operation);
  }

  /** The map cache learns what has landed. */
  #cache({ piece, operation }: PieceUnderWay, holders: readonly BrickNumber[]): void {
    const { map } = this.gateway;
    const { grain, grainCount, firstSector, sectorCount, part, keyDomain } = piece;
    const key = operation?.key ?? null;
    if (grainCount > 0) map.commitUnmapRun(grain, grainCount);
    else if (operation !== null && operation.parts.length > 0) {
      for (const one of operation.parts) this.#cacheOne(one);
    } else {
      const chunkSector = part?.chunkSector ?? 0;
      const chunkSectors = part?.chunkSectors ?? sectorCount;
      this.#cacheOne({
        grain,
        firstSector,
        sectorCount,
        chunkSector,
        chunkSectors,
        key,
        holders,
        keyDomain,
      });
    }
  }

  #cacheOne(change: Omit<MapChange, "grainCount">): void {
    const { map } = this.gateway;
    const { grain, firstSector, sectorCount, key } = change;
    // The change names a chunk by the same members as an extent does.
    map.commit(grain, firstSector, sectorCount, key === null ? null : { ...change, key });
  }

  #pieceEnded(operation: WriteOperation, one: PieceUnderWay): void {
    one.ended = true;
    one.storing?.abandon();
    const at = operation.underWay.indexOf(one);
    if (at >= 0) operation.underWay.splice(at, 1);
  }

  /**
   * A brick that has come back since a piece was stored counts again: what landed without it is written
   * once more before the answer, which says that there are as many copies as there can be.
   */
  #isThickened(operation: WriteOperation): boolean {
    if (operation.thin.length === 0 || operation.answered) return false;
    const needed = copiesNeeded(this.gateway.state(), this.gateway.volume());
    const due = operation.thin.filter(({ copies }) => copies < needed);
    if (due.length === 0) return false;
    operation.thin = operation.thin.filter(({ copies }) => copies >= needed);
    operation.startedCount -= due.length;
    operation.landedCount -= due.length;
    operation.pieces = due.map(({ piece }) => piece);
    operation.pieceNext = 0;
    this.#startPieces(operation);
    return true;
  }

  #finishIfSettled(operation: WriteOperation): void {
    if (operation.underWay.length > 0 || operation.ranges.length === 0) return;
    if (!operation.cancelling && !allBegun(operation)) return;
    if (!operation.started && !operation.cancelling) return;
    if (!operation.cancelling && this.#isThickened(operation)) return;
    const ranges = operation.ranges.splice(0);
    // The answer first: who waits for the range comes after it.
    const whole = operation.started && !operation.curtailed;
    const landed = whole && operation.landedCount === operation.startedCount;
    if (operation.seat !== null) this.#unsettled.leave(operation.seat);
    if (landed) this.gateway.context.stats.degradedWrites += operation.thin.length;
    operation.answer(landed ? null : operation.fault);
    for (const range of ranges) this.gateway.ranges.release(range);
    operation.memory?.release();
  }
}

/** In how many copies what a piece holds has landed; what makes no chunk has as many as one likes. */
function copiesOf({ piece, operation }: PieceUnderWay, holders: readonly BrickNumber[]): number {
  if (piece.group !== undefined) {
    const chunks = operation!.parts.filter(({ key }) => key !== null);
    return Math.min(...chunks.map((part) => part.holders.length));
  }
  return piece.data === null ? Number.POSITIVE_INFINITY : holders.length;
}

function allBegun({ pieceNext, pieces, source, taking }: WriteOperation): boolean {
  return pieceNext === pieces.length && source.exhausted && !taking;
}
