import { slicesPart } from "../chunk/chunk-cache.ts";
import { sliceBytes } from "../chunk/outline.ts";
import { grainsPerShardRun } from "../cluster-state.ts";
import { neededOf, type VolumeCipher } from "../crypt/volume-cipher.ts";
import type { Extent } from "../map/grain.ts";
import type { MapLookupReply } from "../map/map-messages.ts";
import type { LentMemory } from "../rpc/lent-memory.ts";
import { stage } from "../stage-times.ts";
import { grainBytes, sectorBytes } from "../units.ts";
import { AllocationRuns } from "./allocation-runs.ts";
import type { FetchOutcome } from "./chunk-reader.ts";
import type { Gateway } from "./gateway.ts";
import type { MapFill } from "./map-cache.ts";
import { Operation, type Origin, unavailable } from "./operation.ts";
import type { HeldRange } from "./range-lock.ts";
import { ReadAhead } from "./read-ahead.ts";
import { Lookup } from "./shard-link.ts";
import { slicesFor } from "./slice-plan.ts";
import { crossesGrains } from "./split.ts";
import type { VolumeAllocation, VolumeFault, VolumeRead } from "./volume.ts";

/** How long a read waits before it looks for a chunk again that it did not find. */
const retryEveryMs = 100;
/** Ends of the last reads, by which sequential ones are recognised. */
const streamsMax = 8;
/** Grains that one question for the allocation looks at. */
const allocationGrainsMax = 64 * grainsPerShardRun;
/** Shards that are asked at a time while nothing is found. */
const allocationLookupsMax = 16;

const zeroGrain = Buffer.alloc(grainBytes);
const noExtents: readonly Extent[] = [];

/** Up to `most` pieces of the grains from `grain` on, each within one run of one shard. */
function shardRunsFrom(
  grain: number,
  endGrain: number,
  most: number,
): { grain: number; count: number }[] {
  const spans: { grain: number; count: number }[] = [];
  for (let at = grain; at < endGrain && spans.length < most; ) {
    const count = Math.min(grainsPerShardRun - (at % grainsPerShardRun), endGrain - at);
    spans.push({ grain: at, count });
    at += count;
  }
  return spans;
}

/** Bytes of a chunk, from a place in it on. */
interface ChunkBytes {
  readonly bytes: Buffer;
  readonly fromBytes: number;
}

/** What a read wants of one grain. */
interface Part {
  readonly read: Reading;
  readonly grain: number;
  readonly firstSector: number;
  readonly endSector: number;
  extents: readonly Extent[];
  /** By extent; null until it is there. */
  chunks: (ChunkBytes | null)[];
  missing: number;
  /** Counts look-ups of the map record; answers for an older round are ignored. */
  round: number;
  /** Keys that nobody had in the round before. */
  lostKeys: Set<string> | null;
}

interface Fill {
  readonly mapFill: MapFill;
  readonly parts: Part[];
  /** When the shard was asked, if that is timed. */
  readonly sinceMs: number;
}

/** Bytes on their way to whoever wants them, until they are there or `answered`. */
interface Reading {
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  readonly parts: Part[];
  /** What its bytes lie in, held until its answer is needed no more. */
  readonly memories: LentMemory[];
  missing: number;
  /** It goes on where another read ended: what follows will be wanted, too. */
  sequential: boolean;
  readonly answered: boolean;
  fail(fault: VolumeFault): void;
  answer(result: VolumeRead): void;
}

/** Something under way whose outcome may be wanted no more. */
export interface Abandonable {
  abandon(): void;
}

class ReadOperation extends Operation implements Reading {
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  readonly resolve: (result: VolumeRead) => void;
  readonly parts: Part[] = [];
  readonly memories: LentMemory[] = [];
  missing = 0;
  sequential = false;
  /** Of a read of several grains, until it is answered. */
  range: HeldRange | null = null;
  readonly #gateway: Gateway;

  constructor(
    gateway: Gateway,
    offsetBytes: number,
    lengthBytes: number,
    origin: Origin,
    resolve: (result: VolumeRead) => void,
  ) {
    const nowMs = gateway.nowMs();
    super(nowMs, nowMs + gateway.context.options.operationDeadlineMs, origin);
    this.#gateway = gateway;
    this.offsetBytes = offsetBytes;
    this.lengthBytes = lengthBytes;
    this.resolve = resolve;
  }

  expire(): void {
    this.fail(unavailable("a holder or a shard did not answer in time"));
  }

  fail(fault: VolumeFault): void {
    this.answer({ ok: false, fault });
  }

