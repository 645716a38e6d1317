import assert from "node:assert/strict";
import { chunkKey } from "../../../brick/chunk/key.ts";
import type { ClusterState, ShardRecord } from "../../../brick/cluster-state.ts";
import { isReachable } from "../../../brick/cluster-state.ts";
import { messageType } from "../../../brick/rpc/message-types.ts";
import { type BrickNumber, grainBytes, KiB, MiB } from "../../../brick/units.ts";
import { writePlacement } from "../../../brick/volume/placement.ts";
import type { VolumeDone } from "../../../brick/volume/volume.ts";
import { decodeRaftMessage, encodeRaftMessage } from "../../../control/raft/raft-messages.ts";
import type { BrickNode } from "../../brick-node.ts";
import { SimCluster, type SimClusterOptions, volumeName } from "../sim-cluster.ts";

const smallBytes = 4 * KiB;
const tryAgainMs = 100;
const answerMsMax = 3_000;
const lookEveryMs = 5;
/** Within this the next change of a view follows, if there is one. */
const calmMs = 1_000;

/** What came of a command; null while it is under way, or when its brick has gone. */
export interface Asked {
  outcome: string | null;
}

/**
 * A whole cluster in which the scenario itself is the fault: what a grain holds is a text, and each
 * step runs the simulated time that it needs.
 */
export class ClusterScene {
  readonly cluster: SimCluster;
  /** Moments at which a brick held a lease that the cluster reckoned to have ended. */
  readonly staleLeases: string[] = [];
  #watching = false;
  /** Of boots that have ended. */
  #transferredBefore = 0;

  private constructor(options: SimClusterOptions) {
    this.cluster = new SimCluster(options);
  }

  static async begin(options: Partial<SimClusterOptions> = {}): Promise<ClusterScene> {
    const volumeBytes = 256 * MiB;
    const sizes = { seed: 1, bricks: 3, shardCount: 1, volumeBytes, copies: 2, ...options };
    const scene = new ClusterScene(sizes);
    await scene.cluster.create();
    const voters = sizes.bricks < 3 ? 1 : sizes.bricks < 5 ? 3 : 5;
    const isVoter = ({ voter }: { voter: boolean }) => voter;
    await scene.until(() => Object.values(scene.state.bricks).filter(isVoter).length === voters);
    await scene.#calm();
    return scene;
  }

  /** Writes what a grain holds from its beginning on: 4 KiB unless it is said otherwise. */
  ask(through: BrickNumber, grain: number, text: string, lengthBytes = smallBytes): Asked {
    const bytes = bytesOf(text, lengthBytes);
    return this.#asked(this.#volume(through).write(grain * grainBytes, [bytes]));
  }

  askUnmap(through: BrickNumber, grain: number): Asked {
    return this.#asked(this.#volume(through).unmap(grain * grainBytes, grainBytes));
  }

  /** The text that a read finds; "" for zeros. */
  askRead(through: BrickNumber, grain: number): Asked {
    const asked: Asked = { outcome: null };
    this.#volume(through)
      .read(grain * grainBytes, smallBytes)
      .then((result) => {
        if (!result.ok) asked.outcome = `fault: ${result.fault.code}`;
        else {
          const bytes = Buffer.concat(result.buffers);
          asked.outcome = bytes.toString("utf8", 1, 1 + bytes.readUInt8(0));
        }
      });
    return asked;
  }

  /** Until it is GOOD. */
  async write(through: BrickNumber, grain: number, text: string, lengthBytes = smallBytes) {
    await this.#good(through, () => this.ask(through, grain, text, lengthBytes));
  }

  async unmap(through: BrickNumber, grain: number): Promise<void> {
    await this.#good(through, () => this.askUnmap(through, grain));
  }

