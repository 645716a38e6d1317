import assert from "node:assert/strict";
import { keyName } from "../chunk/chunk-index.ts";
import { chunkKey } from "../chunk/key.ts";
import type { Host, Kv } from "../host.ts";
import { Prng } from "../prng.ts";
import { KiB } from "../units.ts";
import type { Recovered, Story } from "./crash-states.test-support.ts";
import { Store, type StoreParticipant } from "./store.ts";
import { checkpointKvKey, chunkKvKey, kvPrefix } from "./store-keys.ts";
import type { TraceEvent } from "./trace-disk.ts";

/** A store on a traced disk, what was asked of it and what it answered, over all its lives. */

const identity = { clusterId: "00112233445566778899aabbccddeeff", brick: 7, uuid: "ab".repeat(16) };
const origin = { branch: 3, grain: 11, firstSector: 0, sequence: 5 };

export interface KnownChunk {
  readonly seed: number;
  readonly bytes: Buffer;
  readonly key: Buffer;
}

export function chunkOf(seed: number, lengthBytes: number): KnownChunk {
  const bytes = new Prng(seed).fill(Buffer.alloc(lengthBytes));
  return { seed, bytes, key: chunkKey(bytes) };
}

export type Mark =
  | { type: "submitChunk"; chunk: KnownChunk }
  | { type: "ackChunk"; seed: number }
  | { type: "refuseChunk"; seed: number }
  | { type: "drop"; seed: number }
  | { type: "submitRecord"; id: number }
  | { type: "ackRecord"; id: number }
  /** The process was killed and another has started: what it found counts from here on. */
  | { type: "restart"; found: ReadonlySet<number>; applied: number };

interface ChunkFate {
  readonly chunk: KnownChunk;
  /** Writes of it that have not been answered. */
  submitted: number;
  acked: boolean;
  /** Given up: there or not, until a checkpoint says so; then gone for good. */
  dropped: boolean;
}

/** Records are numbered; the participant's state is the last number, and it sees every gap. */
export class Counting implements StoreParticipant {
  applied = 0;
  gap = false;
  readonly #key = Buffer.from([kvPrefix.map, 1]);

