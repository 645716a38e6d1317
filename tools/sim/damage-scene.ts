import { assert } from "../../brick/assert.ts";
import { Prng } from "../../brick/prng.ts";
import type { HealOptions } from "../../brick/repair/heal-options.ts";
import { type BrickNumber, grainBytes, KiB, MiB } from "../../brick/units.ts";
import type { DamageRow, RestDamage } from "./damage-table.ts";
import { SimCluster } from "./sim-cluster.ts";
import type { SimFile } from "./sim-file.ts";

const pageBytes = 4 * KiB;
const volumeBytes = 256 * MiB;
const pieceCount = 24;
/** Damage is met within seconds, as on a small brick. */
const healOptions: Partial<HealOptions> = {
  scrubBytesPerSecondMin: 16 * MiB,
  healRetryMs: 500,
};

/** Where a damage is done: bytes of one of the brick's files. */
interface Target {
  readonly path: string;
  readonly atBytes: number;
}

/** A cluster with data whose every byte is known, and one brick of it whose files are damaged. */
export class DamageScene {
  readonly cluster: SimCluster;
  readonly lines: string[] = [];
  readonly #prng: Prng;
  readonly #written = new Map<number, Buffer>();
  #startFailure: unknown = null;

  constructor(seed: number) {
    this.#prng = new Prng(seed + 7000);
    const sizes = { bricks: 3, shardCount: 4, volumeBytes, copies: 2 };
    this.cluster = new SimCluster({ seed, ...sizes, healOptions });
    this.cluster.onStartFailure = (_brick, error) => {
      this.#startFailure = error;
    };
    this.cluster.world.onLog = (brick, line) => this.lines.push(`brick ${brick}: ${line}`);
  }

  async begin(): Promise<void> {
    await this.cluster.create();
    await this.write();
  }

  /** Small pieces, which travel inside map records, and whole grains, which are chunks alone. */
  async write(): Promise<void> {
    for (let index = 0; index < pieceCount; index += 1) {
      const offsetBytes = index * 170 * grainBytes;
      const data = this.#prng.fill(Buffer.alloc(index % 2 === 0 ? 4 * KiB : grainBytes));
      await this.writeAt(offsetBytes, data);
    }
  }

  async writeAt(offsetBytes: number, data: Buffer): Promise<void> {
    for (let attempt = 0; attempt < 60; attempt += 1) {
      const through = [...this.cluster.nodes.keys()][0];
      const asked =
        through === undefined
          ? undefined
          : this.cluster.volumeAt(through)?.write(offsetBytes, [data]);
      // Until it is answered it may be there or not; then it is.
      const done = asked === undefined ? null : await this.#answer(asked);
      if (done?.ok) {
        this.#written.set(offsetBytes, data);
        return;
      }
      await this.cluster.world.runFor(500);
    }
    throw new Error(`a write at ${offsetBytes} is never answered`);
  }