  /** Until it is answered well; a fault that may pass is asked again. */
  async read(through: BrickNumber, grain: number): Promise<string> {
    for (let attempt = 0; attempt < 100; attempt += 1) {
      await this.until(() => this.cluster.volumeAt(through) !== undefined);
      const outcome = await this.answerTo(this.askRead(through, grain));
      if (outcome !== null && outcome !== "fault: unavailable") return outcome;
      await this.run(tryAgainMs);
    }
    throw new Error(`brick ${through} never reads grain ${grain}`);
  }

  async readEverywhere(grain: number): Promise<Set<string>> {
    const found = new Set<string>();
    for (const brick of this.cluster.nodes.keys()) found.add(await this.read(brick, grain));
    return found;
  }

  /** What comes of it in reasonable time; null: nothing. */
  async answerTo(asked: Asked, withinMs = answerMsMax): Promise<string | null> {
    const { clock } = this.cluster.world;
    await clock.run({ until: () => asked.outcome !== null, untilMs: clock.nowMs + withinMs });
    return asked.outcome;
  }

  run(ms: number): Promise<void> {
    return this.cluster.world.runFor(ms);
  }

  until(holds: () => boolean, limitMs = 60_000): Promise<void> {
    return this.cluster.world.runUntil(holds, limitMs);
  }

  get state(): ClusterState {
    return this.cluster.anyNode()!.control.state();
  }

  shard(number = 0): ShardRecord {
    return this.state.shards[number]!;
  }

  node(brick: BrickNumber): BrickNode {
    return this.cluster.nodes.get(brick)!;
  }

  /** Who leads Raft, as the brick that leads says itself. */
  get raftLeader(): BrickNumber {
    for (const [brick, { control }] of this.cluster.nodes) {
      if (control.leader() === brick) return brick;
    }
    throw new Error("nobody leads");
  }

  /** Leadership is handed over: the brick stands for election at once, as the leader asks it to. */
  async handOver(to: BrickNumber): Promise<void> {
    const { network } = this.cluster.world;
    const from = this.raftLeader;
    let term = 0;
    network.filter = (sender, _to, { type, body }) => {
      if (sender !== from || type !== messageType.raft) return true;
      const decoded = decodeRaftMessage(Buffer.concat(body as Buffer[]));
      if (decoded.ok && "term" in decoded.message) term = decoded.message.term;
      return true;
    };
    await this.until(() => term > 0);
    network.filter = null;
    const body = encodeRaftMessage({ type: "timeoutNow", term });
    this.node(from).calls.tell(to, messageType.raft, body);
    await this.until(() => this.node(to).control.leader() === to);
  }

  /** Whether the brick may act for that long yet. */
  isLeased(brick: BrickNumber, forMs = 0): boolean {
    const { control, host } = this.node(brick);
    return control.leaseValid(host.clock.nowMs() + forMs);
  }

  /** The first of the bricks that is none of those. */
  otherThan(...bricks: readonly BrickNumber[]): BrickNumber {
    return this.cluster.bricks.find((brick) => !bricks.includes(brick))!;
  }

  isDown(brick: BrickNumber): boolean {
    return !isReachable(this.state.bricks[brick]);
  }

  crash(...bricks: readonly BrickNumber[]): void {
    for (const brick of bricks) {
      this.#transferredBefore += this.node(brick).map.counters.transferBytes;
      this.cluster.crash(brick);
    }
  }

  /** The process dies, the machine does not; it may be started at once. */
  kill(brick: BrickNumber): void {
    this.#transferredBefore += this.node(brick).map.counters.transferBytes;
    this.cluster.world.machine(brick).kill();
  }

  async start(...bricks: readonly BrickNumber[]): Promise<void> {
    for (const brick of bricks) this.cluster.start(brick);
    await this.until(() => bricks.every((brick) => this.cluster.nodes.has(brick)));
  }

  /** Until the cluster knows of the brick's present boot, and every shard is whole. */
  async back(brick: BrickNumber): Promise<void> {
    const { boot } = this.node(brick).store.superblock;
    await this.until(() => this.state.bricks[brick]!.boot === boot && !this.isDown(brick));
    await this.cluster.settled();
  }