  begin(kv: Kv): void {
    this.applied = kv.get(this.#key)?.readUInt32BE(0) ?? 0;
  }

  replay(record: Buffer): void {
    const id = record.readUInt32BE(0);
    if (id > this.applied + 1) this.gap = true;
    this.applied = Math.max(this.applied, id);
  }

  collect() {
    const value = Buffer.alloc(4);
    value.writeUInt32BE(this.applied);
    return [{ key: this.#key, value }];
  }

  collected(): void {}
  dirtyCount(): number {
    return 0;
  }
}

/** A host that is told what the story does, between what its disk is told. */
export interface StoryHost extends Host {
  mark(mark: unknown): void;
}

export interface OpenStore {
  readonly host: StoryHost;
  readonly store: Store;
  readonly counting: Counting;
}

export async function openStore(host: StoryHost): Promise<OpenStore> {
  const counting = new Counting();
  const store = await Store.open(host, {
    capacityBytes: 12 * 16 * KiB,
    segmentBytes: 16 * KiB,
    diskFloorBytes: 0,
    participants: [counting],
    identity,
  });
  return { host, store, counting };
}

export class StoreStory implements Story {
  chunks = new Map<number, ChunkFate>();
  submittedRecord = 0;
  ackedRecord = 0;
  /** States in which the end of the log could not be told from a torn one. */
  readonly seen: { cut: number };

  constructor(seen = { cut: 0 }) {
    this.seen = seen;
  }

  copy(): StoreStory {
    const story = new StoreStory(this.seen);
    for (const [seed, fate] of this.chunks) story.chunks.set(seed, { ...fate });
    story.submittedRecord = this.submittedRecord;
    story.ackedRecord = this.ackedRecord;
    return story;
  }

  note(event: TraceEvent): void {
    if (event.type === "mark") this.apply(event.mark as Mark);
    else if (event.type === "kv" && event.sync) {
      if (!event.batch.some(({ key }) => key.equals(checkpointKvKey))) return;
      // What was given up while the batch was on its way is of the next one.
      const removed = new Set<string>();
      for (const { key, value } of event.batch)
        if (value === null) removed.add(key.toString("latin1"));
      for (const [seed, { chunk, dropped, submitted }] of this.chunks) {
        const isGone = removed.has(chunkKvKey(chunk.key).toString("latin1"));
        if (isGone && dropped && submitted === 0) this.chunks.delete(seed);
      }
    }
  }

  apply(mark: Mark): void {
    if (mark.type === "submitRecord") this.submittedRecord = mark.id;
    else if (mark.type === "ackRecord") this.ackedRecord = mark.id;
    else if (mark.type === "restart") this.#restarted(mark.found, mark.applied);
    else if (mark.type === "submitChunk") {
      const { chunk } = mark;
      const fate = this.chunks.get(chunk.seed);
      if (fate !== undefined) fate.submitted += 1;
      else this.chunks.set(chunk.seed, { chunk, submitted: 1, acked: false, dropped: false });
    } else {
      const fate = this.chunks.get(mark.seed)!;
      if (mark.type === "drop") fate.dropped = true;
      else if (mark.type === "refuseChunk") fate.submitted -= 1;
      else Object.assign(fate, { submitted: fate.submitted - 1, acked: true, dropped: false });
    }
  }

  /** Acknowledged and not given up, oldest first. */
  live(): KnownChunk[] {
    const fates = [...this.chunks.values()].filter(({ acked, dropped }) => acked && !dropped);
    return fates.map(({ chunk }) => chunk);
  }

  async recover(host: StoryHost, what: string, isWhole = false): Promise<Recovered> {
    const opened = await openStore(host);
    await this.verify(opened, what);
    assert.ok(!isWhole || !opened.store.cut, `${what}: nothing was torn`);
    const story = this.afterCrash(opened);
    const work = async (prng: Prng) => {
      await new StoreWork(opened, prng, story.copy()).bursts(prng.between(0, 3));
    };
    return { story, work };
  }

  /** Nothing acknowledged is missing, nothing is there that was never asked for. */
  async verify({ store, counting }: OpenStore, what: string): Promise<void> {
    assert.equal(counting.gap, false, `${what}: a gap between records`);
    assert.ok(counting.applied >= this.ackedRecord, `${what}: record ${this.ackedRecord} is lost`);
    assert.ok(counting.applied <= this.submittedRecord, `${what}: a record nobody wrote`);
    assert.equal(store.damage.length, 0, `${what}: damage that never happened`);
    if (store.cut) this.seen.cut += 1;
    let chunkCount = 0;
    let chunkBytes = 0;
    for (const { chunk, acked, dropped } of this.chunks.values()) {
      const read = await store.readChunk(chunk.key);
      if (read.ok) assert.ok(read.bytes.equals(chunk.bytes), `${what}: wrong bytes`);
      else assert.equal(read.fault.code, "absent", `${what}: chunk ${chunk.seed}`);
      assert.ok(read.ok || !acked || dropped, `${what}: chunk ${chunk.seed} is lost`);
      if (!read.ok) continue;
      chunkCount += 1;
      chunkBytes += chunk.bytes.length;
    }
    // The totals are those of what is there: so nothing else is.
    const space = store.space();
    assert.deepEqual([space.chunkCount, space.chunkBytes], [chunkCount, chunkBytes], what);
    assert.ok(space.reclaimableBytes >= 0, `${what}: ${space.reclaimableBytes} reclaimable`);
  }

  /** What survived without an answer counts as written once a restart has shown it. */
  afterCrash(opened: OpenStore): StoreStory {
    const next = this.copy();
    next.apply(this.restartMark(opened));
    return next;
  }

  restartMark({ store, counting }: OpenStore): Mark & { type: "restart" } {
    const found = [...this.chunks.values()].filter(({ chunk }) => store.has(chunk.key));
    const seeds = new Set(found.map(({ chunk }) => chunk.seed));
    return { type: "restart", found: seeds, applied: counting.applied };
  }

  #restarted(found: ReadonlySet<number>, applied: number): void {
    for (const [seed, fate] of this.chunks) {
      if (!found.has(seed)) this.chunks.delete(seed);
      else Object.assign(fate, { submitted: 0, acked: true, dropped: false });
    }
    this.ackedRecord = applied;
    this.submittedRecord = applied;
  }
}

/** More than a burst writes, and what a sequence of operations does after it. */
const spareBytes = 64 * KiB;

/** Does things to a store, and marks them in its trace. */
export class StoreWork {
  readonly #opened: OpenStore;
  readonly #prng: Prng;
  readonly #story: StoreStory;
  #waiting: Promise<void>[] = [];

  constructor(opened: OpenStore, prng: Prng, story: StoreStory) {
    this.#opened = opened;
    this.#prng = prng;
    this.#story = story;
  }

  /** Bursts of puts and records, checkpoints, drops, sweeps, compaction and recycling. */
  async bursts(count: number): Promise<void> {
    const prng = this.#prng;
    for (let burst = 0; burst < count; burst += 1) {
      await this.makeRoom();
      for (let left = prng.between(1, 4); left > 0; left -= 1) {
        if (prng.chance(0.2)) this.putAgain();
        else if (prng.chance(0.5)) this.put();
        else this.append(prng.chance(0.5));
      }
      if (prng.chance(0.15)) this.checkpoint();
      await this.flush();
      if (prng.chance(0.25)) await this.#collectGarbage();
    }
    await settle();
  }

  /** Records are numbered: none of them may be refused. */
  async makeRoom(): Promise<void> {
    while (this.#opened.store.space().freeBytes < spareBytes) await this.#collectGarbage();
  }

  put(chunk = chunkOf(this.#prng.uint32(), 512 * this.#prng.between(1, 6))): void {
    const { store } = this.#opened;
    this.#mark({ type: "submitChunk", chunk });
    const answered = new Promise<void>((resolve) => {
      store.put(chunk.key, chunk.bytes, origin, (result) => {
        if (!result.ok) assert.equal(result.fault.code, "no_space");
        this.#mark({ type: result.ok ? "ackChunk" : "refuseChunk", seed: chunk.seed });
        resolve();
      });
    });
    this.#waiting.push(answered);
  }

  /** Of a chunk that is there, or on its way. */
  putAgain(): void {
    const known = [...this.#story.chunks.values()].filter(({ dropped }) => !dropped);
    if (known.length > 0) this.put(this.#prng.pick(known).chunk);
  }

  append(inline: boolean): void {
    const prng = this.#prng;
    const { store, counting } = this.#opened;
    const id = this.#story.submittedRecord + 1;
    this.#mark({ type: "submitRecord", id });
    const head = Buffer.alloc(4 + prng.between(0, 300));
    head.writeUInt32BE(id);
    const known = inline ? chunkOf(prng.uint32(), 512 * prng.between(1, 3)) : null;
    if (known !== null) this.#mark({ type: "submitChunk", chunk: known });
    const parts = known === null ? [head] : [head, known.bytes];
    const place = { offsetBytes: head.length, lengthBytes: known?.bytes.length ?? 0, origin };
    const chunk = known === null ? null : { key: known.key, ...place };
    const claim = store.space().freeBytes < spareBytes ? "reserve" : "ordinary";
    const done = new Promise<void>((resolve) => {
      const answer = (ok: boolean) => {
        assert.equal(ok, true);
        counting.applied = id;
        // Inside the callbacks of a commit: it must cover this record and not the next.
        if (prng.chance(0.1)) store.checkpoint();
        this.#mark({ type: "ackRecord", id });
        if (known !== null) this.#mark({ type: "ackChunk", seed: known.seed });
        resolve();
      };
      store.appendMap(parts, chunk, answer, { claim });
    });
    this.#waiting.push(done);
  }

  async flush(): Promise<void> {
    await Promise.all(this.#waiting);
    this.#waiting = [];
  }

  checkpoint(): void {
    this.#opened.store.checkpoint();
  }

  drop(chunk: KnownChunk): void {
    if (this.#isWritten(chunk)) return;
    this.#mark({ type: "drop", seed: chunk.seed });
    this.#opened.store.dropChunk(chunk.key);
  }

  /** As garbage collection does it: from the last checkpoint on. */
  async sweep(given: readonly KnownChunk[]): Promise<void> {
    const { store } = this.#opened;
    store.checkpoint();
    await store.checkpointed();
    const unwanted = given.filter((chunk) => !this.#isWritten(chunk));
    const keys = new Set(unwanted.map(({ key }) => keyName(key)));
    for (const { seed } of unwanted) this.#mark({ type: "drop", seed });
    const step = store.sweepStep(null, 1000, (name) => keys.has(name));
    assert.equal(step.droppedChunks, unwanted.length, "a sweep finds every chunk");
  }

  /** A write of it is under way, whose stamp would keep it. */
  #isWritten({ seed }: KnownChunk): boolean {
    return this.#story.chunks.get(seed)!.submitted > 0;
  }

  async compact(): Promise<void> {
    const { store } = this.#opened;
    let step = await store.compactStep(this.#prng.between(4, 64) * KiB, 0.9);
    while (!step.idle && this.#prng.chance(0.9)) step = await store.compactStep(64 * KiB, 0.9);
  }

  async recycle(): Promise<void> {
    await this.#opened.store.recycle();
  }

  async close(): Promise<void> {
    await this.flush();
    await this.#opened.store.close();
  }

  /** At times without the checkpoint that the next step waits for. */
  async #collectGarbage(): Promise<void> {
    const prng = this.#prng;
    const unwanted: KnownChunk[] = [];
    for (const chunk of this.#story.live().slice(0, -3)) {
      // Much of this comes while one is being written.
      if (prng.chance(0.1)) this.checkpoint();
      // A few stay among the dead, for compaction to carry on.
      if (prng.chance(0.1)) continue;
      if (prng.chance(0.5)) this.drop(chunk);
      else unwanted.push(chunk);
    }
    if (unwanted.length > 0) await this.sweep(unwanted);
    if (prng.chance(0.7)) await this.compact();
    if (prng.chance(0.9)) this.checkpoint();
    await this.recycle();
  }

  #mark(mark: Mark): void {
    this.#story.apply(mark);
    this.#opened.host.mark(mark);
  }
}

function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
}