  async #answer<T>(asked: Promise<T>): Promise<T | null> {
    try {
      return await this.cluster.world.complete(asked, 20_000);
    } catch {
      // Its gateway has gone: nobody answers any more.
      return null;
    }
  }

  /** Nothing but what was written is served, by any portal. */
  async readBack(): Promise<void> {
    for (const through of this.cluster.nodes.keys()) {
      for (const [offsetBytes, data] of this.#written) {
        const read = this.cluster.volumeAt(through)!.read(offsetBytes, data.length);
        const result = await this.cluster.world.complete(read, 120_000);
        assert(result.ok, `brick ${through} reads at ${offsetBytes}: ${JSON.stringify(result)}`);
        const same = Buffer.concat(result.buffers).equals(data);
        assert(same, `brick ${through} served other bytes at ${offsetBytes}`);
      }
    }
  }

  /** Every chunk is on as many bricks as it should be, and each of the copies can be read there. */
  async isInOrder(): Promise<boolean> {
    const { nodes } = this.cluster;
    if (!this.cluster.isWhole()) return false;
    let count = 0;
    for (const node of nodes.values()) {
      for (const { role, shard, facts } of node.map.replicas()) {
        if (role.is !== "primary") continue;
        const { entries } = node.map.table.scan("base", shard, facts.incarnation, null, 10_000);
        for (const { key } of entries.flatMap(({ value }) => value.extents)) {
          let good = 0;
          for (const { store } of nodes.values()) {
            if (!store.has(key)) continue;
            const read = await this.cluster.world.complete(store.readChunk(key));
            if (read.ok) good += 1;
          }
          if (good < 2) return false;
          count += 1;
        }
      }
    }
    return count >= pieceCount;
  }

  async inOrder(limitMs = 120_000): Promise<void> {
    const { world } = this.cluster;
    const untilMs = world.clock.nowMs + limitMs;
    while (!(await this.isInOrder())) {
      assert(world.clock.nowMs < untilMs, "damage is not healed in time");
      await world.runFor(500);
    }
  }

  stop(brick: BrickNumber): void {
    this.cluster.world.machine(brick).kill();
  }

  /** "refused" with the reason, when the brick does not start. */
  async start(brick: BrickNumber): Promise<unknown> {
    this.#startFailure = null;
    this.cluster.start(brick);
    const { world } = this.cluster;
    await world.runUntil(() => this.cluster.nodes.has(brick) || this.#startFailure !== null);
    if (this.#startFailure === null) return null;
    world.machine(brick).crash();
    return this.#startFailure;
  }

  disk(brick: BrickNumber) {
    return this.cluster.world.machine(brick).disk;
  }

  /** What of the brick's files the row's damage is done to. */
  targets(brick: BrickNumber, file: DamageRow["file"]): Target[] {
    const disk = this.disk(brick);
    const all = (pattern: RegExp) => disk.paths().filter((path) => pattern.test(path));
    const middle = (path: string) => ({
      path,
      atBytes: Math.floor(disk.file(path)!.sizeBytes / 2),
    });
    switch (file) {
      case "segment: a chunk":
      case "segment: a new chunk":
        return [this.#find(brick, grainBytes, (at) => at + 9000)];
      case "segment: a map record":
        return [this.#find(brick, 4 * KiB, (at) => at - 8)];
      case "segment: a batch header":
        return [this.#find(brick, 4 * KiB, (at, bytes) => headerBefore(bytes, at) + 24)];
      case "superblock: one copy":
        return [{ path: this.#prng.pick(["superblock-a", "superblock-b"]), atBytes: 20 }];
      case "superblock: both copies":
        return all(/^superblock-/).map((path) => ({ path, atBytes: 20 }));
      case "Raft log":
        return all(/^raft\/log-/)
          .slice(-1)
          .map(middle);
      case "Raft term and vote: one copy":
        return [middle(this.#prng.pick(["raft/state-a", "raft/state-b"]))];
      case "Raft term and vote: both copies":
        return all(/^raft\/state-/).map(middle);
      case "Raft tail":
        return all(/^raft\/tail$/).map(middle);
      default:
        throw new Error(`no bytes of ${file} are known`);
    }
  }

  /** One of the pieces of that size which lies on the brick, by its bytes. */
  #find(
    brick: BrickNumber,
    pieceBytes: number,
    where: (atBytes: number, bytes: Buffer) => number,
  ): Target {
    const disk = this.disk(brick);
    const pieces = [...this.#written.values()].filter(({ length }) => length === pieceBytes);
    // The last in the log is left alone: beyond it the log's end would be unknown.
    for (const data of pieces.slice(0, -2).reverse()) {
      for (const path of disk.paths().filter((one) => one.startsWith("log/"))) {
        const file = disk.file(path)!;
        const bytes = file.read(0, file.sizeBytes);
        const atBytes = bytes.indexOf(data.subarray(0, 512));
        if (atBytes >= 0) return { path, atBytes: where(atBytes, bytes) };
      }
    }
    throw new Error(`brick ${brick} holds no piece of ${pieceBytes} bytes`);
  }

  damage(brick: BrickNumber, { path, atBytes }: Target, how: RestDamage): void {
    const disk = this.disk(brick);
    const file = disk.file(path)!;
    const page = atBytes - (atBytes % pageBytes);
    const lengthBytes = Math.min(pageBytes, file.sizeBytes - page);
    // Files of one page have no other: then of the file beside it.
    const otherPage = page >= pageBytes ? page - pageBytes : page + pageBytes;
    const other = Buffer.alloc(lengthBytes, file.read(otherPage, lengthBytes));
    switch (how) {
      case "bit flip":
        file.flipBit(atBytes * 8 + 3);
        return;
      case "zeros":
        put(file, page, Buffer.alloc(lengthBytes));
        return;
      case "junk":
        put(file, page, this.#prng.fill(Buffer.alloc(lengthBytes)));
        return;
      case "truncated":
        file.truncate(atBytes);
        file.endSync(file.beginSync());
        return;
      case "swapped": {
        const own = file.read(page, lengthBytes);
        put(file, page, other);
        if (otherPage < file.sizeBytes) put(file, otherPage, own);
        return;
      }
      case "misdirected write":
        put(file, page, other);
        return;
      case "EIO on read":
        disk.fault = (call, name, { from, to }) =>
          call === "read" && name === path && from < page + lengthBytes && to > page ? "EIO" : null;
    }
  }
}

function put(file: SimFile, atBytes: number, bytes: Buffer): void {
  file.write(atBytes, [bytes]);
  file.endSync(file.beginSync());
}

/** Where the batch begins that holds what is at that place. */
function headerBefore(bytes: Buffer, atBytes: number): number {
  let page = atBytes - (atBytes % pageBytes);
  while (bytes.toString("latin1", page, page + 4) !== "ENDb") page -= pageBytes;
  return page;
}
