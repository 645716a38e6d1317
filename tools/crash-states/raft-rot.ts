import { isDeepStrictEqual } from "node:util";
import { Prng } from "../../brick/prng.ts";
import { type OpenedStore, RaftStore } from "../../control/raft/raft-store-io.ts";
import type { Entry, Loaded } from "../../control/raft/raft-types.ts";
import { FakeDisk } from "../../control/raft/testing-disk.ts";
import { Script } from "../../control/raft/testing-script.ts";
import { damageBytes, pageDamages } from "./page-damage.ts";

/** What is persisted before a file is damaged, and how often that is damaged, from the same beginning. */
const worksMax = 60;
const damagesPerStore = 40;
const restartShare = 0.08;
const waitShare = 0.7;

export interface RaftRotReport {
  damages: number;
  /** All that was acknowledged is there. */
  whole: number;
  /** Entries are there by index and term alone: their content comes from the others. */
  holes: number;
  /** It is known up to which index something may be lost, so that this server does not lead with less. */
  lost: number;
  /** Neither copy of the vote holds: the server takes no part. */
  refused: number;
}

interface Filled {
  readonly disk: FakeDisk;
  readonly kept: Loaded;
}

/**
 * Damages one file of Raft (log, tail, vote, snapshot) and opens the store again: it has what it acknowledged,
 * or says what is missing, or refuses. It never has another content for an index and term, an older vote,
 * or an entry that nobody wrote. Opened once more it finds the same.
 */
export async function raftRot(seed: number, damagesMin: number): Promise<RaftRotReport> {
  const prng = new Prng(seed);
  const report = { damages: 0, whole: 0, holes: 0, lost: 0, refused: 0 };
  while (report.damages < damagesMin) {
    const filled = await fill(prng);
    for (let left = damagesPerStore; left > 0; left -= 1) {
      const disk = filled.disk.copy();
      const [name, file] = prng.pick(
        [...disk.names].filter(([, { content }]) => content.length > 0),
      );
      const how = prng.pick(pageDamages);
      file.content = damageBytes(file.content, how, prng);
      file.durable = Buffer.from(file.content);
      report.damages += 1;
      try {
        await examine(disk, filled.kept, report);
      } catch (error) {
        throw new Error(`damage ${report.damages}: ${how} of ${name}`, { cause: error });
      }
    }
  }
  return report;
}

async function fill(prng: Prng): Promise<Filled> {
  const disk = new FakeDisk();
  const script = new Script(prng);
  let persisted = 0;
  const reopen = async () => {
    const opened = await open(disk, (ticket) => {
      persisted = ticket;
    });
    if (!opened.ok) throw new Error(`an undamaged store is refused: ${opened.fault.code}`);
    return opened.store;
  };
  const until = async (ticket: number) => {
    while (persisted < ticket) await new Promise((resolve) => setImmediate(resolve));
  };
  let store = await reopen();
  for (let left = prng.between(5, worksMax); left > 0; left -= 1) {
    const work = script.next();
    store.persist(work);
    if (prng.chance(waitShare)) await until(work.ticket);
    if (!prng.chance(restartShare)) continue;
    await until(work.ticket);
    await store.close();
    store = await reopen();
  }
  await until(script.works.length);
  await store.close();
  return { disk, kept: script.model.load() };
}

function open(disk: FakeDisk, onPersisted: (ticket: number) => void): Promise<OpenedStore> {
  const onFailure = (reason: unknown) => {
    throw reason;
  };
  return RaftStore.open({ disk: disk.mount(), folder: "raft", onPersisted, onFailure });
}

async function examine(disk: FakeDisk, kept: Loaded, report: RaftRotReport): Promise<void> {
  const opened = await open(disk, () => {});
  if (!opened.ok) {
    report.refused += 1;
    return;
  }
  const { loaded } = opened;
  const { lostThroughIndex, holes } = opened.report;
  checkAgainst(kept, loaded, lostThroughIndex);
  if (lostThroughIndex !== null) report.lost += 1;
  else if (holes > 0) report.holes += 1;
  else report.whole += 1;
  await opened.store.close();
  const again = await open(disk, () => {});
  if (!again.ok || !isDeepStrictEqual(again.loaded, loaded)) {
    throw new Error("opened once more it finds something else");
  }
  if (again.report.damage.length > 0) throw new Error("the damage is still there");
  await again.store.close();
}

/** What may be missing is said to be; the rest is as it was. */
function checkAgainst(kept: Loaded, loaded: Loaded, lostThroughIndex: number | null): void {
  const { term, votedFor } = kept.hardState!;
  const vote = loaded.hardState;
  if (vote?.term !== term || vote.votedFor !== votedFor) throw new Error("it has another vote");
  const byIndex = new Map(kept.entries.map((entry) => [entry.index, entry as Entry]));
  const from = loaded.snapshot?.index ?? 0;
  const keptFrom = kept.snapshot?.index ?? 0;
  if (from > keptFrom) throw new Error("it has a snapshot that nobody took");
  if (from === keptFrom && !isDeepStrictEqual(loaded.snapshot, kept.snapshot)) {
    throw new Error("its snapshot is another");
  }
  for (const entry of loaded.entries) {
    const wrote = byIndex.get(entry.index);
    // Below the newer snapshot entries were there once; what voided others may be among what is lost.
    const mayBe = entry.index <= keptFrom || lostThroughIndex !== null;
    if (wrote === undefined && !mayBe) {
      throw new Error(`entry ${entry.index} was written by nobody`);
    }
    if (wrote === undefined) continue;
    if (wrote.term !== entry.term) {
      // What took its place is among what is lost: the server neither votes nor leads with it.
      if (entry.term < wrote.term && entry.index <= (lostThroughIndex ?? 0)) continue;
      throw new Error(`entry ${entry.index} is of another term`);
    }
    if ("payload" in entry && !entry.payload.equals(wrote.payload)) {
      throw new Error(`entry ${entry.index} has another content`);
    }
  }
  const last = loaded.entries.at(-1)?.index ?? from;
  const keptLast = kept.entries.at(-1)?.index ?? keptFrom;
  if (last < keptLast && (lostThroughIndex ?? 0) < keptLast) {
    throw new Error(`it ends at ${last} instead of ${keptLast}, and does not say so`);
  }
}
