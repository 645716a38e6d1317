import assert from "node:assert/strict";
import { chunkKey } from "../../../brick/chunk/key.ts";
import { branch, MapCluster, type TestNode } from "../../../brick/map/map-cluster.test-support.ts";
import {
  decodeLookupReply,
  decodeMapReply,
  encodeMapCancel,
  encodeMapFence,
  encodeMapLookup,
  encodeMapWrite,
  type MapStatus,
} from "../../../brick/map/map-messages.ts";
import type { Replica } from "../../../brick/map/replica.ts";
import { messageType } from "../../../brick/rpc/message-types.ts";
import { type BrickNumber, sectorBytes } from "../../../brick/units.ts";

const sectorCount = 8;
/** Longer than anything that is under way on a healthy network and disk. */
const soonMs = 300;
const answerMsMax = 60_000;

/** What was answered to one message, which may have been nothing yet. */
export interface Post {
  readonly statuses: MapStatus[];
  /** The bricks that the last answer says have the chunk. */
  holders: readonly BrickNumber[];
}

/** By which a gateway's request is known; what is left out is the scene's next. */
interface Numbers {
  epoch?: number;
  sequence?: number;
  lowWater?: number;
}

/**
 * One shard on bricks 1 to 3, whose views the scenario gives by hand, and a gateway whose messages
 * it sends one at a time: each leaves once, and is answered or not.
 */
export class MapScene extends MapCluster {
  readonly #texts = new Map<string, string>();

  /** A view of those members, led by the first, and a gateway that may write. */
  static async begin(
    members: readonly BrickNumber[] = [1, 2],
    leaseMs = Number.POSITIVE_INFINITY,
    seed = 1,
  ): Promise<MapScene> {
    const scene = new MapScene(seed);
    for (const brick of [1, 2, 3]) await scene.start(brick, leaseMs);
    scene.view({ primary: members[0]!, members: [...members].sort() });
    assert.equal((await scene.fence(1)).status, "ok");
    return scene;
  }

  /** Sends a write of a grain once; null unmaps what `put` writes. It is not waited for. */
  post(grain: number, text: string | null, numbers: Numbers = {}): Post {
    const bytes = text === null ? null : Buffer.alloc(sectorCount * sectorBytes, text);
    const key = bytes === null ? null : chunkKey(bytes);
    if (key !== null) this.#texts.set(key.toString("hex"), text!);
    const request = {
      ...this.#named(numbers),
      generation: 1,
      grain,
      grainCount: 0,
      firstSector: 0,
      sectorCount,
      key,
      part: null,
      holders: [],
      inline: bytes === null ? null : [bytes],
      gcEpoch: 0,
    };
    return this.#post(messageType.mapWrite, encodeMapWrite(request));
  }

  postCancel(sequence: number): Post {
    return this.#post(messageType.mapCancel, encodeMapCancel(this.#named({ sequence })));
  }

  postFence(epoch: number): Post {
    const { view } = this.shard;
    const body = encodeMapFence({ shard: 0, view, branch, epoch });
    return this.#post(messageType.mapFence, body);
  }

  /** Sends a write until it has landed. */
  async put(grain: number, text: string | null, numbers: Numbers = {}): Promise<void> {
    const { sequence } = this.#named(numbers);
    for (let attempt = 0; attempt < 20; attempt += 1) {
      const post = this.post(grain, text, { ...numbers, sequence });
      await this.run();
      if (post.statuses.includes("ok")) return;
    }
    throw new Error(`a write of grain ${grain} never lands`);
  }

  /** What the primary says that the grain holds. */
  async at(grain: number): Promise<string | null> {
    const { grains } = await this.lookup(grain, 1);
    const [extent] = grains.get(grain) ?? [];
    return extent === undefined ? null : (this.#texts.get(extent.key.toString("hex")) ?? "?");
  }

  /** What one look-up is answered, if that is no extents. */
  async peek(grain: number): Promise<MapStatus | null> {
    const { view } = this.shard;
    const place = { firstGrain: grain, grainCount: 1, owed: false };
    const body = encodeMapLookup({ shard: 0, view, branch, epoch: this.epoch, ...place });
    let status: MapStatus | null = null;
    this.gateway.call(this.shard.primary, messageType.mapLookup, body, answerMsMax, (answer) => {
      status = answer.ok ? (decodeLookupReply(answer.body)?.status ?? null) : null;
    });
    await this.run();
    return status;
  }

  /** Whatever is under way and can come to its end does. */
  run(ms = soonMs): Promise<void> {
    return this.world.runFor(ms);
  }

  cut(a: BrickNumber, b: BrickNumber): void {
    this.world.network.partition([a], [b]);
  }

  /** What brick `from` sends to brick `to` waits, or arrives after all. */
  hold(from: BrickNumber, to: BrickNumber, clogged = true): void {
    this.world.network.set(from, to, { clogged });
  }

  heal(): void {
    this.world.network.heal();
  }

  slowDisk(brick: BrickNumber, slowness: number): void {
    this.world.machine(brick).disk.dials.slowness = slowness;
  }

  /** A power cut, and the next start. */
  async restart(...bricks: BrickNumber[]): Promise<void> {
    for (const brick of bricks) this.crash(brick);
    for (const brick of bricks) await this.start(brick);
  }

  /** The present view and all before it, as the cluster state remembers them. */
  get chain() {
    return [...this.shard.chain, this.shard];
  }

  node(brick: BrickNumber): TestNode {
    return this.nodes.get(brick)!;
  }

  replica(brick: BrickNumber): Replica {
    const [replica] = this.node(brick).map.replicas();
    return replica!;
  }

  /** Whether a recovery from what these bricks report may go on. */
  async mayRecover(
    bricks: readonly BrickNumber[],
    everyoneReported = false,
    damaged: readonly BrickNumber[] = [],
  ): Promise<boolean> {
    const reports = new Map<BrickNumber, Buffer>();
    for (const brick of bricks) {
      const { map } = this.node(brick);
      const report = await this.world.complete(map.report(0, this.shard.view + 1), answerMsMax);
      if (report !== null) reports.set(brick, report);
    }
    const { map } = this.node(bricks[0]!);
    return map.planUnion({ chain: this.chain, reports, everyoneReported, damaged }).ok;
  }

  #named({ epoch = this.epoch, sequence, lowWater = 1 }: Numbers) {
    const { view } = this.shard;
    if (sequence === undefined) this.sequence += 1;
    return { shard: 0, view, branch, epoch, sequence: sequence ?? this.sequence, lowWater };
  }

  #post(type: number, body: Buffer[]): Post {
    const post: Post = { statuses: [], holders: [] };
    this.gateway.call(this.shard.primary, type, body, answerMsMax, (answer) => {
      const reply = answer.ok ? decodeMapReply(answer.body) : null;
      if (reply === null) return;
      post.statuses.push(reply.status);
      post.holders = reply.holders;
    });
    return post;
  }
}
