import { assert } from "../../brick/assert.ts";
import { Prng } from "../../brick/prng.ts";
import type { HealOptions } from "../../brick/repair/heal-options.ts";
import { type BrickNumber, grainBytes, KiB, MiB } from "../../brick/units.ts";
import type { Volume } from "../../brick/volume/volume.ts";
import { RaftStore } from "../../control/raft/raft-store-io.ts";
import { Script } from "../../control/raft/testing-script.ts";
import type { DamageRow, RestDamage } from "./damage-table.test-support.ts";
import { BrickStopped, SimClock } from "./sim-clock.ts";
import { SimCluster } from "./sim-cluster.ts";
import { SimDiskStore } from "./sim-disk.ts";
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

interface UsedFile {
  readonly path: string;
  readonly endBytes: number;
}

/** A cluster with data whose every byte is known, and one brick of it whose files are damaged. */
export class DamageScene {
  readonly cluster: SimCluster;
  readonly lines: string[] = [];
  readonly #prng: Prng;
  readonly #written = new Map<number, Buffer>();
  #startFailure: unknown = null;
  #volumeCount = 0;

  constructor(seed: number) {
    this.#prng = new Prng(seed + 7000);
    const sizes = { bricks: 3, shardCount: 4, volumeBytes, copies: 2, gcEveryMs: 3000 };
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
        const read = (await this.#volume(through)).read(offsetBytes, data.length);
        const result = await this.cluster.world.complete(read, 120_000);
        assert(result.ok, `brick ${through} reads at ${offsetBytes}: ${JSON.stringify(result)}`);
        const same = Buffer.concat(result.buffers).equals(data);
        assert(same, `brick ${through} served other bytes at ${offsetBytes}`);
      }
    }
  }

  async #volume(through: BrickNumber): Promise<Volume> {
    const { cluster } = this;
    await cluster.world.runUntil(() => cluster.volumeAt(through) !== undefined);
    return cluster.volumeAt(through)!;
  }

  /** What is served now may be missing, but not wrong. */
  async readSome(through: BrickNumber): Promise<void> {
    const volume = await this.#volume(through);
    for (const [offsetBytes, data] of this.#written) {
      const result = await this.#answer(volume.read(offsetBytes, data.length));
      if (!result?.ok) continue;
      const same = Buffer.concat(result.buffers).equals(data);
      assert(same, `brick ${through} served other bytes at ${offsetBytes}`);
    }
  }

  /** Every record is gone but those of the newest batch, before which the log is known to have been. */
  loseLog(brick: BrickNumber): void {
    const disk = this.disk(brick);
    let newest: { file: SimFile; atBytes: number; position: number } | null = null;
    for (const path of disk.paths().filter((one) => one.startsWith("log/"))) {
      const file = disk.file(path)!;
      const bytes = file.read(0, file.sizeBytes);
      for (let at = 0; at < bytes.length; at += pageBytes) {
        if (bytes.toString("latin1", at, at + 4) !== "ENDb") continue;
        const position = bytes.readUInt32BE(at + 28);
        if (position > (newest?.position ?? 0)) newest = { file, atBytes: at, position };
      }
    }
    assert(newest !== null, "the brick has a log");
    for (const path of disk.paths().filter((one) => one.startsWith("log/"))) {
      const file = disk.file(path)!;
      const endBytes = file === newest.file ? newest.atBytes : file.sizeBytes;
      put(file, 0, Buffer.alloc(endBytes, 0xa5));
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

  /** Another volume: an entry for Raft. Whoever leads it may be going down. */
  async addVolume(): Promise<void> {
    this.#volumeCount += 1;
    const name = `more${this.#volumeCount}`;
    const uuid = String(this.#volumeCount).padStart(32, "0");
    const command = { type: "createVolume" as const, name, uuid, sizeBytes: MiB, copies: 2 };
    for (let attempt = 0; attempt < 60; attempt += 1) {
      const node = this.cluster.anyNode();
      const asked = node?.control.submit({ ...command, degradedWrites: true });
      if (asked !== undefined) await this.#answer(asked);
      if (this.cluster.anyNode()?.control.state().volumes[name] !== undefined) return;
      await this.cluster.world.runFor(500);
    }
    throw new Error("a volume is never made");
  }

  /** Whether the brick has lived through it is seen by the crashes of its world. */
  async checkpoint(brick: BrickNumber): Promise<void> {
    this.cluster.world.after(0, () => {
      try {
        this.cluster.nodes.get(brick)?.store.checkpoint();
      } catch (error) {
        assert(error instanceof BrickStopped);
      }
    });
    await this.cluster.world.runFor(100);
  }

  /** The brick's files as they are now, to be put back later; it must not be running. */
  keep(brick: BrickNumber): { putBack(): void } {
    const disk = this.disk(brick);
    const files = disk.paths().map((path) => {
      const file = disk.file(path)!;
      return { file, bytes: file.read(0, file.sizeBytes) };
    });
    const kv = disk.kv("index")!;
    return {
      putBack: () => {
        disk.fault = null;
        disk.keepKv("index", kv);
        for (const { file, bytes } of files) {
          file.truncate(bytes.length);
          put(file, 0, bytes);
        }
      },
    };
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
      case "list of peers":
        return all(/^control\/peers\.json$/).map(middle);
      default:
        throw new Error(`no bytes of ${file} are known`);
    }
  }

  /** The files of the brick's log, each up to where it was ever written. */
  usedLog(brick: BrickNumber): UsedFile[] {
    const disk = this.disk(brick);
    const paths = disk.paths().filter((path) => path.startsWith("log/"));
    return paths.flatMap((path) => {
      const file = disk.file(path)!;
      const bytes = file.read(0, file.sizeBytes);
      const zeros = Buffer.alloc(pageBytes);
      let endBytes = bytes.length;
      while (endBytes > 0 && bytes.subarray(endBytes - pageBytes, endBytes).equals(zeros)) {
        endBytes -= pageBytes;
      }
      return endBytes > pageBytes ? [{ path, endBytes }] : [];
    });
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

  damage(brick: BrickNumber, target: Target, how: RestDamage): void {
    damageFile(this.disk(brick), target, how, this.#prng);
  }
}

function damageFile(
  disk: SimDiskStore,
  { path, atBytes }: Target,
  how: RestDamage,
  prng: Prng,
): void {
  const file = disk.file(path)!;
  const page = atBytes - (atBytes % pageBytes);
  const lengthBytes = Math.min(pageBytes, file.sizeBytes - page);
  // Files of one page have no other: then zeros, as from beyond their end.
  const otherPage = page >= pageBytes ? page - pageBytes : page + pageBytes;
  const other = Buffer.alloc(lengthBytes);
  file.read(otherPage, lengthBytes).copy(other);
  switch (how) {
    case "bit flip":
      file.flipBit(atBytes * 8 + 3);
      return;
    case "zeros":
      put(file, page, Buffer.alloc(lengthBytes));
      return;
    case "junk":
      put(file, page, prng.fill(Buffer.alloc(lengthBytes)));
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

/** Opens Raft's files after their newest snapshot, or all, was damaged. */
export async function openWithDamagedSnapshot(how: RestDamage, which: "newest" | "both") {
  const clock = new SimClock();
  const failed = (error: unknown) => assert(false, String(error));
  const owner = { brick: 1, alive: true, frozenUntilMs: 0, failed };
  const prng = new Prng(11);
  const store = new SimDiskStore(prng);
  const run = async <T>(promise: Promise<T>): Promise<T> => {
    let settled = false;
    promise.then(
      () => (settled = true),
      () => (settled = true),
    );
    await clock.run({ until: () => settled, untilMs: clock.nowMs + 60_000 });
    return promise;
  };
  const open = async (onPersisted: (ticket: number) => void) => {
    const disk = store.mount(clock, owner, () => {});
    const onFailure = (reason: unknown) => assert(false, String(reason));
    const untilAsked = () => Promise.reject(new Error("there is room"));
    const options = { disk, folder: "raft", onPersisted, onFailure, untilAsked };
    const opened = await run(RaftStore.open(options));
    assert(opened.ok, "the store opens");
    return opened;
  };
  const script = new Script(prng);
  let persisted = 0;
  const first = await open((ticket) => {
    persisted = ticket;
  });
  const snapshots = () => store.paths().filter((path) => /snapshot-\d+$/.test(path));
  while (script.works.length < 100 || snapshots().length < 2) {
    first.store.persist(script.next());
    await clock.run({
      until: () => persisted === script.works.length,
      untilMs: clock.nowMs + 60_000,
    });
  }
  await run(first.store.close());
  const truth = script.model.load();
  for (const path of snapshots().slice(which === "newest" ? -1 : 0)) {
    damageFile(store, { path, atBytes: 30 }, how, prng);
  }
  const { loaded, report } = await open(() => {});
  return { loaded, report, wanted: truth.entries.at(-1)?.index ?? truth.snapshot?.index ?? 0 };
}
