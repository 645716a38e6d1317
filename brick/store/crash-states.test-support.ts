import type { Prng } from "../prng.ts";
import { checkpointKvKey } from "./store-keys.ts";
import { type DiskImage, type TraceEvent, TraceHost } from "./trace-disk.ts";

/**
 * Every state that a power cut could leave of a recorded run. The run's trace is cut after each of
 * its disk operations; at each cut many choices are made of what had reached the medium of that
 * which was not flushed yet, torn at sectors; each state is opened and examined, and cut again
 * right after its recovery, or in the middle of it.
 */

/** What was asked of the code under test and what it answered, as far as the trace has been read. */
export interface Story {
  /** The next event of the trace, marks among them. */
  note(event: TraceEvent): void;
  /**
   * Opens what is left and throws when something is lost, invented, or cannot be opened. Without
   * anything that arrived half, nothing may look torn.
   */
  recover(host: TraceHost, what: string, isWhole?: boolean): Promise<Recovered>;
}

export interface Recovered {
  /** From here on. */
  readonly story: Story;
  /** Some work in the life that began with this recovery. */
  work(prng: Prng): Promise<void>;
}

export interface Recording {
  /** What the medium held before the first event. */
  readonly before: DiskImage;
  readonly trace: readonly TraceEvent[];
  readonly story: Story;
  /** Cuts begin after this many events. */
  readonly fromEvent?: number;
}

export interface CrashOptions {
  /** States opened at each cut, if what is on its way allows as many. */
  readonly statesPerCut: number;
  /** Share of the cuts that are made. */
  readonly cutShare: number;
  /** Share of the states in whose second life some work is done. */
  readonly workShare: number;
}

/** States by what the power was cut after. */
export type StateCounts = Map<string, number>;

export async function exploreCrashes(
  { before, trace, story, fromEvent = 0 }: Recording,
  options: CrashOptions,
  { prng, counts, name }: { prng: Prng; counts: StateCounts; name: string },
): Promise<void> {
  const image = before.copy();
  for (const [at, event] of trace.entries()) {
    image.note(event);
    story.note(event);
    if (event.type === "mark" || at < fromEvent || !prng.chance(options.cutShare)) continue;
    const kind = kindOf(event);
    let number = 0;
    for (const arrived of arrivals(prng, image, options.statesPerCut)) {
      const what = `${name}, cut after operation ${at} (${kind}), choice ${number}`;
      number += 1;
      const isWhole = arrived.every((one) => one === 0);
      const left = image.cut((unit) => arrived[unit] === 1);
      await exploreState({ left, kind, what, isWhole }, story, {
        prng,
        counts,
        isBusy: prng.chance(options.workShare),
      });
    }
  }
}

async function exploreState(
  { left, kind, what, isWhole }: { left: DiskImage; kind: string; what: string; isWhole: boolean },
  story: Story,
  { prng, counts, isBusy }: { prng: Prng; counts: StateCounts; isBusy: boolean },
): Promise<void> {
  const host = new TraceHost(left);
  const recovered = await story.recover(host, what, isWhole);
  count(counts, kind);
  if (isBusy) {
    await recovered.work(prng);
    // Then the power goes in that life, as early as in its recovery.
    const stopAt = prng.between(0, host.trace.length);
    await cutAgain(
      host,
      left,
      recovered.story,
      { stopAt, arrives: prng.pick([0, 1, 0.5]), prng },
      what,
    );
    count(counts, "second cut, in recovery or later work");
    return;
  }
  const stopAt = host.trace.length;
  await cutAgain(host, left, recovered.story, { stopAt, arrives: 0, prng }, what);
  count(counts, "second cut, right after recovery");
}

async function cutAgain(
  host: TraceHost,
  before: DiskImage,
  story: Story,
  { stopAt, arrives, prng }: { stopAt: number; arrives: number; prng: Prng },
  what: string,
): Promise<void> {
  const image = before.copy();
  for (const event of host.trace.slice(0, stopAt)) {
    image.note(event);
    story.note(event);
  }
  const left = image.cut(() => prng.chance(arrives));
  await story.recover(new TraceHost(left), `${what}; again at ${stopAt}, share ${arrives}`);
}

/**
 * Which units arrive: all choices when there are few; else nothing, everything, each prefix and
 * suffix now and then, whole operations, and sectors by chance. No choice comes twice.
 */
function* arrivals(prng: Prng, image: DiskImage, countMax: number): Iterable<Uint8Array> {
  const units = image.unitCount;
  if (units <= unitsExhaustedMax && 2 ** units <= countMax) {
    for (let bits = 0; bits < 2 ** units; bits += 1) {
      yield Uint8Array.from({ length: units }, (_, unit) => (bits >> unit) & 1);
    }
    return;
  }
  const seen = new Set<string>();
  for (let attempt = 0; attempt < 2 * countMax && seen.size < countMax; attempt += 1) {
    const arrived = chooseUnits(prng, image, attempt);
    const name = arrived.join("");
    if (seen.has(name)) continue;
    seen.add(name);
    yield arrived;
  }
}

const unitsExhaustedMax = 16;
const chances = [0.5, 0.9, 0.1, 0.5, 0.98];

function chooseUnits(prng: Prng, image: DiskImage, attempt: number): Uint8Array {
  const units = image.unitCount;
  const where = prng.between(0, units);
  if (attempt === 0) return new Uint8Array(units);
  if (attempt === 1) return new Uint8Array(units).fill(1);
  if (attempt % 8 === 2) return new Uint8Array(units).fill(1, 0, where);
  if (attempt % 8 === 3) return new Uint8Array(units).fill(1, where);
  const chance = chances[attempt % chances.length]!;
  if (attempt % 8 === 4) {
    const arrived = image.unitsByEvent.map((count) =>
      new Uint8Array(count).fill(Number(prng.chance(chance))),
    );
    return Uint8Array.from(arrived.flatMap((some) => [...some]));
  }
  return Uint8Array.from({ length: units }, () => Number(prng.chance(chance)));
}

function count(counts: StateCounts, kind: string): void {
  counts.set(kind, (counts.get(kind) ?? 0) + 1);
}

/** What the power is cut after: the operation, and the kind of file. */
export function kindOf(event: TraceEvent): string {
  if (event.type === "mark") return "mark";
  if (event.type === "kv") {
    const isCheckpoint = event.batch.some(({ key }) => key.equals(checkpointKvKey));
    return isCheckpoint ? "index checkpoint" : "index rows of recycled segments";
  }
  if (event.type === "syncFolder") return `folder "${event.folder}" flush`;
  const area = areas.find(([pattern]) => pattern.test(event.path))?.[1] ?? event.path;
  if (event.type === "sync") return `${area} flush`;
  if (event.type !== "write") return `${area} ${event.type}`;
  return `${area} ${event.bytes.every((byte) => byte === 0) ? "write of zeros" : "write"}`;
}

const areas: readonly (readonly [RegExp, string])[] = [
  [/^log\/segment-/, "segment"],
  [/^superblock-/, "superblock"],
  [/\/log-\d+$/, "raft log"],
  [/\/state-[ab]$/, "raft state"],
  [/\/tail$/, "raft tail"],
  [/\/snapshot[.-]/, "raft snapshot"],
];

/** How many of the trace's operations wrote, and how many flushed. */
export function writesOf(trace: readonly TraceEvent[]): { writes: number; flushes: number } {
  let writes = 0;
  let flushes = 0;
  for (const event of trace) {
    if (event.type === "sync" || event.type === "syncFolder") flushes += 1;
    else if (event.type !== "mark") writes += 1;
  }
  return { writes, flushes };
}

export function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
}
