import { strict as check } from "node:assert";
import { SimWorld } from "../../tools/sim/sim-host.ts";
import { chunkKey } from "../chunk/key.ts";
import type { ClusterState, ShardRecord } from "../cluster-state.ts";
import type { Host } from "../host.ts";
import { Calls } from "../rpc/calls.ts";
import { messageType } from "../rpc/message-types.ts";
import { Store } from "../store/store.ts";
import type { BrickNumber } from "../units.ts";
import { MiB, sectorBytes } from "../units.ts";
import type { GroupPart } from "./group.ts";
import { encodeMapGroup } from "./group-messages.ts";
import {
  decodeLookupReply,
  decodeMapReply,
  encodeMapCancel,
  encodeMapFence,
  encodeMapLookup,
  encodeMapRehint,
  encodeMapWrite,
  type MapLookupReply,
  type MapReply,
} from "./map-messages.ts";
import { MapService } from "./map-service-io.ts";

export const gatewayBrick = 9;
export const branch = 1;
const clusterId = "00".repeat(16);

export interface TestNode {
  host: Host;
  calls: Calls;
  store: Store;
  map: MapService;
}

type View = Partial<ShardRecord> & { primary: BrickNumber };

/** Bricks with a store and a map service each, views by hand, and one gateway's requests. */
export class MapCluster {
  readonly world: SimWorld;
  readonly nodes = new Map<BrickNumber, TestNode>();
  readonly #boots = new Map<BrickNumber, number>();
  /** Of a machine of its own, which is no brick. */
  readonly gateway: Calls;
  shard: ShardRecord;
  epoch = 0;
  sequence = 0;

  constructor(seed: number) {
    this.world = new SimWorld(seed);
    const host = this.world.host(gatewayBrick);
    host.network.setBoot(1);
    this.gateway = new Calls(host);
    host.network.setPeers(new Map([1, 2, 3, 4].map((one) => [one, `sim:${one}`])));
    this.shard = {
      view: 0,
      primary: 0,
      primaryBoot: 0,
      members: [],
      candidates: [],
      transfer: false,
      chain: [],
      shortSinceMs: 0,
    };
  }

  async start(brick: BrickNumber, leaseMs = Number.POSITIVE_INFINITY): Promise<TestNode> {
    const host = this.world.host(brick);
    host.network.setPeers(new Map([1, 2, 3, 4, gatewayBrick].map((one) => [one, `sim:${one}`])));
    const opened = (async () => {
      const calls = new Calls(host);
      const map = new MapService(host, calls, brick);
      const identity = { clusterId, brick, uuid: String(brick).padStart(32, "0") };
      const store = await Store.open(host, {
        capacityBytes: 256 * MiB,
        segmentBytes: 4 * MiB,
        participants: [map],
        identity,
      });
      await map.attach(store);
      host.network.setBoot(store.superblock.boot);
      return { host, calls, store, map };
    })();
    const node = await this.world.complete(opened);
    this.#boots.set(brick, node.store.superblock.boot);
    this.nodes.set(brick, node);
    node.map.setLease(node.host.clock.nowMs() + leaseMs);
    if (this.shard.view > 0) node.map.onState(this.#state());
    return node;
  }

  crash(brick: BrickNumber): void {
    this.world.machine(brick).crash();
    this.nodes.delete(brick);
  }

  /** The next view; the chain as given. */
  view(view: View): void {
    this.shard = {
      ...this.shard,
      transfer: false,
      candidates: [],
      ...view,
      view: this.shard.view + 1,
      primaryBoot: this.#boots.get(view.primary) ?? 0,
    };
    this.tell();
  }

  tell(): void {
    for (const node of this.nodes.values()) node.map.onState(this.#state());
  }

  #state(): ClusterState {
    return { shards: [this.shard], bricks: {}, volumes: {} } as unknown as ClusterState;
  }

  async #ask(type: number, body: Buffer[]): Promise<Buffer | null> {
    const reply = await this.world.complete(
      new Promise<Buffer | null>((resolve) => {
        this.gateway.call(this.shard.primary, type, body, 400, (answer) =>
          resolve(answer.ok ? answer.body : null),
        );
      }),
    );
    return reply;
  }

