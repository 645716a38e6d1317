import assert from "node:assert/strict";
import { Prng } from "../../brick/prng.ts";
import type { Loaded } from "../../control/raft/raft-types.ts";
import type { FakeDisk } from "../../control/raft/testing-disk.ts";
import { checkHarmed, filledStore, openStore } from "../../control/raft/testing-store.ts";
import { damageBytes, pageDamages } from "./page-damage.ts";

/** What is persisted before a file is damaged, and how often that is damaged, from the same beginning. */
const worksMax = 60;
const damagesPerStore = 40;

export interface RaftRotReport {
  damages: number;
  /** All that was acknowledged is there. */
  whole: number;
  /** Entries are there by index and term alone: their content comes from the others. */
  holes: number;
  /** It is known up to which index something may be lost, so that this server does not lead with less. */
  lost: number;
}

/**
 * Damages one file of Raft (log, tail, vote, snapshot) and opens the store again: it has what it acknowledged,
 * or says what is missing. It never has another content for an index and term, an older vote, or an entry
 * that nobody wrote. Opened once more it finds the same.
 */
export async function raftRot(seed: number, damagesMin: number): Promise<RaftRotReport> {
  const prng = new Prng(seed);
  const report = { damages: 0, whole: 0, holes: 0, lost: 0 };
  while (report.damages < damagesMin) {
    const { disk, script } = await filledStore(prng.between(1, 2 ** 31), prng.between(5, worksMax));
    const truth = script.model.load();
    for (let left = damagesPerStore; left > 0; left -= 1) {
      const copy = disk.copy();
      const files = [...copy.names].filter(([, { content }]) => content.length > 0);
      const [name, file] = prng.pick(files);
      const how = prng.pick(pageDamages);
      file.content = damageBytes(file.content, how, prng);
      report.damages += 1;
      await examine(copy, truth, report, `damage ${report.damages}: ${how} of ${name}`);
    }
  }
  return report;
}

async function examine(
  disk: FakeDisk,
  truth: Loaded,
  counts: RaftRotReport,
  what: string,
): Promise<void> {
  const { store, loaded, report } = await openStore(disk);
  checkHarmed({ loaded, report, truth, what });
  if (report.lostThroughIndex !== null) counts.lost += 1;
  else if (report.holes > 0) counts.holes += 1;
  else counts.whole += 1;
  await store.close();
  const again = await openStore(disk);
  assert.deepEqual(again.loaded, loaded, `${what}: opened once more it finds something else`);
  assert.deepEqual(again.report.damage, [], `${what}: the damage is still there`);
  await again.store.close();
}
