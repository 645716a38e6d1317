import { Prng } from "../../brick/prng.ts";
import {
  exploreCrashes,
  type StateCounts,
  writesOf,
} from "../../brick/store/crash-states.test-support.ts";
import {
  recordSequence,
  recordStore,
  sequences,
  usedStore,
} from "../../brick/store/store-recordings.test-support.ts";
import { recordRaft } from "../../control/raft/testing-story.ts";

/** Operations that write, in each of the two long runs. */
const storeWrites = 2000;
const raftWrites = 800;
/** States opened at each cut of a long run; where more is on its way than that, chosen by chance. */
const statesPerCut = 16;
/** The same in a sequence: what differs between sequences are the cuts. */
const statesPerSequenceCut = 3;
const sequenceLengthMax = 3;
const workShare = 0.2;

/** One round of everything, and more long runs until there were enough states. */
export async function crashStates(
  { seed, statesMin }: { seed: number; statesMin: number },
  print: (line: string) => void,
): Promise<void> {
  const prng = new Prng(seed);
  let states = 0;
  for (let round = 0; states < statesMin; round += 1) {
    states += await inStore(prng, `seed ${seed}, round ${round}, store`, print);
    states += await inRaft(prng, `seed ${seed}, round ${round}, raft`, print);
    if (round === 0) states += await inSequences(prng, `seed ${seed}`, print);
  }
  print(`${states} states: nothing lost, nothing invented`);
}

async function inStore(prng: Prng, name: string, print: (line: string) => void): Promise<number> {
  const recording = await recordStore(prng, storeWrites);
  const { writes, flushes } = writesOf(recording.trace);
  const { recycledSegments, compactedBytes, dedupHits } = recording.counters;
  print(
    `${name}: ${writes} writes, ${flushes} flushes, ${dedupHits} dedup hits, ` +
      `${recycledSegments} segments recycled, ${compactedBytes} bytes compacted`,
  );
  const counts: StateCounts = new Map();
  const options = { statesPerCut, cutShare: 1, workShare };
  await exploreCrashes(recording, options, { prng, counts, name });
  print(`  ${recording.story.seen.cut} states with a log that ends torn`);
  return printed(counts, print);
}

async function inRaft(prng: Prng, name: string, print: (line: string) => void): Promise<number> {
  const recording = await recordRaft(prng, raftWrites);
  const { writes, flushes } = writesOf(recording.trace);
  print(`${name}: ${writes} writes, ${flushes} flushes`);
  const counts: StateCounts = new Map();
  const options = { statesPerCut, cutShare: 1, workShare };
  await exploreCrashes(recording, options, { prng, counts, name });
  return printed(counts, print);
}

async function inSequences(
  prng: Prng,
  name: string,
  print: (line: string) => void,
): Promise<number> {
  const used = await usedStore(prng);
  const counts: StateCounts = new Map();
  const options = { statesPerCut: statesPerSequenceCut, cutShare: 1, workShare: 0 };
  let number = 0;
  for (const sequence of sequences(sequenceLengthMax)) {
    const what = `${name}, after use: ${sequence.join(", ")}`;
    const recording = await recordSequence(prng, used, sequence);
    await exploreCrashes(recording, options, { prng, counts, name: what });
    number += 1;
  }
  print(`${name}: ${number} sequences of up to ${sequenceLengthMax} operations`);
  return printed(counts, print);
}

function printed(counts: StateCounts, print: (line: string) => void): number {
  let sum = 0;
  for (const [kind, count] of [...counts].sort()) {
    print(`  ${String(count).padStart(7)} ${kind}`);
    sum += count;
  }
  return sum;
}
