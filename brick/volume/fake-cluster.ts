import { assert } from "../assert.ts";
import { chunkKey } from "../chunk/key.ts";
import type { BrickStatus, ClusterState, ShardRecord, VolumeRecord } from "../cluster-state.ts";
import { shardOf } from "../cluster-state.ts";
import { isTooOld } from "../gc/epochs.ts";
import type { Host, Message } from "../host.ts";
import { type Extent, withKeyDomain } from "../map/grain.ts";
import type { MapChange } from "../map/group.ts";
import { decodeMapGroup, type MapGroupRequest } from "../map/group-messages.ts";
import {
  decodeMapCancel,
  decodeMapFence,
  decodeMapLookup,
  decodeMapWrite,
  encodeLookupReply,
  encodeMapReply,
  type MapReply,
  type MapStatus,
} from "../map/map-messages.ts";
import { owedBranch } from "../map/owed.ts";
import { Prng } from "../prng.ts";
import { messageType } from "../rpc/message-types.ts";
import { type BrickNumber, GiB, grainBytes, sectorsPerGrain } from "../units.ts";
import { FakeBrick } from "./fake-brick.ts";
import { FakeTime } from "./fake-time.ts";

/**
 * For the tests of this folder: bricks that keep chunks, and shards that keep the map, on a
 * network that loses, doubles, delays and reorders by a seed, in simulated time.
 */

export interface FakeFaults {
  lossShare: number;
  doubleShare: number;
  delayMsMax: number;
}

/** One shard: a single truth, which only its present primary may touch. */
class FakeShard {
  fenceEpoch = 0;
  lowWater = 1;
  readonly executed = new Map<number, readonly BrickNumber[]>();
  readonly cancelled = new Set<number>();
  readonly grains = new Map<string, (Sector | undefined)[]>();
}

interface Sector {
  key: Buffer;
  chunkSector: number;
  chunkSectors: number;
  keyDomain: number | undefined;
  holders: readonly BrickNumber[];
}

export class FakeCluster {
  readonly time = new FakeTime();
  readonly prng: Prng;
  readonly bricks = new Map<BrickNumber, FakeBrick>();
  readonly shards: FakeShard[];
  faults: FakeFaults = { lossShare: 0, doubleShare: 0, delayMsMax: 1 };
  state: ClusterState;
  readonly violations: string[] = [];
  readonly onState = new Set<(state: ClusterState) => void>();
  mapWrites = 0;
  mapLookups = 0;
  noSpaceOnWrite = false;
  /** Map writes refused because their chunk was stored too long ago. */
  staleWrites = 0;
  /** When set, what arrives is what this makes of it. */
  onTheWay: ((to: BrickNumber, body: Buffer) => Buffer) | null = null;
  /** When set, answers to look-ups are made but wait here. */
  heldLookups: (() => void)[] | null = null;
  /** When set, look-ups that arrive wait here before they are looked at. */
  lateLookups: (() => void)[] | null = null;

  constructor(options: {
    seed: number;
    bricks: number;
    shards: number;
    volume: Partial<VolumeRecord>;
  }) {
    this.prng = new Prng(options.seed);
    this.state = makeState(options.bricks, options.shards, options.volume);
    this.shards = this.state.shards.map(() => new FakeShard());
    for (let number = 1; number <= options.bricks; number += 1) {
      const brick = new FakeBrick(number, (one) => this.hostOf(one));
      this.bricks.set(number, brick);
      this.#serve(brick);
    }
  }

  brick(number: BrickNumber): FakeBrick {
    return this.bricks.get(number)!;
  }

  get volume(): VolumeRecord {
    return this.state.volumes.disk!;
  }

  shardRecordOf(offsetBytes: number): ShardRecord {
    const grain = Math.floor(offsetBytes / grainBytes);
    return this.state.shards[shardOf(this.state, this.volume.family, grain)]!;
  }

  setState(change: Partial<ClusterState>): void {
    this.state = { ...this.state, ...change, version: this.state.version + 1 };
    for (const listener of this.onState) listener(this.state);
  }

  setBrick(number: BrickNumber, change: object): void {
    const brick = { ...this.state.bricks[String(number)]!, ...change };
    this.setState({ bricks: { ...this.state.bricks, [String(number)]: brick } });
  }

  setShard(shard: number, change: Partial<ShardRecord>): void {
    const shards = [...this.state.shards];
    shards[shard] = { ...shards[shard]!, ...change, view: shards[shard]!.view + 1 };
    this.setState({ shards });
  }

