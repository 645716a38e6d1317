import assert from "node:assert/strict";
import { isDeepStrictEqual } from "node:util";
import type { Prng } from "../../brick/prng.ts";
import {
  type Recording,
  type Recovered,
  type Story,
  settle,
  writesOf,
} from "../../brick/store/crash-states.test-support.ts";
import { DiskImage, type TraceEvent, TraceHost } from "../../brick/store/trace-disk.ts";
import { RaftStore } from "./raft-store-io.ts";
import type { HardState, Loaded, PersistEffect, Snapshot } from "./raft-types.ts";
import { Medium } from "./testing.ts";
import { isAsAfter, Script, worksOf } from "./testing-script.ts";

/** Raft's files on a traced disk: what was to be persisted, and what was said to be. */

export type Mark = { type: "persist"; work: PersistEffect } | { type: "persisted"; ticket: number };

async function openStore(host: TraceHost) {
  const opened = await RaftStore.open({
    disk: host.disk,
    folder: "raft",
    onPersisted: (ticket) => host.mark({ type: "persisted", ticket } satisfies Mark),
    onFailure: (reason) => host.crash(reason),
    untilAsked: () => Promise.reject(new Error("there is room")),
  });
  assert.ok(opened.ok, "the vote is lost");
  return opened;
}

export class RaftStory implements Story {
  /** What was said to be durable. */
  #acked: Medium;
  #pending: PersistEffect[] = [];

  constructor(acked = new Medium()) {
    this.#acked = acked;
  }

  note(event: TraceEvent): void {
    if (event.type !== "mark") return;
    const mark = event.mark as Mark;
    if (mark.type === "persist") this.#pending.push(mark.work);
    else {
      const count = this.#pending.findIndex(({ ticket }) => ticket === mark.ticket) + 1;
      for (const work of this.#pending.splice(0, count)) this.#acked.perform(work);
    }
  }

  async recover(host: TraceHost, what: string): Promise<Recovered> {
    const { store, loaded, report } = await openStore(host);
    assert.deepEqual(report.damage, [], `${what}: damage that never happened`);
    assert.equal(report.lostThroughIndex, null, `${what}: loss that never happened`);
    this.#verify(loaded, what);
    const script = (prng: Prng) => Script.from(prng, loaded);
    const medium = new Medium();
    for (const work of worksOf(loaded)) medium.perform(work);
    const work = async (prng: Prng) => {
      await persistSome(host, store, script(prng), prng, prng.between(1, 4));
      await store.close();
    };
    return { story: new RaftStory(medium), work };
  }

  /** The log is as after some of the works; term, vote and snapshot are those of one of them. */
  #verify(loaded: Loaded, what: string): void {
    const medium = copyOf(this.#acked);
    const votes: (HardState | null)[] = [medium.hardState];
    const snapshots: (Snapshot | null)[] = [medium.snapshot];
    let found = isAsAfter(medium.load(), this.#pending[0], loaded);
    for (const [at, work] of this.#pending.entries()) {
      medium.perform(work);
      votes.push(medium.hardState);
      snapshots.push(medium.snapshot);
      found ||= isAsAfter(medium.load(), this.#pending[at + 1], loaded);
    }
    assert.ok(found, `${what}: what is found was never so`);
    assert.ok(contains(votes, loaded.hardState), `${what}: a vote nobody gave`);
    assert.ok(contains(snapshots, loaded.snapshot), `${what}: a snapshot nobody took`);
  }
}

function contains<T extends object>(all: readonly (T | null)[], one: T | null): boolean {
  return all.some((other) => isDeepStrictEqual(other, one));
}

function copyOf({ hardState, snapshot, log }: Medium): Medium {
  return Object.assign(new Medium(), { hardState, snapshot, log: [...log] });
}

async function persistSome(
  host: TraceHost,
  store: RaftStore,
  script: Script,
  prng: Prng,
  count: number,
): Promise<void> {
  for (let left = count; left > 0; left -= 1) {
    const work = script.next();
    host.mark({ type: "persist", work } satisfies Mark);
    store.persist(work);
    if (prng.chance(0.6)) await settle();
  }
}

/** Persists until so many operations have written, with restarts: each begins another log file. */
export async function recordRaft(prng: Prng, writesMin: number): Promise<Recording> {
  const host = new TraceHost();
  const script = new Script(prng);
  while (writesOf(host.trace).writes < writesMin) {
    const { store } = await openStore(host);
    const from = host.trace.length;
    await persistSome(host, store, script, prng, prng.between(1, 25));
    const { ticket } = script.works.at(-1)!;
    while (!host.trace.slice(from).some((event) => isPersisted(event, ticket))) await settle();
    await store.close();
  }
  return { before: new DiskImage(), trace: host.trace, story: new RaftStory() };
}

function isPersisted(event: TraceEvent, wanted: number): boolean {
  if (event.type !== "mark") return false;
  const mark = event.mark as Mark;
  return mark.type === "persisted" && mark.ticket === wanted;
}