  answer(result: VolumeRead): void {
    if (this.answered) return;
    this.answered = true;
    if (this.task !== null) this.task.onCancel = null;
    this.#gateway.answered(this, "read", result.ok ? null : result.fault, this.lengthBytes);
    this.resolve(result);
    const { range } = this;
    this.range = null;
    if (range !== null) this.#gateway.ranges.release(range);
  }
}

/** A part of another command, which holds the range, and ends it when its own time is over. */
class InnerReading implements Reading, Abandonable {
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  readonly parts: Part[] = [];
  readonly memories: LentMemory[] = [];
  missing = 0;
  sequential = false;
  answered = false;
  readonly #done: (result: VolumeRead) => void;

  constructor(offsetBytes: number, lengthBytes: number, done: (result: VolumeRead) => void) {
    this.offsetBytes = offsetBytes;
    this.lengthBytes = lengthBytes;
    this.#done = done;
  }

  fail(fault: VolumeFault): void {
    this.answer({ ok: false, fault });
  }

  answer(result: VolumeRead): void {
    if (this.answered) return;
    this.answered = true;
    this.#done(result);
  }

  abandon(): void {
    this.answered = true;
  }
}

/** The reading half of a gateway. */
export class Reads {
  readonly #gateway: Gateway;
  readonly #fills: Fill[] = [];
  readonly #streamEnds: number[] = [];
  readonly #ahead: ReadAhead;

  constructor(gateway: Gateway) {
    this.#gateway = gateway;
    this.#ahead = new ReadAhead(gateway);
  }

  /** Every read has been answered. */
  end(): void {
    this.#ahead.end();
  }

  run(offsetBytes: number, lengthBytes: number, origin: Origin): Promise<VolumeRead> {
    return new Promise((resolve) => {
      const { task } = origin;
      const read = new ReadOperation(this.#gateway, offsetBytes, lengthBytes, origin, resolve);
      if (!this.#gateway.admit(read)) {
        read.fail(unavailable("too many commands are under way"));
        return;
      }
      if (task !== undefined) {
        if (task.cancelled) read.fail({ code: "cancelled" });
        else task.onCancel = () => read.fail({ code: "cancelled" });
      }
      const begin = () =>
        this.#gateway.seams.whenClear([read], () =>
          this.#gateway.whenLeased(() => this.#beginAsked(read)),
        );
      const free = this.#isFree(read, begin);
      if (free === null) read.fail(unavailable("too many commands are under way"));
      else if (free) begin();
    });
  }