  async #until(type: number, body: () => Buffer[], limit = 40): Promise<MapReply> {
    for (let attempt = 0; attempt < limit; attempt += 1) {
      const bytes = await this.#ask(type, body());
      const reply = bytes === null ? null : decodeMapReply(bytes);
      if (reply !== null && reply.status !== "not_now") return reply;
      await this.world.runFor(50);
    }
    throw new Error("no answer that counts");
  }

  async fence(epoch: number): Promise<MapReply> {
    this.epoch = epoch;
    this.sequence = 0;
    const { view } = this.shard;
    return this.#until(messageType.mapFence, () =>
      encodeMapFence({ shard: 0, view, branch, epoch }),
    );
  }

  /** Writes sectors of a grain inline; the bytes say which write it was. */
  async write(
    grain: number,
    firstSector: number,
    sectorCount: number,
    tag: number,
  ): Promise<MapReply> {
    const bytes = Buffer.alloc(sectorCount * sectorBytes, tag % 251);
    bytes.writeUInt32BE(tag, 0);
    this.sequence += 1;
    return this.send(this.sequence, grain, firstSector, sectorCount, bytes);
  }

  send(
    sequence: number,
    grain: number,
    firstSector: number,
    sectorCount: number,
    bytes: Buffer | null,
  ) {
    const request = {
      shard: 0,
      view: this.shard.view,
      branch,
      generation: 1,
      epoch: this.epoch,
      sequence,
      lowWater: sequence,
      grain,
      grainCount: 0,
      firstSector,
      sectorCount,
      key: bytes === null ? null : chunkKey(bytes),
      part: null,
      holders: [],
      inline: bytes === null ? null : [bytes],
      gcEpoch: 0,
    };
    return this.#until(messageType.mapWrite, () => encodeMapWrite(request));
  }

  group(parts: readonly GroupPart[]): Promise<MapReply> {
    this.sequence += 1;
    const { sequence, epoch } = this;
    const numbers = { sequence, lowWater: sequence, epoch, branch, generation: 1, gcEpoch: 0 };
    return this.#until(messageType.mapGroup, () =>
      encodeMapGroup({ shard: 0, view: this.shard.view, ...numbers, parts }),
    );
  }

  /** Asks once, or until it is taken. */
  rehint(grain: number, key: Buffer, holders: readonly BrickNumber[], limit = 40) {
    const { view } = this.shard;
    const request = { shard: 0, view, branch, generation: 1, grain, key, holders, gcEpoch: 0 };
    return this.#until(messageType.mapRehint, () => encodeMapRehint(request), limit);
  }

  cancel(sequence: number): Promise<MapReply> {
    const { view } = this.shard;
    const { epoch } = this;
    const request = { shard: 0, view, branch, epoch, sequence, lowWater: sequence };
    return this.#until(messageType.mapCancel, () => encodeMapCancel(request));
  }

  async lookup(firstGrain: number, grainCount: number, owed = false): Promise<MapLookupReply> {
    const { view } = this.shard;
    const { epoch } = this;
    const body = encodeMapLookup({
      shard: 0,
      view,
      branch,
      epoch,
      firstGrain,
      grainCount,
      owed,
    });
    for (let attempt = 0; attempt < 40; attempt += 1) {
      const bytes = await this.#ask(messageType.mapLookup, body);
      const reply = bytes === null ? null : decodeLookupReply(bytes);
      if (reply?.status === "ok") return reply;
      await this.world.runFor(50);
    }
    throw new Error("no look-up succeeded");
  }

  /** The keys of a grain's sectors, as the primary maps them now. */
  async sectors(grain: number): Promise<(string | null)[]> {
    const { grains } = await this.lookup(grain, 1);
    const keys = new Array<string | null>(128).fill(null);
    for (const extent of grains.get(grain) ?? []) {
      for (let at = 0; at < extent.sectorCount; at += 1) {
        keys[extent.firstSector + at] = extent.key.toString("hex");
      }
    }
    return keys;
  }

  async complete(brick: BrickNumber): Promise<void> {
    const { view } = this.shard;
    await this.world.runUntil(() =>
      Boolean(
        this.nodes
          .get(brick)
          ?.map.shardStatus()
          .some((status) => status.view === view && status.complete),
      ),
    );
  }

  /** Recovery as the control plane does it; returns the brick that leads then. */
  async recover(bricks: BrickNumber[], everyoneReported: boolean): Promise<BrickNumber> {
    const view = this.shard.view + 1;
    const reports = new Map<BrickNumber, Buffer>();
    for (const brick of bricks) {
      const report = await this.world.complete(this.nodes.get(brick)!.map.report(0, view));
      if (report !== null) reports.set(brick, report);
    }
    const chain = [...this.shard.chain, this.shard];
    const plan = this.nodes.get(bricks[0]!)!.map.planUnion({ chain, reports, everyoneReported });
    check.ok(plan.ok, plan.ok ? "" : plan.reason);
    const made = this.nodes.get(plan.brick)!.map.assemble(0, view, plan.plan);
    check.equal(await this.world.complete(made), true);
    const others = bricks.filter((brick) => brick !== plan.brick);
    this.view({
      primary: plan.brick,
      members: [plan.brick],
      candidates: others,
      transfer: true,
      chain,
    });
    return plan.brick;
  }
}