  /** The brick's silence is noticed a while after; its shards get other primaries then. */
  kill(number: BrickNumber): void {
    this.brick(number).alive = false;
    this.time.after(this.prng.between(50, 400), () => this.#setStatus(number, "down"));
  }

  revive(number: BrickNumber): void {
    this.brick(number).alive = true;
    this.#setStatus(number, "up");
  }

  movePrimary(shard: number): void {
    const up = this.#upBricks();
    const primary = this.prng.pick(up);
    const members = up.slice(0, 3);
    if (!members.includes(primary)) members[0] = primary;
    this.setShard(shard, { primary, members });
  }

  #setStatus(number: BrickNumber, status: BrickStatus): void {
    if (this.brick(number).alive !== (status === "up")) return;
    this.setBrick(number, { status, reachable: status === "up" });
    for (const [shard, record] of this.state.shards.entries()) {
      if (status === "up" || record.members.includes(number)) this.movePrimary(shard);
    }
  }

  #upBricks(): BrickNumber[] {
    return Object.values(this.state.bricks)
      .filter((brick) => brick.status === "up")
      .map((brick) => brick.number);
  }

  hostOf(brick: { number: BrickNumber; alive: boolean }): Host {
    const { time } = this;
    const timer = (delayMs: number, action: () => void) => {
      const event = time.after(delayMs, action);
      return {
        cancel: () => {
          event.run = null;
        },
      };
    };
    return {
      clock: {
        nowMs: () => time.nowMs,
        wallMs: () => time.nowMs,
        after: timer,
        soon: (action) => void timer(0, action),
      },
      network: {
        send: (to, message) => this.#send(brick as FakeBrick, to, message),
        onMessage: (receiver) => {
          (brick as FakeBrick).receive = receiver;
        },
        setPeers: () => {},
      },
      disk: undefined as never,
      prng: this.prng.fork(),
      log: () => {},
      crash: (reason): never => {
        throw reason;
      },
    };
  }

  #send(from: FakeBrick, to: BrickNumber, message: Message): void {
    const target = this.bricks.get(to);
    if (target === undefined) return;
    const { lossShare, doubleShare, delayMsMax } = this.faults;
    const local = from === target;
    if (!local && this.prng.chance(lossShare)) return;
    const times = !local && this.prng.chance(doubleShare) ? 2 : 1;
    const sent = Buffer.concat(message.body);
    // As a socket that is slow to take it: the buffers are needed until then.
    this.time.after(delayMsMax, () => {
      const same = Buffer.concat(message.body).equals(sent);
      assert(same, `brick ${from.number} changed buffers that it had sent`);
      message.release?.();
    });
    const body = [this.onTheWay?.(to, sent) ?? sent];
    for (let index = 0; index < times; index += 1) {
      this.time.after(this.prng.unit() * delayMsMax, () => {
        if (!from.alive || !target.alive || target.frozen) return;
        const { release: _, ...received } = message;
        target.receive(from.number, { ...received, boot: 1, body });
      });
    }
  }

  // The services of a brick.

  #serve(brick: FakeBrick): void {
    const { calls } = brick;
    calls.serve(messageType.mapFence, (_from, body, reply) => {
      const request = decodeMapFence(body)!;
      this.#asPrimary(brick, { ...request, sequence: 0 }, reply, (shard) => {
        if (request.epoch < shard.fenceEpoch) return "fenced";
        if (request.epoch > shard.fenceEpoch) {
          shard.fenceEpoch = request.epoch;
          shard.lowWater = 1;
          shard.executed.clear();
          shard.cancelled.clear();
        }
        return "ok";
      });
    });
    calls.serve(messageType.mapCancel, (_from, body, reply) => {
      const request = decodeMapCancel(body)!;
      this.#asPrimary(brick, request, reply, (shard) => {
        if (request.epoch !== shard.fenceEpoch) return "fenced";
        if (shard.executed.has(request.sequence)) return "ok";
        shard.cancelled.add(request.sequence);
        return "cancelled";
      });
    });
    calls.serve(messageType.mapWrite, (_from, body, reply) => this.#mapWrite(brick, body, reply));
    calls.serve(messageType.mapGroup, (_from, body, reply) => this.#mapGroup(brick, body, reply));
    calls.serve(messageType.mapLookup, (_from, body, reply) => this.#lookup(brick, body, reply));
  }

  #asPrimary(
    brick: FakeBrick,
    request: { shard: number; sequence: number },
    reply: (parts: readonly Buffer[]) => void,
    act: (shard: FakeShard) => MapStatus,
  ): void {
    const { view, primary } = this.state.shards[request.shard]!;
    if (primary !== brick.number) {
      reply(encodeReply("not_now", view));
      return;
    }
    const shard = this.shards[request.shard]!;
    const status = act(shard);
    const holders = shard.executed.get(request.sequence) ?? [];
    reply(encodeMapReply({ status, view, holders }));
  }

  #mapWrite(brick: FakeBrick, body: Buffer, reply: (parts: readonly Buffer[]) => void): void {
    const request = decodeMapWrite(body)!;
    const { inline, key } = request;
    const record = this.state.shards[request.shard]!;
    const changes = (): MapChange[] => {
      if (inline !== null) this.#keepInline(record.members, Buffer.concat(inline));
      const holders = inline === null ? request.holders : record.members;
      const { sectorCount, part } = request;
      const { chunkSector, chunkSectors } = part ?? { chunkSector: 0, chunkSectors: sectorCount };
      return [{ ...request, chunkSector, chunkSectors, holders }];
    };
    this.#change(brick, request, key !== null && inline === null, changes, reply);
  }

  #mapGroup(brick: FakeBrick, body: Buffer, reply: (parts: readonly Buffer[]) => void): void {
    const request = decodeMapGroup(body)!;
    const stored = request.parts.some((part) => part.key !== null);
    this.#change(brick, request, stored, () => request.parts, reply);
  }

  /** `stored`: it names chunks that were stored before it. */
  #change(
    brick: FakeBrick,
    request: Omit<MapGroupRequest, "parts">,
    stored: boolean,
    changes: () => readonly MapChange[],
    reply: (parts: readonly Buffer[]) => void,
  ): void {
    const record = this.state.shards[request.shard]!;
    const { view, primary } = record;
    if (primary !== brick.number) {
      reply(encodeReply("not_now", view));
      return;
    }
    // Accepted now, committed a little later, unless the view has changed by then.
    this.time.after(this.prng.unit() * 2 * this.faults.delayMsMax, () => {
      const now = this.state.shards[request.shard]!;
      if (now.view !== view || !brick.alive) return;
      const shard = this.shards[request.shard]!;
      if (request.epoch !== shard.fenceEpoch) {
        reply(encodeReply("fenced", view));
        return;
      }
      const { sequence } = request;
      shard.lowWater = Math.max(shard.lowWater, request.lowWater);
      if (sequence < shard.lowWater) return;
      if (shard.cancelled.has(sequence)) {
        reply(encodeReply("cancelled", view));
        return;
      }
      if (this.noSpaceOnWrite) {
        reply(encodeReply("no_space", view));
        return;
      }
      let holders = shard.executed.get(sequence);
      const isNew = holders === undefined;
      if (stored && isNew && isTooOld(request.gcEpoch, this.state.gcEpoch)) {
        this.staleWrites += 1;
        reply(encodeReply("stale", view));
        return;
      }
      if (holders === undefined) {
        const all = changes();
        this.mapWrites += 1;
        for (const one of all) this.#execute(shard, request, one);
        holders = all.length === 1 ? all[0]!.holders : [];
        shard.executed.set(sequence, holders);
      }
      reply(encodeMapReply({ status: "ok", view, holders }));
    });
  }

  #keepInline(holders: readonly BrickNumber[], bytes: Buffer): void {
    const name = chunkKey(bytes).toString("hex");
    for (const holder of holders) this.brick(holder).chunks.set(name, Buffer.from(bytes));
  }

  #execute(
    shard: FakeShard,
    request: { branch: number; shard: number },
    { grain, grainCount, firstSector, sectorCount, key, holders, owed, ...part }: MapChange,
  ): void {
    const branch = owed ? owedBranch(request.branch) : request.branch;
    const { volumes } = this.state;
    const { family } = Object.values(volumes).find((one) => one.branch === request.branch)!;
    const isForeign = shardOf(this.state, family, grain) !== request.shard;
    if (isForeign !== (owed ?? false)) {
      this.violations.push("a change of a grain of another shard");
    }
    if (grainCount > 0) {
      for (let index = 0; index < grainCount; index += 1) {
        // Most shards are empty when a whole volume is unmapped: no need of a million names.
        if (shard.grains.size > 0) shard.grains.delete(`${branch}/${grain + index}`);
        const at = shardOf(this.state, family, grain + index);
        if (at !== request.shard) this.violations.push("a run of grains leaves its shard");
      }
      return;
    }
    if (key !== null) {
      for (const holder of holders) {
        if (!this.brick(holder).chunks.has(key.toString("hex"))) {
          this.violations.push(`a record names brick ${holder}, which lacks the chunk`);
        }
      }
      if (holders.length === 0) this.violations.push("a record without holders");
    }
    const name = `${branch}/${grain}`;
    const sectors = shard.grains.get(name) ?? [];
    shard.grains.set(name, sectors);
    for (let index = 0; index < sectorCount; index += 1) {
      const at = firstSector + index;
      const chunkSector = part.chunkSector + index;
      const { chunkSectors, keyDomain } = part;
      const chunk = { chunkSector, chunkSectors, keyDomain, holders };
      sectors[at] = key === null ? undefined : { key, ...chunk };
    }
  }

  #lookup(brick: FakeBrick, body: Buffer, reply: (parts: readonly Buffer[]) => void): void {
    const request = decodeMapLookup(body)!;
    if (this.lateLookups !== null) {
      this.lateLookups.push(() => this.#lookup(brick, body, reply));
      return;
    }
    const { view, primary } = this.state.shards[request.shard]!;
    const shard = this.shards[request.shard]!;
    const empty = { view, coveredCount: 0, grains: new Map() };
    if (primary !== brick.number) {
      reply(encodeLookupReply({ status: "not_now", ...empty }));
      return;
    }
    if (request.epoch !== shard.fenceEpoch) {
      reply(encodeLookupReply({ status: "fenced", ...empty }));
      return;
    }
    if (request.owed) {
      const grains = this.#owed(shard, owedBranch(request.branch));
      const coveredCount = request.grainCount;
      reply(encodeLookupReply({ status: "ok", view, coveredCount, grains }));
      return;
    }
    this.mapLookups += 1;
    const coveredCount = Math.min(request.grainCount, this.prng.between(1, 80));
    const grains = new Map<number, Extent[]>();
    for (let index = 0; index < coveredCount; index += 1) {
      const grain = request.firstGrain + index;
      const extents = extentsOf(shard.grains.get(`${request.branch}/${grain}`) ?? []);
      if (extents.length > 0) grains.set(grain, extents);
    }
    const answer = encodeLookupReply({ status: "ok", view, coveredCount, grains });
    if (this.heldLookups === null) reply(answer);
    else this.heldLookups.push(() => reply(answer));
  }

  /** What a shard holds for others. */
  #owed(shard: FakeShard, branch: number): Map<number, Extent[]> {
    const grains = new Map<number, Extent[]>();
    for (const [name, sectors] of shard.grains) {
      const [of, grain] = name.split("/").map(Number);
      const extents = extentsOf(sectors);
      if (of === branch && extents.length > 0) grains.set(grain!, extents);
    }
    return new Map([...grains].sort(([a], [b]) => a - b));
  }
}