  /** As RangeLock.read; a read of several grains is held until it is answered. */
  #isFree(read: ReadOperation, begin: () => void): boolean | null {
    const { offsetBytes, lengthBytes } = read;
    const { ranges } = this.#gateway;
    const endBytes = offsetBytes + lengthBytes;
    if (!crossesGrains(offsetBytes, lengthBytes)) return ranges.read(offsetBytes, endBytes, begin);
    if (read.answered) return false;
    read.range = ranges.readWhole(offsetBytes, endBytes, begin);
    return read.range === null ? null : read.range.blockers === 0;
  }

  /** What a range holds that the caller has locked: everything that was acknowledged before. */
  runLocked(
    offsetBytes: number,
    lengthBytes: number,
    done: (result: VolumeRead) => void,
  ): Abandonable {
    const reading = new InnerReading(offsetBytes, lengthBytes, done);
    this.#begin(reading);
    return reading;
  }

  /**
   * Which of the range is written, from its start: what a read would find. It may end before the range does: after
   * `runsMax` runs, or when enough grains were looked at for one answer.
   */
  async allocation(
    offsetBytes: number,
    lengthBytes: number,
    runsMax: number,
    origin: Origin,
  ): Promise<VolumeAllocation> {
    const asked = { task: origin.task ?? null, portal: origin.portal ?? null };
    const list = new AllocationRuns(offsetBytes, lengthBytes, runsMax);
    const endGrain = Math.ceil((offsetBytes + lengthBytes) / grainBytes);
    const deadlineMs = this.#gateway.nowMs() + this.#gateway.context.options.operationDeadlineMs;
    const looksAtBytes = Math.min(lengthBytes, allocationGrainsMax * grainBytes);
    if (!(await this.#whenReadable(offsetBytes, looksAtBytes, deadlineMs))) {
      return { ok: false, fault: unavailable("a write or a shard before it did not end in time") };
    }
    let looked = 0;
    let parallel = 1;
    while (!list.done && looked < allocationGrainsMax) {
      const spans = shardRunsFrom(Math.floor(list.atBytes / grainBytes), endGrain, parallel);
      const replies = await Promise.all(
        spans.map(({ grain, count }) => this.#lookup(grain, count, deadlineMs)),
      );
      const refusal = this.#gateway.refusalNow(asked, "read");
      if (refusal !== null) return { ok: false, fault: refusal };
      for (const [index, { grain, count }] of spans.entries()) {
        const reply = replies[index]!;
        if (reply === null || !this.#gateway.leaseValid()) {
          return { ok: false, fault: this.#gateway.endFault() };
        }
        looked += reply.coveredCount;
        list.take(grain, reply);
        // What was never written is long, and its runs are each another shard's.
        parallel = reply.grains.size === 0 ? allocationLookupsMax : 1;
        if (reply.coveredCount < count) break;
      }
    }
    return { ok: true, runs: list.runs };
  }

  /**
   * Waits for what a read waits for: earlier changes of the range, and what an earlier gateway owes to it.
   * False when that takes too long.
   */
  #whenReadable(offsetBytes: number, lengthBytes: number, deadlineMs: number): Promise<boolean> {
    const { ranges, seams, context } = this.#gateway;
    const { clock } = context.host;
    return new Promise((resolve) => {
      const timer = clock.after(deadlineMs - clock.nowMs(), () => resolve(false));
      const end = (readable: boolean) => {
        timer.cancel();
        resolve(readable);
      };
      const begin = () => seams.whenClear([{ offsetBytes, lengthBytes }], () => end(true));
      const free = ranges.read(offsetBytes, offsetBytes + lengthBytes, begin);
      if (free === null) end(false);
      else if (free) begin();
    });
  }

  #lookup(grain: number, count: number, deadlineMs: number): Promise<MapLookupReply | null> {
    return new Promise((resolve) => {
      const wanted = () => this.#gateway.nowMs() < deadlineMs;
      this.#gateway.linkOf(grain).lookup(new Lookup(grain, count, wanted, resolve));
    });
  }

  #beginAsked(read: ReadOperation): void {
    const refusal = this.#gateway.refusalNow(read, "read");
    const { stages } = this.#gateway.context.stats;
    stages.took(stage.readWait, stages.sample(stage.readWait, read.startMs));
    if (refusal !== null) {
      read.fail(refusal);
      return;
    }
    this.#begin(read);
    // Where several are under way, the initiator itself is ahead.
    if (!read.sequential || this.#gateway.operationCount > 1) return;
    this.#ahead.follow(read, this.#gateway.volume().sizeBytes);
    this.#gateway.flushReads();
  }

  #begin(read: Reading): void {
    if (read.answered) return;
    const { offsetBytes, lengthBytes } = read;
    read.sequential = this.#isSequential(offsetBytes, lengthBytes);
    const endBytes = offsetBytes + lengthBytes;
    for (let at = offsetBytes; at < endBytes; ) {
      const grain = Math.floor(at / grainBytes);
      const grainStart = grain * grainBytes;
      const end = Math.min(endBytes, grainStart + grainBytes);
      const firstSector = (at - grainStart) / sectorBytes;
      const endSector = (end - grainStart) / sectorBytes;
      read.parts.push(newPart(read, grain, firstSector, endSector));
      at = end;
    }
    // Parts may become ready at once; the read must not be answered before all are begun.
    read.missing = read.parts.length + 1;
    this.#resolveMap(read);
    this.#partReady(read);
    this.#gateway.flushReads();
  }

  #isSequential(offsetBytes: number, lengthBytes: number): boolean {
    const ends = this.#streamEnds;
    const stream = ends.indexOf(offsetBytes);
    if (stream >= 0) ends.splice(stream, 1);
    else if (ends.length >= streamsMax) ends.shift();
    ends.push(offsetBytes + lengthBytes);
    return stream >= 0;
  }

  // The map: extents of every part, from the cache or the shards' primaries.

  #resolveMap(read: Reading): void {
    let missing: Part[] = [];
    for (const part of read.parts) {
      const { grain, firstSector, endSector } = part;
      const extents = this.#gateway.map.lookup(grain, firstSector, endSector);
      if (extents !== undefined) {
        this.#fetchChunks(part, extents);
      } else if (!this.#join(part)) {
        const last = missing.at(-1);
        const follows =
          last !== undefined && last.grain + 1 === grain && grain % grainsPerShardRun !== 0;
        if (!follows && missing.length > 0) {
          this.#fill(missing, false);
          missing = [];
        }
        missing.push(part);
      }
    }
    if (missing.length > 0) this.#fill(missing, read.sequential);
  }

  /** Waits for a fetch under way, unless a commit has made its answer old for this grain. */
  #join(part: Part): boolean {
    for (const fill of this.#fills) {
      const { firstGrain, grainCount, voided } = fill.mapFill;
      if (part.grain < firstGrain || part.grain >= firstGrain + grainCount) continue;
      if (voided?.has(part.grain)) continue;
      fill.parts.push(part);
      return true;
    }
    return false;
  }

  /** Fetches the records of consecutive grains of one shard run. */
  #fill(parts: Part[], ahead: boolean): void {
    const first = parts[0]!.grain;
    let count = parts.at(-1)!.grain + 1 - first;
    if (ahead) {
      const toRunEnd = grainsPerShardRun - (first % grainsPerShardRun);
      const toVolumeEnd = Math.ceil(this.#gateway.volume().sizeBytes / grainBytes) - first;
      const { lookupAheadGrains } = this.#gateway.context.options;
      count = Math.max(count, Math.min(toRunEnd, toVolumeEnd, lookupAheadGrains));
    }
    const sinceMs = this.#gateway.context.stats.stages.since(stage.readMap);
    const fill: Fill = { mapFill: this.#gateway.map.beginFill(first, count), parts, sinceMs };
    this.#fills.push(fill);
    const wanted = () => fill.parts.some((part) => !part.read.answered);
    const done = (reply: MapLookupReply | null) => this.#filled(fill, reply);
    this.#gateway.linkOf(first).lookup(new Lookup(first, count, wanted, done));
  }

  #filled(fill: Fill, reply: MapLookupReply | null): void {
    this.#fills.splice(this.#fills.indexOf(fill), 1);
    this.#gateway.context.stats.stages.took(stage.readMap, fill.sinceMs);
    const extentsOf = (grain: number) => reply!.grains.get(grain) ?? noExtents;
    this.#gateway.map.endFill(
      fill.mapFill,
      reply === null ? null : extentsOf,
      reply?.coveredCount ?? 0,
    );
    const coveredEnd = fill.mapFill.firstGrain + (reply?.coveredCount ?? 0);
    const uncovered: Part[] = [];
    for (const part of fill.parts) {
      if (part.read.answered) continue;
      if (reply === null) part.read.fail(this.#gateway.endFault());
      else if (part.grain >= coveredEnd) uncovered.push(part);
      else this.#fetchChunks(part, extentsOf(part.grain));
    }
    for (const part of uncovered) if (!this.#join(part)) this.#fill([part], true);
    this.#gateway.flushReads();
  }

  // The chunks.

  #fetchChunks(part: Part, extents: readonly Extent[]): void {
    part.round += 1;
    const { round, firstSector, endSector } = part;
    part.extents = extents.filter(
      (extent) =>
        extent.firstSector < endSector && extent.firstSector + extent.sectorCount > firstSector,
    );
    part.chunks = new Array<ChunkBytes | null>(part.extents.length).fill(null);
    part.missing = part.extents.length + 1;
    for (let index = 0; index < part.extents.length; index += 1) {
      this.#fetchExtent(part, index, round);
    }
    this.#chunkReady(part);
  }

  /** What the part needs of the chunk: some slices of a large one, else the whole. */
  #fetchExtent(part: Part, index: number, round: number): void {
    const extent = part.extents[index]!;
    const { key, holders } = extent;
    const { chunks, reader, slices, cipher } = this.#gateway;
    const whole = chunks.get(key);
    if (whole !== undefined) {
      this.#have(part, index, whole, 0);
      return;
    }
    const ahead = this.#ahead.take(key);
    if (ahead !== null) {
      if (ahead.memory !== null) part.read.memories.push(ahead.memory);
      this.#have(part, index, ahead.bytes, 0);
      return;
    }
    const plan = part.read.sequential ? null : slicesOf(extent, part, cipher !== null);
    if (plan === null || reader.isSearching(key)) {
      this.#fetchWhole(part, index, round);
      return;
    }
    const fromBytes = plan.first * sliceBytes;
    const slice = slicesPart(plan.first, plan.count);
    const cached = chunks.get(key, slice);
    if (cached !== undefined) {
      this.#have(part, index, cached, fromBytes);
      return;
    }
    slices.fetch({ key, ...plan }, reader.likeliest(key, holders), (bytes) => {
      if (bytes !== null) chunks.put(key, bytes, slice);
      if (part.round !== round) return;
      if (bytes === null) {
        this.#fetchWhole(part, index, round);
        reader.flush();
      } else this.#have(part, index, bytes, fromBytes);
    });
  }

  #fetchWhole(part: Part, index: number, round: number): void {
    const { key, holders } = part.extents[index]!;
    this.#gateway.reader.fetch(key, holders, (outcome) => {
      if (part.round === round) this.#fetched(part, index, outcome);
    });
  }

  #have(part: Part, index: number, bytes: Buffer, fromBytes: number): void {
    part.chunks[index] = { bytes, fromBytes };
    this.#chunkReady(part);
  }

  #fetched(part: Part, index: number, outcome: FetchOutcome): void {
    const extent = part.extents[index]!;
    if (outcome.ok) {
      // A long read takes all of a chunk and will not come back for it soon: others keep their place.
      const all = part.endSector - part.firstSector >= extent.chunkSectors;
      const { bytes, memory } = outcome;
      const passes = part.read.sequential && all;
      const isKept = !passes && this.#gateway.chunks.put(extent.key, bytes);
      memory?.hold();
      // What the cache keeps is held for good.
      if (memory !== null && !isKept) part.read.memories.push(memory);
      this.#have(part, index, bytes, 0);
      return;
    }
    if (part.read.answered) return;
    const name = extent.key.toString("latin1");
    if (outcome.fault === "lost" && part.lostKeys?.has(name)) {
      const offsetBytes = part.grain * grainBytes + extent.firstSector * sectorBytes;
      const lostAt = Math.max(part.read.offsetBytes, offsetBytes);
      part.read.fail({ code: "lost", offsetBytes: lostAt });
      return;
    }
    // The map may name another chunk by now: only its present record decides.
    if (outcome.fault === "lost") (part.lostKeys ??= new Set()).add(name);
    part.round += 1;
    const delayMs = part.round <= 2 ? 0 : retryEveryMs;
    this.#gateway.context.host.clock.after(delayMs, () => {
      if (part.read.answered) return;
      this.#gateway.map.forget(part.grain);
      this.#fill([part], false);
    });
  }

  #chunkReady(part: Part): void {
    part.missing -= 1;
    if (part.missing === 0) this.#partReady(part.read);
  }

  #partReady(read: Reading): void {
    read.missing -= 1;
    if (read.missing > 0 || read.answered) return;
    const buffers: Buffer[] = [];
    for (const part of read.parts) {
      if (!assemble(part, this.#gateway.cipher, buffers)) {
        read.fail(unavailable(`the map record of grain ${part.grain} does not fit its chunk`));
        return;
      }
    }
    // Right before the answer: whoever took the volume over may have written since the look-ups.
    this.#gateway.whenLeased(() => read.answer({ ok: true, buffers, ...releaseOf(read) }));
  }
}

