import type { Prng } from "../prng.ts";
import { type Recording, settle, writesOf } from "./crash-states.test-support.ts";
import { type KnownChunk, openStore, StoreStory, StoreWork } from "./store-story.test-support.ts";
import { DiskImage, TraceHost } from "./trace-disk.ts";

/** Runs of a store to be cut: one long one by chance, and every short sequence of operations. */

export interface StoreRecording extends Recording {
  readonly story: StoreStory;
  readonly counters: { recycledSegments: number; compactedBytes: number; dedupHits: number };
}

/**
 * Works until so many operations have written; over several boots, each ended by closing, or by a
 * kill in the middle of whatever it does: the kernel lives on, and has all that was written.
 */
export async function recordStore(prng: Prng, writesMin: number): Promise<StoreRecording> {
  const host = new TraceHost();
  const work = new StoreStory();
  const counters = { recycledSegments: 0, compactedBytes: 0, dedupHits: 0 };
  for (;;) {
    const opened = await openStore(host);
    const restart = work.restartMark(opened);
    work.apply(restart);
    host.mark(restart);
    const working = new StoreWork(opened, prng, work);
    const isKilled = prng.chance(0.5);
    const before = prng.pick(["write", "sync"] as const);
    const killed = isKilled
      ? host.killAfter(prng.between(1, 60), before)
      : new Promise<void>(() => {});
    const life = async () => {
      for (let left = prng.between(2, 12); left > 0 && !isLong(host, writesMin); left -= 1) {
        await working.bursts(4);
      }
      await working.close();
    };
    await Promise.race([life(), killed]);
    await settle();
    host.kill();
    const { recycledSegments, compactedBytes, dedupHits } = opened.store.counters;
    counters.recycledSegments += recycledSegments;
    counters.compactedBytes += compactedBytes;
    counters.dedupHits += dedupHits;
    if (isLong(host, writesMin)) break;
  }
  return { before: new DiskImage(), trace: host.trace, story: new StoreStory(), counters };
}

function isLong(host: TraceHost, writesMin: number): boolean {
  return writesOf(host.trace).writes >= writesMin;
}

const operations = {
  put: (work) => work.put(),
  "put again": (work) => work.putAgain(),
  append: (work) => work.append(false),
  "append with chunk": (work) => work.append(true),
  flush: (work) => work.flush(),
  checkpoint: (work) => work.checkpoint(),
  drop: (work, { unwanted }) => {
    const chunk = unwanted.pop();
    if (chunk !== undefined) work.drop(chunk);
  },
  sweep: (work, { unwanted }) => work.sweep(unwanted.splice(0)),
  compact: (work) => work.compact(),
  recycle: (work) => work.recycle(),
  restart: async (work, { reopen }) => {
    await work.close();
    await reopen();
  },
} satisfies Record<string, (work: StoreWork, given: Given) => void | Promise<void>>;

interface Given {
  /** Chunks that may be given up. */
  readonly unwanted: KnownChunk[];
  /** A start of the same folder: the superblock advances. */
  readonly reopen: () => Promise<void>;
}

export type Operation = keyof typeof operations;
export const operationNames = Object.keys(operations) as Operation[];

/** Every sequence of one to `lengthMax` operations. */
export function* sequences(
  lengthMax: number,
  before: readonly Operation[] = [],
): Iterable<Operation[]> {
  for (const operation of operationNames) {
    const sequence = [...before, operation];
    yield sequence;
    if (sequence.length < lengthMax) yield* sequences(lengthMax, sequence);
  }
}

/** A store that has been used: segments mostly dead, others to recycle, and a few live chunks. */
export async function usedStore(prng: Prng): Promise<{ image: DiskImage; story: StoreStory }> {
  const host = new TraceHost();
  const story = new StoreStory();
  const opened = await openStore(host);
  const work = new StoreWork(opened, prng, story);
  await work.bursts(12);
  await work.makeRoom();
  await work.close();
  const image = new DiskImage();
  const told = new StoreStory();
  for (const event of host.trace) {
    image.note(event);
    told.note(event);
  }
  return { image: image.cut(() => true), story: told };
}

export async function recordSequence(
  prng: Prng,
  used: { image: DiskImage; story: StoreStory },
  sequence: readonly Operation[],
): Promise<Recording> {
  const host = new TraceHost(used.image);
  const working = used.story.copy();
  let work = new StoreWork(await openStore(host), prng, working);
  const reopen = async () => {
    work = new StoreWork(await openStore(host), prng, working);
  };
  const given = { unwanted: working.live(), reopen };
  await settle();
  // The start is the same for all sequences: its cuts are those of the restart among them.
  const fromEvent = host.trace.length;
  for (const operation of sequence) await operations[operation](work, given);
  await work.flush();
  await settle();
  return { before: used.image, trace: host.trace, story: used.story.copy(), fromEvent };
}
