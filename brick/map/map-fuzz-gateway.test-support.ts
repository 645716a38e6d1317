import { strict as check } from "node:assert";
import { chunkKey } from "../chunk/key.ts";
import { grainsPerShardRun } from "../cluster-state.ts";
import type { Host } from "../host.ts";
import type { Prng } from "../prng.ts";
import type { Calls } from "../rpc/calls.ts";
import { messageType } from "../rpc/message-types.ts";
import type { BrickNumber } from "../units.ts";
import { sectorBytes, sectorsPerGrain } from "../units.ts";
import type { GroupPart } from "./group.ts";
import { encodeMapGroup } from "./group-messages.ts";
import type { ShardHistory } from "./map-history.test-support.ts";
import {
  decodeLookupReply,
  decodeMapReply,
  encodeMapCancel,
  encodeMapFence,
  encodeMapLookup,
  encodeMapWrite,
  type MapReply,
} from "./map-messages.ts";

export const fuzzBranch = 1;
export const fuzzGrains = 10;
const inFlightMax = 8;

export interface FuzzWorld {
  readonly histories: readonly ShardHistory[];
  /** Where a gateway believes the primary of the shard to be. */
  primaryOf(shard: number): { brick: BrickNumber; view: number };
  readonly tag: { next: number };
}

interface Operation {
  readonly shard: number;
  readonly sequence: number;
  readonly grains: readonly number[];
  readonly type: number;
  readonly body: (view: number, lowWater: number) => Buffer[];
  cancelling: boolean;
}

/** One attachment of a gateway: requests with retries, several in flight, one per grain. */
export class FuzzGateway {
  readonly epoch: number;
  readonly counts = { landed: 0, cancelled: 0, lookups: 0 };
  issuing = true;
  /** A newer epoch has been asked for: being refused is right. */
  superseded = false;
  readonly #world: FuzzWorld;
  readonly #host: Host;
  readonly #calls: Calls;
  readonly #prng: Prng;
  readonly #fenced = new Set<number>();
  readonly #next: number[];
  readonly #running = new Map<string, Operation>();
  readonly #busy = new Set<number>();
  #stopped = false;

  constructor(world: FuzzWorld, host: Host, calls: Calls, prng: Prng, epoch: number) {
    this.#world = world;
    this.#host = host;
    this.#calls = calls;
    this.#prng = prng;
    this.epoch = epoch;
    this.#next = world.histories.map(() => 1);
    for (const shard of world.histories.keys()) this.#fence(shard);
    this.#tick();
  }

  get idle(): boolean {
    return this.#stopped || (this.#running.size === 0 && this.#fenced.size === this.#next.length);
  }

  #again(action: () => void): void {
    if (!this.#stopped) this.#host.clock.after(this.#prng.between(2, 40), action);
  }