function releaseOf({ memories }: Reading): { release?: () => void } {
  if (memories.length === 0) return {};
  const release = () => {
    for (const memory of memories.splice(0)) memory.release();
  };
  return { release };
}

function newPart(read: Reading, grain: number, firstSector: number, endSector: number): Part {
  return {
    read,
    grain,
    firstSector,
    endSector,
    extents: noExtents,
    chunks: [],
    missing: 0,
    round: 0,
    lostKeys: null,
  };
}

/** What to fetch of the extent's chunk for the part; null: all of it. */
function slicesOf(extent: Extent, { firstSector, endSector }: Part, encrypted: boolean) {
  if (!encrypted) return slicesFor(extent, firstSector, endSector);
  const needed = neededOf(extent, firstSector, endSector);
  return slicesFor(needed.extent, needed.wanted.firstSector, needed.wanted.endSector);
}

/** Adds the part's bytes to `into`; false when an extent does not fit its chunk, or another's key. */
function assemble(part: Part, cipher: VolumeCipher | null, into: Buffer[]): boolean {
  let at = part.firstSector;
  for (const [index, extent] of part.extents.entries()) {
    const from = Math.max(at, extent.firstSector);
    const to = Math.min(part.endSector, extent.firstSector + extent.sectorCount);
    if (from > at) into.push(zeroGrain.subarray(0, (from - at) * sectorBytes));
    const { bytes, fromBytes } = part.chunks[index]!;
    at = to;
    if (cipher !== null) {
      const wanted = { firstSector: from, endSector: to };
      const plain = cipher.open(part.grain, extent, wanted, bytes, fromBytes);
      if (plain === null) return false;
      into.push(plain);
      continue;
    }
    if (extent.keyDomain !== undefined) return false;
    const start = (extent.chunkSector + from - extent.firstSector) * sectorBytes - fromBytes;
    const end = start + (to - from) * sectorBytes;
    if (start < 0 || end > bytes.length) return false;
    into.push(start === 0 && end === bytes.length ? bytes : bytes.subarray(start, end));
  }
  if (at < part.endSector) into.push(zeroGrain.subarray(0, (part.endSector - at) * sectorBytes));
  return true;
}