function encodeReply(status: MapStatus, view: number): Buffer[] {
  const reply: MapReply = { status, view, holders: [] };
  return encodeMapReply(reply);
}

function extentsOf(sectors: (Sector | undefined)[]): Extent[] {
  const extents: Extent[] = [];
  for (let at = 0; at < sectorsPerGrain; at += 1) {
    const here = sectors[at];
    if (here === undefined) continue;
    const last = extents.at(-1);
    const continues =
      last !== undefined &&
      last.firstSector + last.sectorCount === at &&
      last.key.equals(here.key) &&
      last.chunkSector + last.sectorCount === here.chunkSector;
    if (continues) {
      extents[extents.length - 1] = { ...last, sectorCount: last.sectorCount + 1 };
    } else {
      const { keyDomain, ...chunk } = here;
      extents.push(withKeyDomain({ firstSector: at, sectorCount: 1, ...chunk }, keyDomain));
    }
  }
  return extents;
}

function makeState(
  brickCount: number,
  shardCount: number,
  volume: Partial<VolumeRecord>,
): ClusterState {
  const numbers = Array.from({ length: brickCount }, (_, index) => index + 1);
  const bricks = Object.fromEntries(
    numbers.map((number) => [
      String(number),
      {
        number,
        uuid: String(number).padStart(32, "0"),
        status: "up" as const,
        reachable: true,
        boot: 1,
        peerAddress: `peer${number}:1`,
        portalAddress: `portal${number}:3260`,
        apiAddress: `api${number}:1`,
        domain: "",
        capacityBytes: 100 * GiB,
        usedBytes: 0,
        full: false,
        voter: true,
        downSinceMs: 0,
      },
    ]),
  );
  const shards = Array.from({ length: shardCount }, (_, shard) => {
    const members = numbers.slice(0, 3);
    return {
      view: 1,
      primary: members[shard % members.length]!,
      primaryBoot: 1,
      members,
      candidates: [],
      transfer: false,
      chain: [],
      shortSinceMs: 0,
    };
  });
  const record: VolumeRecord = {
    name: "disk",
    uuid: "d".repeat(32),
    sizeBytes: GiB,
    copies: 2,
    degradedWrites: true,
    branch: 7,
    family: 7,
    generation: 1,
    status: "ready",
    ...volume,
  };
  return {
    clusterId: "c".repeat(32),
    version: 1,
    clusterTimeMs: 0,
    bricks,
    brickNumberNext: brickCount + 1,
    shards,
    volumes: { disk: record },
    branchNext: 8,
    attachments: {},
    attachmentEpochNext: 1,
    gcEpoch: 1,
    joinTokens: {},
  };
}