  /** Nobody but those hears these any more. */
  isolate(...some: readonly BrickNumber[]): void {
    const others = this.cluster.bricks.filter((brick) => !some.includes(brick));
    this.cluster.world.network.partition(some, others);
  }

  hold(from: BrickNumber, to: BrickNumber, clogged = true): void {
    this.cluster.world.network.set(from, to, { clogged });
  }

  heal(): void {
    this.cluster.world.network.heal();
  }

  /** What one brick sends of this type is lost until it is called again with null. */
  lose(from: BrickNumber | null, type = 0): void {
    this.cluster.world.network.filter =
      from === null ? null : (sender, _to, message) => sender !== from || message.type !== type;
  }

  /** Bricks that have what a grain holds, by the chunks that its shard's primary names. */
  copiesOf(grain: number): BrickNumber[] {
    const { nodes } = this.cluster;
    for (const { map } of nodes.values()) {
      for (const { role, shard, facts } of map.replicas()) {
        if (role.is !== "primary") continue;
        const { entries } = map.table.scan("base", shard, facts.incarnation, null, 10_000);
        const extent = entries.find((entry) => entry.grain === grain)?.value.extents[0];
        if (extent === undefined) continue;
        return [...nodes].filter(([, { store }]) => store.has(extent.key)).map(([brick]) => brick);
      }
    }
    return [];
  }

  /** Where a large write puts its chunk. */
  holdersFor(text: string, lengthBytes: number): readonly BrickNumber[] {
    const order = writePlacement(this.state).order(chunkKey(bytesOf(text, lengthBytes)));
    return order.slice(0, this.cluster.options.copies);
  }

  /** Bytes of map records that primaries have sent to candidates. */
  get transferBytes(): number {
    let bytes = this.#transferredBefore;
    for (const { map } of this.cluster.nodes.values()) bytes += map.counters.transferBytes;
    return bytes;
  }

  /** Whether a brick's lease is over when committed state says so: looked at all the time. */
  watchLeases(): void {
    if (this.#watching) return;
    this.#watching = true;
    const look = () => {
      for (const [brick, { control, host, store }] of this.cluster.nodes) {
        const known = this.state.bricks[brick];
        if (known?.boot !== store.superblock.boot || isReachable(known)) continue;
        const nowMs = host.clock.nowMs();
        if (control.leaseValid(nowMs)) this.staleLeases.push(`brick ${brick} at ${nowMs}`);
      }
      this.cluster.world.after(lookEveryMs, look);
    };
    look();
  }

  /** Shards go where they belong, for the bricks came one after the other. */
  async #calm(): Promise<void> {
    for (let before = ""; ; ) {
      const views = this.state.shards.map(({ view }) => view).join();
      if (views === before && this.cluster.isWhole()) return;
      before = views;
      await this.run(calmMs);
    }
  }

  async #good(through: BrickNumber, ask: () => Asked): Promise<void> {
    for (let attempt = 0; attempt < 100; attempt += 1) {
      await this.until(() => this.cluster.volumeAt(through) !== undefined);
      if ((await this.answerTo(ask())) === "good") return;
      await this.run(tryAgainMs);
    }
    throw new Error(`brick ${through} never answers GOOD`);
  }

  #asked(done: Promise<VolumeDone>): Asked {
    const asked: Asked = { outcome: null };
    done.then((result) => {
      asked.outcome = result.ok ? "good" : `fault: ${result.fault.code}`;
    });
    return asked;
  }

  #volume(through: BrickNumber) {
    const volume = this.cluster.volumeAt(through, volumeName);
    assert.ok(volume !== undefined, `brick ${through} does not offer the volume`);
    return volume;
  }
}

function bytesOf(text: string, lengthBytes: number): Buffer {
  const bytes = Buffer.alloc(lengthBytes);
  bytes.writeUInt8(text.length);
  bytes.write(text, 1);
  return bytes;
}