  #ask(
    shard: number,
    type: number,
    body: (view: number) => Buffer[],
    take: (bytes: Buffer | null) => void,
  ) {
    if (this.#stopped) return;
    const { brick, view } = this.#world.primaryOf(shard);
    this.#calls.call(brick, type, body(view), this.#prng.between(60, 250), (reply) => {
      if (!this.#stopped) take(reply.ok ? reply.body : null);
    });
  }

  #fence(shard: number): void {
    const body = (view: number) =>
      encodeMapFence({ shard, view, branch: fuzzBranch, epoch: this.epoch });
    this.#ask(shard, messageType.mapFence, body, (bytes) => {
      const reply = bytes === null ? null : decodeMapReply(bytes);
      if (reply?.status === "ok") {
        this.#fenced.add(shard);
        this.#lookUp(shard);
      } else if (reply?.status === "fenced") this.#refused();
      else this.#again(() => this.#fence(shard));
    });
  }

  #refused(): void {
    check.ok(this.superseded, `epoch ${this.epoch} was fenced by nobody`);
    this.#stopped = true;
  }

  /** Written last: what a reference names. */
  #chunk: { key: Buffer; sectors: number } | null = null;

  #tick(): void {
    if (this.#stopped) return;
    this.#host.clock.after(this.#prng.between(1, 12), () => this.#tick());
    if (!this.issuing) return;
    const shard = this.#prng.between(0, this.#next.length - 1);
    if (!this.#fenced.has(shard)) return;
    if (this.#prng.chance(0.15)) this.#lookUp(shard);
    else if (this.#running.size < inFlightMax) this.#issue(shard);
    for (const operation of this.#running.values()) {
      if (!operation.cancelling && this.#prng.chance(0.004)) operation.cancelling = true;
    }
  }

  #issue(shard: number): void {
    const prng = this.#prng;
    if (prng.chance(0.3)) {
      this.#issueGroup(shard);
      return;
    }
    const base = shard * grainsPerShardRun;
    const writes = ["write", "write", "write", "write", "write"] as const;
    const kind = prng.pick([...writes, "refer", "part", "run"] as const);
    const grain = base + prng.between(0, fuzzGrains - 1);
    const runLength = Math.min(prng.between(1, 4), base + fuzzGrains - grain);
    const grains = Array.from({ length: kind === "run" ? runLength : 1 }, (_, at) => grain + at);
    if (grains.some((one) => this.#busy.has(one))) return;
    const sectorCount = prng.pick([1, 1, 2, 4, 8, 16]);
    const firstSector = prng.between(0, 12) * 4;
    const bytes = kind === "write" ? this.#bytes(sectorCount) : null;
    const refers = kind === "refer" ? this.#chunk : null;
    const key = bytes === null ? (refers?.key ?? null) : chunkKey(bytes);
    if (bytes !== null) this.#chunk = { key: key!, sectors: sectorCount };
    const length = refers === null ? sectorCount : prng.between(1, refers.sectors);
    const part =
      refers === null
        ? null
        : { chunkSector: prng.between(0, refers.sectors - length), chunkSectors: refers.sectors };
    const sequence = this.#next[shard]!;
    this.#next[shard] = sequence + 1;
    const whole = kind === "run";
    const request = {
      shard,
      branch: fuzzBranch,
      generation: 1,
      epoch: this.epoch,
      sequence,
      grain,
      grainCount: whole ? runLength : 0,
      firstSector: whole ? 0 : firstSector,
      sectorCount: whole ? 0 : Math.min(length, sectorsPerGrain - firstSector),
      key,
      part,
      holders: [],
      inline: bytes === null ? null : [bytes],
      gcEpoch: 0,
    };
    this.#begin({
      shard,
      sequence,
      grains,
      type: messageType.mapWrite,
      body: (view, lowWater) => encodeMapWrite({ ...request, view, lowWater }),
      cancelling: false,
    });
  }

  #begin(operation: Operation): void {
    for (const one of operation.grains) this.#busy.add(one);
    this.#running.set(`${operation.shard}.${operation.sequence}`, operation);
    this.#send(operation);
  }

  /** Writes and unmaps of several grains; sometimes the last ones are another shard's. */
  #issueGroup(shard: number): void {
    const prng = this.#prng;
    const grains: number[] = [];
    for (let at = 0; at < fuzzGrains; at += 1) {
      if (prng.chance(0.4)) grains.push(shard * grainsPerShardRun + at);
    }
    if (grains.length === 0 || grains.some((one) => this.#busy.has(one))) return;
    const owedFrom = prng.chance(0.2) ? prng.between(0, grains.length - 1) : grains.length;
    const parts = grains.map((grain, at) => this.#part(grain, at >= owedFrom));
    const sequence = this.#next[shard]!;
    this.#next[shard] = sequence + 1;
    const { epoch } = this;
    const numbers = { shard, branch: fuzzBranch, generation: 1, epoch, sequence, gcEpoch: 0 };
    this.#begin({
      shard,
      sequence,
      grains,
      type: messageType.mapGroup,
      body: (view, lowWater) => encodeMapGroup({ ...numbers, view, lowWater, parts }),
      cancelling: false,
    });
  }

  #part(grain: number, owed: boolean): GroupPart {
    const prng = this.#prng;
    const firstSector = prng.between(0, 12) * 4;
    const sectorCount = prng.pick([1, 4, 16, sectorsPerGrain - firstSector]);
    const chunk = { chunkSector: 0, chunkSectors: sectorCount };
    const where = { grain, grainCount: 0 as const, firstSector, sectorCount, ...chunk, owed };
    if (prng.chance(0.25)) return { ...where, key: null, holders: [] };
    return { ...where, key: chunkKey(this.#bytes(1)), holders: [1, 2] };
  }

  /** Mostly new content; sometimes what other writes have too. */
  #bytes(sectorCount: number): Buffer {
    const { tag } = this.#world;
    tag.next += 1;
    const said = this.#prng.chance(0.1) ? this.#prng.between(0, 2) : 1000 + tag.next;
    const bytes = Buffer.alloc(sectorCount * sectorBytes, said % 251);
    bytes.writeUInt32BE(said, 0);
    return bytes;
  }

  #lowWater(shard: number): number {
    let low = this.#next[shard]!;
    for (const one of this.#running.values())
      if (one.shard === shard) low = Math.min(low, one.sequence);
    return low;
  }

  #send(operation: Operation): void {
    const { shard, sequence } = operation;
    const lowWater = this.#lowWater(shard);
    const cancel = operation.cancelling;
    const type = cancel ? messageType.mapCancel : operation.type;
    const body = (view: number) =>
      cancel
        ? encodeMapCancel({
            shard,
            view,
            branch: fuzzBranch,
            epoch: this.epoch,
            sequence,
            lowWater,
          })
        : operation.body(view, lowWater);
    this.#ask(shard, type, body, (bytes) => {
      const reply = bytes === null ? null : decodeMapReply(bytes);
      if (reply === null || reply.status === "not_now") this.#again(() => this.#send(operation));
      else this.#settle(operation, reply);
    });
  }

  #settle(operation: Operation, reply: MapReply): void {
    const { shard, sequence, grains } = operation;
    const { status } = reply;
    if (status === "fenced") {
      this.#refused();
      return;
    }
    const history = this.#world.histories[shard]!;
    const name = `shard ${shard}, sequence ${this.epoch}.${sequence}`;
    const settled = history.settled(this.epoch, sequence);
    if (status === "ok") {
      check.equal(settled, "landed", `${name} was acknowledged`);
      history.acknowledge(this.epoch, sequence, grains);
      this.counts.landed += 1;
    } else {
      check.equal(status, "cancelled", `${name} was answered ${status}`);
      check.ok(operation.cancelling, `${name} was cancelled by nobody`);
      check.equal(settled, "cancelled", `${name} was said to be cancelled`);
      this.counts.cancelled += 1;
    }
    for (const grain of grains) this.#busy.delete(grain);
    this.#running.delete(`${shard}.${sequence}`);
  }

  #lookUp(shard: number): void {
    const history = this.#world.histories[shard]!;
    const firstGrain = shard * grainsPerShardRun;
    const grains = Array.from({ length: fuzzGrains }, (_, at) => firstGrain + at);
    const since = grains.map((grain) => history.shown(grain));
    const { epoch } = this;
    const body = (view: number) =>
      encodeMapLookup({
        shard,
        view,
        branch: fuzzBranch,
        epoch,
        firstGrain,
        owed: false,
        grainCount: fuzzGrains,
      });
    this.#ask(shard, messageType.mapLookup, body, (bytes) => {
      const reply = bytes === null ? null : decodeLookupReply(bytes);
      if (reply?.status !== "ok") return;
      check.equal(reply.coveredCount, fuzzGrains);
      history.seen(Math.max(...since), grains, reply.grains);
      this.counts.lookups += 1;
    });
  }
}
