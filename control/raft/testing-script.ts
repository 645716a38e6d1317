import type { Prng } from "../../brick/prng.ts";
import type { Entry, Loaded, PersistEffect } from "./raft-types.ts";
import { Medium } from "./testing.ts";

/** Work as a core would give it: dense entries, rising terms, cuts above what is committed. */
export class Script {
  readonly model = new Medium();
  readonly works: PersistEffect[] = [];
  readonly #prng: Prng;
  #term = 1;
  #committed = 0;

  constructor(prng: Prng) {
    this.#prng = prng;
  }

  /** The story goes on from what was loaded, as its work number one. */
  static from(prng: Prng, loaded: Loaded): Script {
    const script = new Script(prng);
    script.works.push(...worksOf(loaded));
    for (const work of script.works) script.model.perform(work);
    script.#term = loaded.hardState?.term ?? 1;
    script.#committed = loaded.snapshot?.index ?? 0;
    return script;
  }

  next(): PersistEffect {
    const prng = this.#prng;
    if (this.works.length > 0 && prng.chance(0.04)) return this.#install();
    const ticket = this.works.length + 1;
    const last = this.model.log.at(-1)?.index ?? this.model.snapshot?.index ?? 0;
    let from = last + 1;
    const newTerm = ticket === 1 || prng.chance(0.2);
    if (newTerm) {
      this.#term += 1;
      if (prng.chance(0.5)) from = prng.between(Math.min(this.#committed + 1, from), from);
    }
    const count = prng.between(1, 4);
    const entries = Array.from({ length: count }, (_, at) => this.#entry(from + at));
    const through = from + count - 1;
    const agreed = Math.min(this.#committed, last);
    this.#committed = Math.max(agreed, prng.between(agreed, through));
    const snapshots = prng.chance(0.08) && this.#committed > (this.model.snapshot?.index ?? 0);
    const work: PersistEffect = {
      type: "persist",
      ticket,
      hardState: newTerm ? { term: this.#term, votedFor: prng.between(0, 3), healing: null } : null,
      snapshot: null,
      resetsLog: false,
      cutAfterIndex: from <= last ? from - 1 : null,
      repairs: [],
      entries,
      compactThroughIndex: 0,
    };
    this.model.perform(work);
    this.works.push(work);
    if (!snapshots) return work;
    const index = this.#committed;
    const term = this.model.log.find((one) => one.index === index)!.term;
    const configuration = { voters: [1, 2, 3], learners: [] };
    const data = prng.fill(Buffer.alloc(prng.between(0, 900)));
    const snapshot = { index, term, configuration, data };
    const withSnapshot = { ...work, snapshot, compactThroughIndex: Math.max(0, index - 3) };
    this.model.perform({ ...withSnapshot, cutAfterIndex: null, entries: [] });
    this.works[ticket - 1] = withSnapshot;
    return withSnapshot;
  }

  /** A snapshot of a later leader takes the place of the log. */
  #install(): PersistEffect {
    const prng = this.#prng;
    const last = this.model.log.at(-1)?.index ?? this.model.snapshot?.index ?? 0;
    const least = Math.max(this.#committed, this.model.snapshot?.index ?? 0) + 1;
    const index = prng.between(least, Math.max(least, last) + 5);
    this.#term += 1;
    this.#committed = index;
    const configuration = { voters: [1, 2, 3], learners: [] };
    const data = prng.fill(Buffer.alloc(prng.between(0, 900)));
    const work: PersistEffect = {
      type: "persist",
      ticket: this.works.length + 1,
      hardState: { term: this.#term, votedFor: 0, healing: null },
      snapshot: { index, term: this.#term, configuration, data },
      resetsLog: true,
      cutAfterIndex: null,
      repairs: [],
      entries: [],
      compactThroughIndex: index,
    };
    this.model.perform(work);
    this.works.push(work);
    return work;
  }

  #entry(index: number): Entry {
    const payload = this.#prng.fill(Buffer.alloc(this.#prng.between(0, 700)));
    return { index, term: this.#term, kind: "command", payload };
  }
}

export function modelAfter(works: readonly PersistEffect[], count: number): Loaded {
  const medium = new Medium();
  for (const work of works.slice(0, count)) medium.perform(work);
  return medium.load();
}

/** The log is as after some number of works not below `from`; the hard state may be ahead. */
export function findModel(
  works: readonly PersistEffect[],
  { from, loaded }: { from: number; loaded: Loaded },
): number | null {
  for (let count = from; count <= works.length; count += 1) {
    if (isAsAfter(modelAfter(works, count), works[count], loaded)) return count;
  }
  return null;
}

/** Whether what was loaded is what `model` holds; of the work `next` some may be there already. */
export function isAsAfter(model: Loaded, next: PersistEffect | undefined, loaded: Loaded): boolean {
  if ((loaded.hardState?.term ?? 0) < (model.hardState?.term ?? 0)) return false;
  if ((loaded.snapshot?.index ?? 0) < (model.snapshot?.index ?? 0)) return false;
  const through = Math.max(model.snapshot?.index ?? 0, loaded.snapshot?.index ?? 0);
  const kept = model.entries.filter((entry) => entry.index > through);
  // The snapshot is written before the log; with it, the cut may be there.
  const cut = next?.cutAfterIndex ?? Number.POSITIVE_INFINITY;
  const expected = through > cut ? kept.filter((entry) => entry.index <= cut) : kept;
  const got = loaded.entries.filter((entry) => entry.index > through);
  return loaded.entries.length === 0 ? expected.length === 0 : same(expected, got);
}

function same(a: Loaded["entries"], b: Loaded["entries"]): boolean {
  if (a.length !== b.length) return false;
  return a.every((entry, at) => {
    const other = b[at]!;
    if (!("payload" in entry) || !("payload" in other)) return false;
    return (
      entry.index === other.index &&
      entry.term === other.term &&
      entry.payload.equals(other.payload)
    );
  });
}

/** One work that leaves what was loaded. */
export function worksOf({ hardState, snapshot, entries }: Loaded): PersistEffect[] {
  if (hardState === null) return [];
  return [
    {
      type: "persist",
      ticket: 1,
      hardState,
      snapshot,
      resetsLog: false,
      cutAfterIndex: null,
      repairs: [],
      entries: entries as readonly Entry[],
      compactThroughIndex: 0,
    },
  ];
}
